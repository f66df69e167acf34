package chunkserver

import (
	"context"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A block is rotten on every member. Who changes a part of it is told so, and
// nothing else of the group is touched by it.
func TestAWriteIntoABlockWithoutAGoodCopyFailsAlone(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	c.nodes[0].spoil(3)
	c.nodes[1].spoil(3)
	for _, w := range [][2]uint32{{3*4096 + 100, 50}, {2 * 4096, 4096 + 100}, {3*4096 + 5, 2 * 4096}} {
		g := c.groupNow(1)
		wantKind(t, c.once(1, c.makeWrite(&g, 5, 0, w[0], pattern(int(w[1]), 2), c.nextSeq()), nil), ashlar.Corrupt)
	}
	want := pattern(64<<10, 1)
	c.mustWrite(1, 5, 0, 8192, pattern(4096, 3))   // its neighbour
	c.mustWrite(1, 5, 0, 3*4096, pattern(4096, 4)) // all of it: then it is good again
	copy(want[8192:], pattern(4096, 3))
	copy(want[3*4096:], pattern(4096, 4))
	c.mustRead(1, 5, 0, 0, want)
	if n := c.inSync(1); n != 2 {
		t.Fatalf("%d members in-sync", n)
	}
	c.leader.mu.Lock()
	defer c.leader.mu.Unlock()
	if len(c.leader.failures) > 0 {
		t.Fatalf("a disk was given up: %+v", c.leader.failures)
	}
}

// A member's disk is full. What takes no room is written all the same.
func TestAFullMemberRefusesOnlyWhatTakesRoom(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	t0 := c.nodes[0].cs.life.Load().primary(1)
	t0.setFull() // as a member's refusal does
	g := c.groupNow(1)
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 0, 64<<10, pattern(4096, 2), c.nextSeq()), nil), ashlar.NoSpace)
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 0, 60<<10, pattern(8192, 2), c.nextSeq()), nil), ashlar.NoSpace)
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 1, 0, pattern(4096, 2), c.nextSeq()), nil), ashlar.NoSpace)
	if err := c.once(1, c.makeWrite(&g, 5, 0, 8192, pattern(4096, 2), c.nextSeq()), nil); err != nil {
		t.Fatalf("an overwrite: %v", err)
	}
	zero := c.makeWrite(&g, 5, 0, 0, nil, c.nextSeq())
	zero.Flags, zero.Len, zero.Sums = wire.WriteZero, 4096, nil
	if err := c.once(1, zero, nil); err != nil {
		t.Fatalf("zeros: %v", err)
	}
	c.wantEqual(t)
}

// Small files in large chunks, all of them changed while a member was away: the
// holes of the chunks count for nothing.
func TestTheBudgetOfACatchUpCountsWhatIsSent(t *testing.T) {
	c := newTestbedWith(t, 2, func(n *node) { n.budget = 1 << 20 })
	c.makeGroup(1, 0, 1)
	const chunks = 32 // of 1 MiB: by their size half a minute
	for i := range uint32(chunks) {
		c.mustWrite(1, 5, i, 0, pattern(64<<10, 1))
	}
	c.nodes[1].kill()
	c.dead(1)
	for i := range uint32(chunks) {
		c.mustWrite(1, 5, i, 0, pattern(64<<10, 2))
	}
	c.nodes[1].start()
	c.eventually("in-sync again", func() bool { return c.inSync(1) == 2 })
	c.wantEqual(t)
}

// A write that its client gave up on comes after the layer was deleted: it must
// not make a chunk that nobody ever deletes.
func TestAStrayWriteDoesNotBringADeletedLayerBack(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(8192, 1))
	c.mustWrite(1, 6, 0, 0, pattern(8192, 1))
	g := c.groupNow(1)
	stray := c.makeWrite(&g, 5, 0, 0, pattern(4096, 2), c.nextSeq())
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		return c.nodes[0].cli.Call(ctx, addr, &wire.DeleteLayers{Group: 1, Epoch: g.Epoch, Layers: []ashlar.LayerID{5}, Term: 1}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, c.once(1, stray, nil), ashlar.Stale)
	for _, n := range c.nodes {
		if _, there, err := n.cs.disks[0].store.Info(chunkstore.Key{Group: 1, Layer: 5}); there || err != nil {
			t.Fatalf("the chunk is back: %v", err)
		}
	}
	c.mustWrite(1, 6, 0, 0, pattern(4096, 3))
}
