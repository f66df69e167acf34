package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	c.mustRead(1, 5, 0, 0, pattern(64<<10, 1))
	c.mustWrite(1, 5, 0, 100, pattern(5000, 2)) // not aligned
	want := pattern(64<<10, 1)
	copy(want[100:], pattern(5000, 2))
	c.mustRead(1, 5, 0, 0, want)
	c.mustRead(1, 5, 3, 0, make([]byte, 8192)) // a hole
	if n := c.inSync(1); n != 3 {
		t.Fatalf("%d members in-sync, want 3", n)
	}
}

func TestWritesGoOnWhenAMemberDiesAndItCatchesUp(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	c.mustWrite(1, 5, 0, 0, pattern(256<<10, 1))
	c.nodes[2].kill()
	c.mustWrite(1, 5, 0, 8192, pattern(4096, 2))
	if n := c.inSync(1); n != 2 {
		t.Fatalf("%d members in-sync, want 2", n)
	}
	c.nodes[2].start()
	c.eventually("all in-sync again", func() bool { return c.inSync(1) == 3 })
	want := pattern(256<<10, 1)
	copy(want[8192:], pattern(4096, 2))
	c.mustRead(1, 5, 0, 0, want)
	// Only what changed was sent: one region.
	if n := c.nodes[0].cs.synced.Load(); n == 0 || n > ashlar.RegionSize {
		t.Fatalf("%d bytes sent to catch up, want one region", n)
	}
	// The one that caught up serves the same when it is alone.
	c.nodes[0].kill()
	c.nodes[1].kill()
	c.change(1, func(g *ashlar.Group) { g.Members[0].State = ashlar.Offline; g.Members[1].State = ashlar.Offline })
	c.mustRead(1, 5, 0, 0, want)
}

func TestANewPrimaryServesWhatWasAcknowledged(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	for i := range uint32(16) {
		c.mustWrite(1, 5, i, 0, pattern(4096, byte(i)))
	}
	c.nodes[0].kill()
	c.change(1, func(g *ashlar.Group) { g.Members[0].State = ashlar.Offline })
	for i := range uint32(16) {
		c.mustRead(1, 5, i, 0, pattern(4096, byte(i)))
	}
	c.mustWrite(1, 5, 3, 0, pattern(4096, 99))
	c.nodes[0].start()
	c.eventually("all in-sync again", func() bool { return c.inSync(1) == 3 })
	c.mustRead(1, 5, 3, 0, pattern(4096, 99))
}
