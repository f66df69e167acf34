package devcluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
)

// ReadyTimeout is how long a cluster may take to be ready unless said
// otherwise.
const ReadyTimeout = time.Minute

// Options is what a user asks of Up. The zero value of each means what the
// directory says already, or its default.
type Options struct {
	Nodes    int
	BasePort int
	Replicas int
	Volume   string
	Mount    string
	// Timeout is how long the cluster may take to be ready.
	Timeout time.Duration
}

// Up starts the cluster under c.Dir, making it first if needed, calls ready
// when all of it is usable, and stays until ctx ends; then it stops
// everything in order.
func (c *Cluster) Up(ctx context.Context, o Options, ready func(*State)) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	lock, err := lockFile(filepath.Join(c.Dir, "up.lock"), false)
	if err != nil {
		return ashlar.E("dev up", ashlar.Busy, c.Dir, fmt.Errorf("another `ashlar dev up` runs there; stop it with `ashlar dev down --dir %s`", c.Dir))
	}
	defer lock.Close()
	s, err := c.prepare(o)
	if err != nil {
		return err
	}
	if err := c.notePID(); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(c.Dir, "up.pid"))
	runErr := c.run(ctx, s, o, ready)
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*stopTimeout)
	defer cancel()
	return errors.Join(runErr, c.stopAll(sctx))
}

func (c *Cluster) notePID() error {
	p := process{PID: os.Getpid()}
	p.Start, _, _ = procStat(p.PID)
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return config.WriteFile(filepath.Join(c.Dir, "up.pid"), append(b, '\n'), 0o644)
}

// prepare makes or reads the state and writes every file.
func (c *Cluster) prepare(o Options) (s *State, err error) {
	err = locked(c.Dir, func() error {
		s, err = Load(c.Dir)
		if errors.Is(err, ashlar.NotExist) {
			s, err = newState(o)
		}
		if err != nil {
			return err
		}
		if err := s.merge(c.Dir, o); err != nil {
			return err
		}
		return errors.Join(s.writeFiles(c.Dir), s.save(c.Dir))
	})
	return s, err
}

// newState makes a cluster that was not there.
func newState(o Options) (*State, error) {
	n := o.Nodes
	if n == 0 {
		n = NodesDefault
	}
	if n < 1 || n > NodesMax {
		return nil, ashlar.E("dev up", ashlar.Invalid, "", fmt.Errorf("%d nodes; want 1 to %d", n, NodesMax))
	}
	replicas := o.Replicas
	if replicas == 0 {
		replicas = min(config.DefaultReplicas, n)
	}
	if replicas < 1 || replicas > ashlar.ReplicasMax || replicas > n {
		return nil, ashlar.E("dev up", ashlar.Invalid, "", fmt.Errorf("%d copies on %d nodes; want 1 to %d, and a node for each", replicas, n, ashlar.ReplicasMax))
	}
	addrs, err := choosePorts(n, o.BasePort, map[string]bool{})
	if err != nil {
		return nil, err
	}
	s := &State{Version: stateVersion, Cluster: newClusterID().String(), Replicas: replicas, Volume: VolumeDefault}
	for i, a := range addrs {
		s.Nodes = append(s.Nodes, Node{Name: nodeName(i), Addr: a, Master: i < voters(n)})
	}
	return s, nil
}

// newClusterID makes a random (version 4) UUID.
func newClusterID() ashlar.ClusterID {
	var id ashlar.ClusterID
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// merge lays what is asked for now over what the directory says, refusing
// what cannot change by asking.
func (s *State) merge(dir string, o Options) error {
	if o.Nodes != 0 && o.Nodes != len(s.Nodes) {
		return ashlar.E("dev up", ashlar.Invalid, dir, fmt.Errorf("the cluster there has %d nodes; leave --nodes out, and add some with `ashlar dev add --dir %s`", len(s.Nodes), dir))
	}
	if o.Replicas != 0 && o.Replicas != s.Replicas {
		return ashlar.E("dev up", ashlar.Invalid, dir, fmt.Errorf("the cluster there was made with %d copies; leave --replicas out, and change it with `ashlar pool set`", s.Replicas))
	}
	if o.BasePort != 0 && s.Nodes[0].Addr != loopback(o.BasePort) {
		return ashlar.E("dev up", ashlar.Invalid, dir, fmt.Errorf("the cluster there has its ports already (%s); leave --base-port out", s.Nodes[0].Addr))
	}
	if o.Volume != "" {
		if !config.ValidName(o.Volume) {
			return ashlar.E("dev up", ashlar.Invalid, o.Volume, errors.New(config.NameRule))
		}
		s.Volume = o.Volume
	}
	s.Mount = o.Mount
	return nil
}

// ending is a process that ended under Up.
type ending struct {
	name string
	err  error
}

// run starts everything, waits until it is usable and then until ctx ends.
func (c *Cluster) run(ctx context.Context, s *State, o Options, ready func(*State)) error {
	ended := make(chan ending, 2*NodesMax)
	for _, n := range s.Nodes {
		if err := c.startNode(n.Name, func(err error) { ended <- ending{n.Name, err} }); err != nil {
			return err
		}
	}
	if o.Timeout == 0 {
		o.Timeout = ReadyTimeout
	}
	rctx, cancel := context.WithTimeout(ctx, o.Timeout)
	err := c.becomeReady(rctx, s, ended)
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted: a clean stop
		}
		return err
	}
	ready(s)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-ended:
			c.Logf("%s", c.describe(s, e))
		}
	}
}

// describe says in one line what it means that a process ended.
func (c *Cluster) describe(s *State, e ending) string {
	how := "ended"
	if e.err != nil {
		how = "ended: " + e.err.Error()
	}
	if e.name == "" {
		return fmt.Sprintf("the mount at %s %s; see %s", s.Mount, how, filepath.Join(c.Dir, "mount.log"))
	}
	return fmt.Sprintf("%s %s; start it again with `ashlar dev start --dir %s %s`", e.name, how, c.Dir, e.name)
}

// becomeReady waits until all disks are registered, groups are in-sync, there
// is a leader, the volume is there and the mount answers. A process that ends
// ends the wait.
func (c *Cluster) becomeReady(ctx context.Context, s *State, ended chan ending) error {
	a, err := c.Connect(c.ClientFile())
	if err != nil {
		return err
	}
	defer a.Close()
	wctx, cancel := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() {
		defer cancel()
		select {
		case e := <-ended:
			watched <- c.diedEarly(s, e)
		case <-wctx.Done():
			watched <- nil
		}
	}()
	missing, err := c.stages(wctx, a, s, ended)
	cancel()
	if died := <-watched; died != nil {
		return died
	}
	if err != nil && ctx.Err() != nil {
		return ashlar.E("dev up", ashlar.Timeout, "", fmt.Errorf("not ready in time, waiting for %s: %w; logs are in %s/n*/log", missing, err, c.Dir))
	}
	return err
}

// stages does what is left to do in order and names what it was at.
func (c *Cluster) stages(ctx context.Context, a Admin, s *State, ended chan<- ending) (at string, err error) {
	if err := c.readyNodes(ctx, a, s); err != nil {
		return "the nodes", err
	}
	if err := a.EnsureVolume(ctx, s.Volume); err != nil {
		return "the volume " + s.Volume, err
	}
	if s.Mount == "" {
		return "", nil
	}
	at = "the mount at " + s.Mount
	if err := c.startMount(s, func(err error) { ended <- ending{"", err} }); err != nil {
		return at, err
	}
	return at, wait(ctx, func() bool { return mounted(s.Mount) })
}

// diedEarly is the error of a process that ended before all was ready.
func (c *Cluster) diedEarly(s *State, e ending) error {
	if e.name != "" {
		return c.endedEarly(e.name, e.err)
	}
	log := filepath.Join(c.Dir, "mount.log")
	return ashlar.E("dev up", ashlar.Other, "", fmt.Errorf("%s; its end:\n%s", c.describe(s, e), tail(log)))
}

// readyNodes waits until the masters see every disk and all copies.
func (c *Cluster) readyNodes(ctx context.Context, a Admin, s *State) error {
	var lacks error
	err := wait(ctx, func() bool {
		st, err := a.Status(ctx)
		if err != nil {
			lacks = err
			return false
		}
		lacks = nil
		ok := 0
		for _, d := range st.Disks {
			if d.State == "ok" {
				ok++
			}
		}
		var what []string
		if st.Leader == "" {
			what = append(what, "no leader")
		}
		up := 0
		for _, m := range st.Masters {
			if m.Alive && m.Match > 0 {
				up++
			}
		}
		if n := len(s.Masters()); up < n {
			what = append(what, fmt.Sprintf("%d of %d masters", up, n))
		}
		if ok < len(s.Nodes) {
			what = append(what, fmt.Sprintf("%d of %d disks", ok, len(s.Nodes)))
		}
		if len(st.Groups) == 0 {
			what = append(what, "no placement groups yet")
		} else if !st.Redundant {
			what = append(what, "copies missing")
		}
		if len(what) > 0 {
			lacks = errors.New(strings.Join(what, ", "))
		}
		return lacks == nil
	})
	if err != nil && lacks != nil {
		return fmt.Errorf("%w (%w)", lacks, err)
	}
	return err
}
