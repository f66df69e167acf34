package posix

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// user is on whose behalf calls are made.
type user struct {
	uid, gid int
	groups   []uint32
}

// users are those that scripts name.
var users = map[string]user{
	"root": {},
	"u1":   {1001, 1001, nil},
	"u2":   {1002, 1002, nil},
	"u3":   {1003, 1003, []uint32{1001}},
}

// worker makes system calls in one tree, on a thread of its own: with its own
// working directory, umask and credentials.
type worker struct {
	dir   string
	ref   bool
	calls chan func()
	fds   map[string]int
	now   user
}

// newWorker starts a worker in a directory.
func newWorker(dir string, ref bool) (*worker, error) {
	w := &worker{dir: dir, ref: ref, calls: make(chan func()), fds: map[string]int{}}
	ready := make(chan error)
	go func() {
		debug.SetPanicOnFault(true)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}
		unix.Umask(0)
		ready <- err
		if err != nil {
			return
		}
		for f := range w.calls {
			f()
		}
	}()
	return w, <-ready
}

// do runs f on the worker's thread.
func (w *worker) do(f func()) {
	done := make(chan struct{})
	w.calls <- func() { defer close(done); f() }
	<-done
}

func (w *worker) close() {
	w.do(w.reset)
	close(w.calls)
}

// reset closes what is open and becomes root. It runs on the worker's thread.
func (w *worker) reset() {
	w.become(users["root"])
	for name, fd := range w.fds {
		unix.Close(fd)
		delete(w.fds, name)
	}
	unix.Umask(0)
}

// become changes the credentials of this thread alone, keeping root as the
// saved ones.
func (w *worker) become(u user) {
	if u.uid == w.now.uid {
		return
	}
	raw := func(trap uintptr, a, b, c int) {
		if _, _, e := unix.RawSyscall(trap, uintptr(a), uintptr(b), uintptr(c)); e != 0 {
			panic(fmt.Sprintf("credentials: %v", e))
		}
	}
	raw(unix.SYS_SETRESUID, 0, 0, 0)
	raw(unix.SYS_SETRESGID, 0, 0, 0)
	groups := append([]uint32{}, u.groups...)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); e != 0 {
		panic(fmt.Sprintf("setgroups: %v", e))
	}
	raw(unix.SYS_SETRESGID, u.gid, u.gid, 0)
	raw(unix.SYS_SETRESUID, u.uid, u.uid, 0)
	w.now = u
}

// tick waits until the kernel's coarse clock moves, so that what happens next
// shows in the times of files.
func tick() {
	var start, now unix.Timespec
	unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &start)
	for now = start; now == start; {
		unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now)
	}
}
