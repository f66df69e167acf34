package chunkserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// dead is the masters' decision that a node is dead.
func (c *testbed) dead(i int) {
	c.leader.mu.Lock()
	defer c.leader.mu.Unlock()
	for _, d := range c.leader.byName[c.nodes[i].name].disks {
		for _, g := range c.leader.groups {
			c.leader.out(g, d, ashlar.Offline)
		}
	}
	c.leader.bump()
}

// chunkFiles lists the chunk files of a disk.
func chunkFiles(t testing.TB, fs vfs.FS, dir string) (out []string) {
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		p := path.Join(dir, n)
		info, err := fs.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			out = append(out, chunkFiles(t, fs, p)...)
		} else {
			out = append(out, p)
		}
	}
	return out
}

// spoil flips bits in the data of every chunk of a node.
func (n *node) spoil(blocks ...int64) {
	for _, p := range chunkFiles(n.c.tb, n.fs, "disk/chunks") {
		f, err := n.fs.Open(p)
		if err != nil {
			n.c.tb.Fatal(err)
		}
		size, _ := f.Size()
		const dataOff = 64 << 10 // of a chunk of 1 MiB
		for _, b := range blocks {
			if at := dataOff + b*4096 + 17; at < size {
				if _, err := f.WriteAt([]byte{0xee, 0xee}, at); err != nil {
					n.c.tb.Fatal(err)
				}
			}
		}
		_ = f.Close()
	}
}

func TestADamagedBlockIsAnsweredFromAnotherMemberAndMended(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	c.nodes[0].spoil(3, 9)
	c.mustRead(1, 5, 0, 0, pattern(64<<10, 1))
	if n := c.nodes[0].cs.disks[0].repaired.Load(); n != 2 {
		t.Fatalf("%d blocks repaired, want 2", n)
	}
	c.nodes[1].kill()
	c.dead(1)
	c.mustRead(1, 5, 0, 0, pattern(64<<10, 1))
}

func TestAWriteIntoADamagedBlockMendsIt(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	for i := range 2 {
		c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
		c.nodes[i].spoil(0)
		c.mustWrite(1, 5, 0, 100, pattern(50, 2)) // a part of the block
		want := pattern(64<<10, 1)
		copy(want[100:], pattern(50, 2))
		c.mustRead(1, 5, 0, 0, want)
	}
	if c.inSync(1) != 2 {
		t.Fatal("a member was thrown out")
	}
}

func (c *testbed) scrub(t *testing.T) (damaged, repaired uint64) {
	for _, n := range c.nodes {
		var rep wire.ScrubReply
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := c.nodes[0].cli.Call(ctx, n.addr, &wire.Scrub{Start: true}, &rep); err != nil {
			t.Fatal(err)
		}
		cancel()
		c.eventually("scrub done", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := c.nodes[0].cli.Call(ctx, n.addr, &wire.Scrub{}, &rep); err != nil {
				t.Fatal(err)
			}
			return !rep.Running
		})
		damaged, repaired = damaged+rep.Damaged, repaired+rep.Repaired
	}
	return damaged, repaired
}

func TestScrubFindsAndRepairsDamageOnAnyMember(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	c.makeGroup(2, 1, 2, 0)
	for g := range ashlar.PGID(2) {
		for i := range uint32(4) {
			c.mustWrite(g+1, 5, i, 0, pattern(64<<10, byte(i)))
		}
	}
	if d, _ := c.scrub(t); d != 0 {
		t.Fatalf("%d blocks damaged in a sound cluster", d)
	}
	c.nodes[0].spoil(1)
	c.nodes[2].spoil(2)
	if d, r := c.scrub(t); d != 16 || r != 16 {
		t.Fatalf("%d blocks damaged and %d repaired, want 16", d, r)
	}
	for _, n := range c.nodes { // what is mended is no reason to call a disk damaged
		for _, d := range n.cs.disks {
			if i := d.info(); i.Damaged != i.Repaired {
				t.Errorf("%s: %d damaged, %d repaired", n.name, i.Damaged, i.Repaired)
			}
		}
	}
	if d, _ := c.scrub(t); d != 0 {
		t.Fatalf("%d blocks damaged after the repair", d)
	}
}

func TestSyncedDataSurvivesThatEveryMachineLosesPower(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	for i := range uint32(8) {
		c.mustWrite(1, 5, i, 0, pattern(64<<10, byte(i)))
	}
	g := c.groupNow(1)
	if err := c.once(1, &wire.Sync{Address: c.address(&g, 5, 0)}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(8) { // not synced: old or new, block by block
		c.mustWrite(1, 5, i, 4096, pattern(8192, byte(100+i)))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range c.nodes {
		n.kill() // syncs nothing
		n.fs, n.boot = n.fs.CrashClone(rng), "boot 2"
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.eventually("in-sync again", func() bool { return c.inSync(1) == 2 })
	for i := range uint32(8) {
		got, err := c.read(1, 5, i, 0, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		before := pattern(64<<10, byte(i))
		if string(got[:4096]) != string(before[:4096]) || string(got[12288:]) != string(before[12288:]) {
			t.Fatalf("chunk %d lost what was synced", i)
		}
	}
	if d, _ := c.scrub(t); d != 0 {
		t.Fatalf("%d blocks differ after recovery", d)
	}
}

func TestEveryProcessKilledLosesNothing(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	for i := range uint32(8) {
		c.mustWrite(1, 5, i, 0, pattern(32<<10, byte(i)))
	}
	for _, n := range c.nodes {
		n.kill()
	}
	for _, i := range []int{2, 0, 1} {
		c.nodes[i].start()
	}
	c.eventually("in-sync again", func() bool { return c.inSync(1) == 3 })
	for i := range uint32(8) {
		c.mustRead(1, 5, i, 0, pattern(32<<10, byte(i)))
	}
	if d, _ := c.scrub(t); d != 0 {
		t.Fatalf("%d blocks differ", d)
	}
}

func TestANewMemberGetsEverything(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1)
	for i := range uint32(5) {
		c.mustWrite(1, 5, i, 0, pattern(128<<10, byte(i)))
	}
	c.change(1, func(g *ashlar.Group) {
		g.Members = append(g.Members, ashlar.Member{Disk: c.leader.byName["n3"].disks[0], State: ashlar.Syncing})
	})
	for i := range uint32(5) {
		c.mustWrite(1, 5, i, 60<<10, pattern(8192, byte(50+i)))
	}
	c.eventually("in-sync", func() bool { return c.inSync(1) == 3 })
	for range 2 {
		for i := range uint32(5) {
			want := pattern(128<<10, byte(i))
			copy(want[60<<10:], pattern(8192, byte(50+i)))
			c.mustRead(1, 5, i, 0, want)
		}
		c.change(1, func(g *ashlar.Group) { g.Members[0], g.Members[2] = g.Members[2], g.Members[0] })
	}
}

func TestDeletedChunksGoFromAMemberThatWasAway(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	for l := range ashlar.LayerID(3) {
		c.mustWrite(1, 5+l, 0, 0, pattern(128<<10, byte(l)))
	}
	c.nodes[1].kill()
	c.dead(1)
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		return c.nodes[0].cli.Call(ctx, addr, &wire.DeleteLayers{Group: 1, Epoch: g.Epoch, Layers: []ashlar.LayerID{6, 7}, Term: 1}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.change(1, func(*ashlar.Group) {})            // in its epoch the primary remembers the deletion
	c.mustWrite(1, 7, 0, 64<<10, pattern(4096, 9)) // made anew: what was before it must not come back
	c.nodes[1].start()
	c.eventually("in-sync", func() bool { return c.inSync(1) == 2 })
	if n := c.nodes[1].cs.disks[0].store.Chunks(); n != 2 {
		t.Fatalf("%d chunks, want 2", n)
	}
	c.nodes[0].kill()
	c.dead(0)
	want := make([]byte, 128<<10)
	copy(want[64<<10:], pattern(4096, 9))
	c.mustRead(1, 7, 0, 0, want)
}

// TestRandomKillsLoseNothing writes from several sessions at once while nodes
// are killed and started, one at a time, and then compares every block.
func TestRandomKillsLoseNothing(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	c.makeGroup(2, 1, 2, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	last := make([][]byte, 8)
	logs := make([][]string, 8)
	for w := range last {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			shadow := make([]byte, 256<<10)
			last[w] = shadow
			for n := byte(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				off := rng.IntN(len(shadow) - 20000)
				data := pattern(1+rng.IntN(20000), n^byte(w))
				if err := c.write(ashlar.PGID(1+w%2), ashlar.LayerID(10+w), 0, uint32(off), data); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				copy(shadow[off:], data)
				g := c.groupNow(ashlar.PGID(1 + w%2))
				logs[w] = append(logs[w], fmt.Sprintf("%d+%d e%d", off, len(data), g.Epoch))
			}
		})
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 6 {
		i := rng.IntN(3)
		<-time.After(time.Duration(rng.IntN(60)) * time.Millisecond)
		c.nodes[i].kill()
		c.dead(i)
		<-time.After(time.Duration(rng.IntN(60)) * time.Millisecond)
		c.nodes[i].start()
		c.eventually(fmt.Sprintf("in-sync after node %d", i), func() bool { return c.inSync(1) == 3 && c.inSync(2) == 3 })
	}
	close(stop)
	wg.Wait()
	for w, shadow := range last {
		id, layer := ashlar.PGID(1+w%2), ashlar.LayerID(10+w)
		got, err := c.read(id, layer, 0, 0, uint32(len(shadow)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i] != shadow[i] {
				c.explain()
				t.Errorf("writer %d: group %d differs from byte %d on: got %x want %x; its writes: %v", w, id, i, got[i:i+8], shadow[i:i+8], logs[w])
				break
			}
		}
	}
	if d, _ := c.scrub(t); d != 0 {
		t.Fatalf("%d blocks differ between members", d)
	}
}
