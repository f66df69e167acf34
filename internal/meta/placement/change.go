package placement

import (
	"github.com/ashlarfs/ashlar"
)

// change edits one group: every edit that matters to a member raises the
// epoch, once, and save writes the group.
type change struct {
	g   *Group
	now int64
	hit bool
}

func edit(g *Group, now int64) *change { return &change{g: g, now: now} }

// set moves a seat to a state.
func (c *change) set(i int, s ashlar.MemberState) {
	if c.g.Members[i].State == s {
		return
	}
	c.g.Members[i].State = s
	c.g.Seats[i].Since = c.now
	c.hit = true
}

// add appends a seat.
func (c *change) add(d *Disk, s ashlar.MemberState) {
	c.g.Members = append(c.g.Members, ashlar.Member{Disk: d.ID, Node: d.Node, State: s})
	c.g.Seats = append(c.g.Seats, Seat{Since: c.now})
	c.hit = true
}

// drop removes a seat.
func (c *change) drop(i int) {
	c.g.Members = append(c.g.Members[:i:i], c.g.Members[i+1:]...)
	c.g.Seats = append(c.g.Seats[:i:i], c.g.Seats[i+1:]...)
	c.hit = true
}

// toEnd makes a seat the last one.
func (c *change) toEnd(i int) {
	m, s := c.g.Members[i], c.g.Seats[i]
	c.drop(i)
	c.g.Members = append(c.g.Members, m)
	c.g.Seats = append(c.g.Seats, s)
	c.hit = true
}

// save writes the group if it was changed and tells whether it was. A group
// that lost its last in-sync seat is a broken invariant (I-5).
func (c *change) save(tx Tx) bool {
	if !c.hit {
		return false
	}
	n := c.g.Count(ashlar.InSync)
	if n == 0 {
		panic("placement: group without an in-sync member")
	}
	if n > 1 {
		c.g.LastCopy = false
	}
	c.g.Epoch++
	putGroup(tx, c.g)
	return true
}

// otherInSync tells whether an in-sync seat other than i passes the test.
func otherInSync(g *Group, i int, ok func(m *ashlar.Member) bool) bool {
	for j := range g.Members {
		if j != i && g.Members[j].State == ashlar.InSync && ok(&g.Members[j]) {
			return true
		}
	}
	return false
}

func anyMember(*ashlar.Member) bool { return true }
