package chunkserver

import (
	"context"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// toMember makes a request of a member as its primary does.
func (c *testbed) toMember(from, to int, m wire.Message) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.nodes[from].cli.Call(ctx, c.nodes[to].addr, m, nil); err != nil {
		c.tb.Fatal(err)
	}
}

// cutBy makes the masters' request for a cut until it is made.
func (c *testbed) cutBy(node int, cut *wire.Cut) {
	c.tb.Helper()
	err := c.hard(cut.Group, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		m := *cut
		m.Epoch = g.Epoch
		return c.nodes[node].cli.Call(ctx, addr, &m, nil)
	})
	if err != nil {
		c.tb.Fatal(err)
	}
}

func (c *testbed) wantEqual(t *testing.T) {
	t.Helper()
	if d, _ := c.scrub(t); d != 0 {
		t.Fatalf("%d blocks differ between members", d)
	}
}

// The primary has made a cut when the other member dies, which was in-sync in
// that epoch. What it missed is what it has to be sent. I-5, I-10
func TestAMemberThatMissedACutIsSentIt(t *testing.T) {
	for _, retried := range []bool{true, false} { // before it is back
		c := newTestbed(t, 2)
		c.makeGroup(1, 0, 1)
		c.mustWrite(1, 5, 0, 0, pattern(256<<10, 1))
		g := c.groupNow(1)
		cut := wire.Cut{Group: 1, Epoch: g.Epoch, Layer: 5, Gen: 2, Truncate: true, From: 1, Cuts: []wire.ChunkCut{{Chunk: 0, Len: 5000}}, Term: 1}
		part := cut
		part.Disk = g.Members[0].Disk
		c.toMember(1, 0, &part)
		c.nodes[1].kill()
		c.dead(1)
		if retried {
			c.cutBy(0, &cut)
		}
		c.nodes[1].start()
		c.eventually("in-sync", func() bool { return c.inSync(1) == 2 })
		if !retried {
			c.cutBy(0, &cut)
		}
		c.wantEqual(t)
	}
}

// A member has made a cut when its primary is replaced by one that has not;
// until the masters ask again, writes of the older generation go on. I-10
func TestAMemberCutsAgainWhatWasWrittenSince(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(128<<10, 1))
	g := c.groupNow(1)
	cut := wire.Cut{Group: 1, Epoch: g.Epoch, Layer: 5, Gen: 2, Truncate: true, From: 1, Cuts: []wire.ChunkCut{{Chunk: 0, Len: 5000}}, Term: 1}
	part := cut
	part.Disk = g.Members[1].Disk
	c.toMember(0, 1, &part)
	c.change(1, func(*ashlar.Group) {})
	c.mustWrite(1, 5, 0, 64<<10, pattern(4096, 2))
	c.cutBy(0, &cut)
	c.wantEqual(t)
}

// A durable write is applied by one member when its primary dies, and made
// equal on the other. Its retry is answered when it is durable there too.
func TestARetryOfADurableWriteThatTookEffectIsDurableEverywhere(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	c.mustWrite(1, 6, 0, 0, pattern(4096, 1))
	g := c.groupNow(1)
	w := c.makeWrite(&g, 5, 0, 0, pattern(8192, 7), c.nextSeq())
	w.Flags = wire.WriteSync
	c.toMember(0, 1, &wire.Replicate{Disk: g.Members[1].Disk, Op: 2, Write: *w})
	c.nodes[0].kill()
	c.dead(0)
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		again := *w
		again.Epoch = g.Epoch
		again.Flags |= wire.WriteRetry
		return c.client.Call(ctx, addr, &again, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	fs := c.nodes[2].fs.CrashClone(nil) // all that was not synced is gone
	d, err := chunkstore.Open(chunkstore.Config{FS: fs, Dir: "disk", Cluster: testCluster, BootID: "boot 2"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, 8192)
	if _, zero, err := d.Read(chunkstore.Key{Group: 1, Layer: 5}, 0, 8192, got); err != nil || zero || string(got) != string(pattern(8192, 7)) {
		t.Fatalf("not on stable storage: zero %v, %v", zero, err)
	}
}
