package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/test/devup"
)

// stopTimeout is how long a session may take to be closed.
const stopTimeout = 30 * time.Second

// cluster is three nodes on this machine, each a process with master and
// chunkserver.
type cluster struct {
	*devup.Cluster
	bin string
}

// startCluster starts a new cluster under dir and waits until it is usable.
func startCluster(ctx context.Context, bin, dir string) (*cluster, error) {
	c, err := devup.Start(ctx, bin, dir, "main")
	if err != nil {
		return nil, err
	}
	return &cluster{c, bin}, nil
}

// dev runs a command on the cluster.
func (c *cluster) dev(ctx context.Context, args ...string) ([]byte, error) {
	x := exec.CommandContext(ctx, c.bin, append([]string{"dev", args[0], "--dir", c.Dir}, args[1:]...)...)
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
	s, err := client.Dial(ctx, c.ClientFile())
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
	s, err := client.Dial(ctx, c.ClientFile())
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
	defer c.Stop()
	s, v, err := c.dial(ctx)
	if err != nil {
		return err
	}
	err = fn(c, v)
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.Close(cctx))
}
