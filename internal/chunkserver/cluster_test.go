package chunkserver

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var (
	testCluster = ashlar.ClusterID{1, 2, 3}
	testSecret  = []byte("a secret of the test cluster")
)

// fakeLeader is the masters: it numbers nodes and disks, changes epochs as
// members are reported, and hands out groups and fences.
type fakeLeader struct {
	mu       sync.Mutex
	cond     chan struct{}
	rev      uint64
	session  ashlar.SessionID
	disks    map[wire.UUID]ashlar.DiskID
	nodes    map[ashlar.DiskID]*fakeNode
	byName   map[string]*fakeNode
	groups   map[ashlar.PGID]*ashlar.Group
	fences   []wire.Fence
	fenced   map[ashlar.SessionID]uint64
	deaf     map[string]bool // names whose renewals are not answered
	ignore   bool            // reports change nothing
	reports  []wire.ReportMember
	failures []wire.ReportDisk
	synced   map[string]uint64

	rules   []wire.PoolRule
	origins map[ashlar.Inode]wire.Origin
}

type fakeNode struct {
	id      ashlar.NodeID
	name    string
	addr    string
	inc     ashlar.Incarnation
	session ashlar.SessionID
	disks   []ashlar.DiskID
}

func newFakeLeader() *fakeLeader {
	return &fakeLeader{
		cond: make(chan struct{}), rev: 1, session: 100, disks: map[wire.UUID]ashlar.DiskID{}, nodes: map[ashlar.DiskID]*fakeNode{},
		byName: map[string]*fakeNode{}, groups: map[ashlar.PGID]*ashlar.Group{}, fenced: map[ashlar.SessionID]uint64{},
		deaf: map[string]bool{}, synced: map[string]uint64{},
	}
}

// bump makes watches return. mu must be held.
func (f *fakeLeader) bump() {
	f.rev++
	close(f.cond)
	f.cond = make(chan struct{})
}

// fill puts the addresses into a group.
func (f *fakeLeader) fill(g *ashlar.Group) ashlar.Group {
	out := *g
	out.Members = append([]ashlar.Member(nil), g.Members...)
	for i := range out.Members {
		if n := f.nodes[out.Members[i].Disk]; n != nil {
			out.Members[i].Addr, out.Members[i].Incarnation, out.Members[i].Node = n.addr, n.inc, n.id
		}
	}
	return out
}

func (f *fakeLeader) watch(n *fakeNode) wire.WatchReply {
	w := wire.WatchReply{Revision: f.rev, Fences: append([]wire.Fence(nil), f.fences...), Rules: f.rules}
	for id := ashlar.PGID(1); id < 100; id++ {
		g := f.groups[id]
		if g == nil {
			continue
		}
		for _, d := range n.disks {
			if g.Index(d) >= 0 {
				w.Groups = append(w.Groups, f.fill(g))
				break
			}
		}
	}
	return w
}

// out takes a disk out of a group's in-sync set; the last copy stays.
func (f *fakeLeader) out(g *ashlar.Group, d ashlar.DiskID, to ashlar.MemberState) {
	i := g.Index(d)
	if i < 0 || g.Members[i].State == to {
		return
	}
	if g.Members[i].State == ashlar.InSync && g.Count(ashlar.InSync) == 1 {
		g.LastCopy = true
		g.Epoch++
		return
	}
	g.Members[i].State = to
	g.Epoch++
}

type client struct {
	*fakeLeader
	name string
}

func (c client) Call(ctx context.Context, req, reply wire.Message) error {
	f := c.fakeLeader
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := req.(*wire.Register); ok {
		return f.register(m, reply.(*wire.RegisterReply))
	}
	n := f.byName[c.name]
	if f.deaf[c.name] {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return ctx.Err()
	}
	session := ashlar.SessionID(0)
	switch m := req.(type) {
	case *wire.ServerRenew:
		session = m.Session
		f.synced[c.name] = m.Synced
	case *wire.Watch:
		session = m.Session
	case *wire.ReportMember:
		session = m.Session
	case *wire.ReportSynced:
		session = m.Session
	case *wire.ReportDisk:
		session = m.Session
	case *wire.Fenced:
		session = m.Session
	case *wire.Origins:
		session = m.Session
	}
	if n == nil || n.session != session {
		return ashlar.NoSession
	}
	switch m := req.(type) {
	case *wire.ServerRenew:
		*reply.(*wire.ServerRenewReply) = wire.ServerRenewReply{LeaseMs: testLease, Term: 1, Time: time.Now().UnixNano()}
	case *wire.Watch:
		for wait := time.After(500 * time.Millisecond); f.rev <= m.Revision; {
			cond := f.cond
			f.mu.Unlock()
			var over bool
			select {
			case <-cond:
			case <-wait:
				over = true
			case <-ctx.Done():
			}
			f.mu.Lock()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if n.session != session {
				return ashlar.NoSession
			}
			if over {
				break
			}
		}
		*reply.(*wire.WatchReply) = f.watch(n)
	case *wire.ReportMember:
		f.reports = append(f.reports, *m)
		g := f.groups[m.Group]
		if g == nil || g.Epoch != m.Epoch || f.ignore {
			break
		}
		// Of itself a primary is believed while there is another.
		if p := g.Primary(); p < 0 || g.Members[p].Disk != m.Disk || g.Count(ashlar.InSync) > 1 {
			f.out(g, m.Disk, ashlar.Offline)
			f.bump()
		}
	case *wire.ReportSynced:
		g := f.groups[m.Group]
		if g == nil || g.Epoch != m.Epoch {
			return ashlar.WrongEpoch
		}
		if i := g.Index(m.Disk); i >= 0 && g.Members[i].State == ashlar.Syncing {
			g.Members[i].State = ashlar.InSync
			g.Epoch++
			g.LastCopy = false
			f.bump()
		}
	case *wire.ReportDisk:
		f.failures = append(f.failures, *m)
		for _, g := range f.groups {
			f.out(g, m.Disk, ashlar.Offline)
		}
		f.bump()
	case *wire.Fenced:
		f.fenced[session] = m.Revision
	case *wire.Origins:
		for _, ino := range m.Inodes {
			rep := reply.(*wire.OriginsReply)
			rep.Origins = append(rep.Origins, f.origins[ino])
		}
	}
	return nil
}

const testLease = 3000

func (f *fakeLeader) register(m *wire.Register, rep *wire.RegisterReply) error {
	n := f.byName[m.Name]
	if n == nil {
		n = &fakeNode{id: ashlar.NodeID(len(f.byName) + 1), name: m.Name}
		f.byName[m.Name] = n
	}
	f.session++
	n.session, n.inc, n.addr, n.disks = f.session, m.Incarnation, m.Addr, nil
	for _, d := range m.Disks {
		id := f.disks[d.UUID]
		if id == 0 {
			id = ashlar.DiskID(len(f.disks) + 1)
			f.disks[d.UUID] = id
		}
		f.nodes[id] = n
		n.disks = append(n.disks, id)
	}
	for _, g := range f.groups {
		for _, d := range n.disks {
			f.out(g, d, ashlar.Syncing)
		}
	}
	f.bump()
	*rep = wire.RegisterReply{
		Node: n.id, Session: n.session, LeaseMs: testLease, DeadMs: testLease + 500, RenewMs: 100, Term: 1, Time: time.Now().UnixNano(), History: 1,
		Disks: n.disks, Fences: append([]wire.Fence(nil), f.fences...), Watch: f.watch(n),
	}
	return nil
}

// node is one chunkserver of the test cluster; its disk outlives it.
type node struct {
	c    *testbed
	name string
	addr string
	fs   *vfs.Mem
	boot string
	srv  *rpc.Server
	cli  *rpc.Client
	cs   *Server
	out  *relay // of what it sends to others, nil for none

	budget uint64 // for catch-ups, 0 for the default
}

// testbed is a cluster of chunkservers over TCP, and a client of them.
type testbed struct {
	tb     testing.TB
	leader *fakeLeader
	nodes  []*node
	client *rpc.Client
	sid    ashlar.SessionID
	seq    uint64
	mu     sync.Mutex
}

func newTestbed(tb testing.TB, n int) *testbed { return newTestbedWith(tb, n, func(*node) {}) }

// newTestbedWith changes each node before it is started.
func newTestbedWith(tb testing.TB, n int, tune func(*node)) *testbed {
	c := &testbed{tb: tb, leader: newFakeLeader(), sid: 7}
	for i := range n {
		nd := &node{c: c, name: fmt.Sprintf("n%d", i+1), fs: vfs.NewMem(), boot: "boot 1"}
		c.nodes = append(c.nodes, nd)
		tune(nd)
		nd.start()
	}
	c.client = c.newClient(c.sid)
	c.eventually("registered", func() bool {
		for _, nd := range c.nodes {
			if nd.cs.life.Load() == nil {
				return false
			}
		}
		return true
	})
	tb.Cleanup(func() {
		c.client.Close()
		for _, nd := range c.nodes {
			if nd.cs != nil {
				nd.stop()
			}
		}
	})
	return c
}

func (c *testbed) newClient(sid ashlar.SessionID) *rpc.Client { return c.newClientThrough(sid, nil) }

// newClientThrough makes a client whose connections a relay can hold.
func (c *testbed) newClientThrough(sid ashlar.SessionID, out *relay) *rpc.Client {
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleClient, Name: "client", Incarnation: 1, Secret: testSecret}
	cli := rpc.NewClient(id, rpc.ClientOptions{Dial: out.dialer()})
	ticket := rpc.SignTicket(testSecret, &wire.Ticket{Cluster: testCluster, Session: sid, Incarnation: 1, Expires: time.Now().Add(time.Hour).UnixNano()})
	cli.OnConnect(func(_ context.Context, _ string, call func(req, reply wire.Message) error) error {
		return call(&wire.Attach{Ticket: ticket}, nil)
	})
	return cli
}

func (n *node) logger() *slog.Logger {
	if os.Getenv("CHUNKSERVER_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", n.name)
}

func (n *node) start() {
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: n.name, Incarnation: ashlar.Incarnation(rand.Uint64() | 1), Secret: testSecret}
	n.srv = rpc.NewServer(id, rpc.ServerOptions{Logger: n.logger()})
	n.cli = rpc.NewClient(id, rpc.ClientOptions{Dial: n.out.dialer()})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.c.tb.Fatal(err)
	}
	n.addr = ln.Addr().String()
	n.cs, err = Start(context.Background(), Config{
		Name: n.name, Addr: n.addr, DataDir: "node", Disks: []DiskConfig{{Path: "disk"}}, Cluster: testCluster, Secret: testSecret,
		BootID: n.boot, Reserve: 1 << 20, Budget: n.budget, Server: n.srv, RPC: n.cli, Leader: client{n.c.leader, n.name}, FS: n.fs, Clock: clock.Real, Logger: n.logger(),
	})
	if err != nil {
		n.c.tb.Fatal(err)
	}
	go func() { _ = n.srv.Serve(ln) }()
}

// stop ends a node in order.
func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.cs.Stop(ctx); err != nil {
		n.c.tb.Error(n.name, err)
	}
	n.srv.Close()
	n.cli.Close()
	n.cs = nil
}

// kill ends a node as kill -9 does: its disk keeps what was written.
func (n *node) kill() {
	n.cs.cancel()
	n.cli.Close()
	n.srv.Close()
	n.cs.tasks.Wait()
	for _, d := range n.cs.disks {
		_ = d.store.Abandon()
	}
	_ = n.cs.id.lock.Close()
	n.cs = nil
}

func (c *testbed) eventually(what string, ok func() bool) {
	c.tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			c.explain()
			c.tb.Fatalf("never happened: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// explain logs where every seat is.
func (c *testbed) explain() {
	for _, n := range c.nodes {
		if n.cs == nil {
			continue
		}
		l := n.cs.life.Load()
		if l == nil {
			c.tb.Logf("%s: no life", n.name)
			continue
		}
		for _, t := range l.all() {
			t.mu.Lock()
			c.tb.Logf("%s: group %d: %v vetted=%v %+v", n.name, t.group, t.sm, t.vetted, *t.sm.Config())
			t.mu.Unlock()
		}
	}
	if os.Getenv("CHUNKSERVER_LOG") != "" {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	}
}

// makeGroup makes a group on the first disks of nodes.
func (c *testbed) makeGroup(id ashlar.PGID, members ...int) {
	f := c.leader
	f.mu.Lock()
	g := &ashlar.Group{ID: id, Epoch: 1}
	for _, i := range members {
		g.Members = append(g.Members, ashlar.Member{Disk: f.byName[c.nodes[i].name].disks[0], State: ashlar.InSync})
	}
	f.groups[id] = g
	f.bump()
	f.mu.Unlock()
}

// change alters a group under a new epoch.
func (c *testbed) change(id ashlar.PGID, f func(g *ashlar.Group)) {
	c.leader.mu.Lock()
	defer c.leader.mu.Unlock()
	f(c.leader.groups[id])
	c.leader.groups[id].Epoch++
	c.leader.bump()
}

func (c *testbed) groupNow(id ashlar.PGID) ashlar.Group {
	c.leader.mu.Lock()
	defer c.leader.mu.Unlock()
	return c.leader.fill(c.leader.groups[id])
}

func (c *testbed) inSync(id ashlar.PGID) int {
	g := c.groupNow(id)
	return g.Count(ashlar.InSync)
}

func (c *testbed) nextSeq() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	return c.seq
}

func (c *testbed) address(g *ashlar.Group, layer ashlar.LayerID, chunk uint32) wire.Address {
	return wire.Address{Group: g.ID, Epoch: g.Epoch, Session: c.sid, Layer: layer, Gen: 1, Chunk: chunk}
}

// retryable also takes Canceled: a server that is being closed says so, where
// a killed one would say nothing.
func retryable(err error) bool {
	k := ashlar.KindOf(err)
	return k.Retryable() || k == ashlar.Canceled
}

// hard repeats a request with a fresh map, as a client does.
func (c *testbed) hard(id ashlar.PGID, try func(ctx context.Context, g *ashlar.Group, addr string, again bool) error) error {
	deadline := time.Now().Add(20 * time.Second)
	for again := false; ; again = true {
		g := c.groupNow(id)
		err := error(ashlar.NotReady)
		if p := g.Primary(); p >= 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err = try(ctx, &g, g.Members[p].Addr, again)
			cancel()
		}
		if err == nil || !retryable(err) || time.Now().After(deadline) {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
}

const testChunk = 1 << 20

func (c *testbed) makeWrite(g *ashlar.Group, layer ashlar.LayerID, chunk, off uint32, data []byte, seq uint64) *wire.Write {
	return &wire.Write{
		Address: c.address(g, layer, chunk), Seq: seq, Off: off, Len: uint32(len(data)), ChunkSize: testChunk, Data: data,
		Sums: checksum.Append(nil, uint64(off), data), Origin: wire.Origin{Hint: "/a/file"},
	}
}

func (c *testbed) write(id ashlar.PGID, layer ashlar.LayerID, chunk, off uint32, data []byte) error {
	seq := c.nextSeq()
	return c.hard(id, func(ctx context.Context, g *ashlar.Group, addr string, again bool) error {
		w := c.makeWrite(g, layer, chunk, off, data, seq)
		if again {
			w.Flags |= wire.WriteRetry
		}
		return c.client.Call(ctx, addr, w, nil)
	})
}

func (c *testbed) mustWrite(id ashlar.PGID, layer ashlar.LayerID, chunk, off uint32, data []byte) {
	c.tb.Helper()
	if err := c.write(id, layer, chunk, off, data); err != nil {
		c.tb.Fatalf("write: %v", err)
	}
}

func (c *testbed) read(id ashlar.PGID, layer ashlar.LayerID, chunk, off, n uint32) (data []byte, err error) {
	err = c.hard(id, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		var rep wire.ReadReply
		if err := c.client.Call(ctx, addr, &wire.Read{Address: c.address(g, layer, chunk), Off: off, Len: n}, &rep); err != nil {
			return err
		}
		if rep.Zero {
			data = make([]byte, n)
			return nil
		}
		if i := checksum.Verify(rep.Sums, 0, rep.Data); i >= 0 {
			return fmt.Errorf("block %d does not match its checksum", i)
		}
		data = rep.Data
		return nil
	})
	return data, err
}

func (c *testbed) mustRead(id ashlar.PGID, layer ashlar.LayerID, chunk, off uint32, want []byte) {
	c.tb.Helper()
	got, err := c.read(id, layer, chunk, off, uint32(len(want)))
	if err != nil {
		c.tb.Fatalf("read: %v", err)
	}
	if string(got) != string(want) {
		c.tb.Fatalf("read layer %d chunk %d at %d: not what was written", layer, chunk, off)
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ seed ^ byte(i>>8)
	}
	return b
}
