package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/test/history"
)

// One round of the whole thing, with a seed of the day, so that each day tries
// another; a failure names its own.
func TestACrowdOfFaultsLosesNothing(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	for name, pkg := range map[string]string{"ashlar": "../../cmd/ashlar", "chaos": "."} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	kept, err := os.MkdirTemp("", "ashlar-chaos-test-")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "chaos"), "-bin", filepath.Join(dir, "ashlar"), "-dir", kept,
		"-rounds", "1", "-faults", "40s", "-seed", time.Now().Format("20060102")).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("%v; everything is kept in %s", err, kept)
	}
	if err := os.RemoveAll(kept); err != nil {
		t.Error(err)
	}
}

func TestAScheduleIsReadAsItWasWritten(t *testing.T) {
	kinds := map[string]bool{}
	for seed := range uint64(100) {
		s := draw(seed, 3, 45*time.Second)
		if len(s) == 0 || !reflect.DeepEqual(s, draw(seed, 3, 45*time.Second)) {
			t.Fatalf("seed %d draws %d faults, and others the next time", seed, len(s))
		}
		var text strings.Builder
		for _, f := range s {
			kinds[f.Kind] = true
			text.WriteString(f.String() + "\n\n# and\n")
		}
		got, err := readSchedule(strings.NewReader(text.String()))
		if err != nil || len(got) != len(s) {
			t.Fatalf("seed %d: %v\n%s", seed, err, text.String())
		}
		for i := range s {
			if got[i].String() != s[i].String() {
				t.Errorf("seed %d: %v was read as %v", seed, s[i], got[i])
			}
		}
	}
	for k := range words {
		if !kinds[k] {
			t.Errorf("no seed draws %s", k)
		}
	}
}

// What was hit is a schedule that hits the same; what did nothing is not in it.
func TestWhatWasHitIsASchedule(t *testing.T) {
	r := &round{dir: t.TempDir(), out: io.Discard}
	var text strings.Builder
	r.resolved = &text
	r.c = &cluster{nodes: []*node{{name: "n1"}, {name: "n2"}}}
	hit, err := parseFault(strings.Fields("2s kill n2 1s"))
	if err != nil {
		t.Fatal(err)
	}
	r.note(hit, nil)
	r.note(Fault{At: time.Second, Kind: "kill", Args: []string{"leader"}, For: time.Second}, nothing("nobody leads"))
	got, err := readSchedule(strings.NewReader(text.String()))
	if err != nil || len(got) != 1 || got[0].String() != hit.String() {
		t.Errorf("%v, %v, from\n%s", got, err, text.String())
	}
	if !strings.Contains(text.String(), "kill leader 1s: nobody leads") || len(r.errs) > 0 {
		t.Errorf("%s\n%v", text.String(), r.errs)
	}
	word := "n2"
	if n, err := r.node(t.Context(), &word); err != nil || n != r.c.nodes[1] {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := r.node(t.Context(), new(string)); err == nil {
		t.Error("there is a node without a name")
	}
}

// A fault counts when it met something, and a process is hit once at a time.
func TestOnlyFaultsThatMetSomethingCount(t *testing.T) {
	r := &round{out: io.Discard}
	for _, met := range []func() (bool, error){nil, func() (bool, error) { return false, nil }, func() (bool, error) { return true, nil }} {
		r.end(Fault{Kind: "cut"}, &effect{met: met, end: func() error { return nil }})
	}
	if r.injected != 2 || len(r.errs) > 0 {
		t.Errorf("%d faults, %v", r.injected, r.errs)
	}
	p, err := start(exec.Command("sleep", "60"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	k := &clientProc{name: "c1", proc: p}
	r.clients = []*clientProc{k}
	ask := func(kind string) (*effect, error) {
		return r.begin(t.Context(), &Fault{Kind: kind, Args: []string{"c1"}})
	}
	var not nothing
	if e, err := ask("pause"); e == nil || err != nil {
		t.Fatalf("pause: %v", err)
	}
	if e, err := ask("pause"); e != nil || !errors.As(err, &not) {
		t.Errorf("a second pause: %v", err)
	}
	if e, err := ask("kill"); e == nil || err != nil || !p.isGone() {
		t.Errorf("kill: %v", err)
	}
	for _, kind := range []string{"kill", "pause"} {
		if e, err := ask(kind); e != nil || !errors.As(err, &not) {
			t.Errorf("%s of what is gone: %v", kind, err)
		}
	}
}

func TestAWrongScheduleIsRefusedByLine(t *testing.T) {
	for text, want := range map[string]string{
		"1s":                     "line 1: \"1s\": want a time",
		"# \n1s burn n1 1s":      "line 2: no fault \"burn\"",
		"1s kill 1s":             "kill takes 1 words",
		"soon kill n1 1s":        "soon",
		"1s kill n1 long":        "long",
		"-1s kill n1 1s":         "before it began",
		"1s refuse n1 rst 1s":    `no "rst"; there are tcp-reset, icmp`,
		"1s disk n1 a full 1s":   `no "a"; there are chunks, data`,
		"1s setclock n1 late 1s": "late",
		"1s slow n1 -5ms 1s":     "no delay",
		"1s far n1 n2 11s 1s":    "no delay",
		"1s narrow n1 1KiB 1s":   "less than",
		"1s narrow n1 fast 1s":   "not a size",
	} {
		if _, err := readSchedule(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// The histories of several processes are one: what a client wrote and the
// driver does not find at the end fails the round.
func TestAWriteThatIsGoneAtTheEndFailsTheRound(t *testing.T) {
	write := history.Op{Client: 8, Kind: history.BlockWrite, Key: "f0/1", Call: 5, Return: 9, Value: 7}
	for _, c := range []struct {
		found uint64
		ok    bool
	}{{7, true}, {0, false}} {
		r := &round{dir: t.TempDir()}
		note := func(name string, o history.Op) {
			t.Helper()
			f, err := os.Create(r.file(name))
			if err == nil {
				err = errors.Join(history.Write(f, []history.Op{o}), f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		note("history-1", write)
		note("history-end", history.Op{Kind: history.BlockRead, Key: "f0/1", Call: 20, Return: 21, Value: c.found})
		err := r.check()
		again := "go run ./test/history/check"
		if (err == nil) != c.ok || err != nil && (!strings.Contains(err.Error(), r.file("wrong")) || !strings.Contains(err.Error(), again)) {
			t.Errorf("found %d: %v", c.found, err)
		}
	}
}
