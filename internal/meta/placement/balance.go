package placement

import (
	"github.com/ashlarfs/ashlar"
)

// balance starts one move in a pool whose groups are all settled: of a seat
// from the fullest disk to the emptiest, or else of a primary's role.
func (t *ticker) balance(p *Pool, groups []*Group) {
	var disks []ashlar.DiskID
	seats, weight := 0, 0.0
	for _, id := range t.v.DiskIDs() {
		if t.v.usable(p, id) {
			disks = append(disks, id)
			seats += t.v.seats[id]
			weight += t.weight(id)
		}
	}
	if len(disks) < 2 || len(groups) == 0 {
		return
	}
	mean := float64(seats) / weight
	from, to := disks[0], disks[0]
	for _, id := range disks {
		if t.fill(id, 0) > t.fill(from, 0) {
			from = id
		}
		if t.fill(id, 0) < t.fill(to, 0) {
			to = id
		}
	}
	uneven := t.fill(from, 0) > mean*(100+unevenPercent)/100 || t.fill(to, 0) < mean*(100-unevenPercent)/100
	if uneven && t.moveSeat(p, groups, from) {
		return
	}
	t.movePrimary(p, groups, disks)
}

// moveSeat gives one seat of a disk to a better one.
func (t *ticker) moveSeat(p *Pool, groups []*Group, from ashlar.DiskID) bool {
	for _, primaries := range []bool{false, true} {
		for _, g := range groups {
			i := g.Index(from)
			if i < 0 || (g.Group.Primary() == i) != primaries || len(g.Members) >= seatsMax {
				continue
			}
			to := t.candidate(p, g, i)
			if to == nil || t.fill(to.ID, 1) > t.fill(from, -1) {
				continue
			}
			t.v.count(g, -1)
			c := edit(g, t.f.Now)
			c.g.Seats[i].Leave = true
			c.add(to, ashlar.Syncing)
			c.save(t.tx)
			t.v.count(g, 1)
			return true
		}
	}
	return false
}

// movePrimary asks one primary to make room, if that evens out how many
// groups each disk is primary of.
func (t *ticker) movePrimary(p *Pool, groups []*Group, disks []ashlar.DiskID) {
	from, sum := disks[0], 0
	for _, id := range disks {
		sum += t.v.heads[id]
		if t.v.heads[id] > t.v.heads[from] {
			from = id
		}
	}
	if t.v.heads[from]*len(disks)*100 <= sum*(100+unevenPercent) {
		return
	}
	var best *Yield
	for _, g := range groups { // all members are in-sync
		i := g.Group.Primary()
		if g.Members[i].Disk != from {
			continue
		}
		for _, m := range g.Members {
			if t.v.heads[from]-t.v.heads[m.Disk] >= 2 && (best == nil || t.v.heads[m.Disk] < t.v.heads[best.To]) {
				best = &Yield{g.ID, g.Epoch, g.Members[i].Node, m.Disk}
			}
		}
	}
	if best != nil {
		t.yields = append(t.yields, *best)
	}
}
