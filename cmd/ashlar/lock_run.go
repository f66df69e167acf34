package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
)

// Exit statuses of a command that was not run, as env(1) has them.
const (
	exitCannotRun = 126
	exitNoCommand = 127
	exitSignal    = 128 // and the signal's number
)

type lockRunOptions struct {
	lockOptions
	grace time.Duration
}

func newLockRunCmd(g *global) *cobra.Command {
	var o lockRunOptions
	c := &cobra.Command{
		Use: "run NAME [flags] -- COMMAND [ARG]...", Short: "run a command while holding a named lock",
		Long: `Waits for the lock, runs the command, and gives the lock up when it ends. The
exit status is the command's, 128 and the signal's number if one ended it, 127
if there is no such command, 126 if it can not be run. The command finds the
lock's name in ASHLAR_LOCK. Signals that would end ashlar are passed on to it.

When no master has renewed the lock for the time of a lease (3 s), others may be
given it half a second later at the earliest: the command gets SIGTERM, after
--grace SIGKILL, and the exit status is 7. If ashlar is killed, so is the
command. What it has started is sent the same signals, except on a terminal,
where they go to the command alone.

` + exits(exitFailed, exitUsage, exitUnavailable, exitLockLost),
		Example: `  ashlar lock run backup -- tar cf /mnt/main/backup.tar /etc
  ashlar lock run report --mode PR --timeout 0 -- make report`,
		Args: func(c *cobra.Command, a []string) error {
			if at := c.ArgsLenAtDash(); at != 1 || len(a) < 2 {
				return usagef("usage: %s", c.UseLine())
			}
			return nil
		},
		ValidArgsFunction: g.completeLocks(true),
		RunE:              func(c *cobra.Command, a []string) error { return runLockRun(c.Context(), g, o, a[0], a[1:]) },
	}
	o.addFlags(c)
	c.Flags().DurationVar(&o.grace, "grace", 400*time.Millisecond, "from SIGTERM to SIGKILL when the lock is lost")
	return c
}

func runLockRun(ctx context.Context, g *global, o lockRunOptions, name string, command []string) error {
	if _, _, err := o.parse(); err != nil {
		return err
	}
	c, err := g.dialClient(ctx)
	if err != nil {
		return err
	}
	defer closeClient(c)
	l, err := o.acquire(ctx, c, name)
	if err != nil {
		return err
	}
	run, err := startUnder(g, l, command)
	if err == nil {
		err = run.until(l, o.grace)
	}
	if isExit(err, exitLockLost) {
		return err
	}
	uctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	switch gone := l.Unlock(uctx); {
	case gone == nil:
	case errors.Is(gone, ashlar.NoSession):
		return exitError{exitLockLost, fmt.Errorf("lock %s was lost before the command ended", name)}
	default:
		fmt.Fprintf(g.Err, "ashlar: lock %s is given up a few seconds from now: %v\n", name, gone)
	}
	return err
}

func isExit(err error, code int) bool {
	var e exitError
	return errors.As(err, &e) && e.code == code
}

// underLock is a command that runs under a lock.
type underLock struct {
	cmd     *exec.Cmd
	group   bool // it leads a process group of its own
	signals chan os.Signal
	ended   chan error
}

// startUnder starts a command that dies with this process.
func startUnder(g *global, l *client.Lock, command []string) (*underLock, error) {
	u := &underLock{cmd: exec.Command(command[0], command[1:]...), signals: make(chan os.Signal, 8), ended: make(chan error, 1)}
	u.cmd.Stdin, u.cmd.Stdout, u.cmd.Stderr = g.In, g.Out, g.Err
	u.cmd.Env = append(os.Environ(), "ASHLAR_LOCK="+l.Name())
	f, isFile := g.In.(*os.File)
	u.group = !isFile || !term.IsTerminal(int(f.Fd())) // on one it stays in the foreground
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: u.group, Pdeathsig: syscall.SIGKILL}
	signal.Notify(u.signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the command dies with this thread
		defer runtime.UnlockOSThread()
		err := u.cmd.Start()
		started <- err
		if err == nil {
			u.ended <- u.cmd.Wait()
		}
	}()
	err := <-started
	if err == nil {
		return u, nil
	}
	signal.Stop(u.signals)
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		code = exitNoCommand
	}
	return nil, exitError{code, err}
}

// tell sends the command a signal, and what it has started.
func (u *underLock) tell(sig syscall.Signal) {
	pid := u.cmd.Process.Pid
	if u.group {
		pid = -pid
	}
	_ = syscall.Kill(pid, sig) // it may have ended
}

// until waits for the command's end, which it brings about when the lock is
// lost. The signals that end a context of main come here, too.
func (u *underLock) until(l *client.Lock, grace time.Duration) error {
	defer signal.Stop(u.signals)
	for {
		select {
		case s := <-u.signals:
			// What a terminal sends it has sent to the command as well.
			if sig, ok := s.(syscall.Signal); ok && (u.group || sig == syscall.SIGTERM) {
				u.tell(sig)
			}
		case err := <-u.ended:
			select {
			case <-l.Lost():
				return lostUnder(l)
			default:
				return statusOf(err)
			}
		case <-l.Lost():
			u.tell(syscall.SIGTERM)
			timer := time.NewTimer(grace)
			defer timer.Stop()
			select {
			case <-u.ended:
			case <-timer.C:
				u.tell(syscall.SIGKILL)
				<-u.ended
			}
			if u.group {
				u.tell(syscall.SIGKILL) // what it has left behind
			}
			return lostUnder(l)
		}
	}
}

func lostUnder(l *client.Lock) error {
	return exitError{exitLockLost, fmt.Errorf("lock %s was lost while the command ran, which was stopped: no master has renewed it in time, and others may be given it", l.Name())}
}

// statusOf makes the exit status of a command ours.
func statusOf(err error) error {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return err
	}
	code := e.ExitCode()
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = exitSignal + int(ws.Signal())
	}
	return exitError{code, errors.New("")}
}
