package chunkserver

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	heldChunks = 4
	heldBytes  = 256 << 10 // of each chunk
	heldBlock  = 100       // of the last chunk: nobody has a good copy of it
)

// state puts a member of a group into a state, under a new epoch.
func (c *testbed) state(g ashlar.PGID, node int, s ashlar.MemberState) {
	d := c.nodes[node].cs.disks[0].number()
	c.change(g, func(g *ashlar.Group) { g.Members[g.Index(d)].State = s })
}

// first makes a member the first one, under a new epoch, so that it is primary
// if it is in-sync.
func (c *testbed) first(g ashlar.PGID, node int) {
	d := c.nodes[node].cs.disks[0].number()
	c.change(g, func(g *ashlar.Group) {
		i := g.Index(d)
		g.Members[0], g.Members[i] = g.Members[i], g.Members[0]
	})
}

// held makes a group of nodes 0 to n-1 of which the last is being filled and
// has everything but a block that no other has: there its catch-up is stuck.
func held(t *testing.T, n int) *testbed {
	t.Helper()
	return heldTuned(t, n, func(*node) {}, func(*testbed) {})
}

// heldTuned changes nodes before they start, and writes something more.
func heldTuned(t *testing.T, n int, tune func(*node), more func(*testbed)) *testbed {
	t.Helper()
	c := newTestbedWith(t, n, tune)
	var members []int
	for i := range n {
		members = append(members, i)
	}
	c.makeGroup(1, members...)
	c.state(1, n-1, ashlar.Offline)
	more(c)
	for i := range uint32(heldChunks) {
		c.mustWrite(1, 5, i, 0, pattern(heldBytes, byte(i+1)))
	}
	c.mustWrite(1, 5, heldChunks-1, heldBlock*4096, pattern(4096, 7))
	for i := range n - 1 {
		c.nodes[i].spoil(heldBlock)
	}
	c.state(1, n-1, ashlar.Syncing)
	c.stuck(0, 2)
	return c
}

// stuck waits until the primary has tried a number of times more.
func (c *testbed) stuck(primary int, tries uint64) {
	c.tb.Helper()
	l, err := c.nodes[primary].cs.current()
	if err != nil {
		c.tb.Fatal(err)
	}
	defer l.leave()
	was := l.passes.Load()
	c.eventually("it is tried, and stuck", func() bool { return l.passes.Load() >= was+tries })
}

// freed lets the catch-up end, and has the member answer alone.
func (c *testbed) freed(member, members int) {
	c.tb.Helper()
	c.mustWrite(1, 5, heldChunks-1, heldBlock*4096, pattern(4096, 7)) // all of the block: it is whole
	c.eventually("in-sync", func() bool { return c.inSync(1) == members })
	c.first(1, member)
}

// fails has a primary believe that a member did not answer.
func (c *testbed) fails(primary, member int) {
	l, err := c.nodes[primary].cs.current()
	if err != nil {
		c.tb.Fatal(err)
	}
	defer l.leave()
	for _, t := range l.all() {
		t.failed(c.nodes[member].cs.disks[0].number(), t.epoch(), ashlar.Timeout)
	}
}

func (c *testbed) sent(node int) uint64 { return c.nodes[node].cs.synced.Load() }

// What was received in an earlier epoch is not sent again; what changed while
// the member was not attached is.
func TestACatchUpGoesOnInTheNextEpoch(t *testing.T) {
	c := held(t, 2)
	c.state(1, 1, ashlar.Offline)
	c.mustWrite(1, 5, 0, 4096, pattern(4096, 50))
	c.mustWrite(1, 5, 1, 128<<10, pattern(4096, 51))
	was := c.sent(0)
	c.state(1, 1, ashlar.Syncing)
	c.stuck(0, 2)
	if n := c.sent(0) - was; n == 0 || n > 2*64<<10 {
		t.Errorf("%d bytes were sent in the next epoch, for two regions", n)
	}
	c.freed(1, 2)
	want := pattern(heldBytes, 1)
	copy(want[4096:], pattern(4096, 50))
	c.mustRead(1, 5, 0, 0, want)
	want = pattern(heldBytes, 2)
	copy(want[128<<10:], pattern(4096, 51))
	c.mustRead(1, 5, 1, 0, want)
	c.mustRead(1, 5, 2, 0, pattern(heldBytes, 3))
	c.mustRead(1, 5, 3, 0, pattern(heldBytes, 4))
}

func TestACatchUpGoesOnUnderTheNextPrimary(t *testing.T) {
	c := held(t, 3)
	c.first(1, 1)
	c.mustWrite(1, 5, 2, 64<<10, pattern(4096, 60))
	c.stuck(1, 2)
	if n := c.sent(1); n > 64<<10 {
		t.Errorf("the next primary sent %d bytes, for one region", n)
	}
	c.freed(2, 3)
	want := pattern(heldBytes, 3)
	copy(want[64<<10:], pattern(4096, 60))
	c.mustRead(1, 5, 2, 0, want)
	c.mustRead(1, 5, 0, 0, pattern(heldBytes, 1))
}

// A member that does not answer is left out and taken in again within one
// epoch, the one of the mark: what it missed is sent.
func TestWhatAMemberMissedWithinAnEpochIsSent(t *testing.T) {
	out := new(relay)
	c := heldTuned(t, 2, func(n *node) {
		if n.name == "n1" {
			n.out = out
		}
	}, func(*testbed) {})
	epoch := c.groupNow(1).Epoch
	out.hold()
	want := pattern(4096, 80)
	c.mustWrite(1, 5, 1, 64<<10, want) // it ends without the member
	out.lose()
	c.stuck(0, 2)
	c.mustWrite(1, 5, heldChunks-1, heldBlock*4096, pattern(4096, 7))
	c.eventually("in-sync", func() bool { return c.inSync(1) == 2 })
	if e := c.groupNow(1).Epoch; e != epoch+1 {
		t.Fatalf("epoch %d became %d: something else was tested", epoch, e)
	}
	c.first(1, 1)
	c.mustRead(1, 5, 1, 64<<10, want)
}

// A file that is deleted and one that is emptied and written anew between two
// epochs are as the primary has them; so are they in the epoch after. I-10
func TestWhatWasDeletedOrCutBetweenTwoEpochsIsNotKept(t *testing.T) {
	c := heldTuned(t, 2, func(*node) {}, func(c *testbed) {
		for i := range uint32(2) {
			c.mustWrite(1, 3, i, 0, pattern(heldBytes, 70))
			c.mustWrite(1, 4, i, 0, pattern(heldBytes, 71))
		}
	})
	c.state(1, 1, ashlar.Offline)
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		return c.nodes[0].cli.Call(ctx, addr, &wire.DeleteLayers{Group: 1, Epoch: g.Epoch, Layers: []ashlar.LayerID{3}, Term: 1}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.cutBy(0, &wire.Cut{Group: 1, Layer: 4, Gen: 2, Truncate: true, From: 1, Cuts: []wire.ChunkCut{{Chunk: 0, Len: 5000}}, Term: 1})
	err = c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		w := c.makeWrite(g, 4, 1, 64<<10, pattern(4096, 72), c.nextSeq())
		w.Gen = 2
		return c.client.Call(ctx, addr, w, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	was := c.sent(0)
	c.state(1, 1, ashlar.Syncing)
	c.stuck(0, 2)
	whole := c.sent(0) - was
	c.state(1, 1, ashlar.Offline)
	c.state(1, 1, ashlar.Syncing)
	was = c.sent(0)
	c.stuck(0, 2)
	if n := c.sent(0) - was; whole == 0 || n > whole {
		t.Errorf("%d bytes were sent for the cut, and then %d more", whole, n)
	}
	c.mustWrite(1, 5, heldChunks-1, heldBlock*4096, pattern(4096, 7))
	c.eventually("in-sync", func() bool { return c.inSync(1) == 2 })
	c.wantEqual(t)
	if n := c.nodes[1].cs.disks[0].store.Chunks(); n != heldChunks+2 {
		t.Errorf("the member has %d chunks", n)
	}
}

// A member that was restarted, or dropped and taken back, has no mark: what it
// holds is what its disk says.
func TestAMemberThatWasDroppedGetsEverythingAgain(t *testing.T) {
	c := held(t, 2)
	d := c.nodes[1].cs.disks[0].number()
	c.change(1, func(g *ashlar.Group) { g.Members = g.Members[:1] })
	c.eventually("its chunks are gone", func() bool { return c.nodes[1].cs.disks[0].store.Chunks() == 0 })
	was := c.sent(0)
	c.change(1, func(g *ashlar.Group) {
		g.Members = append(g.Members, ashlar.Member{Disk: d, State: ashlar.Syncing})
	})
	c.stuck(0, 2)
	if n := c.sent(0) - was; n < heldChunks*heldBytes-64<<10 {
		t.Errorf("only %d bytes were sent to a member that had nothing", n)
	}
	c.freed(1, 2)
	for i := range uint32(heldChunks) {
		c.mustRead(1, 5, i, 0, pattern(heldBytes, byte(i+1)))
	}
}

// Whatever comes between - other epochs, another primary, writes that the
// member gets and writes that it misses - it ends up with what was written.
func TestAMemberFilledAcrossManyEpochsHoldsWhatWasWritten(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	c := held(t, 3)
	var want [heldChunks][]byte
	for i := range want {
		want[i] = pattern(heldBytes, byte(i+1))
	}
	primary := 0
	for range 25 {
		switch rng.IntN(6) {
		case 0:
			c.state(1, 2, ashlar.Offline)
		case 1:
			c.state(1, 2, ashlar.Syncing)
		case 2:
			primary = 1 - primary
			c.first(1, primary)
		case 3:
			c.change(1, func(*ashlar.Group) {})
		case 4: // it is believed not to answer
			c.fails(primary, 2)
		case 5:
			if g := c.groupNow(1); g.Members[g.Index(c.nodes[2].cs.disks[0].number())].State == ashlar.Syncing {
				c.stuck(primary, 1+rng.Uint64N(2))
			}
		}
		for range rng.IntN(4) {
			i, off, b := rng.IntN(heldChunks), rng.IntN(heldBytes/512)*512, pattern(512*(1+rng.IntN(9)), byte(rng.Uint32()))
			b = b[:min(len(b), heldBytes-off)]
			copy(want[i][off:], b)
			c.mustWrite(1, 5, uint32(i), uint32(off), b)
		}
	}
	c.state(1, 2, ashlar.Syncing)
	c.freed(2, 3)
	for i := range want {
		if got, err := c.read(1, 5, uint32(i), 0, heldBytes); err != nil || !slices.Equal(got, want[i]) {
			t.Errorf("chunk %d is not what was written (%v)", i, err)
		}
	}
}
