package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/file"
)

// readyTimeout is how long a cluster may take to be ready, and stopTimeout to
// be gone.
const (
	readyTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// cluster is three nodes on this machine, each a process with master and
// chunkserver.
type cluster struct {
	bin, dir string
	up       *exec.Cmd
}

// startCluster starts a new cluster under dir and waits until it is usable.
func startCluster(ctx context.Context, bin, dir string) (*cluster, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: filepath.Join(dir, "cluster")}
	log, err := os.Create(filepath.Join(dir, "dev.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.up = exec.Command(bin, "dev", "up", "--dir", c.dir, "--nodes", "3", "--volume", "main")
	c.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.up.Stderr = log
	out, err := c.up.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.up.Start(); err != nil {
		return nil, fmt.Errorf("%w; build it with make build", err)
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
		if ok {
			return c, nil
		}
		err = errors.New("the cluster ended before it was ready")
	case <-time.After(readyTimeout):
		err = errors.New("the cluster was not ready in time")
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.stop()
	b, _ := os.ReadFile(log.Name()) // for the message only
	return nil, fmt.Errorf("%w: %s", err, b)
}

// stop stops all of it.
func (c *cluster) stop() {
	_ = c.up.Process.Signal(syscall.SIGINT)
	gone := make(chan struct{})
	go func() { _ = c.up.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(stopTimeout):
		_ = c.up.Process.Kill()
		<-gone
	}
}

// dev runs a command on the cluster.
func (c *cluster) dev(ctx context.Context, args ...string) ([]byte, error) {
	x := exec.CommandContext(ctx, c.bin, append([]string{"dev", args[0], "--dir", c.dir}, args[1:]...)...)
	var stderr bytes.Buffer
	x.Stderr = &stderr
	out, err := x.Output()
	if err != nil {
		return nil, fmt.Errorf("dev %s: %w: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// node is what is known of a process.
type node struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`
	Leader bool   `json:"leader"`
}

func (c *cluster) nodes(ctx context.Context) ([]node, error) {
	b, err := c.dev(ctx, "status", "-json")
	if err != nil {
		return nil, err
	}
	var s struct {
		Nodes []node `json:"nodes"`
	}
	return s.Nodes, json.Unmarshal(b, &s)
}

// leader returns the node that leads.
func (c *cluster) leader(ctx context.Context) (node, error) {
	all, err := c.nodes(ctx)
	if err != nil {
		return node{}, err
	}
	for _, n := range all {
		if n.Leader {
			return n, nil
		}
	}
	return node{}, errors.New("no node leads")
}

// dial opens a session and the volume.
func (c *cluster) dial(ctx context.Context) (*client.Client, *client.Volume, error) {
	s, err := client.Dial(ctx, filepath.Join(c.dir, "client.toml"))
	if err != nil {
		return nil, nil, err
	}
	v, err := s.Volume(ctx, "main")
	if err != nil {
		return nil, nil, errors.Join(err, s.Close(ctx))
	}
	return s, v, nil
}

// withFS runs fn on the volume's inodes, in a session of its own.
func (c *cluster) withFS(ctx context.Context, fn func(*file.FS) error) error {
	s, err := client.Dial(ctx, filepath.Join(c.dir, "client.toml"))
	if err != nil {
		return err
	}
	fs, err := s.OpenFS(ctx, "main", func(ashlar.Inode, uint64, uint64) {})
	if err == nil {
		err = fn(fs)
	}
	return errors.Join(err, s.Close(ctx))
}

// with runs fn on a new cluster.
func with(ctx context.Context, o *options, name string, fn func(*cluster, *client.Volume) error) error {
	c, err := startCluster(ctx, o.bin, filepath.Join(o.dir, name))
	if err != nil {
		return err
	}
	defer c.stop()
	s, v, err := c.dial(ctx)
	if err != nil {
		return err
	}
	err = fn(c, v)
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.Close(cctx))
}
