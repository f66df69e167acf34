package faults

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
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
		{"disk /a read", "want error or stall"},
		{"disk /a read fail", `does not "fail"`},
		{"disk /a sync stall", "want a time"},
		{"disk /a sync stall -1s", "want a duration"},
		{"disk /a sync stall 1h", "at most"},
		{"disk /a write error often", "want every N"},
		{"disk /a write error every", "want every N"},
		{"disk /a write error every 0", "want a number"},
		{"disk /a write error every 3 times", `"times" is too much`},
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
	for _, s := range []string{"", "clock +1h", "disk /a full\n# x\n", "disk /a any stall 3s every 7", "disk /a read error every 2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse([]byte(text))
		if err != nil {
			return
		}
		for _, r := range p.rules {
			if r.kinds == 0 || r.every < 1 || (r.err == nil) == (r.stall == 0) || r.prefix[0] != '/' {
				t.Errorf("%q was taken as %+v", text, r)
			}
		}
		again, err := parse([]byte(strings.Join(p.lines, "\n")))
		if err != nil || len(again.rules) != len(p.rules) || again.shift != p.shift {
			t.Errorf("%q is not read as it was written: %v", p.lines, err)
		}
	})
}
