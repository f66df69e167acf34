package placement

import (
	"fmt"
	"sort"

	"github.com/ashlarfs/ashlar"
)

// Table answers which groups new data should go to, without touching the
// state: healthy groups first, by the free space of their members. It is
// built from a View and never changes; build another when groups or their
// space change.
type Table struct {
	pools map[uint32]*poolTable
}

type poolTable struct {
	ids    []ashlar.PGID
	sums   []uint64 // running sums of weights
	full   bool     // there are groups, but no room
	exists bool
}

// NewTable builds the table of a state.
func NewTable(v *View, f *Facts) *Table {
	t := &Table{pools: map[uint32]*poolTable{}}
	for _, p := range v.Pools {
		pt := &poolTable{exists: true}
		t.pools[p.ID] = pt
		best := 0
		for _, g := range v.Groups {
			if g.Pool == p.ID && v.room(f, g) > 0 {
				best = max(best, v.health(g))
			}
		}
		var sum uint64
		for _, g := range v.Groups {
			if g.Pool != p.ID {
				continue
			}
			w := v.room(f, g)
			pt.full = pt.full || w == 0
			if w == 0 || v.health(g) < best {
				continue
			}
			sum += w
			pt.ids, pt.sums = append(pt.ids, g.ID), append(pt.sums, sum)
		}
	}
	return t
}

// health counts the copies a group has that serve now, 0 if it has no live
// primary.
func (v *View) health(g *Group) int {
	if _, ok := v.Primary(g); !ok {
		return 0
	}
	n := 0
	for i := range g.Members {
		if g.Members[i].State == ashlar.InSync && v.Serves(g.Members[i].Disk) && !v.Draining(g.Members[i].Disk) {
			n++
		}
	}
	return n + 1
}

// room is the weight of a group: MiB free on its fullest member, over the
// seats of that disk; 0 if a member is full. An unknown disk counts as 1.
func (v *View) room(f *Facts, g *Group) uint64 {
	least := ^uint64(0)
	for i := range g.Members {
		id := g.Members[i].Disk
		u, ok := f.usage(id)
		switch {
		case g.Members[i].State == ashlar.Offline:
			continue
		case !ok:
			least = min(least, 1)
		case u.Free == 0:
			return 0
		default:
			least = min(least, 1+(u.Free>>20)/uint64(max(1, v.seats[id])))
		}
	}
	return least
}

// Choose returns n distinct groups of a pool (fewer if it has fewer), spread
// by seed. Errors: NotExist for an unknown pool, NotReady while it has no
// group yet, NoSpace when all are full.
func (t *Table) Choose(pool uint32, n int, seed uint64) ([]ashlar.PGID, error) {
	pt := t.pools[pool]
	switch {
	case pt == nil:
		return nil, fail("choose groups", ashlar.NotExist, fmt.Sprintf("pool %d", pool), "")
	case len(pt.ids) == 0 && pt.full:
		return nil, fail("choose groups", ashlar.NoSpace, fmt.Sprintf("pool %d", pool), "")
	case len(pt.ids) == 0:
		return nil, fail("choose groups", ashlar.NotReady, fmt.Sprintf("pool %d", pool), "it has no placement groups yet")
	}
	n = min(n, len(pt.ids))
	out := make([]ashlar.PGID, 0, n)
	picked := make([]int, 0, n)
	total := pt.sums[len(pt.sums)-1]
	for tries := 0; len(out) < n; tries++ {
		seed = mix(seed)
		at := seed % total
		i := sort.Search(len(pt.sums), func(i int) bool { return pt.sums[i] > at })
		if tries >= 8*n { // weights too unequal: go on from here in order
			i = (i + tries) % len(pt.ids)
		}
		for contains(picked, i) {
			if tries < 8*n {
				i = -1
				break
			}
			i = (i + 1) % len(pt.ids)
		}
		if i >= 0 {
			picked = append(picked, i)
			out = append(out, pt.ids[i])
		}
	}
	return out, nil
}

func contains(s []int, x int) bool {
	for _, y := range s {
		if y == x {
			return true
		}
	}
	return false
}

// mix is splitmix64: every seed leads to a different, well-spread sequence.
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
