// Package devup starts clusters of real processes, with `ashlar dev up`, for the
// commands that measure or check one: test/bench, test/scale, test/soak.
//
// A Cluster is used by one goroutine; another reads what its process prints.
// Nothing survives a crash but the cluster's directory.
package devup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTimeout is how long a cluster may take to be ready.
	readyTimeout = time.Minute
	// stopTimeout is how long its process, or another, may take to end.
	stopTimeout = 30 * time.Second
)

// Cluster is three nodes on this machine, each a process with master and
// chunkserver.
type Cluster struct {
	Dir string // of its nodes
	up  *exec.Cmd
}

// Start makes a cluster in dir/cluster with a volume and waits until it is ready.
// Its messages are in dir/dev.log, and at the end of an error.
func Start(ctx context.Context, bin, dir, volume string) (*Cluster, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "dev.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := &Cluster{Dir: filepath.Join(dir, "cluster")}
	c.up = exec.Command(bin, "dev", "up", "--dir", c.Dir, "--nodes", "3", "--volume", volume)
	c.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.up.Stderr = log
	out, err := c.up.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.up.Start(); err != nil {
		return nil, fmt.Errorf("%w; build it with make build", err)
	}
	if err = await(ctx, out); err == nil {
		return c, nil
	}
	c.Stop()
	b, _ := os.ReadFile(log.Name()) // for the message only
	return nil, fmt.Errorf("%w: %s", err, b)
}

// await waits until the cluster says that it is ready, and reads on after that.
func await(ctx context.Context, out io.Reader) error {
	said := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready") {
				said <- true
				break
			}
		}
		for s.Scan() { // or its process blocks
		}
		close(said)
	}()
	late := time.NewTimer(readyTimeout)
	defer late.Stop()
	select {
	case ok := <-said:
		if !ok {
			return errors.New("the cluster ended before it was ready")
		}
		return nil
	case <-late.C:
		return fmt.Errorf("the cluster was not ready within %v", readyTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ClientFile is the file that names the cluster to clients.
func (c *Cluster) ClientFile() string { return filepath.Join(c.Dir, "client.toml") }

// Stop stops all of it. A nil Cluster is stopped.
func (c *Cluster) Stop() {
	if c != nil {
		End(c.up, syscall.SIGINT)
	}
}

// End signals a process that the caller started and waits until it is gone; if
// that takes long it is killed. One that was not started is gone.
func End(c *exec.Cmd, sig syscall.Signal) {
	if c == nil || c.Process == nil {
		return
	}
	_ = c.Process.Signal(sig) // it may be gone
	late := time.AfterFunc(stopTimeout, func() { _ = c.Process.Kill() })
	defer late.Stop()
	_ = c.Wait() // how it ended says nothing
}
