package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
)

func TestACatchUpThatFailedGoesOnWhereItWas(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.nodes[1].kill()
	c.dead(1)
	const n = 256 << 10
	for i := range uint32(4) {
		c.mustWrite(1, 5, i, 0, pattern(n, byte(i+1)))
	}
	const block = 100 // of the last chunk, and of no other
	want := pattern(4096, 7)
	c.mustWrite(1, 5, 3, block*4096, want)
	c.nodes[0].spoil(block) // nobody has a good copy: the copying fails there
	c.nodes[1].start()
	first := c.nodes[0].cs
	l, err := first.current()
	if err != nil {
		t.Fatal(err)
	}
	defer l.leave()
	c.eventually("it was tried five times", func() bool { return l.passes.Load() >= 5 })
	if got := first.synced.Load(); got > 4*n+64<<10 {
		t.Fatalf("%d bytes were sent for %d: it starts over", got, 4*n)
	}
	c.mustWrite(1, 5, 3, block*4096, want) // all of the block: it is whole again
	c.eventually("in-sync", func() bool { return c.inSync(1) == 2 })
	if got := first.synced.Load(); got > 5*n+128<<10 {
		t.Errorf("%d bytes were sent in all for %d", got, 4*n+4096)
	}
	c.change(1, func(g *ashlar.Group) { g.Members[0], g.Members[1] = g.Members[1], g.Members[0] })
	for i := range uint32(4) {
		c.mustRead(1, 5, i, 0, pattern(n, byte(i+1)))
	}
	c.mustRead(1, 5, 3, block*4096, want)
}
