package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar/internal/config"
)

// Time limits.
const (
	pollEvery = 20 * time.Millisecond
	// stopTimeout is how long a process may take to stop cleanly before it is
	// killed.
	stopTimeout = 20 * time.Second
	// logTail is how much of a log is shown when its process ended early.
	logTail = 2 << 10
)

// process identifies one life of a process, so that a number the system has
// given to another is told apart.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
}

// start re-executes this binary with args, its output appended to logFile,
// in a session of its own so that an interrupt at the terminal reaches only
// the supervisor, and notes it in pidFile. ended, if not nil, is called when
// the process has ended.
func start(exe string, args []string, logFile, pidFile string, ended func(error)) (process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return process{}, err
	}
	defer out.Close()
	c := exec.Command(exe, args...)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return process{}, err
	}
	p := process{PID: c.Process.Pid}
	p.Start, _, _ = procStat(p.PID)
	go func() {
		err := c.Wait()
		if ended != nil {
			ended(err)
		}
	}()
	b, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	return p, config.WriteFile(pidFile, append(b, '\n'), 0o644)
}

// readPID returns the process of a pid file, the zero one if it is not there
// or not alive.
func readPID(file string) (process, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, nil
	}
	if err != nil {
		return process{}, err
	}
	var p process
	if err := json.Unmarshal(b, &p); err != nil {
		return process{}, fmt.Errorf("%s: %w; remove it if nothing runs", file, err)
	}
	if !p.alive() {
		return process{}, nil
	}
	return p, nil
}

// procStat reads the start time and the state letter of a process.
func procStat(pid int) (startTicks uint64, state byte, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	// pid (name) state ppid ...; the name may hold anything.
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	const startField = 22 - 3 // counted from the state, which is field 3
	if len(f) <= startField || len(f[0]) != 1 {
		return 0, 0, false
	}
	startTicks, err = strconv.ParseUint(f[startField], 10, 64)
	return startTicks, f[0][0], err == nil
}

// alive tells whether the process lives; one that ended and was not waited
// for does not. Its first thread may be gone before the others, which hold its
// sockets and locks until they are.
func (p process) alive() bool {
	s, state, ok := procStat(p.PID)
	if p.PID <= 0 || !ok || s != p.Start {
		return false
	}
	if state != 'Z' && state != 'X' {
		return true
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID))
	return err == nil && len(threads) > 1
}

// paused tells whether the process is stopped by a signal.
func (p process) paused() bool {
	s, state, ok := procStat(p.PID)
	return ok && s == p.Start && state == 'T'
}

// signal sends a signal through a handle that cannot mean another process.
func (p process) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		if err == unix.ESRCH {
			return os.ErrProcessDone
		}
		return err
	}
	defer unix.Close(fd)
	if !p.alive() {
		return os.ErrProcessDone
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

// wait polls until cond holds or ctx ends.
func wait(ctx context.Context, cond func() bool) error {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

// kill ends a process at once and waits until it is gone.
func (p process) kill(ctx context.Context) error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return ignoreDone(err)
	}
	return wait(ctx, func() bool { return !p.alive() })
}

// stop ends a process in order, and by force after stopTimeout. clean tells
// which it was.
func (p process) stop(ctx context.Context) (clean bool, err error) {
	if err := p.signal(unix.SIGTERM); err != nil {
		return true, ignoreDone(err)
	}
	if err := p.signal(unix.SIGCONT); err != nil { // it may be paused
		return true, ignoreDone(err)
	}
	sctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if wait(sctx, func() bool { return !p.alive() }) == nil {
		return true, nil
	}
	kctx, kcancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer kcancel()
	return false, p.kill(kctx)
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// tail returns the end of a log.
func tail(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > logTail {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func (c *Cluster) nodeFile(name, file string) string { return filepath.Join(c.Dir, name, file) }
