package placement

import (
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// TestTheGroupsWithTheFewestCopiesAreRepairedFirstOnEveryNode has a pool of
// three copies and one of two lose a member each: what has one copy left is
// copied first, whoever is primary.
func TestTheGroupsWithTheFewestCopiesAreRepairedFirstOnEveryNode(t *testing.T) {
	w := newWorld()
	n := &grown{world: w}
	set := func(m *wire.SetPool) {
		t.Helper()
		if err := SetPool(&w.mem, m); err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
	}
	// The safer pool is the older one, so that its groups come first by id.
	set(&wire.SetPool{Name: "three", Replicas: 3})
	set(&wire.SetPool{Name: "two", Replicas: 2})
	for i := range 5 {
		n.register(t, fmt.Sprint("n", i+1), ashlar.DiskID(i+1))
	}
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	v := w.view()
	if err := NodesDown(&w.mem, w.now, []Lost{{Node: 5, Session: v.Nodes[5].Session}}); err != nil {
		t.Fatal(err)
	}
	w.mem.Commit()
	w.now += int64(RepairAfterDefault)
	waited := false
	for range 50 {
		if _, err := Tick(&w.mem, w.facts()); err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
		least := map[ashlar.NodeID]int{}
		each := func(f func(g *Group, node ashlar.NodeID)) {
			for _, g := range w.view().Groups {
				for _, m := range g.Members {
					if m.State == ashlar.Syncing {
						f(g, m.Node)
						f(g, g.Members[g.Group.Primary()].Node)
					}
				}
			}
		}
		each(func(g *Group, node ashlar.NodeID) {
			if c := g.Count(ashlar.InSync); least[node] == 0 || c < least[node] {
				least[node] = c
			}
		})
		each(func(g *Group, node ashlar.NodeID) {
			if c := g.Count(ashlar.InSync); c > least[node] {
				t.Fatalf("pg %d with %d copies is copied on node %d while one with %d is", g.ID, c, node, least[node])
			}
		})
		missing := 0
		for _, g := range w.view().Groups {
			if g.Index(5) >= 0 {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		waited = waited || len(least) > 0
		for _, g := range w.view().Groups { // one copy is finished at a time
			if g.Count(ashlar.Syncing) > 0 {
				if err := w.syncAll(g); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		w.now += int64(SettleTime)
	}
	if !waited {
		t.Error("nothing had to wait; the test shows nothing")
	}
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	for _, g := range w.view().Groups {
		if want := int(w.view().Pool(g.Pool).Replicas); g.Count(ashlar.InSync) != want {
			t.Errorf("pg %d has %d copies at the end, want %d", g.ID, g.Count(ashlar.InSync), want)
		}
	}
}
