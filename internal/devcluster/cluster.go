package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Admin is what a local cluster asks of its masters.
type Admin interface {
	Status(ctx context.Context) (*wire.Status, error)
	// EnsureVolume makes a volume unless it is there.
	EnsureVolume(ctx context.Context, name string) error
	AddMaster(ctx context.Context, name, addr string) error
	Close()
}

// Cluster is the local cluster under a directory. The zero value of every
// field but Dir has a meaning.
type Cluster struct {
	Dir string
	// Exe is the binary that is started for nodes and mounts.
	Exe string
	// Connect reaches the masters by a client file.
	Connect func(clientFile string) (Admin, error)
	// Logf says what happens.
	Logf func(format string, args ...any)
}

// ClientFile is the file that names the cluster.
func (c *Cluster) ClientFile() string { return filepath.Join(c.Dir, "client.toml") }

// startNode starts a node unless it runs.
func (c *Cluster) startNode(name string, ended func(error)) error {
	return locked(c.Dir, func() error {
		p, err := readPID(c.nodeFile(name, "pid"))
		if err != nil || p.PID != 0 {
			return err
		}
		_, err = start(c.Exe, []string{"serve", "--config", c.nodeFile(name, "ashlar.toml")},
			c.nodeFile(name, "log"), c.nodeFile(name, "pid"), ended)
		return err
	})
}

// node returns the process of a node, which must run.
func (c *Cluster) node(name string) (process, error) {
	s, err := Load(c.Dir)
	if err != nil {
		return process{}, err
	}
	if _, err := s.Find(name); err != nil {
		return process{}, err
	}
	p, err := readPID(c.nodeFile(name, "pid"))
	if err != nil {
		return process{}, err
	}
	if p.PID == 0 {
		return process{}, ashlar.E("dev", ashlar.NotReady, "node "+name,
			fmt.Errorf("it does not run; start it with `ashlar dev start --dir %s %s`", c.Dir, name))
	}
	return p, nil
}

// Kill ends a node at once, as if it had crashed (SIGKILL).
func (c *Cluster) Kill(ctx context.Context, name string) error {
	p, err := c.node(name)
	if err != nil {
		return err
	}
	return p.kill(ctx)
}

// Pause stops a node from running, as if it hung (SIGSTOP).
func (c *Cluster) Pause(ctx context.Context, name string) error {
	p, err := c.node(name)
	if err != nil {
		return err
	}
	if err := p.signal(unix.SIGSTOP); err != nil {
		return err
	}
	return wait(ctx, func() bool { return p.paused() || !p.alive() })
}

// Resume lets a paused node run again (SIGCONT).
func (c *Cluster) Resume(ctx context.Context, name string) error {
	p, err := c.node(name)
	if err != nil {
		return err
	}
	if err := p.signal(unix.SIGCONT); err != nil {
		return err
	}
	return wait(ctx, func() bool { return !p.paused() })
}

// Start starts a node that does not run. It does not wait until the node is
// useful: status tells.
func (c *Cluster) Start(ctx context.Context, name string) error {
	s, err := Load(c.Dir)
	if err != nil {
		return err
	}
	if _, err := s.Find(name); err != nil {
		return err
	}
	if p, err := readPID(c.nodeFile(name, "pid")); err != nil || p.PID != 0 {
		if err == nil {
			err = ashlar.E("dev", ashlar.Busy, "node "+name, fmt.Errorf("it runs already, pid %d", p.PID))
		}
		return err
	}
	died := make(chan error, 1)
	if err := c.startNode(name, func(err error) { died <- err }); err != nil {
		return err
	}
	return c.settled(ctx, name, died)
}

// Add makes a new node and starts it; with master it also joins the
// consensus group, which the masters must agree to first.
func (c *Cluster) Add(ctx context.Context, master bool) (Node, error) {
	var n Node
	err := locked(c.Dir, func() error {
		s, err := Load(c.Dir)
		if err != nil {
			return err
		}
		if len(s.Nodes) >= NodesMax {
			return ashlar.E("dev", ashlar.TooBig, "", fmt.Errorf("%d nodes; at most %d", len(s.Nodes), NodesMax))
		}
		if master && len(s.Masters()) >= VotersMax {
			return ashlar.E("dev", ashlar.TooBig, "", fmt.Errorf("%d masters; more make nothing safer, add the node without --master", len(s.Masters())))
		}
		taken := map[string]bool{}
		for _, o := range s.Nodes {
			taken[o.Addr] = true
		}
		addrs, err := choosePorts(1, 0, taken)
		if err != nil {
			return err
		}
		n = Node{Name: nodeName(len(s.Nodes)), Addr: addrs[0], Master: master}
		s.Nodes = append(s.Nodes, n)
		if master {
			if err := c.addMaster(ctx, n); err != nil {
				return err
			}
		}
		return errors.Join(s.writeFiles(c.Dir), s.save(c.Dir))
	})
	if err != nil {
		return n, err
	}
	died := make(chan error, 1)
	if err := c.startNode(n.Name, func(err error) { died <- err }); err != nil {
		return n, err
	}
	return n, c.settled(ctx, n.Name, died)
}

func (c *Cluster) addMaster(ctx context.Context, n Node) error {
	a, err := c.Connect(c.ClientFile())
	if err != nil {
		return err
	}
	defer a.Close()
	return a.AddMaster(ctx, n.Name, n.Addr)
}

// settled waits until a node that was just started listens, or has died.
func (c *Cluster) settled(ctx context.Context, name string, died <-chan error) error {
	s, err := Load(c.Dir)
	if err != nil {
		return err
	}
	n, err := s.Find(name)
	if err != nil {
		return err
	}
	var dead error
	err = wait(ctx, func() bool {
		select {
		case e := <-died:
			dead = c.endedEarly(name, e)
			return true
		default:
			return !free(n.Addr)
		}
	})
	return errors.Join(err, dead)
}

// endedEarly is the error of a node that ended before it was of use.
func (c *Cluster) endedEarly(name string, err error) error {
	how := "it ended"
	if err != nil {
		how = err.Error()
	}
	return ashlar.E("dev", ashlar.Other, "node "+name, fmt.Errorf("%s; the end of %s:\n%s", how, c.nodeFile(name, "log"), tail(c.nodeFile(name, "log"))))
}

// Down stops everything in order: the mount, then the nodes. If Up runs it is
// told to, and Down waits for it.
func (c *Cluster) Down(ctx context.Context) error {
	if _, err := Load(c.Dir); err != nil {
		return err
	}
	up, err := readPID(filepath.Join(c.Dir, "up.pid"))
	if err != nil {
		return err
	}
	if up.PID != 0 && up.PID != os.Getpid() {
		if err := up.signal(unix.SIGTERM); ignoreDone(err) != nil {
			return err
		}
		if err := wait(ctx, func() bool { return !up.alive() }); err != nil {
			return err
		}
	}
	return c.stopAll(ctx)
}

// stopAll stops the mount, then all nodes at once.
func (c *Cluster) stopAll(ctx context.Context) error {
	s, err := Load(c.Dir)
	if err != nil {
		return err
	}
	err = c.stopMount(ctx, s)
	var wg sync.WaitGroup
	errs := make([]error, len(s.Nodes))
	for i, n := range s.Nodes {
		wg.Go(func() {
			p, err := readPID(c.nodeFile(n.Name, "pid"))
			if err != nil || p.PID == 0 {
				errs[i] = err
				return
			}
			clean, err := p.stop(ctx)
			if !clean {
				c.Logf("%s did not stop in time and was killed", n.Name)
			}
			errs[i] = errors.Join(err, os.Remove(c.nodeFile(n.Name, "pid")))
		})
	}
	wg.Wait()
	return errors.Join(append(errs, err)...)
}
