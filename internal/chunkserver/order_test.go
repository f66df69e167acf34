package chunkserver

import (
	"context"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// once makes one attempt at the primary.
func (c *testbed) once(id ashlar.PGID, m wire.Message, reply wire.Message) error {
	g := c.groupNow(id)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.client.Call(ctx, g.Members[g.Primary()].Addr, m, reply)
}

// fromLeader makes one attempt as the masters do.
func (c *testbed) fromLeader(id ashlar.PGID, m wire.Message) error {
	g := c.groupNow(id)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.nodes[0].cli.Call(ctx, g.Members[g.Primary()].Addr, m, nil)
}

func wantKind(t *testing.T, err error, k ashlar.Kind) {
	t.Helper()
	if ashlar.KindOf(err) != k || err == nil {
		t.Fatalf("got %v, want %v", err, k)
	}
}

// I-4
func TestAStaleEpochIsRefused(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1))
	old := c.groupNow(1)
	c.change(1, func(*ashlar.Group) {})
	c.mustWrite(1, 5, 0, 0, pattern(4096, 2))
	wantKind(t, c.once(1, c.makeWrite(&old, 5, 0, 0, pattern(4096, 3), c.nextSeq()), nil), ashlar.WrongEpoch)
	// A member refuses it too, from whomever.
	w := c.makeWrite(&old, 5, 0, 0, pattern(4096, 3), c.nextSeq())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := c.nodes[0].cli.Call(ctx, old.Members[1].Addr, &wire.Replicate{Disk: old.Members[1].Disk, Op: 1000, Write: *w}, nil)
	wantKind(t, err, ashlar.WrongEpoch)
	c.mustRead(1, 5, 0, 0, pattern(4096, 2))
	// A read at a member that is not the primary is refused.
	now := c.groupNow(1)
	err = c.client.Call(ctx, now.Members[1].Addr, &wire.Read{Address: c.address(&now, 5, 0), Len: 4096}, &wire.ReadReply{})
	wantKind(t, err, ashlar.WrongEpoch)
}

// I-7
func TestALateWriteIsNotApplied(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1)) // sequence 1
	g := c.groupNow(1)
	late := c.makeWrite(&g, 5, 0, 0, pattern(4096, 9), 2) // given up by the client
	w := c.makeWrite(&g, 5, 0, 0, pattern(4096, 3), 3)
	w.Lowest = 3
	if err := c.once(1, w, nil); err != nil {
		t.Fatal(err)
	}
	wantKind(t, c.once(1, late, nil), ashlar.OutcomeUnknown)
	// A retry of what took effect is answered, not applied.
	again := c.makeWrite(&g, 5, 0, 0, pattern(4096, 8), 3)
	again.Flags |= wire.WriteRetry
	if err := c.once(1, again, nil); err != nil {
		t.Fatal(err)
	}
	c.mustRead(1, 5, 0, 0, pattern(4096, 3))
}

// I-7
func TestAFencedSessionIsCutOffAndTheFenceAcknowledged(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1))
	other := c.newClient(8)
	defer other.Close()
	c.leader.mu.Lock()
	c.leader.rev++
	c.leader.fences = append(c.leader.fences, wire.Fence{Session: c.sid, Revision: c.leader.rev})
	rev := c.leader.rev
	c.leader.bump()
	c.leader.mu.Unlock()
	c.eventually("fence acknowledged by all", func() bool {
		c.leader.mu.Lock()
		defer c.leader.mu.Unlock()
		n := 0
		for _, r := range c.leader.fenced {
			if r >= rev {
				n++
			}
		}
		return n == 2
	})
	g := c.groupNow(1)
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 0, 0, pattern(4096, 2), c.nextSeq()), nil), ashlar.NoSession)
	wantKind(t, c.once(1, &wire.Read{Address: c.address(&g, 5, 0), Len: 4096}, &wire.ReadReply{}), ashlar.NoSession)
	// Another session, on another connection, is served.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a := c.address(&g, 5, 0)
	a.Session = 8
	if err := other.Call(ctx, g.Members[0].Addr, &wire.Read{Address: a, Len: 4096}, &wire.ReadReply{}); err != nil {
		t.Fatal(err)
	}
	// And nobody may speak for a session whose ticket he did not show.
	a.Session = 9
	wantKind(t, other.Call(ctx, g.Members[0].Addr, &wire.Read{Address: a, Len: 4096}, &wire.ReadReply{}), ashlar.Auth)
}

// I-10
func TestACutRaisesTheGenerationEverywhere(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	for i := range uint32(3) {
		c.mustWrite(1, 5, i, 0, pattern(64<<10, byte(i)))
	}
	g := c.groupNow(1)
	cut := &wire.Cut{
		Group: 1, Epoch: g.Epoch, Layer: 5, Gen: 2, Truncate: true, From: 2,
		Cuts: []wire.ChunkCut{{Chunk: 1, Len: 5000}}, Term: 1,
	}
	for range 2 { // it may be repeated
		if err := c.fromLeader(1, cut); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 0, 0, pattern(4096, 2), c.nextSeq()), nil), ashlar.WrongGeneration)
	a := c.address(&g, 5, 1)
	wantKind(t, c.once(1, &wire.Read{Address: a, Len: 4096}, &wire.ReadReply{}), ashlar.WrongGeneration)
	for range 2 { // then from the other member
		g := c.groupNow(1)
		a := c.address(&g, 5, 1)
		a.Gen = 2
		var rep wire.ReadReply
		err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
			a.Epoch = g.Epoch
			return c.client.Call(ctx, addr, &wire.Read{Address: a, Len: 8192}, &rep)
		})
		if err != nil {
			t.Fatal(err)
		}
		want := pattern(64<<10, 1)[:8192]
		clear(want[5000:])
		if string(rep.Data) != string(want) {
			t.Fatal("the chunk is not cut to 5000 bytes")
		}
		for _, n := range c.nodes {
			if n := n.cs.disks[0].store.Chunks(); n != 2 {
				t.Fatalf("%d chunks, want 2", n)
			}
		}
		c.change(1, func(g *ashlar.Group) { g.Members[0], g.Members[1] = g.Members[1], g.Members[0] })
	}
	// A cut that comes late, once it is done, spares what was written since.
	g = c.groupNow(1)
	w := c.makeWrite(&g, 5, 2, 0, pattern(4096, 3), c.nextSeq())
	w.Gen = 2
	if err := c.once(1, w, nil); err != nil {
		t.Fatal(err)
	}
	cut.Epoch = g.Epoch
	if err := c.fromLeader(1, cut); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if n := n.cs.disks[0].store.Chunks(); n != 3 {
			t.Fatalf("%d chunks after a late cut, want 3", n)
		}
	}
	g = c.groupNow(1)
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		return c.nodes[0].cli.Call(ctx, addr, &wire.DeleteLayers{Group: 1, Epoch: g.Epoch, Layers: []ashlar.LayerID{5}, Term: 1}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if n := n.cs.disks[0].store.Chunks(); n != 0 {
			t.Fatalf("%d chunks after the layer was deleted", n)
		}
	}
}

func TestAPrimaryYieldsAndResumes(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1))
	g := c.groupNow(1)
	if err := c.fromLeader(1, &wire.Yield{Group: 1, Epoch: g.Epoch, Term: 1}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 0, 0, pattern(4096, 2), 50), nil), ashlar.NotReady)
	if err := c.fromLeader(1, &wire.Yield{Group: 1, Epoch: g.Epoch, Resume: true, Term: 1}); err != nil {
		t.Fatal(err)
	}
	c.mustWrite(1, 5, 0, 0, pattern(4096, 3))
	c.mustRead(1, 5, 0, 0, pattern(4096, 3))
}

// I-6
func TestWithoutALeaseNothingIsAnswered(t *testing.T) {
	c := newTestbed(t, 1)
	c.makeGroup(1, 0)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1))
	g := c.groupNow(1)
	c.nodes[0].cs.life.Load().lease.until.Store(0)
	c.leader.mu.Lock()
	c.leader.deaf["n1"] = true
	c.leader.mu.Unlock()
	c.eventually("lease over", func() bool {
		c.nodes[0].cs.life.Load().lease.until.Store(0) // a renewal may have been on its way
		err := c.once(1, &wire.Read{Address: c.address(&g, 5, 0), Len: 4096}, &wire.ReadReply{})
		return ashlar.KindOf(err) == ashlar.NoLease
	})
	c.leader.mu.Lock()
	c.leader.deaf["n1"] = false
	c.leader.mu.Unlock()
	c.mustRead(1, 5, 0, 0, pattern(4096, 1))
}

func TestALostSessionIsFollowedByANewIncarnation(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	before := c.nodes[1].cs.life.Load().inc
	c.leader.mu.Lock()
	c.leader.byName["n2"].session = 1 // the masters forget it
	c.leader.mu.Unlock()
	c.eventually("registered again", func() bool {
		l := c.nodes[1].cs.life.Load()
		return l != nil && l.inc != before
	})
	c.eventually("in-sync again", func() bool { return c.inSync(1) == 2 })
	c.mustWrite(1, 5, 0, 0, pattern(4096, 2))
}

func TestAGroupThatIsNotListedIsDeleted(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.makeGroup(2, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1))
	c.mustWrite(2, 6, 0, 0, pattern(4096, 2))
	c.leader.mu.Lock()
	delete(c.leader.groups, 1)
	c.leader.bump()
	c.leader.mu.Unlock()
	c.eventually("data deleted", func() bool {
		for _, n := range c.nodes {
			if n.cs.disks[0].store.Chunks() != 1 {
				return false
			}
		}
		return true
	})
	c.mustRead(2, 6, 0, 0, pattern(4096, 2))
}
