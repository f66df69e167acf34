package chunkserver

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// tear breaks blocks of [lo, hi) of a chunk behind a node's back, data and
// records, as a power loss in the middle of writing does.
func (n *node) tear(rng *rand.Rand, layer uint64, chunk uint32, lo, hi int64) {
	name := fmt.Sprintf("disk/chunks/%08x/%02X/%016x.%08x", 1, byte(layer>>8), layer, chunk)
	f, err := n.fs.Open(name)
	if err != nil {
		return // gone as a whole
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		n.c.tb.Fatal(err)
	}
	junk := make([]byte, 512)
	for i := range junk {
		junk[i] = byte(rng.Uint32())
	}
	for _, at := range []int64{64<<10 + lo + 512*rng.Int64N((hi-lo)/512), 1152} { // a sector of data, the record of region 0
		if at+512 <= size && (at != 1152 || rng.IntN(2) == 0) {
			if _, err := f.WriteAt(junk[:128], at); err != nil {
				n.c.tb.Fatal(err)
			}
		}
	}
}

// Power fails on one member or on all while unsynced writes are under way, and
// chunks are torn. What was synced is there; a block is as before or as after;
// members are equal before anything is served (I-8, I-5).
func TestTornChunksAreReconciledBeforeTheyAreServed(t *testing.T) {
	for seed := range uint64(8) {
		all := seed%2 == 0
		t.Run(fmt.Sprintf("seed %d, all members %v", seed, all), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			c := newTestbed(t, 3)
			c.makeGroup(1, 0, 1, 2)
			const chunks = 6
			for i := range uint32(chunks) {
				c.mustWrite(1, 5, i, 0, pattern(64<<10, byte(i)))
			}
			g := c.groupNow(1)
			if err := c.once(1, &wire.Sync{Address: c.address(&g, 5, 0)}, nil); err != nil {
				t.Fatal(err)
			}
			for i := range uint32(chunks) {
				c.mustWrite(1, 5, i, 4096, pattern(8192, byte(100+i)))
			}
			lost := 1
			if all {
				lost = len(c.nodes)
			}
			for i, n := range c.nodes[:lost] {
				n.kill()
				n.fs, n.boot = n.fs.CrashClone(rng), "boot 2"
				// Others may be torn by what the clone kept. If all lost power this
				// one may be served alone: what was synced is not torn then.
				lo, hi := int64(0), int64(64<<10)
				if all {
					lo, hi = 4096, 12288
				}
				for k := range uint32(chunks) {
					if i == 0 {
						n.tear(rng, 5, k, lo, hi)
					}
				}
				if !all {
					c.dead(i)
				}
			}
			for _, n := range c.nodes[:lost] {
				n.start()
			}
			c.served(t, chunks, all)
			c.eventually("in-sync again", func() bool { return c.inSync(1) == 3 })
			if d, _ := c.scrub(t); d != 0 {
				t.Errorf("%d blocks differ after recovery", d)
			}
			c.equalMembers(t, chunks)
		})
	}
}

// One member stops in order, with all writes on its disk; then the other loses
// power and with it what was not synced there. Whatever of that is served is
// what both have in the end, although nothing was written since they were equal.
func TestWhatTheLastMemberLostGoesFromTheOthersToo(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	const chunks = 3
	for i := range uint32(chunks) {
		c.mustWrite(1, 5, i, 0, pattern(64<<10, byte(i)))
	}
	g := c.groupNow(1)
	if err := c.once(1, &wire.Sync{Address: c.address(&g, 5, 0)}, nil); err != nil {
		t.Fatal(err)
	}
	c.mustWrite(1, 5, 0, 4096, pattern(8192, 100))  // over what is there
	c.mustWrite(1, 5, 1, 128<<10, pattern(4096, 1)) // where nothing is
	c.mustWrite(1, 5, 9, 0, pattern(4096, 2))       // a chunk of its own
	c.nodes[1].stop()
	c.dead(1)
	first := c.nodes[0]
	first.kill()
	first.fs, first.boot = first.fs.CrashClone(nil), "boot 2"
	first.start()
	c.nodes[1].start()
	c.eventually("in-sync again", func() bool { return c.inSync(1) == 2 })
	for i := range uint32(chunks) {
		c.mustRead(1, 5, i, 0, pattern(64<<10, byte(i)))
	}
	if d, _ := c.scrub(t); d != 0 {
		t.Errorf("%d blocks differ after recovery", d)
	}
	c.equalMembers(t, 10)
}

// served reads everything as soon as the group answers. With a member that kept
// its power every acknowledged write is there. Without, a block that was being
// written and is torn on every member is taken as it is, and counted (I-8).
func (c *testbed) served(t *testing.T, chunks uint32, mayForget bool) {
	for i := range chunks {
		got, err := c.read(1, 5, i, 0, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		before := pattern(64<<10, byte(i))
		after := bytes.Clone(before)
		copy(after[4096:], pattern(8192, byte(100+i)))
		for at := 0; at < len(got); at += 4096 {
			b := got[at : at+4096]
			if mayForget && at >= 4096 && at < 12288 && c.accepted() > 0 {
				continue
			}
			if !bytes.Equal(b, after[at:at+4096]) && (!mayForget || !bytes.Equal(b, before[at:at+4096])) {
				t.Errorf("chunk %d, block at %d: neither old nor new", i, at)
			}
		}
	}
}

// accepted counts the blocks that were torn everywhere.
func (c *testbed) accepted() (n uint64) {
	for _, nd := range c.nodes {
		n += nd.cs.disks[0].store.Accepted()
	}
	return n
}

// equalMembers compares what the disks hold once all are in-sync.
func (c *testbed) equalMembers(t *testing.T, chunks uint32) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i := range chunks {
		k := chunkstore.Key{Group: 1, Layer: 5, Index: i}
		_, want, err := c.nodes[0].cs.disks[0].store.Sums(k)
		if err != nil || ctx.Err() != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes[1:] {
			_, got, err := n.cs.disks[0].store.Sums(k)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("chunk %d of %s: %v, sums differ", i, n.name, err)
			}
		}
	}
}
