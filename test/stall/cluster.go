package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	nodes = 3
	// readyTimeout is how long a start or a recovery may take.
	readyTimeout = 90 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// node is one process in a network namespace of its own.
type node struct {
	name, ns, addr, dir string
	cmd                 *exec.Cmd
	gone                chan struct{}
}

// cluster is three nodes on a bridge, and a mount.
type cluster struct {
	bin, dir, mnt string
	nodes         []*node
	mount         *exec.Cmd
	rejects       int
}

// command runs a command that must succeed.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// commands runs lines of commands.
func commands(lines ...string) error {
	for _, l := range lines {
		f := strings.Fields(l)
		if err := command(f[0], f[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func newCluster(ctx context.Context, o *options) (*cluster, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: o.dir, mnt: filepath.Join(o.dir, "mnt")}
	if err := c.build(); err != nil {
		c.stop()
		return nil, err
	}
	for _, n := range c.nodes {
		if err := c.start(n); err != nil {
			c.stop()
			return nil, err
		}
	}
	if err := c.begin(ctx); err != nil {
		c.stop()
		return nil, fmt.Errorf("%w\n%s", err, c.logs())
	}
	return c, nil
}

// build makes namespaces, bridge and configurations.
func (c *cluster) build() error {
	if err := commands("ip link set lo up", "ip link add ashlar0 type bridge",
		"ip addr add 10.99.0.254/24 dev ashlar0", "ip link set ashlar0 up"); err != nil {
		return err
	}
	id, err := ashlar.ParseClusterID(newUUID())
	if err != nil {
		return err
	}
	if err := config.WriteFile(filepath.Join(c.dir, "secret"), append(config.NewSecret(), '\n'), 0o600); err != nil {
		return err
	}
	var masters []config.Master
	for i := range nodes {
		n := &node{
			name: fmt.Sprintf("n%d", i+1), ns: fmt.Sprintf("ashlar-stall-%d-%d", os.Getpid(), i+1),
			addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)}), config.DefaultPort).String(),
		}
		n.dir = filepath.Join(c.dir, n.name)
		c.nodes = append(c.nodes, n)
		masters = append(masters, config.Master{Name: n.name, Addr: n.addr})
		inside := "ip netns exec " + n.ns + " "
		host := strings.TrimSuffix(n.addr, fmt.Sprintf(":%d", config.DefaultPort))
		if err := commands("ip netns add "+n.ns,
			fmt.Sprintf("ip link add v%d type veth peer name eth0 netns %s", i+1, n.ns),
			fmt.Sprintf("ip link set v%d master ashlar0 up", i+1),
			inside+"ip link set lo up", inside+"ip addr add "+host+"/24 dev eth0", inside+"ip link set eth0 up"); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := os.MkdirAll(filepath.Join(n.dir, "disk"), 0o755); err != nil {
			return err
		}
		text := config.ServeText(&config.Serve{
			Cluster: id, Name: n.name, Listen: n.addr, Advertise: n.addr, Data: "data", Master: true, Chunkserver: true, Masters: masters,
			Disks: []config.Disk{{Path: "disk", Reserve: 64 << 20}}, Pool: config.Pool{Replicas: config.DefaultReplicas},
		}, "../secret")
		if err := config.WriteFile(filepath.Join(n.dir, "ashlar.toml"), text, 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.mnt, 0o755); err != nil {
		return err
	}
	return config.WriteFile(c.client(), config.ClientText(id, masters, "secret", "main"), 0o644)
}

func (c *cluster) client() string { return filepath.Join(c.dir, "client.toml") }

// start starts a node that does not run.
func (c *cluster) start(n *node) error {
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	// ip becomes the node: the process started is the one to kill.
	n.cmd = exec.Command("ip", "netns", "exec", n.ns, c.bin, "serve", "--config", filepath.Join(n.dir, "ashlar.toml"))
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	n.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // it is killed more often than not
		close(gone)
	}(n.cmd, n.gone)
	return nil
}

// begin waits for the cluster, makes a volume and mounts it.
func (c *cluster) begin(ctx context.Context) error {
	if err := c.whole(ctx); err != nil {
		return err
	}
	if _, err := c.ashlar(ctx, "volume", "create", "main"); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(c.dir, "mount.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.mount = exec.Command(c.bin, "mount", "--foreground", c.client()+":main", c.mnt)
	c.mount.Stdout, c.mount.Stderr = log, log
	c.mount.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.mount.Start(); err != nil {
		return err
	}
	return c.poll(ctx, "mounted", func() bool {
		var here, above syscall.Stat_t
		return syscall.Stat(c.mnt, &here) == nil && syscall.Stat(c.dir, &above) == nil && here.Dev != above.Dev
	})
}

// stop ends everything and takes it down.
func (c *cluster) stop() {
	if c.mount != nil && c.mount.Process != nil {
		_ = c.mount.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = c.mount.Process.Kill() })
		_ = c.mount.Wait() // how it ends is not what is measured
		kill.Stop()
	}
	for _, n := range c.nodes {
		if n.cmd != nil && n.cmd.Process != nil {
			_ = n.cmd.Process.Kill()
			<-n.gone
		}
		_ = command("ip", "netns", "del", n.ns) // it may not have been made
	}
}

func (c *cluster) ashlar(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, c.bin, append([]string{"--cluster", c.client()}, args...)...).Output()
	var e *exec.ExitError
	if errors.As(err, &e) {
		err = fmt.Errorf("ashlar %s: %w: %s", strings.Join(args, " "), err, e.Stderr)
	}
	return out, err
}

func (c *cluster) status(ctx context.Context) (*wire.Status, error) {
	out, err := c.ashlar(ctx, "status", "-json")
	if len(out) == 0 {
		return nil, err
	}
	s := new(wire.Status)
	return s, json.Unmarshal(out, s)
}

func (c *cluster) poll(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for end := time.Now().Add(readyTimeout); !ok(); {
		if time.Now().After(end) {
			return fmt.Errorf("after %v still not: %s", readyTimeout, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// whole waits until every node is there and every copy in-sync.
func (c *cluster) whole(ctx context.Context) error {
	last := ""
	err := c.poll(ctx, "every copy is in-sync", func() bool {
		s, err := c.status(ctx)
		if err != nil || s == nil {
			last = fmt.Sprint(err)
			return false
		}
		alive := 0
		for _, n := range s.Nodes {
			if n.Alive {
				alive++
			}
		}
		for _, m := range s.Masters {
			if !m.Alive {
				alive = 0
			}
		}
		last = fmt.Sprintf("%d nodes, redundant %v, %d groups", alive, s.Redundant, len(s.Groups))
		return alive == nodes && s.Redundant && len(s.Groups) > 0
	})
	if err != nil {
		return fmt.Errorf("%w (%s)", err, last)
	}
	return nil
}

// victim returns the node that leads, or one that does not.
func (c *cluster) victim(ctx context.Context, lead bool, turn int) (*node, error) {
	s, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	var others []*node
	for _, n := range c.nodes {
		if n.name == s.Leader == lead {
			others = append(others, n)
		}
	}
	if len(others) == 0 {
		return nil, errors.New("nobody leads")
	}
	return others[turn%len(others)], nil
}

// proofs counts how often a master took a process for dead, by its own word.
func (c *cluster) proofs() (n int) {
	for _, m := range c.nodes {
		log, err := os.ReadFile(filepath.Join(m.dir, "log"))
		if err == nil {
			n += strings.Count(string(log), `msg="a process of the cluster has ended"`)
		}
	}
	return n
}

func (c *cluster) logs() string {
	var b strings.Builder
	for _, n := range c.nodes {
		l, err := os.ReadFile(filepath.Join(n.dir, "log"))
		fmt.Fprintf(&b, "%s: %v\n%s\n", n.name, err, l[max(0, len(l)-2000):])
	}
	return b.String()
}
