package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
)

// fill leaves a node's disk no room at all.
func (n *node) fill(t *testing.T) {
	t.Helper()
	u, err := n.fs.Usage("disk")
	if err != nil {
		t.Fatal(err)
	}
	n.fs.SetCapacity(u.Total - u.Free)
}

// A primary's disk is so full that a write which was ordered already can not be
// made there. The primary asks to be replaced, again if nobody hears it, and
// the other member goes on with the write.
func TestAPrimaryWithoutAnyRoomIsReplaced(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	c.nodes[0].fill(t)
	c.leader.mu.Lock()
	c.leader.ignore = true
	c.leader.mu.Unlock()
	data := pattern(64<<10, 2)
	done := make(chan error, 1)
	go func() { done <- c.write(1, 5, 1, 0, data) }()
	reports := func(n int) func() bool {
		return func() bool {
			c.leader.mu.Lock()
			defer c.leader.mu.Unlock()
			return len(c.leader.reports) >= n
		}
	}
	c.eventually("reported", reports(1))
	c.leader.mu.Lock()
	c.leader.ignore = false
	c.leader.mu.Unlock()
	c.eventually("reported again", reports(2))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.mustRead(1, 5, 1, 0, data)
	g := c.groupNow(1)
	if p := g.Primary(); p < 0 || g.Members[p].Addr != c.nodes[1].addr || g.Count(ashlar.InSync) != 1 {
		t.Errorf("%+v", g)
	}
	c.nodes[0].fs.SetCapacity(0) // or it does not stop in order
}

// The last in-sync disk is as full. What was ordered waits for room; what comes
// later and needs room is refused at once, and what needs none is done.
func TestOnTheLastFullDiskAnOrderedWriteWaitsForRoom(t *testing.T) {
	c := newTestbed(t, 1)
	c.makeGroup(1, 0)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	n := c.nodes[0]
	n.fill(t)
	data := pattern(64<<10, 2)
	done := make(chan error, 1)
	go func() { done <- c.write(1, 5, 1, 0, data) }()
	seat := n.cs.life.Load().primary(1)
	c.eventually("found full", func() bool { return n.cs.clk.Now().Before(seat.fullUntil()) })
	g := c.groupNow(1)
	wantKind(t, c.once(1, c.makeWrite(&g, 5, 2, 0, pattern(4096, 3), c.nextSeq()), nil), ashlar.NoSpace)
	c.mustRead(1, 5, 0, 0, pattern(64<<10, 1))
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	n.fs.SetCapacity(0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.mustRead(1, 5, 1, 0, data)
}
