package sim

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/master"
)

// Config is the shape of a cluster. Everything is drawn from the seed by
// Shape, and may be set by hand.
type Config struct {
	Seed         uint64
	Masters      int
	Chunkservers int
	DisksEach    int
	Clients      int
	Replicas     int
	LogBytes     int64 // at which masters cut their logs
	RepairAfter  time.Duration
	NoWitness    bool // no proof of death
	Durable      bool // every write is synced before it is answered
	Mixed        bool // some are, and power fails
	Lone         bool // the power of one machine fails, once, and nothing else
	Log          io.Writer
	Events       io.Writer // every event of the trace
}

// Cluster is machines and the network between them.
type Cluster struct {
	conf   Config
	id     ashlar.ClusterID
	secret []byte
	trace  *Trace
	net    *Network

	machines []*Machine // masters first
	byName   map[string]*Machine

	mu    sync.Mutex
	rng   *rand.Rand
	nodes uint32 // numbers given to processes
	errs  []error
	torn  []torn

	unanswered unanswered
	holders    holders
	afresh     atomic.Int64 // reads of names answered by a leader new to the client
}

// newCluster makes the machines of a configuration; nothing runs yet.
func newCluster(conf Config) *Cluster {
	c := &Cluster{
		conf: conf, id: ashlar.ClusterID{0x51, byte(conf.Seed)}, secret: []byte("the secret of a simulated cluster"),
		trace: newTrace(conf.Events), rng: rand.New(rand.NewPCG(conf.Seed, 1)), byName: map[string]*Machine{},
	}
	c.net = newNetwork(rand.New(rand.NewPCG(conf.Seed, 2)), c.trace)
	n := max(conf.Masters, conf.Chunkservers)
	for i := range n {
		m := &Machine{
			c: c, name: fmt.Sprintf("n%d", i+1), on: true,
			roles: roles{master: i < conf.Masters, chunkserver: n-1-i < conf.Chunkservers},
		}
		m.addr = m.name + ":9500"
		m.clock = newHostClock(time.Duration(c.rng.Int64N(int64(1000*time.Hour))), 0.97+0.06*c.rng.Float64())
		disks := 1
		if m.roles.chunkserver {
			disks += conf.DisksEach
		}
		for j := range disks {
			path := fmt.Sprintf("/disk%d", j)
			if j == 0 {
				path = "/data"
			}
			d := newDisk(m.name, path, rand.New(rand.NewPCG(conf.Seed, uint64(16*i+j+100))), c.trace)
			if err := errors.Join(d.mem.MkdirAll(path), d.mem.SyncDir("/")); err != nil {
				panic(err) // an empty disk takes a directory
			}
			m.disks = append(m.disks, d)
		}
		c.machines = append(c.machines, m)
		c.byName[m.name] = m
	}
	return c
}

// newNode returns a number for a process's goroutines.
func (c *Cluster) newNode() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes++
	return c.nodes
}

func (c *Cluster) random() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.Uint64() | 1
}

func (c *Cluster) masterPeers() []master.Peer {
	var out []master.Peer
	for _, m := range c.machines {
		if m.roles.master {
			out = append(out, master.Peer{Name: m.name, Addr: m.addr})
		}
	}
	return out
}

func (c *Cluster) masterAddrs() []string {
	var out []string
	for _, p := range c.masterPeers() {
		out = append(out, p.Addr)
	}
	return out
}

// Leader returns the machine whose master leads, nil if none does.
func (c *Cluster) Leader() *Machine {
	for _, m := range c.machines {
		if p := m.proc; p != nil && !m.paused && p.master != nil && p.master.Leads() {
			return m
		}
	}
	return nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
