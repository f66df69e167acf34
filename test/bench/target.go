package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/test/devup"
)

// self names the column that the others are compared with.
const self = "ashlar"

// target is a mounted file system to measure.
type target interface {
	name() string
	start(ctx context.Context) error
	// dir is where the work is done.
	dir() string
	// remount empties the client's caches.
	remount(ctx context.Context) error
	// client is the process that serves the mount, 0 if there is none.
	client() int
	stop()
}

func pid(c *exec.Cmd) int {
	if c == nil || c.Process == nil {
		return 0
	}
	return c.Process.Pid
}

// await polls a condition until it holds or the time is over.
func await(ctx context.Context, what string, limit time.Duration, ok func() bool) error {
	deadline := time.NewTimer(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("%s: not after %v", what, limit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func isMount(dir string) bool {
	var a, b syscall.Stat_t
	return syscall.Stat(dir, &a) == nil && syscall.Stat(filepath.Dir(dir), &b) == nil && a.Dev != b.Dev
}

// unmount takes a mount away and waits for its daemon.
func unmount(dir string, daemon *exec.Cmd) {
	if isMount(dir) {
		if syscall.Unmount(dir, 0) != nil {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}
	devup.End(daemon, syscall.SIGTERM)
}

// daemon starts a process in the foreground with its output in a file.
func daemon(logFile string, argv ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c, c.Start()
}

// local is a plain directory.
type local struct{ root string }

func (l *local) name() string                  { return "local" }
func (l *local) dir() string                   { return l.root }
func (l *local) start(context.Context) error   { return os.MkdirAll(l.root, 0o755) }
func (l *local) remount(context.Context) error { return nil }
func (l *local) client() int                   { return 0 }
func (l *local) stop()                         {}

// ashlarTarget is a cluster of three nodes on this machine.
type ashlarTarget struct {
	bin   string
	root  string
	up    *devup.Cluster
	mount *exec.Cmd
}

func (a *ashlarTarget) name() string { return self }
func (a *ashlarTarget) mnt() string  { return filepath.Join(a.root, "mnt") }
func (a *ashlarTarget) dir() string  { return filepath.Join(a.mnt(), "w") }

func (a *ashlarTarget) start(ctx context.Context) error {
	if err := os.MkdirAll(a.mnt(), 0o755); err != nil {
		return err
	}
	var err error
	if a.up, err = devup.Start(ctx, a.bin, a.root, "bench"); err != nil {
		return err
	}
	return a.remount(ctx)
}

func (a *ashlarTarget) remount(ctx context.Context) error {
	unmount(a.mnt(), a.mount)
	var err error
	a.mount, err = daemon(filepath.Join(a.root, "mount.log"), a.bin, "mount", "--foreground",
		a.up.ClientFile()+":bench", a.mnt())
	if err != nil {
		return err
	}
	if err := await(ctx, "mount of "+a.mnt(), 30*time.Second, func() bool { return isMount(a.mnt()) }); err != nil {
		return err
	}
	return os.MkdirAll(a.dir(), 0o755)
}

func (a *ashlarTarget) client() int { return pid(a.mount) }

func (a *ashlarTarget) stop() {
	unmount(a.mnt(), a.mount)
	a.up.Stop()
}
