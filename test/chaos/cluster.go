package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/faults"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	nodes    = 3
	volume   = "main"
	bridge   = "ashlar0"
	network  = "10.98.0." // of the bridge; clients are at .254
	clientIP = network + "254"
	// readyTimeout is how long a start may take, repairTimeout how long until
	// everything is redundant after the last fault.
	readyTimeout  = 60 * time.Second
	repairTimeout = 90 * time.Second
	stopTimeout   = 30 * time.Second
	pollEvery     = 50 * time.Millisecond
	pprofPort     = "6060"
)

// node is one process in a network namespace of its own, and what is wrong
// with it now.
type node struct {
	name, ns, ip, dir string
	number            string   // its last part, in names of interfaces too
	proc              *process // the last one
	lives             []*process
	relay             *relay // in its link, nil for none

	down    int
	disk    []string // rules of internal/faults
	clock   []string
	logRead int64 // how far deaths were looked for
}

func (n *node) addr() string { return net.JoinHostPort(n.ip, strconv.Itoa(config.DefaultPort)) }

func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

// process is one that was started.
type process struct {
	*exec.Cmd
	log      string // file of its output
	gone     chan struct{}
	err      error // how it ended, once it is gone
	paused   bool
	suffered bool // it had errors from a disk, and may end by itself

	began  time.Time
	killed time.Time // before SIGKILL was sent; zero: it was not
	ended  time.Time // once it is gone

	first map[bool]look // when it was quiet and followed, or led, for the first time
}

// start starts a command, whose output is appended to a file.
func start(c *exec.Cmd, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return nil, err
	}
	p := &process{Cmd: c, log: log, gone: make(chan struct{}), began: time.Now()}
	go func() {
		p.err = c.Wait()
		p.ended = time.Now()
		close(p.gone)
	}()
	return p, nil
}

// isGone tells whether the process has ended.
func (p *process) isGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// signal signals a process; one that is gone does not mind.
func (p *process) signal(s syscall.Signal) {
	if !p.isGone() {
		if s == syscall.SIGKILL && p.killed.IsZero() {
			p.killed = time.Now()
		}
		_ = p.Process.Signal(s) // it may end meanwhile
	}
}

// pause stops a process and returns what lets it go on; nil if it is gone or
// stopped already.
func (p *process) pause() (end func() error) {
	if p.paused || p.isGone() {
		return nil
	}
	p.paused = true
	p.signal(syscall.SIGSTOP)
	return func() error {
		p.paused = false
		p.signal(syscall.SIGCONT)
		return nil
	}
}

// cluster is the nodes, on a bridge, and a session of the driver.
type cluster struct {
	bin, dir string
	id       ashlar.ClusterID
	nodes    []*node
	admin    *session
	mount    *mount
	stopped  bool
	lives    map[string]*process // by what they call themselves in logs
	proofs   int                 // deaths that masters took as proven
}

// command runs a line of a command that must succeed.
func command(line string) error {
	f := strings.Fields(line)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

func commands(lines ...string) error {
	for _, l := range lines {
		if err := command(l); err != nil {
			return err
		}
	}
	return nil
}

// newCluster makes a cluster in a directory of the given name.
func newCluster(ctx context.Context, o *options, name string) (*cluster, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: filepath.Join(o.dir, name), lives: map[string]*process{}}
	_, _ = rand.Read(c.id[:]) // never fails
	c.id[6], c.id[8] = c.id[6]&0x0f|0x40, c.id[8]&0x3f|0x80
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
		logs := c.logs()
		c.stop()
		return nil, fmt.Errorf("before any fault: %w\n%s", err, logs)
	}
	return c, nil
}

// build makes namespaces, bridge and configurations.
func (c *cluster) build() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := c.bridge(); err != nil {
		return err
	}
	if err := config.WriteFile(filepath.Join(c.dir, "secret"), append(config.NewSecret(), '\n'), 0o600); err != nil {
		return err
	}
	var masters []config.Master
	for i := range nodes {
		n := newNode(c.dir, i+1)
		c.nodes = append(c.nodes, n)
		masters = append(masters, config.Master{Name: n.name, Addr: n.addr()})
		if err := n.connect(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := os.MkdirAll(n.file("chunks"), 0o755); err != nil {
			return err
		}
		text := config.ServeText(&config.Serve{
			Cluster: c.id, Name: n.name, Listen: n.addr(), Advertise: n.addr(), Data: "data", Master: true, Chunkserver: true, Masters: masters,
			Disks: []config.Disk{{Path: "chunks", Reserve: 64 << 20}}, Pool: config.Pool{Replicas: config.DefaultReplicas},
		}, "../secret")
		if err := config.WriteFile(n.file("ashlar.toml"), text, 0o644); err != nil {
			return err
		}
		if err := c.writeRules(n); err != nil {
			return err
		}
	}
	return config.WriteFile(c.client(), config.ClientText(c.id, masters, "secret", volume), 0o644)
}

// bridge makes the bridge. It has an address of its own: otherwise it has one of
// an interface that is in it, which may leave.
func (c *cluster) bridge() error {
	return commands("ip link set lo up", "ip link add "+bridge+" address 02:00:00:00:00:fe type bridge",
		"ip addr add "+clientIP+"/24 dev "+bridge, "ip link set "+bridge+" up")
}

// newNode returns the i-th node, from 1, which is not connected yet.
func newNode(dir string, i int) *node {
	number := strconv.Itoa(i)
	n := &node{name: "n" + number, number: number, ns: fmt.Sprintf("ashlar-chaos-%d-%d", os.Getpid(), i), ip: network + number}
	n.dir = filepath.Join(dir, n.name)
	return n
}

// connect makes a node's namespace and its link; slow.go draws it.
func (n *node) connect() error {
	inside, i := "ip -n "+n.ns+" ", n.number
	return commands("ip netns add "+n.ns, "ip link add v"+i+" type veth peer name eth0 netns "+n.ns,
		"ip link set v"+i+" arp off master "+bridge+" up",
		"ip link add w"+i+" type veth peer name x"+i, "ip link set w"+i+" arp off up", "ip link set x"+i+" arp off up",
		inside+"link set lo up", inside+"addr add "+n.ip+"/24 dev eth0", inside+"link set eth0 up")
}

func (c *cluster) client() string { return filepath.Join(c.dir, "client.toml") }

// start starts a node that does not run.
func (c *cluster) start(n *node) (err error) {
	// ip becomes the node: the process started is the one to signal.
	cmd := exec.Command("ip", "netns", "exec", n.ns, c.bin, "serve", "--config", n.file("ashlar.toml"), "--pprof", net.JoinHostPort(n.ip, pprofPort))
	cmd.Env = append(os.Environ(), faults.Env+"="+n.file("faults"))
	if n.proc, err = start(cmd, n.file("log")); err == nil {
		n.proc.suffered = len(n.disk) > 0
		n.lives = append(n.lives, n.proc)
	}
	return err
}

// kill ends a node at once and waits until it is gone.
func (c *cluster) kill(n *node) {
	n.proc.signal(syscall.SIGKILL)
	<-n.proc.gone
}

// writeRules puts what is wrong with a node's disks and clock into force.
func (c *cluster) writeRules(n *node) error {
	text := strings.Join(append(append([]string{"# what is wrong now"}, n.disk...), n.clock...), "\n") + "\n"
	return config.WriteFile(n.file("faults"), []byte(text), 0o644)
}

// begin waits for the cluster and makes a volume.
func (c *cluster) begin(ctx context.Context) (err error) {
	dctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if c.admin, err = open(dctx, c.client(), "chaos", slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if err := c.whole(ctx, readyTimeout); err != nil {
		return err
	}
	policy := ashlar.Policy{ChunkSize: ashlar.ChunkSizeMin, StripeWidth: 4, StripeUnit: ashlar.ChunkSizeMin}
	if err := c.admin.do(dctx, &wire.SetVolume{Name: volume, Mode: 0o777, Policy: policy}, &wire.VolumeReply{}); err != nil {
		return err
	}
	m := &mount{bin: c.bin, client: c.client(), dir: filepath.Join(c.dir, "mnt"), log: filepath.Join(c.dir, "mount.log")}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return err
	}
	c.mount = m
	if err := m.start(); err != nil {
		return err
	}
	return m.ready(ctx)
}

// stop ends everything and takes it down.
func (c *cluster) stop() {
	if c.stopped {
		return
	}
	c.stopped = true
	if c.mount != nil && c.mount.proc != nil {
		c.mount.proc.signal(syscall.SIGKILL)
		<-c.mount.proc.gone
		_ = syscall.Unmount(c.mount.dir, syscall.MNT_DETACH) // the namespace ends anyway
	}
	if c.admin != nil {
		c.admin.close()
	}
	for _, n := range c.nodes {
		if n.proc != nil {
			c.kill(n)
		}
		if n.relay != nil {
			_ = n.relay.close() // nobody is there any more
		}
		_ = commands("ip netns del "+n.ns, "ip link del w"+n.number) // they may not have been made
	}
	_ = command("ip link del " + bridge) // likewise
}

func (c *cluster) status(ctx context.Context) (*wire.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var r wire.StatusReply
	if err := c.admin.do(ctx, &wire.GetStatus{}, &r); err != nil {
		return nil, err
	}
	return r.Get()
}

// poll waits until ok says nil, and returns what it said last.
func poll(ctx context.Context, within time.Duration, ok func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for end := time.Now().Add(within); ; {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %v: %w", within, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// whole waits until every node is there and every copy in-sync.
func (c *cluster) whole(ctx context.Context, within time.Duration) error {
	return poll(ctx, within, func() error {
		s, err := c.status(ctx)
		if err != nil {
			return err
		}
		alive, masters := 0, 0
		for _, n := range s.Nodes {
			if n.Alive {
				alive++
			}
		}
		for _, m := range s.Masters {
			if m.Alive {
				masters++
			}
		}
		if alive < nodes || masters < nodes || !s.Redundant || len(s.Groups) == 0 {
			return fmt.Errorf("%d chunkservers and %d masters of %d, %d groups, redundant: %v, %s: %v", alive, masters, nodes, len(s.Groups), s.Redundant, s.Health, s.Problems)
		}
		return nil
	})
}

// logTail is how much of a log is shown.
const logTail = 2500

func (c *cluster) logs() string {
	var b strings.Builder
	for _, n := range c.nodes {
		l, err := os.ReadFile(n.file("log"))
		fmt.Fprintf(&b, "the end of %s (%v)\n%s\n", n.file("log"), err, l[max(0, len(l)-logTail):])
	}
	return b.String()
}
