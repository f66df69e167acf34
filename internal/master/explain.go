package master

import (
	"context"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// explain answers why groups are as they are, and what would become of them.
func (l *lead) explain(ctx context.Context, q *wire.Explain) (wire.Message, error) {
	v, err := l.current()
	if err != nil {
		return nil, err
	}
	cons, err := l.m.node.Load().Status(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{l: l, v: v, now: l.opTime(), cons: cons, s: &wire.Status{Redundant: true}}
	r.gather()
	e, err := r.explain(q)
	if err != nil {
		return nil, err
	}
	if err := l.confirm(ctx); err != nil {
		return nil, err
	}
	out := new(wire.ExplainReply)
	return out, out.Set(e)
}

func (r *report) explain(q *wire.Explain) (*wire.Explanation, error) {
	groups, err := r.v.Choose(q)
	if err != nil {
		return nil, err
	}
	x := placement.NewExplainer(r.v, r.l.facts())
	x.Left = func(g ashlar.PGID, d ashlar.DiskID) uint64 { return r.progress[seat{g, d}].Left }
	if err := x.Suppose(q.LostNodes, q.LostDisks, masterNames(&r.cons)); err != nil {
		return nil, err
	}
	out := &wire.Explanation{Leader: r.l.m.cfg.Name, Rate: uint64(r.speed), Groups: []wire.GroupWhy{}}
	disks := map[ashlar.DiskID]bool{}
	if q.Disk != 0 {
		disks[q.Disk] = true
	}
	for _, g := range groups {
		if g.ID <= q.After {
			continue
		}
		if len(out.Groups) == wire.ExplainMax {
			out.More = true
			break
		}
		out.Groups = append(out.Groups, x.Group(g))
		for _, m := range g.Members {
			disks[m.Disk] = true
		}
	}
	r.named(q, out, disks)
	if len(q.LostNodes)+len(q.LostDisks) > 0 {
		out.Lost = x.Loss(groups)
		lostMasters(&r.cons, q, out.Lost)
	}
	return out, nil
}

// named adds what is known of the disks and nodes that an explanation names.
func (r *report) named(q *wire.Explain, out *wire.Explanation, disks map[ashlar.DiskID]bool) {
	nodes := map[ashlar.NodeID]bool{}
	for _, id := range r.v.DiskIDs() {
		d := r.v.Disks[id]
		if n := r.v.Nodes[d.Node]; disks[id] || n != nil && n.Name == q.Node {
			st, _ := r.diskStatus(d)
			out.Disks = append(out.Disks, st)
			nodes[d.Node] = true
		}
	}
	r.nodes()
	for _, st := range r.s.Nodes {
		if nodes[ashlar.NodeID(st.ID)] || st.Name == q.Node {
			out.Nodes = append(out.Nodes, st)
		}
	}
}

func masterNames(cons *consensus.Status) (out []string) {
	for _, m := range cons.Members {
		out = append(out, m.Name)
	}
	return out
}

// lostMasters tells whether the masters would keep a majority.
func lostMasters(cons *consensus.Status, q *wire.Explain, out *wire.LossWhy) {
	out.Nodes = q.LostNodes
	for _, d := range q.LostDisks {
		out.Disks = append(out.Disks, uint32(d))
	}
	out.HasLeader = true
	for _, m := range cons.Members {
		lost := slices.Contains(q.LostNodes, m.Name)
		if m.ID == cons.ID {
			out.HasLeader = !lost
		}
		if m.Learner {
			continue
		}
		out.Voters++
		if !lost && (m.Active || m.ID == cons.ID) {
			out.Left++
		}
	}
	out.Needed = out.Voters/2 + 1
	out.Majority = out.Left >= out.Needed
}
