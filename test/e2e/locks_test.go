package e2e

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockable opens a file of a mount, made if it is not there.
func (c *cluster) lockable(dir, name string) *os.File {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { f.Close() })
	return f
}

// span is a lock of bytes [start, start+n).
func span(kind int16, start, n int64) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Whence: 0, Start: start, Len: n}
}

// fcntl sets, tests or waits for a lock.
func fcntl(f *os.File, cmd int, l *unix.Flock_t) error {
	for {
		err := unix.FcntlFlock(f.Fd(), cmd, l)
		if !errors.Is(err, unix.EINTR) { // the runtime's own signals
			return err
		}
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) refused(what string, err, want error) {
	c.t.Helper()
	if !errors.Is(err, want) {
		c.t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// Locks of each sort, between two mounts of one machine, as between two
// processes of one kernel.
func TestLocksAcrossTwoMounts(t *testing.T) {
	c := start(t)
	c.freshMount(func(dir string) {
		a, b := c.lockable(c.mnt, "f"), c.lockable(dir, "f")
		step(t, "ranges", func() {
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_WRLCK, 0, 100)))
			c.refused("the same", fcntl(b, unix.F_SETLK, span(unix.F_WRLCK, 50, 100)), unix.EAGAIN)
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_WRLCK, 100, 100)))
			got := span(unix.F_RDLCK, 0, 0)
			c.must(fcntl(b, unix.F_GETLK, got))
			if got.Type != unix.F_WRLCK || got.Start != 0 || got.Len != 100 || got.Pid != int32(os.Getpid()) {
				t.Fatalf("in the way: %+v", got)
			}
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_UNLCK, 20, 10))) // split
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_WRLCK, 20, 10)))
			c.refused("beside it", fcntl(b, unix.F_SETLK, span(unix.F_RDLCK, 30, 1)), unix.EAGAIN)
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_RDLCK, 30, 1))) // less is enough for a reader
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_RDLCK, 30, 1)))
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
		})
		step(t, "who waits gets it, and only then", func() {
			c.must(fcntl(a, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)))
			done := make(chan error, 1)
			go func() { done <- fcntl(b, unix.F_OFD_SETLKW, span(unix.F_WRLCK, 0, 0)) }()
			c.poll("somebody waits", func() bool { return len(done) > 0 || waitsForLock() })
			select {
			case err := <-done:
				t.Fatalf("granted while it was held: %v", err)
			default:
			}
			c.must(fcntl(a, unix.F_OFD_SETLK, span(unix.F_UNLCK, 0, 0)))
			c.must(<-done)
			c.refused("now", fcntl(a, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)), unix.EAGAIN)
			c.must(fcntl(b, unix.F_OFD_SETLK, span(unix.F_UNLCK, 0, 0)))
		})
		step(t, "two that wait for each other", func() {
			a2, b2 := c.lockable(c.mnt, "g"), c.lockable(dir, "g")
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_WRLCK, 0, 1)))
			c.must(fcntl(b2, unix.F_SETLK, span(unix.F_WRLCK, 0, 1)))
			done := make(chan error, 1)
			go func() { done <- fcntl(a2, unix.F_SETLKW, span(unix.F_WRLCK, 0, 1)) }()
			c.poll("somebody waits", func() bool { return len(done) > 0 || waitsForLock() })
			c.refused("the second", fcntl(b, unix.F_SETLKW, span(unix.F_WRLCK, 0, 1)), unix.EDEADLK)
			c.must(fcntl(b2, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
			c.must(<-done)
			c.must(fcntl(a2, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
		})
		step(t, "flock, and a wait that a signal ends", func() {
			c.must(unix.Flock(int(a.Fd()), unix.LOCK_EX|unix.LOCK_NB))
			c.refused("flock", unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_WRLCK, 0, 0))) // of another sort: not in the way
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
			// flock(1) is woken by an alarm, and gives up with status 1.
			err := exec.Command("flock", "-w", "1", filepath.Join(dir, "f"), "true").Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("flock -w 1: %v", err)
			}
			c.must(unix.Flock(int(a.Fd()), unix.LOCK_UN))
			c.must(unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB))
			c.must(unix.Flock(int(b.Fd()), unix.LOCK_UN))
		})
		step(t, "closing a descriptor gives up a process's locks", func() {
			c.must(fcntl(a, unix.F_SETLK, span(unix.F_WRLCK, 0, 0)))
			c.must(c.lockable(c.mnt, "f").Close())
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_WRLCK, 0, 0)))
			c.must(fcntl(b, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
		})
		step(t, "what was written under a lock is read under the next", func() { c.counted(dir) })
	})
}

// fcntlNumber is the number of the system call, as /proc shows it.
var fcntlNumber = map[string]string{"amd64": "72 ", "arm64": "25 "}

// waitsForLock tells whether a thread of this process waits in the kernel for
// an answer to a lock.
func waitsForLock() bool {
	tasks, _ := filepath.Glob("/proc/self/task/*/syscall")
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if nr := fcntlNumber[runtime.GOARCH]; nr != "" && strings.HasPrefix(string(b), nr) {
			return true
		}
	}
	return false
}

// counted counts in a file, through both mounts at once.
func (c *cluster) counted(dir string) {
	const each, workers = 100, 2
	var done sync.WaitGroup
	for _, d := range []string{c.mnt, dir} {
		for range workers {
			done.Go(func() {
				f, err := os.OpenFile(filepath.Join(d, "count"), os.O_RDWR|os.O_CREATE, 0o644)
				if err != nil {
					c.t.Error(err)
					return
				}
				defer f.Close()
				for range each {
					if err := increment(f); err != nil {
						c.t.Error(err)
						return
					}
				}
			})
		}
	}
	done.Wait()
	b, err := os.ReadFile(filepath.Join(dir, "count"))
	if n, _ := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || n != 2*workers*each {
		c.t.Fatalf("counted to %q, want %d: %v", b, 2*workers*each, err)
	}
}

func increment(f *os.File) error {
	if err := fcntl(f, unix.F_OFD_SETLKW, span(unix.F_WRLCK, 0, 0)); err != nil {
		return err
	}
	b := make([]byte, 20)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	count, _ := strconv.Atoi(strings.TrimSpace(string(b[:n]))) // 0 of an empty file
	if _, err := f.WriteAt([]byte(strconv.Itoa(count+1)+"\n"), 0); err != nil {
		return err
	}
	return fcntl(f, unix.F_OFD_SETLK, span(unix.F_UNLCK, 0, 0))
}

// Locks outlive the leader, and go with the mount that held them, once that is
// lost and fenced.
func TestLocksOutliveTheLeaderAndNotTheirMount(t *testing.T) {
	c := start(t)
	dir, cmd, _ := c.secondMount()
	a, b := c.lockable(c.mnt, "f"), c.lockable(dir, "f")
	c.must(fcntl(b, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)))
	first := c.leader()
	c.dev("kill", first)
	c.poll("another leads", func() bool { l := c.devStatus().Leader; return l != "" && l != first })
	c.refused("after a change of leader", fcntl(a, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)), unix.EAGAIN)
	c.restart(first)
	killed := time.Now()
	c.must(cmd.Process.Kill())
	_ = cmd.Wait() // killed
	c.must(fcntl(a, unix.F_OFD_SETLKW, span(unix.F_WRLCK, 0, 0)))
	if waited := time.Since(killed); waited < 2*time.Second {
		t.Errorf("granted %v after its holder was killed, whose lease still held", waited)
	} else {
		t.Logf("granted %v after its holder was killed", waited.Round(time.Millisecond))
	}
	_ = b.Close() // its mount is gone
	c.must(syscall.Unmount(dir, syscall.MNT_DETACH))
}
