package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A mount in the background is a second process, started with the same
// arguments and a pipe. It writes "ready" to the pipe when the volume is
// mounted; until then its messages go where the first process's go, which
// waits and passes its exit status on.
const (
	readyEnv  = "ASHLAR_MOUNT_READY_FD"
	readyWord = "ready"
)

// readyPipe returns the pipe to the process that waits for this one, nil if
// there is none.
func readyPipe() *os.File {
	n, err := strconv.Atoi(os.Getenv(readyEnv))
	if err != nil {
		return nil
	}
	os.Unsetenv(readyEnv)
	unix.CloseOnExec(n)
	return os.NewFile(uintptr(n), "ready")
}

// inBackground starts the process that will serve the mount and returns when
// it is mounted.
func inBackground(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	c := exec.Command(exe)
	c.Args = os.Args // mount.ashlar stays mount.ashlar
	c.Stderr = os.Stderr
	c.ExtraFiles = []*os.File{w}
	c.Env = append(os.Environ(), readyEnv+"=3")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Signal(syscall.SIGTERM) })
	defer stop()
	said, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(said)) == readyWord {
		return c.Process.Release()
	}
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitError{exit.ExitCode(), errSaid} // it has told why
	}
	return fmt.Errorf("the mount process ended: %v", err)
}

// errSaid prints nothing.
var errSaid = errors.New("")

// toBackground lets go of the terminal and tells that the mount is ready.
func toBackground(ready *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	if err := os.Chdir("/"); err != nil { // do not keep a directory busy
		return err
	}
	_, err = fmt.Fprintln(ready, readyWord)
	return errors.Join(err, ready.Close(), null.Close())
}
