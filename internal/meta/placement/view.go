package placement

import (
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// View is all of the placement state, decoded; a copy that later changes do
// not touch.
type View struct {
	Pools  []*Pool
	Nodes  map[ashlar.NodeID]*Node
	Disks  map[ashlar.DiskID]*Disk
	Groups []*Group // by id

	seats map[ashlar.DiskID]int // seats not about to be left
	heads map[ashlar.DiskID]int // seats that are primary
}

// Load reads the state. Damage of it is an error of kind Corrupt.
func Load(tx Tx) (*View, error) {
	v := &View{
		Nodes: map[ashlar.NodeID]*Node{},
		Disks: map[ashlar.DiskID]*Disk{},
		seats: map[ashlar.DiskID]int{},
		heads: map[ashlar.DiskID]int{},
	}
	var err error
	if v.Pools, err = loadAll[Pool](tx, key.KindPool); err != nil {
		return nil, err
	}
	if v.Groups, err = loadAll[Group](tx, key.KindGroup); err != nil {
		return nil, err
	}
	nodes, err := loadAll[Node](tx, key.KindNode)
	if err != nil {
		return nil, err
	}
	disks, err := loadAll[Disk](tx, key.KindDisk)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		v.Nodes[n.ID] = n
	}
	for _, d := range disks {
		v.Disks[d.ID] = d
	}
	for _, g := range v.Groups {
		v.count(g, 1)
	}
	return v, nil
}

// count adds a group to the tallies, or takes it off with by -1.
func (v *View) count(g *Group, by int) {
	for i := range g.Members {
		if !g.Seats[i].Leave {
			v.seats[g.Members[i].Disk] += by
		}
	}
	if p := g.Primary(); p >= 0 {
		v.heads[g.Members[p].Disk] += by
	}
}

// Group returns a group, nil if there is none.
func (v *View) Group(id ashlar.PGID) *Group {
	i, ok := slices.BinarySearchFunc(v.Groups, id, func(g *Group, id ashlar.PGID) int { return int(g.ID) - int(id) })
	if !ok {
		return nil
	}
	return v.Groups[i]
}

// Pool returns a pool by id, nil if there is none.
func (v *View) Pool(id uint32) *Pool {
	for _, p := range v.Pools {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// DiskIDs returns the ids of all disks in order.
func (v *View) DiskIDs() []ashlar.DiskID {
	out := make([]ashlar.DiskID, 0, len(v.Disks))
	for id := range v.Disks {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// NodeIDs returns the ids of all nodes in order.
func (v *View) NodeIDs() []ashlar.NodeID {
	out := make([]ashlar.NodeID, 0, len(v.Nodes))
	for id := range v.Nodes {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Serves tells whether a disk can be reached now.
func (v *View) Serves(id ashlar.DiskID) bool {
	d := v.Disks[id]
	if d == nil || !d.Attached || d.Failed != "" {
		return false
	}
	n := v.Nodes[d.Node]
	return n != nil && n.Up
}

// Seats returns how many groups have a seat on a disk.
func (v *View) Seats(id ashlar.DiskID) int { return v.seats[id] }

// Draining tells whether a disk is to be emptied.
func (v *View) Draining(id ashlar.DiskID) bool {
	d := v.Disks[id]
	if d == nil {
		return true
	}
	n := v.Nodes[d.Node]
	return d.Drain || n == nil || n.Drain
}

// Resolved returns a group as it is handed out: with the address and
// incarnation of every member's node.
func (v *View) Resolved(g *Group) ashlar.Group {
	out := g.Group
	out.Members = slices.Clone(g.Members)
	for i := range out.Members {
		m := &out.Members[i]
		if n := v.Nodes[m.Node]; n != nil {
			m.Addr = n.Addr
			if n.Up {
				m.Incarnation = n.Incarnation
			}
		}
	}
	return out
}

// OnNode returns the groups that have a seat on a node, resolved, by id.
func (v *View) OnNode(id ashlar.NodeID) []ashlar.Group {
	var out []ashlar.Group
	for _, g := range v.Groups {
		if slices.ContainsFunc(g.Members, func(m ashlar.Member) bool { return m.Node == id }) {
			out = append(out, v.Resolved(g))
		}
	}
	return out
}

// Rules returns the rules of the pools that do not have the defaults.
func (v *View) Rules() (out []wire.PoolRule) {
	for _, p := range v.Pools {
		if p.WriteMin > 1 || p.RepairBytes > 0 || p.Paused {
			out = append(out, wire.PoolRule{Pool: p.ID, Copies: p.WriteMin, RepairBytes: p.RepairBytes, Paused: p.Paused})
		}
	}
	return out
}

// Primary returns the node of a group's primary if it serves, false if the
// group has none.
func (v *View) Primary(g *Group) (*Node, bool) {
	p := g.Group.Primary()
	if p < 0 || !v.Serves(g.Members[p].Disk) {
		return nil, false
	}
	return v.Nodes[g.Members[p].Node], true
}

// Space returns the bytes of user data a pool holds when full and has room
// for, by the usage of its disks.
func (v *View) Space(f *Facts, pool *Pool) (total, free uint64) {
	for _, id := range v.DiskIDs() {
		if !v.fits(pool, v.Disks[id]) || !v.Serves(id) {
			continue
		}
		u, ok := f.usage(id)
		if !ok {
			continue
		}
		total += u.Total
		if !v.Draining(id) {
			free += u.Free
		}
	}
	n := uint64(max(1, min(int(pool.Replicas), v.domains(pool, nil))))
	return total / n, free / n
}

// fits tells whether a disk has every label that a pool asks for.
func (v *View) fits(p *Pool, d *Disk) bool {
	for _, l := range p.Labels {
		if !slices.Contains(d.Labels, l) {
			return false
		}
	}
	return true
}

// usable tells whether new seats of a pool may be put on a disk.
func (v *View) usable(p *Pool, id ashlar.DiskID) bool {
	return v.fits(p, v.Disks[id]) && v.Serves(id) && !v.Draining(id)
}

// domain names the failure domain that a disk is in.
func (v *View) domain(p *Pool, id ashlar.DiskID) domainKey {
	d := v.Disks[id]
	if d == nil {
		return domainKey{disk: id}
	}
	n := v.Nodes[d.Node]
	switch {
	case p.Domain == ashlar.DomainRack && n != nil && n.Rack != "":
		return domainKey{rack: n.Rack}
	case p.Domain == ashlar.DomainDisk:
		return domainKey{disk: id}
	}
	return domainKey{node: d.Node}
}

type domainKey struct {
	rack string
	node ashlar.NodeID
	disk ashlar.DiskID
}

// domains counts the failure domains that a pool can use now, without the disks
// that except names.
func (v *View) domains(p *Pool, except func(*Disk) bool) int {
	seen := map[domainKey]bool{}
	for id, d := range v.Disks {
		if v.usable(p, id) && (except == nil || !except(d)) {
			seen[v.domain(p, id)] = true
		}
	}
	return len(seen)
}
