package master

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fakeServer is a chunkserver as the masters see it: it registers, renews,
// watches and answers, and keeps no data.
type fakeServer struct {
	t       testing.TB
	name    string
	addr    string
	inc     ashlar.Incarnation
	server  *rpc.Server
	client  *rpc.Client
	leader  *masterconn.Leader
	reg     wire.RegisterReply
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	disks   []wire.DiskInfo
	autoAck bool // acknowledge fences and catch-ups at once

	mu      sync.Mutex
	groups  map[ashlar.PGID]ashlar.Group
	watched wire.WatchReply
	cuts    []wire.Cut
	deleted []wire.DeleteLayers
	yields  []wire.Yield
	lost    bool
}

func (c *cluster) fakeServer(name string, inc ashlar.Incarnation, disks ...byte) *fakeServer {
	c.t.Helper()
	return c.fakeServerAt(name, freeAddr(c.t), inc, disks...)
}

// fakeServerAt is fakeServer where an earlier incarnation listened.
func (c *cluster) fakeServerAt(name, addr string, inc ashlar.Incarnation, disks ...byte) *fakeServer {
	c.t.Helper()
	id := rpc.Identity{Cluster: testCluster, Role: wire.RoleNode, Name: name, Incarnation: inc, Secret: testSecret}
	f := &fakeServer{
		t: c.t, name: name, addr: addr, inc: inc, autoAck: true,
		server: rpc.NewServer(id, rpc.ServerOptions{}), client: rpc.NewClient(id, rpc.ClientOptions{}),
		groups: map[ashlar.PGID]ashlar.Group{},
	}
	f.leader = masterconn.NewLeader(f.client, c.addrs(), clock.Real, testLogger(name))
	for _, d := range disks {
		f.disks = append(f.disks, wire.DiskInfo{UUID: wire.UUID{d}, Path: "/disk", Total: 100 << 30, Free: 90 << 30, Owner: uint64(inc)})
	}
	f.serve()
	ctx := c.ctx()
	req := &wire.Register{Name: name, UUID: wire.UUID{name[0], name[1]}, Addr: f.addr, Incarnation: inc, Process: inc, Disks: f.disks}
	if err := f.leader.Call(ctx, req, &f.reg); err != nil {
		c.t.Fatalf("register %s: %v", name, err)
	}
	f.learn(&f.reg.Watch)
	run, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.wg.Go(func() { f.renew(run) })
	f.wg.Go(func() { f.watch(run) })
	c.t.Cleanup(f.stop)
	return f
}

func (f *fakeServer) serve() {
	on := func(m wire.Message, h func(m wire.Message)) {
		f.server.Handle(m.Kind(), func(_ context.Context, r *rpc.Request) (wire.Message, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			h(r.Msg)
			return &wire.Empty{}, nil
		})
	}
	on(&wire.Cut{}, func(m wire.Message) { f.cuts = append(f.cuts, *m.(*wire.Cut)) })
	on(&wire.DeleteLayers{}, func(m wire.Message) { f.deleted = append(f.deleted, *m.(*wire.DeleteLayers)) })
	on(&wire.Yield{}, func(m wire.Message) { f.yields = append(f.yields, *m.(*wire.Yield)) })
	ln, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.wg.Go(func() { _ = f.server.Serve(ln) })
}

func (f *fakeServer) renew(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m := &wire.ServerRenew{Session: f.reg.Session, Incarnation: f.inc}
		f.snapshot(func() { m.Disks = slices.Clone(f.disks) })
		err := f.leader.Call(ctx, m, &wire.ServerRenewReply{})
		if ashlar.KindOf(err) == ashlar.NoSession {
			f.mu.Lock()
			f.lost = true
			f.mu.Unlock()
			return
		}
	}
}

func (f *fakeServer) watch(ctx context.Context) {
	rev := f.reg.Watch.Revision
	for ctx.Err() == nil {
		var w wire.WatchReply
		if err := f.leader.Call(ctx, &wire.Watch{Session: f.reg.Session, Revision: rev}, &w); err != nil {
			if ashlar.KindOf(err) == ashlar.NoSession {
				return
			}
			continue
		}
		rev = w.Revision
		f.learn(&w)
		if f.autoAck {
			f.ack(ctx)
		}
	}
}

func (f *fakeServer) learn(w *wire.WatchReply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = *w
	f.groups = map[ashlar.PGID]ashlar.Group{}
	for _, g := range w.Groups {
		f.groups[g.ID] = g
	}
}

// ack acknowledges every fence, and says of each syncing member that it has
// everything.
func (f *fakeServer) ack(ctx context.Context) {
	f.mu.Lock()
	groups, fences := f.groups, f.watched.Fences
	f.mu.Unlock()
	for _, fence := range fences {
		_ = f.leader.Call(ctx, &wire.Fenced{Session: f.reg.Session, Revision: fence.Revision}, nil)
	}
	for _, g := range groups {
		if p := g.Primary(); p < 0 || g.Members[p].Node != f.reg.Node {
			continue
		}
		for _, m := range g.Members {
			if m.State == ashlar.Syncing && m.Incarnation != 0 {
				_ = f.leader.Call(ctx, &wire.ReportSynced{Session: f.reg.Session, Group: g.ID, Epoch: g.Epoch, Disk: m.Disk}, nil)
				break
			}
		}
	}
}

func (f *fakeServer) snapshot(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// stop ends the process, as a crash would.
func (f *fakeServer) stop() {
	f.cancel()
	f.server.Close()
	f.client.Close()
	f.wg.Wait()
}

// status asks the leader.
func (c *cluster) status() *wire.Status {
	c.t.Helper()
	l := masterconn.NewLeader(c.clientRPC("status"), c.addrs(), clock.Real, testLogger("status"))
	var r wire.StatusReply
	if err := l.Call(c.ctx(), &wire.GetStatus{}, &r); err != nil {
		c.t.Fatal(err)
	}
	s, err := r.Get()
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}
