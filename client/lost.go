package client

import (
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Loss is what would happen if some nodes or disks died now.
type Loss struct {
	// Unavailable groups would stop: no copy of theirs could be reached.
	Unavailable []uint32 `json:"unavailable"`
	// Gone groups would have lost every copy that holds all that was
	// acknowledged; they are among the unavailable.
	Gone []uint32 `json:"gone"`
	// OneCopy groups would go on with one copy, Fewer ones with fewer than
	// their pool asks for, but more than one.
	OneCopy []uint32 `json:"one_copy"`
	Fewer   []uint32 `json:"fewer"`
	Whole   int      `json:"whole"` // groups that would not notice
	// Masters says how many of how many voters would be left.
	MastersLeft int  `json:"masters_left"`
	Masters     int  `json:"masters"`
	Quorum      bool `json:"quorum"` // they would be a majority
}

// IfLost tells what would happen if the nodes of these names and the disks of
// these numbers died now, of the groups that pick chooses, all if nil. It
// changes nothing. An unknown name is an error of kind NotExist.
func IfLost(st *wire.Status, nodes []string, disks []uint32, pick func(uint32) bool) (*Loss, error) {
	known := map[string]bool{}
	for _, n := range st.Nodes {
		known[n.Name] = true
	}
	for _, m := range st.Masters {
		known[m.Name] = true
	}
	for _, n := range nodes {
		if !known[n] {
			return nil, ashlar.E("node", ashlar.NotExist, n, nil)
		}
	}
	for _, d := range disks {
		if !slices.ContainsFunc(st.Disks, func(x wire.DiskStatus) bool { return x.ID == d }) {
			return nil, ashlar.E("disk", ashlar.NotExist, fmt.Sprint(d), nil)
		}
	}
	l := &Loss{Unavailable: []uint32{}, Gone: []uint32{}, OneCopy: []uint32{}, Fewer: []uint32{}}
	want := map[string]int{}
	for _, p := range st.Pools {
		want[p.Name] = p.Replicas
	}
	for _, g := range st.Groups {
		if pick != nil && !pick(g.ID) {
			continue
		}
		l.group(&g, want[g.Pool], func(m *wire.MemberStatus) bool {
			return slices.Contains(nodes, m.Node) || slices.Contains(disks, m.Disk)
		})
	}
	for _, m := range st.Masters {
		if m.Learner {
			continue
		}
		l.Masters++
		if m.Alive && !slices.Contains(nodes, m.Name) {
			l.MastersLeft++
		}
	}
	l.Quorum = l.MastersLeft > l.Masters/2
	return l, nil
}

func (l *Loss) group(g *wire.GroupStatus, want int, lost func(*wire.MemberStatus) bool) {
	serving, holding, hit := 0, 0, false
	for i := range g.Members {
		m := &g.Members[i]
		gone := lost(m)
		hit = hit || gone
		if gone || m.State != ashlar.InSync.String() {
			continue
		}
		holding++
		if m.Alive {
			serving++
		}
	}
	switch {
	case holding == 0:
		l.Gone = append(l.Gone, g.ID)
		l.Unavailable = append(l.Unavailable, g.ID)
	case serving == 0:
		l.Unavailable = append(l.Unavailable, g.ID)
	case !hit && serving >= want:
		l.Whole++
	case serving == 1 && want > 1:
		l.OneCopy = append(l.OneCopy, g.ID)
	case serving < want:
		l.Fewer = append(l.Fewer, g.ID)
	default:
		l.Whole++
	}
}
