package master

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// patient makes silence alone tell nothing for as long as a test lasts.
func patient(cfg *Config) { cfg.Dead = time.Hour }

// witnessed is a chunkserver that keeps witness connections as a process does.
type witnessed struct {
	*fakeServer
	client *rpc.Client
	w      *masterconn.Witnesses

	mu    sync.Mutex
	conns []net.Conn
	off   bool // no more
}

func (c *cluster) witnessed(name string, inc ashlar.Incarnation, disk byte) *witnessed {
	c.t.Helper()
	s := &witnessed{fakeServer: c.fakeServer(name, inc, disk)}
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: name, Incarnation: inc, Secret: testSecret}
	s.client = rpc.NewClient(id, rpc.ClientOptions{Dial: s.dial})
	l := masterconn.NewLeader(s.client, c.addrs(), clock.Real, testLogger(name))
	s.w = masterconn.KeepWitnesses(masterconn.WitnessConfig{RPC: s.client, Leader: l, Addr: s.addr})
	c.t.Cleanup(s.end)
	eventually(c.t, "every master has a witness of "+name, func() bool {
		for _, n := range c.nodes {
			if n.master.witnesses.standing(inc) == 0 {
				return false
			}
		}
		return true
	})
	return s
}

func (s *witnessed) dial(ctx context.Context, addr string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return nil, net.ErrClosed
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		s.conns = append(s.conns, c)
	}
	return c, err
}

// reset breaks every witness connection with a RST, and lets no other be made.
func (s *witnessed) reset(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
	for _, c := range s.conns {
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
}

// end closes the witness connections, as the end of the process does.
func (s *witnessed) end() {
	s.w.Close()
	s.client.Close()
}

// die ends everything of the process.
func (s *witnessed) die() {
	s.fakeServer.stop()
	s.end()
}

// standing counts a process's witness connections.
func (w *witnesses) standing(id ashlar.Incarnation) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.by[id]; p != nil {
		return p.open
	}
	return 0
}

func (c *cluster) up(node ashlar.NodeID) bool {
	for _, n := range c.status().Nodes {
		if n.ID == uint32(node) {
			return n.Alive
		}
	}
	return false
}

func TestAProcessWhoseEndIsProvenIsLostAtOnce(t *testing.T) {
	c := newCluster(t, 3, patient)
	c.startAll()
	c.leader()
	a, b := c.witnessed("aa", 101, 1), c.witnessed("bb", 102, 2)
	a.die()
	eventually(c.t, "its node is down", func() bool { return !c.up(a.reg.Node) })
	if !c.up(b.reg.Node) {
		t.Error("another went with it")
	}
}

// What a live process can show too is no proof (I-6): each of these is done to
// one, and then another really ends.
func TestWhatALiveProcessCanShowIsNoProofOfItsDeath(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, s *witnessed){
		"a reset connection, and nobody listening": func(t *testing.T, s *witnessed) {
			s.reset(t)
			s.server.Close()
		},
		"a clean end while somebody listens": func(_ *testing.T, s *witnessed) { s.end() },
		"nobody listening":                   func(_ *testing.T, s *witnessed) { s.server.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, patient)
			c.startAll()
			c.leader()
			s, control := c.witnessed("aa", 101, 1), c.witnessed("bb", 102, 2)
			do(t, s)
			w := c.nodes["m1"].master.witnesses
			eventually(c.t, "it is looked into", func() bool {
				return (w.standing(101) == 0 || name == "nobody listening") && !w.undecided()
			})
			control.die()
			eventually(c.t, "the other is down", func() bool { return !c.up(control.reg.Node) })
			if !c.up(s.reg.Node) {
				t.Fatal("it was taken for dead")
			}
		})
	}
}

func TestAConnectionThroughSomethingElseIsNoWitness(t *testing.T) {
	c := newCluster(t, 1, patient)
	c.startAll()
	c.leader()
	s, control := c.fakeServer("aa", 101, 1), c.witnessed("bb", 102, 2)
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: "aa", Incarnation: 101, Secret: testSecret}
	client := rpc.NewClient(id, rpc.ClientOptions{})
	defer client.Close()
	conn, err := client.Stand(c.ctx(), c.peers[0].Addr, func(net.Addr) wire.Message {
		return &wire.Witness{Addr: s.addr, From: "192.0.2.1:77"} // what the process sees of it
	})
	if err != nil {
		t.Fatal(err)
	}
	s.server.Close()
	conn.Close()
	control.die()
	eventually(c.t, "the other is down", func() bool { return !c.up(control.reg.Node) })
	if !c.up(s.reg.Node) {
		t.Fatal("a proxy's connection was taken for the process's")
	}
}

func TestProofOfDeathCanBeSwitchedOff(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Dead, cfg.NoWitness = time.Hour, true })
	c.startAll()
	c.leader()
	s := c.fakeServer("aa", 101, 1)
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: "aa", Incarnation: 101, Secret: testSecret}
	client := rpc.NewClient(id, rpc.ClientOptions{})
	defer client.Close()
	conn, err := client.Stand(c.ctx(), c.peers[0].Addr, func(local net.Addr) wire.Message {
		return &wire.Witness{Addr: s.addr, From: local.String()}
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.nodes["m1"].master.witnesses.standing(101) != 0 {
		t.Fatal("it is watched nevertheless")
	}
	conn.Close()
}

func TestALeaderWhoseEndIsProvenIsFollowedAtOnce(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.ElectionTicks, cfg.Dead = 1000, time.Hour }) // 20 seconds
	c.startAll()
	c.leader()
	lead := c.leader().name
	n := c.nodes[lead]
	ws := c.processOf(n, 900)
	eventually(c.t, "the others have its witness", func() bool {
		for name, o := range c.nodes {
			if name != lead && o.master.witnesses.standing(900) == 0 {
				return false
			}
		}
		return true
	})
	eventually(c.t, "the others follow it", func() bool {
		for _, o := range c.nodes {
			if addr, _ := o.master.leaderAddr(); addr != c.peer(lead).Addr {
				return false
			}
		}
		return true
	})
	before := time.Now()
	c.kill(lead)
	ws.Close()
	c.leader()
	if took := time.Since(before); took > 10*time.Second {
		t.Fatalf("took %v", took)
	}
}

// processOf keeps witness connections for the process that a master is.
func (c *cluster) processOf(n *testMaster, inc ashlar.Incarnation) *masterconn.Witnesses {
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: n.name, Incarnation: inc, Secret: testSecret}
	client := rpc.NewClient(id, rpc.ClientOptions{})
	l := masterconn.NewLeader(client, c.addrs(), clock.Real, testLogger(n.name))
	w := masterconn.KeepWitnesses(masterconn.WitnessConfig{
		RPC: client, Leader: l, Addr: c.peer(n.name).Addr, Member: n.master.Member,
	})
	c.t.Cleanup(func() { w.Close(); client.Close() })
	return w
}
