package faults

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
	"github.com/ashlarfs/ashlar/internal/vfs/vfstest"
)

func TestWrongRulesAreRefusedByLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"disc /a full", `line 1: "disc /a full": no rule "disc"`},
		{"# fine\n\nclock", "line 3"},
		{"clock 1", "want a duration"},
		{"clock +200000h", "farther than"},
		{"clock +1h now", "want clock and how far"},
		{"disk", "want disk, an absolute path"},
		{"disk /a", "want disk, an absolute path"},
		{"disk a full", "not an absolute path"},
		{"disk /a empty", `no operation "empty"`},
		{"disk /a full now", `"now" is too much`},
		{"disk /a readonly every 2", `"every 2" is too much`},
		{"disk /a read", "want error, stall or flip"},
		{"disk /a read fail", `does not "fail"`},
		{"disk /a sync stall", "want a time"},
		{"disk /a sync stall -1s", "want a duration"},
		{"disk /a sync stall 1h", "at most"},
		{"disk /a write error often", "want every N"},
		{"disk /a write error every", "want every N"},
		{"disk /a write error every 0", "want a number"},
		{"disk /a write error every 3 times", `"times" is too much`},
		{"disk /a write error chance", "want every N, chance P%"},
		{"disk /a write error chance 5", "want a percentage"},
		{"disk /a write error chance 0%", "want a percentage"},
		{"disk /a write error chance 101%", "want a percentage"},
		{"disk /a write error chance NaN%", "want a percentage"},
		{"disk /a write error chance 5% every 3", `"every 3" is too much`},
		{"disk /a write flip", "only what is read is flipped"},
		{"disk /a any flip", "only what is read is flipped"},
		{"disk /a read flip 3", "want every N"},
		{"disk /a free", "want a size after free"},
		{"disk /a free lots", `"lots" is not a size`},
		{"disk /a free 1 MiB", `"MiB" is too much`},
	} {
		if _, err := parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestARuleStrikesWhatItSays(t *testing.T) {
	type op = errfs.Op
	for _, c := range []struct {
		rules string
		op    op
		want  []error // of the same operation again and again
	}{
		{"disk /a full", op{Kind: errfs.Write, Path: "/a/b"}, []error{syscall.ENOSPC, syscall.ENOSPC}},
		{"disk /a full", op{Kind: errfs.Read, Path: "/a/b"}, []error{nil}},
		{"disk /a full", op{Kind: errfs.Remove, Path: "/a/b"}, []error{nil}},
		{"disk /a full", op{Kind: errfs.Write, Path: "/ab"}, []error{nil}},
		{"disk / full", op{Kind: errfs.Create, Path: "/ab"}, []error{syscall.ENOSPC}},
		{"disk /a/ readonly", op{Kind: errfs.Remove, Path: "/a"}, []error{syscall.EROFS}},
		{"disk /a readonly", op{Kind: errfs.Open, Path: "/a"}, []error{nil}},
		{"disk /a write error every 3", op{Kind: errfs.Write, Path: "/a"}, []error{nil, nil, syscall.EIO, nil, nil, syscall.EIO}},
		{"disk /a write error", op{Kind: errfs.Sync, Path: "/a"}, []error{nil}},
		{"disk /a sync error", op{Kind: errfs.SyncDir, Path: "/a/b"}, []error{syscall.EIO}},
		{"disk /a any error", op{Kind: errfs.Lock, Path: "/a/b"}, []error{syscall.EIO}},
		{"disk /a any error every 2\ndisk /a/b full", op{Kind: errfs.Write, Path: "/a/b/c"}, []error{syscall.ENOSPC, syscall.EIO}},
	} {
		p, err := parse([]byte(c.rules))
		if err != nil {
			t.Fatal(err)
		}
		s := &Set{clock: clock.NewShifted(clock.Real), log: slog.New(slog.DiscardHandler)}
		s.set(p)
		for i, want := range c.want {
			if got := s.inject(c.op); got != want {
				t.Errorf("%q at time %d of %+v: %v, want %v", c.rules, i+1, c.op, got, want)
			}
		}
	}
}

// set returns rules in force, and their log.
func set(t *testing.T, rules string) (*Set, *logs) {
	t.Helper()
	p, err := parse([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	l := &logs{}
	s := &Set{clock: clock.NewShifted(clock.Real), log: slog.New(slog.NewTextHandler(l, nil))}
	s.set(p)
	return s, l
}

func TestChanceStrikesAboutAsOftenAsItSays(t *testing.T) {
	s, _ := set(t, "disk /a write error chance 20%")
	hits := 0
	for range 10000 {
		if err := s.inject(errfs.Op{Kind: errfs.Write, Path: "/a/b"}); err != nil {
			hits++
		}
	}
	if hits < 1600 || hits > 2400 { // ten standard deviations
		t.Errorf("%d of 10000 failed", hits)
	}
}

func TestOneBitOfWhatIsReadIsWrong(t *testing.T) {
	dir := t.TempDir()
	s, _ := set(t, "disk "+dir+" read flip")
	content := bytes.Repeat([]byte{0x5a}, 4096)
	f, err := s.FS(vfs.OS).Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	places := map[int]bool{}
	for range 50 {
		got := make([]byte, len(content))
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for i := range got {
			if d := got[i] ^ content[i]; d != 0 {
				wrong += bits.OnesCount8(d)
				places[i] = true
			}
		}
		if wrong != 1 {
			t.Fatalf("%d bits are wrong", wrong)
		}
	}
	if len(places) < 10 {
		t.Errorf("the wrong bits are in %d places", len(places))
	}
	if disk, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(disk, content) {
		t.Errorf("the file itself changed (%v)", err)
	}
}

func TestAScarceDiskShowsLessAndFailsNothing(t *testing.T) {
	dir := t.TempDir()
	s, log := set(t, "disk "+dir+" free 1MiB\ndisk "+dir+"/other free 1KiB")
	fsys := s.FS(vfs.OS)
	if u, err := fsys.Usage(dir); err != nil || u.Free != 1<<20 || u.Total <= 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
	f, err := fsys.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err != nil || f.Close() != nil {
		t.Errorf("a write: %v", err)
	}
	if n := strings.Count(log.String(), Struck); n != 1 {
		t.Errorf("%d rules struck: %s", n, log.String())
	}
	if free := s.free(dir, 5); free != 5 {
		t.Errorf("a disk with 5 bytes free shows %d", free)
	}
}

// Who wrote a rule learns once, by its words, that something met it.
func TestTheLogSaysWhenARuleStrikes(t *testing.T) {
	s, log := set(t, "disk /a write error every 2\n  disk /b  full")
	told := func() int { return strings.Count(log.String(), Struck) }
	write := func(path string) { _ = s.inject(errfs.Op{Kind: errfs.Write, Path: path}) }
	if write("/a/x"); told() != 0 {
		t.Errorf("the first write is not hit: %s", log.String())
	}
	for range 5 {
		write("/a/x")
	}
	if told() != 1 || !strings.Contains(log.String(), `rule="disk /a write error every 2"`) {
		t.Errorf("it struck: %s", log.String())
	}
	if write("/b"); told() != 2 || !strings.Contains(log.String(), `rule="disk /b  full"`) {
		t.Errorf("so did the other: %s", log.String())
	}
}

// logs is a log that may be read while it is written.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// poll waits until ok holds.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

func TestChangesOfTheFileComeIntoForce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rules")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log logs
	write("disk " + dir + " full\nclock +1h\n")
	s, err := Open(t.Context(), file, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "FAULT INJECTION IS ON") {
		t.Errorf("it is on and does not say so: %s", log.String())
	}
	fsys, name := s.FS(vfs.OS), filepath.Join(dir, "f")
	if _, err := fsys.Create(name); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create on a full disk: %v", err)
	}
	ahead := func() time.Duration { return time.Duration(s.Clock().Wall() - clock.Real.Wall()).Round(time.Minute) }
	if ahead() != time.Hour || s.Clock().Now().Sub(clock.Real.Now()).Abs() > time.Minute {
		t.Errorf("the wall clock is %v ahead, the lease clock %v", ahead(), s.Clock().Now().Sub(clock.Real.Now()))
	}

	write("disk " + dir + " fill\n")
	poll(t, "a wrong rule is said", func() bool { return strings.Contains(log.String(), `no operation \"fill\"`) })
	if _, err := fsys.Create(name); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("after a rule that cannot be read: %v", err)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	poll(t, "the disk is mended", func() bool {
		f, err := fsys.Create(name)
		return err == nil && f.Close() == nil
	})
	if ahead() != 0 {
		t.Errorf("the wall clock is still %v ahead", ahead())
	}
}

func TestAStallEndsWhenItsRuleIsLifted(t *testing.T) {
	p, err := parse([]byte("disk /a sync stall 10m"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Set{clock: clock.NewShifted(clock.Real), log: slog.New(slog.DiscardHandler)}
	s.set(p)
	done := make(chan error, 1)
	go func() { done <- s.inject(errfs.Op{Kind: errfs.Sync, Path: "/a"}) }()
	poll(t, "the operation is held up", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.rules[0].seen == 1
	})
	select {
	case err := <-done:
		t.Fatalf("it was not held up: %v", err)
	default:
	}
	s.set(&plan{})
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is still held up")
	}
}

func TestAFileThatIsMissingAtTheStartIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules")
	_, err := Open(t.Context(), file, slog.New(slog.DiscardHandler))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), Env) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(file, make([]byte, FileMax+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), file, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a large file: %v", err)
	}
}

// Without rules a disk is what it was.
func TestADiskWithoutRulesIsADisk(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) (vfs.FS, string) {
		s := &Set{clock: clock.NewShifted(clock.Real), log: slog.New(slog.DiscardHandler)}
		return s.FS(vfs.OS), t.TempDir()
	})
}

// Whatever is accepted says what it does, and can be written again.
func FuzzRules(f *testing.F) {
	for _, s := range []string{"", "clock +1h", "disk /a full\n# x\n", "disk /a any stall 3s every 7", "disk /a read error every 2",
		"disk /a write error chance 0.5%", "disk /a read flip chance 100%", "disk /a free 1.5GiB\ndisk /a read flip every 9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse([]byte(text))
		if err != nil {
			return
		}
		for _, r := range p.rules {
			does := 0
			for _, d := range []bool{r.err != nil, r.stall > 0, r.flip, r.scarce} {
				if d {
					does++
				}
			}
			often := r.every >= 1 && r.chance == 0 || r.every == 0 && r.chance > 0 && r.chance <= 1
			if does != 1 || !often || (r.kinds == 0) != r.scarce || r.prefix[0] != '/' || r.text == "" || r.flip && r.kinds != errfs.Read {
				t.Errorf("%q was taken as %+v", text, r)
			}
		}
		again, err := parse([]byte(strings.Join(p.lines, "\n")))
		if err != nil || len(again.rules) != len(p.rules) || again.shift != p.shift {
			t.Errorf("%q is not read as it was written: %v", p.lines, err)
		}
	})
}
