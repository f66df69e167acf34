package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// Tick decides what time has made due: groups to create, seats to try again,
// to replace and to drop, and disks to even out. It returns the primaries
// whose consent is needed for more.
func Tick(tx Tx, f *Facts) ([]Yield, error) {
	v, err := Load(tx)
	if err != nil {
		return nil, err
	}
	t := &ticker{tx: tx, f: f, v: v, urgent: urgent{}}
	for _, g := range v.Groups {
		if p := v.Pool(g.Pool); p != nil && !p.Paused {
			t.urgent.note(v, g, f.Now)
		}
	}
	t.retire()
	for _, p := range v.Pools {
		if err := t.create(p); err != nil {
			return nil, err
		}
	}
	// Repair in order of danger: fewest copies first, of all pools.
	all := slices.Clone(v.Groups)
	slices.SortStableFunc(all, func(a, b *Group) int {
		return cmp.Compare(a.Count(ashlar.InSync), b.Count(ashlar.InSync))
	})
	for _, g := range all {
		if p := v.Pool(g.Pool); p != nil {
			t.mend(p, g)
		}
	}
	for _, p := range v.Pools {
		var mine []*Group
		busy := slices.ContainsFunc(t.yields, func(y Yield) bool { return v.Group(y.Group).Pool == p.ID })
		for _, g := range all {
			if g.Pool == p.ID {
				mine = append(mine, g)
				busy = busy || t.unsettled(g)
			}
		}
		if !busy && !p.Paused {
			t.balance(p, mine)
		}
	}
	return t.yields, nil
}

// retire drains disks on which damage keeps being found.
func (t *ticker) retire() {
	if t.f.Damaged == nil {
		return
	}
	for _, id := range t.v.DiskIDs() {
		d := t.v.Disks[id]
		n := t.f.Damaged(id)
		if d.Drain || !t.v.Serves(id) || n < d.Damaged+DamagedMax {
			continue
		}
		d.Drain, d.Damaged = true, n
		d.Why = fmt.Sprintf("%d damaged blocks were found on it", n)
		putDisk(t.tx, d)
	}
}

type ticker struct {
	tx     Tx
	f      *Facts
	v      *View
	yields []Yield
	urgent urgent
}

// create makes the groups that a pool's disks ask for.
func (t *ticker) create(p *Pool) error {
	var disks []ashlar.DiskID
	newest := int64(0)
	for _, id := range t.v.DiskIDs() {
		if t.v.usable(p, id) {
			disks = append(disks, id)
			newest = max(newest, t.v.Disks[id].Added)
		}
	}
	have := 0
	for _, g := range t.v.Groups {
		if g.Pool == p.ID {
			have++
		}
	}
	seats := min(int(p.Replicas), t.v.domains(p, nil))
	short := seats < int(p.Replicas)
	switch {
	case seats == 0 || seats < int(p.WriteMin) || short && have > 0:
		return nil
	case !t.f.since(newest, SettleTime), short && !t.f.since(newest, ShortTime):
		return nil
	}
	want := (GroupsPerDisk*len(disks) + seats - 1) / seats
	for ; have < want && len(t.v.Groups) < GroupsMax; have++ {
		if err := t.createOne(p, seats); err != nil {
			return err
		}
	}
	return nil
}

func (t *ticker) createOne(p *Pool, seats int) error {
	id, err := issue(t.tx, key.CounterGroup)
	if err != nil {
		return err
	}
	g := &Group{Group: ashlar.Group{ID: ashlar.PGID(id), Pool: p.ID}}
	c := edit(g, t.f.Now)
	for range seats {
		d := t.candidate(p, g, -1)
		if d == nil {
			break
		}
		c.add(d, ashlar.InSync)
	}
	if len(g.Members) == 0 {
		return nil
	}
	slices.SortStableFunc(g.Members, func(a, b ashlar.Member) int {
		return cmp.Compare(t.v.heads[a.Disk], t.v.heads[b.Disk])
	})
	c.save(t.tx)
	t.v.Groups = append(t.v.Groups, g)
	t.v.count(g, 1)
	return nil
}

// candidate returns the best disk for a new seat of a group: usable, in a
// failure domain that no seat shares that stays (the one at except, which is
// to be left, aside), with the fewest seats for its size.
func (t *ticker) candidate(p *Pool, g *Group, except int) *Disk {
	var best *Disk
	var bestFill float64
	for _, d := range t.candidates(p, g, except) {
		if fill := t.fill(d.ID, 1); best == nil || fill < bestFill {
			best, bestFill = d, fill
		}
	}
	return best
}

// candidates returns the disks that a new seat of a group may be on.
func (t *ticker) candidates(p *Pool, g *Group, except int) (out []*Disk) {
	taken := map[domainKey]bool{}
	for i := range g.Members {
		if i != except && t.stays(p, g, i) {
			taken[t.v.domain(p, g.Members[i].Disk)] = true
		}
	}
	for _, id := range t.v.DiskIDs() {
		if t.v.usable(p, id) && g.Index(id) < 0 && !taken[t.v.domain(p, id)] && !t.full(id) {
			out = append(out, t.v.Disks[id])
		}
	}
	return out
}

func (t *ticker) full(id ashlar.DiskID) bool {
	u, ok := t.f.usage(id)
	return ok && u.Free == 0
}

// fill is how many seats a disk would have with plus more, for its size.
func (t *ticker) fill(id ashlar.DiskID, plus int) float64 {
	return float64(t.v.seats[id]+plus) / t.weight(id)
}

// weight is a disk's size in GiB; 1 if any disk's size is unknown.
func (t *ticker) weight(id ashlar.DiskID) float64 {
	for other := range t.v.Disks {
		if t.v.Serves(other) {
			if u, ok := t.f.usage(other); !ok || u.Total == 0 {
				return 1
			}
		}
	}
	u, ok := t.f.usage(id)
	if !ok || u.Total == 0 {
		return 1
	}
	return float64(u.Total) / (1 << 30)
}

// stays tells whether a seat counts as one of those the group should have.
func (t *ticker) stays(p *Pool, g *Group, i int) bool {
	d := t.v.Disks[g.Members[i].Disk]
	return d != nil && !g.Seats[i].Leave && d.Failed == "" && !t.v.Draining(d.ID) && t.v.fits(p, d) &&
		(d.Away == 0 || !t.f.since(d.Away, t.f.RepairTime(p)))
}

// unsettled tells whether a group is on its way to something.
func (t *ticker) unsettled(g *Group) bool {
	for i := range g.Members {
		if g.Seats[i].Leave || g.Members[i].State != ashlar.InSync || !t.v.Serves(g.Members[i].Disk) {
			return true
		}
	}
	return false
}

// mend does for one group what is due.
func (t *ticker) mend(p *Pool, g *Group) {
	node, alive := t.v.Primary(g)
	if !alive {
		return // nothing can be caught up from it
	}
	t.v.count(g, -1)
	c := edit(g, t.f.Now)
	t.retry(p, c)
	if p.Paused {
		c.save(t.tx)
		t.v.count(g, 1)
		return
	}
	stay := 0
	for i := range g.Members {
		if t.stays(p, g, i) {
			stay++
		}
	}
	stay += t.keep(p, c, int(p.Replicas)-stay)
	for ; stay < int(p.Replicas) && len(g.Members) < seatsMax; stay++ {
		d := t.candidate(p, g, -1)
		if d == nil || t.urgent.holds(g, d) {
			break
		}
		c.add(d, ashlar.Syncing)
	}
	t.v.trim(c, p)
	c.save(t.tx)
	t.urgent.note(t.v, g, t.f.Now)
	t.v.count(g, 1)
	if i := g.Group.Primary(); !t.stays(p, g, i) && t.v.wholeWithout(p, g, i) {
		t.yields = append(t.yields, Yield{g.ID, g.Epoch, node.ID, 0})
	}
}

// keep takes back up to n seats that were to be left for a move, because the
// move has lost its other end; it returns how many.
func (t *ticker) keep(p *Pool, c *change, n int) (kept int) {
	for i := range c.g.Members {
		s := &c.g.Seats[i]
		if kept >= n || !s.Leave || c.g.Members[i].State != ashlar.InSync {
			continue
		}
		s.Leave = false
		if t.stays(p, c.g, i) {
			kept++
			c.hit = true
		} else {
			s.Leave = true
		}
	}
	return kept
}

// retry begins to catch up offline seats whose disks serve.
func (t *ticker) retry(p *Pool, c *change) {
	for i := range c.g.Members {
		m, s := &c.g.Members[i], &c.g.Seats[i]
		if m.State != ashlar.Offline || !t.v.Serves(m.Disk) || !t.stays(p, c.g, i) {
			continue
		}
		wait := RetryTime << min(s.Failures, 10)
		if s.Failures > 0 && !t.f.since(s.Since, min(wait, RetryMax)) {
			continue
		}
		c.set(i, ashlar.Syncing)
	}
}

// good tells whether a seat holds everything and may be relied on from now on.
func (v *View) good(p *Pool, g *Group, i int) bool {
	m := &g.Members[i]
	return m.State == ashlar.InSync && !g.Seats[i].Leave && v.Serves(m.Disk) && !v.Draining(m.Disk) && v.fits(p, v.Disks[m.Disk])
}

// wholeWithout tells whether a group has all its copies even without seat i.
func (v *View) wholeWithout(p *Pool, g *Group, i int) bool {
	n := 0
	for j := range g.Members {
		if j != i && v.good(p, g, j) {
			n++
		}
	}
	return n >= int(p.Replicas)
}

// trim drops the seats that a group has beyond what its pool asks for, once
// enough good ones are in-sync. The primary's own seat is never dropped here:
// that needs its consent.
func (v *View) trim(c *change, p *Pool) {
	var keep []ashlar.DiskID
	for i := range c.g.Members {
		if v.good(p, c.g, i) && len(keep) < int(p.Replicas) {
			keep = append(keep, c.g.Members[i].Disk)
		}
	}
	if len(keep) < int(p.Replicas) {
		return
	}
	for i := len(c.g.Members) - 1; i >= 0; i-- {
		if i != c.g.Group.Primary() && !slices.Contains(keep, c.g.Members[i].Disk) {
			c.drop(i)
		}
	}
}
