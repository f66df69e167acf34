package client

import (
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// lossStatus has three nodes with a disk and a master each, and one group for
// every list of members "disk state", of a pool with two copies.
func lossStatus(groups ...[]string) *wire.Status {
	st := &wire.Status{Pools: []wire.PoolStatus{{Name: "p", Replicas: 2}}}
	for i := range 3 {
		name := fmt.Sprint("n", i+1)
		st.Nodes = append(st.Nodes, wire.NodeStatus{Name: name, Alive: true})
		st.Disks = append(st.Disks, wire.DiskStatus{ID: uint32(i + 1), Node: name})
		st.Masters = append(st.Masters, wire.MasterStatus{Name: name, Alive: true})
	}
	for i, ms := range groups {
		g := wire.GroupStatus{ID: uint32(i + 1), Pool: "p"}
		for _, m := range ms {
			var disk uint32
			var state string
			fmt.Sscan(m, &disk, &state)
			alive := state != "away"
			if !alive {
				state = "in-sync"
			}
			g.Members = append(g.Members, wire.MemberStatus{Disk: disk, Node: fmt.Sprint("n", disk), State: state, Alive: alive})
		}
		st.Groups = append(st.Groups, g)
	}
	return st
}

func TestWhatALossWouldDo(t *testing.T) {
	st := lossStatus(
		[]string{"1 in-sync", "2 in-sync"},
		[]string{"2 in-sync", "3 in-sync"},
		[]string{"1 in-sync", "3 syncing"},
		[]string{"1 in-sync", "3 away"},
		[]string{"1 in-sync", "2 in-sync", "3 in-sync"},
	)
	for _, c := range []struct {
		nodes []string
		disks []uint32
		want  string
	}{
		{nil, nil, "unavailable [] gone [] one [3 4] fewer [] whole 3 masters 3 true"},
		{[]string{"n1"}, nil, "unavailable [3 4] gone [3] one [1] fewer [] whole 2 masters 2 true"},
		{nil, []uint32{1}, "unavailable [3 4] gone [3] one [1] fewer [] whole 2 masters 3 true"},
		{[]string{"n1", "n2"}, nil, "unavailable [1 3 4] gone [1 3] one [2 5] fewer [] whole 0 masters 1 false"},
	} {
		l, err := IfLost(st, c.nodes, c.disks, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("unavailable %v gone %v one %v fewer %v whole %d masters %d %v",
			l.Unavailable, l.Gone, l.OneCopy, l.Fewer, l.Whole, l.MastersLeft, l.Quorum)
		if got != c.want {
			t.Errorf("%v %v:\n got %s\nwant %s", c.nodes, c.disks, got, c.want)
		}
	}
	if _, err := IfLost(st, []string{"n9"}, nil, nil); err == nil {
		t.Error("an unknown node was lost")
	}
}
