package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// A member leaves a group and is taken back, by the primary first. What the
// masters answered in between does not make it delete what it was just sent.
func TestAnOldAnswerDoesNotDeleteAMemberThatWasTakenBack(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(4096, 1))
	l := c.nodes[1].cs.life.Load()
	g := c.groupNow(1)
	d := g.Members[1].Disk
	sent := l.s.clk.Now()
	g.Epoch += 2
	c.toMember(0, 1, &wire.Adopt{Disk: d, Group: g})
	l.dropUnlisted(map[seatKey]bool{}, sent)
	if l.find(d, 1) == nil {
		t.Fatal("the group is being deleted")
	}
	l.dropUnlisted(map[seatKey]bool{}, l.s.clk.Now()+1)
	if l.find(d, 1) != nil {
		t.Fatal("a group that is listed no more is kept")
	}
}
