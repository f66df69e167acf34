package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkserver"
	"github.com/ashlarfs/ashlar/internal/master"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Machine is one computer: a clock, disks, a place in the network, and a
// process of Ashlar that runs on it or does not.
type Machine struct {
	c     *Cluster
	name  string
	addr  string
	roles roles
	clock *hostClock
	disks []*Disk // the first holds the data directory
	boots int

	proc   *process // nil while none runs
	paused bool
	on     bool // it has power
}

type roles struct{ master, chunkserver bool }

// process is one life of a node, as cmd/ashlar's serve puts it together.
type process struct {
	m      *Machine
	node   uint32 // of its goroutines
	ready  chan struct{}
	err    error // why it did not start, once ready is closed
	server *rpc.Server
	client *rpc.Client
	served chan struct{}

	master      *master.Master
	chunkserver *chunkserver.Server
	witnesses   *masterconn.Witnesses // nil where the configuration has none
}

// start runs a new process on the machine. It comes up by itself.
func (m *Machine) start() {
	if m.proc != nil || !m.on {
		return
	}
	p := &process{m: m, node: m.c.newNode(), ready: make(chan struct{}), served: make(chan struct{})}
	m.proc = p
	m.c.trace.add("start %s", m.name)
	old := setNode(p.node)
	go func() {
		defer close(p.ready)
		p.err = p.start()
		if p.err != nil {
			m.c.trace.add("start of %s failed: %v", m.name, p.err)
		}
	}()
	setNode(old)
}

func (p *process) start() error {
	m, c := p.m, p.m.c
	log := c.logger(m.name)
	id := rpc.Identity{
		Cluster: c.id, Role: wire.RoleNode, Name: m.name, Incarnation: ashlar.Incarnation(c.random()), Secret: c.secret,
	}
	local := rpc.NewLocal()
	p.server = rpc.NewServer(id, rpc.ServerOptions{Local: local, Addrs: []string{m.addr}, Clock: m.clock, Logger: log})
	p.client = rpc.NewClient(id, rpc.ClientOptions{Local: local, Clock: m.clock, Logger: log, Dial: c.net.Dialer(m.name)})
	ln, err := c.net.Listen(m.name, m.addr)
	if err != nil {
		return err
	}
	fsys := mount(m.disks)
	if m.roles.master {
		p.master, err = master.Start(context.Background(), master.Config{
			Name: m.name, Addr: m.addr, Cluster: c.id, Secret: c.secret, Dir: m.disks[0].path + "/master", FS: fsys,
			Masters: c.masterPeers(), Server: p.server, RPC: p.client, Clock: m.clock, Logger: log,
			Fatal:    func(error) { m.crash() },
			Replicas: c.conf.Replicas, SnapshotThresholdBytes: c.conf.LogBytes, NoWitness: c.conf.NoWitness, RepairAfter: c.conf.RepairAfter,
		})
		if err != nil {
			return errors.Join(fmt.Errorf("master: %w", err), ln.Close())
		}
	}
	leader := masterconn.NewLeader(p.client, c.masterAddrs(), m.clock, log)
	if !c.conf.NoWitness {
		w := masterconn.WitnessConfig{RPC: p.client, Leader: leader, Addr: m.addr, Clock: m.clock, Logger: log}
		if p.master != nil {
			w.Member = p.master.Member
		}
		p.witnesses = masterconn.KeepWitnesses(w)
		<-p.witnesses.Tried()
	}
	if m.roles.chunkserver {
		conf := chunkserver.Config{
			Name: m.name, Addr: m.addr, DataDir: m.disks[0].path + "/chunkserver", Cluster: c.id, Secret: c.secret,
			BootID: fmt.Sprintf("boot-%s-%d", m.name, m.boots), Server: p.server, RPC: p.client,
			Leader: leader, FS: fsys, Clock: m.clock, Logger: log,
		}
		if !c.conf.NoWitness {
			conf.Process = id.Incarnation
		}
		for _, d := range m.disks[1:] {
			conf.Disks = append(conf.Disks, chunkserver.DiskConfig{Path: d.path})
		}
		if p.chunkserver, err = chunkserver.Start(context.Background(), conf); err != nil {
			return errors.Join(fmt.Errorf("chunkserver: %w", err), ln.Close())
		}
	}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(ln) // ends with the process
	}()
	return nil
}

// kill ends the process at once, wherever it is: nothing of it runs again.
func (m *Machine) kill() {
	if m.proc == nil {
		return
	}
	m.c.trace.add("kill %s", m.name)
	hold(m.proc.node, true)
	m.c.net.Kill(m.name)
	for _, d := range m.disks {
		d.ReleaseLocks()
	}
	m.proc, m.paused = nil, false
}

// crash ends the process from within, and does not return.
func (m *Machine) crash() {
	p := m.proc
	old := setNode(0)
	go func() {
		m.c.trace.add("crash %s", m.name)
		if m.proc == p {
			m.kill()
		}
	}()
	setNode(old)
	select {}
}

// power switches the machine off, or on and starts its process.
func (m *Machine) power(on bool) {
	if m.on == on {
		return
	}
	m.c.trace.add("power %s %v", m.name, on)
	m.on = on
	if !on {
		if m.proc != nil {
			hold(m.proc.node, true)
			m.proc, m.paused = nil, false
		}
		m.c.net.Power(m.name, false)
		for _, d := range m.disks {
			d.PowerLoss()
		}
		return
	}
	m.boots++
	m.c.net.Power(m.name, true)
	m.start()
}

// pause stops the process as SIGSTOP does, or lets it go on.
func (m *Machine) pause(on bool) {
	if m.proc == nil || m.paused == on {
		return
	}
	m.c.trace.add("pause %s %v", m.name, on)
	m.paused = on
	hold(m.proc.node, on)
}

// stopTimeout is how long stopping in order may take.
const stopTimeout = 20 * time.Second

// leakTimeout is how long goroutines may outlive the process's end: a dial
// that was under way takes its time.
const leakTimeout = 5 * time.Second

// stop ends the process in order and tells how many goroutines it left.
func (m *Machine) stop() error {
	p := m.proc
	if p == nil {
		return nil
	}
	<-p.ready
	m.proc = nil
	if p.err != nil {
		return nil
	}
	done := make(chan error, 1)
	old := setNode(p.node)
	go func() { done <- p.stop() }()
	setNode(old)
	if err := <-done; err != nil {
		return fmt.Errorf("stop %s: %w", m.name, err)
	}
	return eventually(leakTimeout, func() error {
		if n := goroutines(p.node); n > 0 {
			return fmt.Errorf("stop %s: %d goroutines are left", m.name, n)
		}
		return nil
	})
}

func (p *process) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	if p.master != nil {
		mctx, mcancel := context.WithTimeout(ctx, 2*time.Second)
		errs = append(errs, p.master.Stop(mctx))
		mcancel()
	}
	if p.chunkserver != nil {
		errs = append(errs, p.chunkserver.Stop(ctx))
	}
	p.server.Close()
	if p.witnesses != nil {
		p.witnesses.Close() // as the end of the process would
	}
	p.client.Close()
	<-p.served
	return errors.Join(errs...)
}

// logger returns what a process logs to.
func (c *Cluster) logger(name string) *slog.Logger {
	if c.conf.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	h := slog.NewTextHandler(c.conf.Log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("t", c.trace.Now().String())
		}
		return a
	}})
	return slog.New(h).With("of", name)
}
