package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar/client"
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
			c.waits("f")
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
			c.waits("g")
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
		step(t, "a program's locks and a mount's", func() { c.programLocks(b) })
	})
}

// waits waits until the masters have somebody wait for a lock of a file.
func (c *cluster) waits(file string) {
	c.t.Helper()
	c.poll("somebody waits for a lock of "+file, func() bool {
		out, err := c.try("lock", "list", "main:/"+file, "-json")
		return err == nil && strings.Contains(string(out), `"waiting": true`)
	})
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

// programLocks has a program that uses the SDK lock a file that a mount has
// open.
func (c *cluster) programLocks(m *os.File) {
	c.t.Helper()
	cl, err := client.Dial(c.ctx, filepath.Join(c.dir, "client.toml"))
	c.must(err)
	defer func() { c.must(cl.Close(c.ctx)) }()
	v, err := cl.Volume(c.ctx, "main")
	c.must(err)
	f, err := v.OpenFile("f", os.O_RDWR, 0)
	c.must(err)
	granted := func(what string, ok bool, err error, want bool) {
		c.t.Helper()
		if c.must(err); ok != want {
			c.t.Fatalf("%s: granted %v", what, ok)
		}
	}
	c.must(f.LockRange(c.ctx, 10, 10, true))
	c.refused("a range of a program", fcntl(m, unix.F_SETLK, span(unix.F_WRLCK, 19, 1)), unix.EAGAIN)
	c.must(fcntl(m, unix.F_SETLK, span(unix.F_WRLCK, 20, 0)))
	ok, err := f.TryLockRange(c.ctx, 15, client.ToEnd, false)
	granted("a range of a mount", ok, err, false)
	c.must(f.UnlockRange(c.ctx, 0, client.ToEnd))
	c.must(fcntl(m, unix.F_SETLK, span(unix.F_WRLCK, 0, 0)))
	ok, err = f.TryLock(c.ctx, true)
	granted("flock meets only flock", ok, err, true)
	c.refused("flock", unix.Flock(int(m.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	c.must(f.Lock(c.ctx, false))
	c.must(unix.Flock(int(m.Fd()), unix.LOCK_SH|unix.LOCK_NB))
	ok, err = f.TryLock(c.ctx, true)
	granted("alone", ok, err, false)
	c.must(f.Close())
	c.must(unix.Flock(int(m.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	c.must(unix.Flock(int(m.Fd()), unix.LOCK_UN))
	c.must(fcntl(m, unix.F_SETLK, span(unix.F_UNLCK, 0, 0)))
	if _, err := f.TryLock(c.ctx, true); !errors.Is(err, fs.ErrClosed) {
		c.t.Fatalf("a closed file: %v", err)
	}
}

// Locks outlive the leader, and go with the mount or the command that held them,
// once that is lost and fenced: the holder is told.
func TestLocksOutliveTheLeaderAndNotTheirMount(t *testing.T) {
	c := start(t)
	dir, cmd, _ := c.secondMount()
	a, b := c.lockable(c.mnt, "f"), c.lockable(dir, "f")
	c.must(fcntl(b, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)))
	_, err := b.WriteAt([]byte("early"), 0) // the kernel keeps it
	c.must(err)
	c.must(b.Sync())
	c.must(read(b))
	job := c.runUnderLock("job")
	first := c.leader()
	c.dev("kill", first)
	c.poll("another leads", func() bool { l := c.devStatus().Leader; return l != "" && l != first })
	c.refused("after a change of leader", fcntl(a, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)), unix.EAGAIN)
	c.exits(4, "lock", "run", "job", "--timeout", "0", "--", "true")
	c.restart(first)
	stopped := time.Now()
	c.must(cmd.Process.Signal(syscall.SIGSTOP))
	c.must(fcntl(a, unix.F_OFD_SETLKW, span(unix.F_WRLCK, 0, 0)))
	if waited := time.Since(stopped); waited < 2*time.Second {
		t.Errorf("granted %v after its holder was stopped, whose lease still held", waited)
	} else {
		t.Logf("granted %v after its holder was stopped", waited.Round(time.Millisecond))
	}
	c.must(cmd.Process.Signal(syscall.SIGCONT))
	c.poll("the file that was locked is told", func() bool {
		_, err := b.WriteAt([]byte("late"), 0)
		return errors.Is(err, syscall.EIO)
	})
	c.poll("whoever reads it is told, too", func() bool { return errors.Is(read(b), syscall.EIO) })
	c.refused("locking it", fcntl(b, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)), syscall.EIO)
	_ = b.Close() // EIO again
	again := c.lockable(dir, "f")
	c.must(read(again))
	c.refused("a file that is opened again", fcntl(again, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)), unix.EAGAIN)
	c.must(fcntl(a, unix.F_OFD_SETLK, span(unix.F_UNLCK, 0, 0)))
	c.must(fcntl(again, unix.F_OFD_SETLK, span(unix.F_WRLCK, 0, 0)))
	c.must(again.Close())
	c.must(cmd.Process.Signal(syscall.SIGTERM))
	c.must(cmd.Wait())
	c.losesLock(job)
}

// read reads a byte, if there is one.
func read(f *os.File) error {
	if _, err := f.ReadAt(make([]byte, 1), 0); err != io.EOF {
		return err
	}
	return nil
}

// exits runs an ashlar command that must end with a status.
func (c *cluster) exits(status int, args ...string) {
	c.t.Helper()
	var exit *exec.ExitError
	if _, err := c.try(args...); !errors.As(err, &exit) || exit.ExitCode() != status {
		c.t.Fatalf("%v: %v, want status %d", args, err, status)
	}
}

// job is a command under a named lock, and the process that it has started.
type job struct {
	cmd   *exec.Cmd
	child int
}

// runUnderLock starts a command that ends only by force.
func (c *cluster) runUnderLock(name string) *job {
	c.t.Helper()
	j := &job{cmd: exec.CommandContext(c.ctx, binary, "lock", "run", name, "--", "sh", "-c", `trap "" TERM; echo $$; while :; do sleep 1; done`)}
	j.cmd.Env = append(os.Environ(), "ASHLAR_CLUSTER="+filepath.Join(c.dir, "client.toml"))
	out, err := j.cmd.StdoutPipe()
	c.must(err)
	c.must(j.cmd.Start())
	_, err = fmt.Fscan(out, &j.child)
	c.must(err)
	return j
}

// losesLock stops all masters: a command under a lock is stopped before the
// lock can be another's, and then that can have it.
func (c *cluster) losesLock(j *job) {
	c.t.Helper()
	for _, n := range []string{"n1", "n2", "n3"} {
		c.dev("pause", n)
	}
	stopped := time.Now()
	c.poll("the command is stopped", func() bool { return errors.Is(syscall.Kill(j.child, 0), syscall.ESRCH) })
	c.t.Logf("stopped %v after the last master", time.Since(stopped).Round(time.Millisecond))
	var exit *exec.ExitError
	if err := j.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		c.t.Fatalf("a command under a lost lock: %v, want status 7", err)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		c.dev("resume", n)
	}
	c.ashlar("lock", "run", "job", "--timeout", readyTimeout.String(), "--", "true")
}
