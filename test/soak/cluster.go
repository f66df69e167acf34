package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/internal/devcluster"
)

const (
	readyTimeout = time.Minute
	endTimeout   = 20 * time.Second
	settleTime   = 10 * time.Second // until what workers left is cleaned up
)

// cluster is three nodes and two mounts of one volume.
type cluster struct {
	bin, dir string
	up       *exec.Cmd
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
	log, err := os.Create(c.path("dev.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.up = exec.Command(c.bin, "dev", "up", "--dir", c.path("cluster"), "--nodes", "3", "--volume", "soak")
	c.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.up.Stderr = log
	out, err := c.up.StdoutPipe()
	if err == nil {
		err = c.up.Start()
	}
	if err != nil {
		return err
	}
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready") {
				ready <- true
			}
		}
		close(ready)
	}()
	select {
	case ok := <-ready:
		if !ok {
			return errors.New("the cluster ended before it was ready; see " + log.Name())
		}
	case <-time.After(readyTimeout):
		return errors.New("the cluster was not ready in time; see " + log.Name())
	case <-ctx.Done():
		return ctx.Err()
	}
	var st devcluster.Status
	b, err := exec.Command(c.bin, "dev", "status", "--dir", c.path("cluster"), "-json").Output()
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
	m.cmd = exec.Command(c.bin, "mount", "--foreground", "--pprof", m.pprof, filepath.Join(c.path("cluster"), "client.toml")+":soak", m.dir)
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
		end(m.cmd, syscall.SIGTERM)
	}
	c.mounts = nil
	if c.up != nil {
		end(c.up, syscall.SIGINT)
		c.up = nil
	}
}

func end(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.Process == nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	late := time.AfterFunc(endTimeout, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // how it ended says nothing
}
