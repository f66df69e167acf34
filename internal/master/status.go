package master

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Severities of a Risk and states of a group, worst first.
const (
	unavailable = placement.StateUnavailable
	readOnly    = placement.StateReadOnly
	atRisk      = placement.StateAtRisk
	degraded    = placement.StateDegraded
	warning     = "warning"
	healthy     = placement.StateOK
	moving      = placement.StateMoving
)

var severities = []string{unavailable, atRisk, degraded, warning}

// deletingShown is up to how many layers under deletion are counted.
const deletingShown = 10000

// report is a status being made, from one view.
type report struct {
	l    *lead
	v    *placement.View
	now  int64
	s    *wire.Status
	cons consensus.Status

	// As of the report, from the chunkservers' renewals.
	silent   map[ashlar.NodeID]time.Duration
	hearing  map[ashlar.NodeID]hearing
	disks    map[wire.UUID]figures
	progress map[seat]wire.SyncProgress
	speed    float64 // of all repair, bytes a second
	settled  bool    // it has been measured for long enough to foretell by it
}

func (l *lead) getStatus(ctx context.Context) (wire.Message, error) {
	s, err := l.status(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.confirm(ctx); err != nil {
		return nil, err
	}
	out := new(wire.StatusReply)
	return out, out.Set(s)
}

// status reports the state of the cluster, what is at risk first.
func (l *lead) status(ctx context.Context) (*wire.Status, error) {
	v, err := l.current()
	if err != nil {
		return nil, err
	}
	cons, err := l.m.node.Load().Status(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{l: l, v: v, now: l.opTime(), cons: cons, s: &wire.Status{
		Cluster: l.m.cfg.Cluster.String(), History: uint32(l.m.history()), Leader: l.m.cfg.Name,
		Term: l.term, Committed: cons.Commit, Redundant: true, Problems: []wire.Risk{},
	}}
	r.gather()
	r.masters()
	r.nodes()
	r.diskList()
	r.pools()
	r.repair()
	r.groups()
	if err := r.volumes(); err != nil {
		return nil, err
	}
	r.sessions()
	r.finish()
	return r.s, nil
}

func (r *report) risk(severity, what, next string) {
	r.s.Problems = append(r.s.Problems, wire.Risk{Severity: severity, What: what, Next: next})
}

func (r *report) masters() {
	voters, alive := 0, 0
	for _, m := range r.cons.Members {
		self := m.ID == r.cons.ID
		up := self || m.Active
		if !m.Learner {
			voters++
			if up {
				alive++
			}
		}
		if !up {
			r.risk(warning, fmt.Sprintf("master %s does not answer", m.Name),
				"start it, or replace it: ashlar node remove "+m.Name)
		}
		r.s.Masters = append(r.s.Masters, wire.MasterStatus{
			ID: m.ID, Name: m.Name, Addr: m.Addr, Leader: self, Learner: m.Learner, Alive: up, Match: m.Match,
		})
	}
	switch {
	case voters > 2 && alive == voters/2+1:
		r.risk(atRisk, fmt.Sprintf("%d of %d masters are up: one more lost stops the cluster", alive, voters), "start the others")
	case voters == 1:
		r.risk(warning, "there is one master: without it the cluster stands still", "add two: ashlar node add")
	case voters%2 == 0:
		r.risk(warning, fmt.Sprintf("there are %d masters: an even number survives no more losses than one less", voters), "ashlar node add")
	}
}

func (r *report) pools() {
	for _, p := range r.v.Pools {
		n := 0
		for _, g := range r.v.Groups {
			if g.Pool == p.ID {
				n++
			}
		}
		if n == 0 && len(r.v.Disks) > 0 {
			r.risk(warning, fmt.Sprintf("pool %s has no placement groups yet", p.Name), "it needs disks with its labels, on enough nodes")
		}
		r.s.Pools = append(r.s.Pools, wire.PoolStatus{
			ID: p.ID, Name: p.Name, Replicas: int(p.Replicas), WriteMin: int(p.WriteMin),
			Domain: p.Domain.String(), Labels: p.Labels, Groups: n, Repair: r.rules(p),
		})
		if p.Paused {
			r.risk(warning, fmt.Sprintf("repair of pool %s is paused: lost copies are not made anew", p.Name), "ashlar repair resume "+p.Name)
		}
	}
}

func (r *report) volumes() error {
	tx := &plain{store: r.l.m.store}
	list, err := namespace.Volumes(tx)
	if err != nil {
		return err
	}
	for _, v := range list {
		r.s.Volumes = append(r.s.Volumes, wire.VolumeStatus{
			ID: uint32(v.ID), Name: v.Name, Root: uint64(v.Root), Pool: v.PoolName, ChunkSize: v.Policy.ChunkSize,
			StripeWidth: int(v.Policy.StripeWidth), StripeUnit: v.Policy.StripeUnit, Inodes: v.Inodes, Bytes: v.Bytes,
		})
	}
	deletions, err := namespace.Deletions(tx, 0, deletingShown)
	r.s.Deleting = uint64(len(deletions))
	if err == nil {
		err = tx.err
	}
	return err
}

func (r *report) sessions() {
	l, now := r.l, r.l.m.clk.Now()
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	for id, s := range l.sessions {
		r.s.Sessions = append(r.s.Sessions, wire.SessionState{
			ID: uint64(id), Name: s.name, Silent: now.Sub(s.renewed).Seconds(), Opens: l.opens.count(id),
		})
		if s.losing {
			r.risk(warning, fmt.Sprintf("client %s is lost and being fenced", s.name), "it returns by itself under a new session")
		}
	}
	slices.SortFunc(r.s.Sessions, func(a, b wire.SessionState) int { return int(int64(a.ID) - int64(b.ID)) })
}

// finish sorts the problems, worst first, and sums them up.
func (r *report) finish() {
	rank := func(p wire.Risk) int { return slices.Index(severities, p.Severity) }
	slices.SortStableFunc(r.s.Problems, func(a, b wire.Risk) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if a.What < b.What {
			return -1
		}
		return 1
	})
	r.s.Health = healthy
	if len(r.s.Problems) > 0 && r.s.Problems[0].Severity != warning {
		r.s.Health = r.s.Problems[0].Severity
	}
}
