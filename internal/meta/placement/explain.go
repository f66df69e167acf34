package placement

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The states of a group, worst first.
const (
	StateUnavailable = "unavailable" // no copy is reached
	StateReadOnly    = "read-only"   // fewer copies than write-min
	StateAtRisk      = "at risk"     // one copy where there should be more
	StateDegraded    = "degraded"    // a copy is missing
	StateMoving      = "moving"      // whole, and on its way elsewhere
	StateOK          = "ok"
)

// State judges a group. Disks for which gone is true count as lost from now
// on; nil is for none. copies is how many in-sync ones can be reached.
func (v *View) State(g *Group, p *Pool, gone func(ashlar.DiskID) bool) (state string, copies int) {
	want, least := 1, 1
	if p != nil {
		want, least = int(p.Replicas), int(p.WriteMin)
	}
	syncing := false
	for _, m := range g.Members {
		syncing = syncing || m.State == ashlar.Syncing
		if m.State == ashlar.InSync && v.Serves(m.Disk) && (gone == nil || !gone(m.Disk)) {
			copies++
		}
	}
	up := copies > 0
	if gone == nil {
		_, up = v.Primary(g) // it answers for the group, nobody else
	}
	switch {
	case !up:
		return StateUnavailable, copies
	case copies < least:
		return StateReadOnly, copies
	case copies == 1 && want > 1:
		return StateAtRisk, copies
	case copies < want:
		return StateDegraded, copies
	case syncing || len(g.Members) > want:
		return StateMoving, copies
	}
	return StateOK, copies
}

// Explainer tells why groups are as they are. It changes nothing.
type Explainer struct {
	// Left tells how many bytes a syncing member still needs, 0 if unknown.
	Left func(ashlar.PGID, ashlar.DiskID) uint64

	t    *ticker
	lost map[ashlar.DiskID]bool
	none bool // nothing is supposed lost
	home map[uint32]bool
}

// NewExplainer explains v as it is with the facts f.
func NewExplainer(v *View, f *Facts) *Explainer {
	return &Explainer{
		Left: func(ashlar.PGID, ashlar.DiskID) uint64 { return 0 },
		t:    &ticker{f: f, v: v}, lost: map[ashlar.DiskID]bool{}, none: true, home: map[uint32]bool{},
	}
}

// Suppose makes all the disks of the nodes, and the disks, count as lost for
// good. Nodes that are only masters are named in masters. An unknown name is
// an error of kind NotExist that names those there are.
func (e *Explainer) Suppose(nodes []string, disks []ashlar.DiskID, masters []string) error {
	v := e.t.v
	for _, name := range nodes {
		id := v.NodeByName(name)
		if id == 0 && !slices.Contains(masters, name) {
			return fail("suppose lost", ashlar.NotExist, "node "+name, "there are "+v.nodeNames(masters))
		}
		for d, disk := range v.Disks {
			if id != 0 && disk.Node == id {
				e.lost[d] = true
			}
		}
	}
	for _, d := range disks {
		if v.Disks[d] == nil {
			return fail("suppose lost", ashlar.NotExist, fmt.Sprintf("disk %d", d), "there are "+v.diskNames())
		}
		e.lost[d] = true
	}
	e.none = e.none && len(nodes)+len(disks) == 0
	clear(e.home)
	return nil
}

// namesShown is how many alternatives an error names.
const namesShown = 16

func shown(names []string) string {
	if len(names) > namesShown {
		return strings.Join(names[:namesShown], ", ") + fmt.Sprintf(" and %d more", len(names)-namesShown)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (v *View) nodeNames(more []string) string {
	names := slices.Clone(more)
	for _, n := range v.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return shown(slices.Compact(names))
}

func (v *View) diskNames() string {
	var names []string
	for _, id := range v.DiskIDs() {
		names = append(names, fmt.Sprint(uint32(id)))
	}
	return shown(names)
}

// NodeByName finds a chunkserver, 0 if there is none of that name.
func (v *View) NodeByName(name string) ashlar.NodeID {
	for _, id := range v.NodeIDs() {
		if v.Nodes[id].Name == name {
			return id
		}
	}
	return 0
}

// Choose returns the groups that a question is about, by number. What it
// names and is not there is an error of kind NotExist with those there are.
func (v *View) Choose(q *wire.Explain) ([]*Group, error) {
	if len(q.Groups) > 0 {
		var out []*Group
		for _, id := range q.Groups {
			g := v.Group(id)
			if g == nil {
				return nil, fail("explain", ashlar.NotExist, fmt.Sprintf("placement group %d", id), v.groupNames())
			}
			out = append(out, g)
		}
		slices.SortFunc(out, func(a, b *Group) int { return int(a.ID) - int(b.ID) })
		return slices.Compact(out), nil
	}
	node := ashlar.NodeID(0)
	if q.Node != "" {
		if node = v.NodeByName(q.Node); node == 0 {
			return nil, fail("explain", ashlar.NotExist, "node "+q.Node, "there are "+v.nodeNames(nil))
		}
	}
	if q.Disk != 0 && v.Disks[q.Disk] == nil {
		return nil, fail("explain", ashlar.NotExist, fmt.Sprintf("disk %d", q.Disk), "there are "+v.diskNames())
	}
	var out []*Group
	for _, g := range v.Groups {
		on := func(m ashlar.Member) bool {
			return (q.Disk == 0 || m.Disk == q.Disk) && (node == 0 || m.Node == node)
		}
		if q.Disk == 0 && node == 0 || slices.ContainsFunc(g.Members, on) {
			out = append(out, g)
		}
	}
	return out, nil
}

func (v *View) groupNames() string {
	if len(v.Groups) == 0 {
		return "there is none yet"
	}
	return fmt.Sprintf("they are numbered %d to %d", v.Groups[0].ID, v.Groups[len(v.Groups)-1].ID)
}

// Group explains one group.
func (e *Explainer) Group(g *Group) wire.GroupWhy {
	v, p := e.t.v, e.t.v.Pool(g.Pool)
	out := wire.GroupWhy{GroupStatus: wire.GroupStatus{ID: uint32(g.ID), Epoch: uint64(g.Epoch), LastCopy: g.LastCopy}}
	if p == nil {
		p = &Pool{ID: g.Pool, Name: fmt.Sprint(g.Pool), Replicas: 1, WriteMin: 1}
	}
	out.Pool, out.Want, out.WriteMin = p.Name, int(p.Replicas), int(p.WriteMin)
	out.State, out.Copies = v.State(g, p, nil)
	if e.t.f.Size != nil {
		out.Bytes, _ = e.t.f.Size(g.ID)
	}
	primary := g.Group.Primary()
	for i, m := range g.Members {
		ms := wire.MemberStatus{Disk: uint32(m.Disk), State: m.State.String(), Primary: i == primary, Alive: v.Serves(m.Disk)}
		if n := v.Nodes[m.Node]; n != nil {
			ms.Node = n.Name
		}
		if m.State == ashlar.Syncing {
			ms.Left = e.Left(g.ID, m.Disk)
		}
		if mv := e.move(p, g, i); mv != nil {
			mv.Disk, mv.Node, mv.Left = ms.Disk, ms.Node, ms.Left
			ms.Why = mv.Text
			out.Moves = append(out.Moves, *mv)
		}
		out.Members = append(out.Members, ms)
	}
	if mv := e.missing(p, g); mv != nil {
		out.Moves = append(out.Moves, *mv)
	}
	if !e.none {
		out.IfLost, out.IfCopies = v.State(g, p, e.gone)
		out.IfLosesAll = e.losesAll(g)
	}
	return out
}

func (e *Explainer) gone(d ashlar.DiskID) bool { return e.lost[d] }

// losesAll tells whether every in-sync copy, reached or not, would be lost.
func (e *Explainer) losesAll(g *Group) bool {
	return !slices.ContainsFunc(g.Members, func(m ashlar.Member) bool { return m.State == ashlar.InSync && !e.lost[m.Disk] })
}

// Loss sums up what would become of groups.
func (e *Explainer) Loss(groups []*Group) *wire.LossWhy {
	out := &wire.LossWhy{Groups: len(groups)}
	for _, g := range groups {
		if !slices.ContainsFunc(g.Members, func(m ashlar.Member) bool { return e.lost[m.Disk] }) {
			continue
		}
		out.Touched++
		p := e.t.v.Pool(g.Pool)
		state, _ := e.t.v.State(g, p, e.gone)
		n := map[string]*int{
			StateUnavailable: &out.Unavailable, StateReadOnly: &out.ReadOnly, StateAtRisk: &out.AtRisk, StateDegraded: &out.Degraded,
		}[state]
		switch {
		case e.losesAll(g):
			n = &out.Gone
		case n == nil:
			n = &out.Whole
		}
		*n++
		if p != nil && n != &out.Gone && !e.roomy(p) {
			out.Homeless++
		}
	}
	return out
}

// roomy tells whether a pool would have failure domains enough for all its
// copies.
func (e *Explainer) roomy(p *Pool) bool {
	if ok, known := e.home[p.ID]; known {
		return ok
	}
	seen := map[domainKey]bool{}
	for id := range e.t.v.Disks {
		if e.t.v.usable(p, id) && !e.t.full(id) && !e.lost[id] {
			seen[e.t.v.domain(p, id)] = true
		}
	}
	e.home[p.ID] = len(seen) >= int(p.Replicas)
	return e.home[p.ID]
}

func (e *Explainer) ago(t int64) string {
	return time.Duration(max(0, e.t.f.Now-t)).Round(time.Second).String()
}
