package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A process that lived is compared with itself, one that was started anew with
// those that did its part.
func TestGrowthIsSeen(t *testing.T) {
	leader, old, follower := &process{}, &process{}, &process{}
	at := func(name string, p *process, leads bool, sockets int) look {
		return look{subject{name: name, proc: p, leads: leads}, usage{sockets: sockets, files: 10, routines: 100, heap: 20 << 20}}
	}
	before := []look{at("n1", leader, true, 60), at("n2", old, false, 20), at("n3", follower, false, 24), at(mountName, &process{}, false, 5)}
	fresh := &process{}
	early := &process{first: map[bool]look{false: at("n3", nil, false, 24)}}
	for _, c := range []struct {
		what string
		now  look
		ok   bool
	}{
		{"itself, as it was", at("n3", follower, false, 24), true},
		{"itself, within the bound", at("n3", follower, false, 24+socketsMore), true},
		{"itself, with too much", at("n3", follower, false, 24+socketsMore+1), false},
		{"a new process, as the others", at("n2", fresh, false, 24+socketsMore), true},
		{"a new process that has what only the leader may", at("n2", fresh, false, 60), false},
		{"one that leads now, as the one that led", at("n3", follower, true, 60), true},
		{"one that leads now, with too much", at("n3", follower, true, 60+socketsMore+1), false},
		{"one that does not lead any more", at("n1", leader, false, 60), true},
		{"the mount, anew", at(mountName, fresh, false, 5), true},
		{"the mount, with what nodes may", at(mountName, fresh, false, 24), false},
	} {
		if err := c.now.grown(before); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	crept := []look{at("n3", early, false, 24+socketsMore)}
	if now := at("n3", early, false, 24+socketsMore+1); now.grown(crept) == nil {
		t.Error("a little in each round passes")
	}
	for what, more := range map[string]func(*usage){
		"files":      func(u *usage) { u.files += filesMore + 1 },
		"removed":    func(u *usage) { u.removed += removedMore + 1 },
		"goroutines": func(u *usage) { u.routines += routinesMore + 1 },
		"heap":       func(u *usage) { u.heap += heapMore + 1 },
		"memory":     func(u *usage) { u.memory = memoryMax + 1 },
	} {
		now := at("n3", follower, false, 24)
		if more(&now.usage); now.grown(before) == nil {
			t.Errorf("too many %s pass", what)
		}
	}
}

func TestDescriptorsAreCountedByWhatTheyLeadTo(t *testing.T) {
	var u usage
	for _, to := range []string{"socket:[7]", "/d/chunks/chunks/07/x", "/d/chunks/marks", "/d/chunks/chunks/07/y (deleted)", "anon_inode:[eventpoll]"} {
		u.count(to, "/d/chunks")
	}
	if u != (usage{sockets: 1, files: 2, chunks: 1, removed: 1}) {
		t.Errorf("counted %+v", u)
	}
}

func TestWhatCannotBeMeasuredIsSaid(t *testing.T) {
	if n, err := number("/proc/self/status", "VmRSS:\t"); err != nil || n < 1000 {
		t.Errorf("%d kB resident, %v", n, err)
	}
	if _, err := number("/proc/self/status", "VmNone:"); err == nil || !strings.Contains(err.Error(), "VmNone") {
		t.Errorf("a line that is not there: %v", err)
	}
	p, err := start(exec.Command("sleep", "60"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := subject{proc: p, pprof: "127.0.0.1:1"}
	if _, err := s.measure(); err == nil {
		t.Error("a process without an endpoint has goroutines")
	}
	p.signal(syscall.SIGKILL)
	<-p.gone
	if _, err := s.measure(); err == nil {
		t.Error("a process that is gone has descriptors")
	}
}
