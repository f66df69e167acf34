package placement

import (
	"github.com/ashlarfs/ashlar"
)

// balance starts one move in a pool whose groups are all settled: of a seat
// from the disk that is fullest by use to one that is emptier, or from the one
// with the most seats for its size; or else of a primary's role.
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
	if t.levelUse(p, groups, disks) {
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
			if to == nil || t.fill(to.ID, 1) > t.fill(from, -1) || t.unlevels(from, to.ID) {
				continue
			}
			t.move(g, i, to)
			return true
		}
	}
	return false
}

// move begins to give a seat to another disk.
func (t *ticker) move(g *Group, i int, to *Disk) {
	t.v.count(g, -1)
	c := edit(g, t.f.Now)
	c.g.Seats[i].Leave = true
	c.add(to, ashlar.Syncing)
	c.save(t.tx)
	t.v.count(g, 1)
}

// use is which part of a disk is in use, and which part of it one of its seats
// takes on average; false if that is not known.
func (t *ticker) use(id ashlar.DiskID) (use, seat float64, ok bool) {
	u, ok := t.f.usage(id)
	if !ok || u.Total == 0 || u.Free > u.Total {
		return 0, 0, false
	}
	use = float64(u.Total-u.Free) / float64(u.Total)
	return use, use / float64(max(1, t.v.seats[id])), true
}

// levelUse moves a seat from the fullest disk to an emptier one, if disks
// differ by more than they may.
func (t *ticker) levelUse(p *Pool, groups []*Group, disks []ashlar.DiskID) bool {
	from, most, least := disks[0], -1.0, 2.0
	for _, id := range disks {
		use, _, ok := t.use(id)
		if !ok {
			return false
		}
		if use > most {
			from, most = id, use
		}
		least = min(least, use)
	}
	if most-least <= unevenUse {
		return false
	}
	// The move that leaves the fuller of the two disks least full, and less than
	// the fullest is now, so that no move is ever made back; of primaries, whose
	// move takes their consent, only if no other will do.
	var best move
	for _, g := range groups {
		i := g.Index(from)
		if i < 0 || len(g.Members) >= seatsMax {
			continue
		}
		bytes := t.bytes(g, from)
		for _, d := range t.candidates(p, g, i) {
			to, _, _ := t.use(d.ID)
			after := max(most-bytes/t.size(from), to+bytes/t.size(d.ID))
			m := move{g: g, i: i, to: d, after: after, primary: g.Group.Primary() == i}
			if after < most-levelStep && m.better(&best) {
				best = m
			}
		}
	}
	if best.g == nil {
		return false
	}
	t.move(best.g, best.i, best.to)
	return true
}

// move is one that may be made.
type move struct {
	g       *Group
	i       int // the seat
	to      *Disk
	after   float64 // use of the fuller disk
	primary bool
}

func (m *move) better(than *move) bool {
	return than.g == nil || than.primary && !m.primary || m.primary == than.primary && m.after < than.after
}

// bytes is how much a group has on each of its disks: measured, or a seat's
// average share of one of them.
func (t *ticker) bytes(g *Group, on ashlar.DiskID) float64 {
	if t.f.Size != nil {
		if n, ok := t.f.Size(g.ID); ok {
			return float64(n)
		}
	}
	_, seat, _ := t.use(on)
	return seat * t.size(on)
}

// unlevels tells whether moving an average seat, to even out their number,
// would make two disks differ in use more than they may.
func (t *ticker) unlevels(from, to ashlar.DiskID) bool {
	uf, seat, ok1 := t.use(from)
	ut, _, ok2 := t.use(to)
	return ok1 && ok2 && ut+seat*t.size(from)/t.size(to)-(uf-seat) > unevenUse/2
}

func (t *ticker) size(id ashlar.DiskID) float64 {
	u, _ := t.f.usage(id)
	return float64(max(1, u.Total))
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
