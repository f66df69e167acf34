package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var (
	testCluster = ashlar.ClusterID{0xC1}
	testSecret  = []byte("a secret of at least some length")
	root        = ashlar.Cred{}
)

// cluster is masters in this process, over TCP on loopback.
type cluster struct {
	t     testing.TB
	dir   string
	peers []Peer
	nodes map[string]*testMaster
	tune  func(*Config)
	net   network
}

// testMaster is one process's worth: server, client and master.
type testMaster struct {
	name   string
	server *rpc.Server
	client *rpc.Client
	master *Master
	served chan error
}

func newCluster(t testing.TB, n int, tune func(*Config)) *cluster {
	c := &cluster{t: t, dir: t.TempDir(), nodes: map[string]*testMaster{}, tune: tune}
	c.net.init(c)
	for i := range n {
		c.peers = append(c.peers, Peer{Name: fmt.Sprintf("m%d", i+1), Addr: freeAddr(t)})
	}
	t.Cleanup(func() {
		for name := range c.nodes {
			c.kill(name)
		}
	})
	return c
}

func freeAddr(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// startAll starts every master and waits until all are members: two make the
// cluster, and if one of them were killed before the third has joined, nobody
// could lead.
func (c *cluster) startAll() {
	for _, p := range c.peers {
		c.start(p)
	}
	eventually(c.t, "every master is a member", func() bool {
		for _, n := range c.nodes {
			if n.master.node.Load() == nil {
				return false
			}
		}
		return true
	})
}

func testLogger(name string) *slog.Logger {
	if os.Getenv("ASHLAR_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("of", name)
}

func (c *cluster) start(p Peer) *testMaster {
	c.t.Helper()
	c.net.mu.Lock()
	c.net.names[p.Addr] = p.Name
	c.net.mu.Unlock()
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: p.Name, Incarnation: 1, Secret: testSecret}
	n := &testMaster{
		name: p.Name, server: rpc.NewServer(id, rpc.ServerOptions{}), client: rpc.NewClient(id, rpc.ClientOptions{Dial: c.net.dialer(p.Name)}),
		served: make(chan error, 1),
	}
	cfg := Config{
		Name: p.Name, Addr: p.Addr, Cluster: testCluster, Secret: testSecret, Dir: filepath.Join(c.dir, p.Name),
		Masters: slices.Clone(c.peers), Server: n.server, RPC: n.client, Logger: testLogger(p.Name),
		Lease: 600 * time.Millisecond, Dead: 800 * time.Millisecond, Renew: 100 * time.Millisecond,
		ConsensusTick: 20 * time.Millisecond, Replicas: 1,
	}
	if c.tune != nil {
		c.tune(&cfg)
	}
	m, err := Start(context.Background(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n.master = m
	ln, err := net.Listen("tcp", p.Addr)
	if err != nil {
		c.t.Fatal(err)
	}
	go func() { n.served <- n.server.Serve(ln) }()
	c.nodes[p.Name] = n
	return n
}

// kill stops a master as a crash would.
func (c *cluster) kill(name string) {
	n := c.nodes[name]
	delete(c.nodes, name)
	n.end(c.t)
}

func (n *testMaster) end(t testing.TB) {
	n.server.Close()
	if err := n.master.Kill(); err != nil {
		t.Errorf("kill %s: %v", n.name, err)
	}
	n.client.Close()
	<-n.served
}

// stop stops a master in order.
func (c *cluster) stop(name string) {
	c.t.Helper()
	n := c.nodes[name]
	delete(c.nodes, name)
	if err := n.master.Stop(c.ctx()); err != nil {
		c.t.Errorf("stop %s: %v", name, err)
	}
	n.server.Close()
	n.client.Close()
	<-n.served
}

// network can cut masters off from each other; clients reach all of them.
type network struct {
	c     *cluster
	mu    sync.Mutex
	off   map[string]bool   // by name
	names map[string]string // by address
	conns map[net.Conn][2]string
}

func (n *network) init(c *cluster) {
	n.c, n.off, n.names, n.conns = c, map[string]bool{}, map[string]string{}, map[net.Conn][2]string{}
}

func (n *network) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		to := n.names[addr]
		if n.off[from] || n.off[to] {
			_ = conn.Close()
			return nil, errors.New("cut off")
		}
		n.conns[conn] = [2]string{from, to}
		return conn, nil
	}
}

// cut takes a master off the others' network, or brings it back.
func (n *network) cut(name string, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[name] = off
	for conn, ends := range n.conns {
		if off && (ends[0] == name || ends[1] == name) {
			_ = conn.Close()
			delete(n.conns, conn)
		}
	}
}

func (c *cluster) peer(name string) Peer {
	for _, p := range c.peers {
		if p.Name == name {
			return p
		}
	}
	c.t.Fatalf("no master %s", name)
	return Peer{}
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if ok() {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("not in time: %s", what)
}

func (c *cluster) leader() *testMaster {
	c.t.Helper()
	var out *testMaster
	eventually(c.t, "a leader", func() bool {
		for _, n := range c.nodes {
			if n.master.Leads() && n.master.node.Load().LeaseValid() && n.master.initialised.Load() {
				out = n
				return true
			}
		}
		return false
	})
	return out
}

func (c *cluster) addrs() []string {
	var out []string
	for _, p := range c.peers {
		out = append(out, p.Addr)
	}
	return out
}

func (c *cluster) clientRPC(name string) *rpc.Client {
	cl := rpc.NewClient(rpc.Identity{
		Cluster: testCluster, Role: wire.RoleClient, Name: name, Incarnation: 7, Secret: testSecret,
	}, rpc.ClientOptions{})
	c.t.Cleanup(cl.Close)
	return cl
}

func (c *cluster) dial(name string) *masterconn.Conn {
	c.t.Helper()
	conn, err := masterconn.Dial(c.ctx(), masterconn.Config{RPC: c.clientRPC(name), Masters: c.addrs(), Name: name, Logger: testLogger(name)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the cluster may be gone
	})
	return conn
}

func (c *cluster) do(conn *masterconn.Conn, body, reply wire.Message) {
	c.t.Helper()
	if err := conn.Do(c.ctx(), root, body, reply); err != nil {
		c.t.Fatalf("%T: %v", body, err)
	}
}

func (c *cluster) makeVolume(conn *masterconn.Conn) ashlar.Inode {
	c.t.Helper()
	var v wire.VolumeReply
	c.do(conn, &wire.SetVolume{Name: "vol", Mode: 0o755}, &v)
	return v.Root
}

func TestThreeMastersElectServeAndSurviveTheLossOfTheirLeader(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	var made, found wire.Entry
	c.do(conn, &wire.Make{Parent: dir, Name: "d", Type: ashlar.TypeDir, Mode: 0o755}, &made)
	c.do(conn, &wire.Lookup{Parent: dir, Name: "d"}, &found)
	if made.Attr.Inode != found.Attr.Inode {
		t.Fatalf("made %d, found %d", made.Attr.Inode, found.Attr.Inode)
	}
	c.kill(c.leader().name)
	c.do(conn, &wire.Make{Parent: dir, Name: "after", Type: ashlar.TypeDir, Mode: 0o755}, &made)
	c.do(conn, &wire.Lookup{Parent: dir, Name: "d"}, &found)
	c.do(conn, &wire.Lookup{Parent: dir, Name: "after"}, &found)
}
