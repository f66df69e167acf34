package placement

import (
	"time"

	"github.com/ashlarfs/ashlar"
)

// HoldTime is for how long a copy that is being made holds up others that are
// less urgent: one that does not get on must not stop everything.
const HoldTime = 10 * time.Minute

// urgent is, for each node that now sends or receives a new copy, the fewest
// in-sync members of a group that it does so for. A copy of a group that has
// more is not begun on it meanwhile: danger goes first, whoever the primaries
// are. Each chunkserver orders what has begun by the same rule.
type urgent map[ashlar.NodeID]int

// note adds what is under way in a group.
func (u urgent) note(v *View, g *Group, now int64) {
	p := g.Group.Primary()
	if p < 0 {
		return
	}
	n := g.Count(ashlar.InSync)
	for i := range g.Members {
		m := &g.Members[i]
		if m.State != ashlar.Syncing || !v.Serves(m.Disk) || now-g.Seats[i].Since >= int64(HoldTime) {
			continue
		}
		for _, node := range [...]ashlar.NodeID{g.Members[p].Node, m.Node} {
			if least, ok := u[node]; !ok || n < least {
				u[node] = n
			}
		}
	}
}

// holds tells whether a new copy of a group on a disk has to wait.
func (u urgent) holds(g *Group, to *Disk) bool {
	n := g.Count(ashlar.InSync)
	for _, node := range [...]ashlar.NodeID{g.Members[g.Group.Primary()].Node, to.Node} {
		if least, ok := u[node]; ok && least < n {
			return true
		}
	}
	return false
}
