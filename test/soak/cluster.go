package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/internal/devcluster"
	"github.com/ashlarfs/ashlar/test/devup"
)

const (
	readyTimeout = time.Minute
	settleTime   = 10 * time.Second // until what workers left is cleaned up
)

// cluster is three nodes and two mounts of one volume.
type cluster struct {
	bin, dir string
	up       *devup.Cluster
	mounts   []*mount
	nodes    []int // processes
	early    []usage
}

// mount is one mount and the process that serves it.
type mount struct {
	dir, pprof string
	cmd        *exec.Cmd
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) start(ctx context.Context) error {
	var err error
	if c.up, err = devup.Start(ctx, c.bin, c.dir, "soak"); err != nil {
		return err
	}
	var st devcluster.Status
	b, err := exec.Command(c.bin, "dev", "status", "--dir", c.up.Dir, "-json").Output()
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return fmt.Errorf("dev status: %w", err)
	}
	for _, n := range st.Nodes {
		c.nodes = append(c.nodes, n.PID)
	}
	for range 2 {
		if _, err := c.mount(ctx); err != nil {
			return err
		}
	}
	return nil
}

// mount mounts the volume once more.
func (c *cluster) mount(ctx context.Context) (*mount, error) {
	name := fmt.Sprintf("m%d", len(c.mounts)+1)
	m := &mount{dir: c.path(name)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m.pprof = l.Addr().String()
	log, err := os.Create(c.path(name + ".log"))
	if err = errors.Join(err, l.Close(), os.MkdirAll(m.dir, 0o755)); err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd = exec.Command(c.bin, "mount", "--foreground", "--pprof", m.pprof, c.up.ClientFile()+":soak", m.dir)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	c.mounts = append(c.mounts, m)
	return m, await(ctx, readyTimeout, func() error {
		var here, above syscall.Stat_t
		if err := errors.Join(syscall.Stat(m.dir, &here), syscall.Stat(c.dir, &above)); err != nil {
			return err
		}
		if here.Dev == above.Dev {
			return fmt.Errorf("%s is not mounted; see %s", m.dir, log.Name())
		}
		return nil
	})
}

// await tries until there is no error, or returns the last.
func await(ctx context.Context, limit time.Duration, try func() error) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return fmt.Errorf("after %v: %w", limit, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop ends everything that was started; it may be called twice.
func (c *cluster) stop() {
	for _, m := range c.mounts {
		_ = syscall.Unmount(m.dir, syscall.MNT_DETACH) // its process ends, or is ended
		devup.End(m.cmd, syscall.SIGTERM)
	}
	c.mounts = nil
	c.up.Stop()
	c.up = nil
}
