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
	unavailable = "unavailable"
	readOnly    = "read-only" // of a group: fewer copies than write-min
	atRisk      = "at risk"
	degraded    = "degraded"
	warning     = "warning"
	healthy     = "ok"
	moving      = "moving"
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
	heard    map[ashlar.NodeID]bool
	disks    map[wire.UUID]wire.DiskInfo
	progress map[seat]wire.SyncProgress
	speed    float64 // of all repair, bytes a second
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

func (r *report) gather() {
	l, now := r.l, r.l.m.clk.Now()
	r.silent = map[ashlar.NodeID]time.Duration{}
	r.heard = map[ashlar.NodeID]bool{}
	r.disks = map[wire.UUID]wire.DiskInfo{}
	r.progress = map[seat]wire.SyncProgress{}
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	for id, s := range l.servers {
		r.silent[id] = now.Sub(s.renewed)
		r.heard[id] = s.heard()
		r.s.Synced += s.synced
		r.speed += s.speed.perSec
		for u, d := range s.disks {
			r.disks[u] = d
		}
		for k, p := range s.progress {
			r.progress[k] = p
		}
	}
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

func (r *report) nodes() {
	for _, id := range r.v.NodeIDs() {
		n := r.v.Nodes[id]
		st := wire.NodeStatus{
			ID: uint32(id), Name: n.Name, Addr: n.Addr, Rack: n.Rack, Alive: n.Up,
			Incarnation: uint64(n.Incarnation), Drain: n.Drain,
		}
		if n.Up {
			st.Silent = r.silent[id].Seconds()
			if !r.heard[id] && len(r.v.OnNode(id)) > 0 {
				// Its copies still count for placement, but nobody should be told
				// that all is well on the word of a process that may be gone.
				r.s.Redundant = false
				r.risk(warning, fmt.Sprintf("node %s has closed its connection", n.Name),
					"it is down if it has not returned in a few seconds")
			}
		} else {
			st.Silent = time.Duration(r.now - n.Since).Seconds()
			r.risk(warning, fmt.Sprintf("node %s is down for %s", n.Name, r.ago(n.Since)),
				fmt.Sprintf("start it; %s", r.replaced(n.Since)))
		}
		r.s.Nodes = append(r.s.Nodes, st)
	}
}

// ago writes how long ago something was.
func (r *report) ago(t int64) string {
	return time.Duration(r.now - t).Round(time.Second).String()
}

// replaced tells when the seats of a disk that went away are given to others.
func (r *report) replaced(away int64) string {
	f := placement.Facts{RepairAfter: r.l.m.cfg.RepairAfter}
	after := f.RepairTime(nil)
	for i, p := range r.v.Pools {
		if t := f.RepairTime(p); i == 0 || t < after {
			after = t
		}
	}
	if left := after - time.Duration(r.now-away); left > 0 {
		return fmt.Sprintf("its data is copied elsewhere in %s", left.Round(time.Second))
	}
	return "its data is being copied elsewhere where there is room"
}

func (r *report) diskState(d *placement.Disk) string {
	switch {
	case d.Failed != "":
		return "failed"
	case !r.v.Serves(d.ID):
		return "offline"
	case r.v.Draining(d.ID) && r.v.Seats(d.ID) == 0:
		return "drained"
	case r.v.Draining(d.ID):
		return "draining"
	}
	return healthy
}

func (r *report) diskList() {
	for _, id := range r.v.DiskIDs() {
		d := r.v.Disks[id]
		in := r.disks[d.UUID]
		st := wire.DiskStatus{
			ID: uint32(id), Path: d.Path, UUID: fmt.Sprintf("%x", d.UUID[:]), State: r.diskState(d), Error: d.Failed,
			Labels: d.Labels, Total: in.Total, Free: in.Free, Chunks: in.Chunks, Groups: r.v.Seats(id),
			Damaged: in.Damaged, Repaired: in.Repaired,
		}
		if n := r.v.Nodes[d.Node]; n != nil {
			st.Node = n.Name
		}
		r.s.Total += in.Total
		r.s.Free += in.Free
		switch {
		case st.State == "failed":
			r.risk(warning, fmt.Sprintf("disk %d (%s on %s) failed: %s", id, d.Path, st.Node, d.Failed),
				fmt.Sprintf("replace it, then: ashlar disk remove %d", id))
		case st.State == healthy && in.Total > 0 && in.Free == 0:
			r.risk(degraded, fmt.Sprintf("disk %d (%s on %s) is full", id, d.Path, st.Node), "delete files or add a disk")
		case st.State == "draining" && d.Why != "":
			r.risk(warning, fmt.Sprintf("disk %d (%s on %s) is being emptied: %s", id, d.Path, st.Node, d.Why),
				fmt.Sprintf("replace it when it is empty; if it is good: ashlar disk undrain %d", id))
		case st.State == "drained":
			r.risk(warning, fmt.Sprintf("disk %d (%s on %s) is empty", id, d.Path, st.Node), fmt.Sprintf("ashlar disk remove %d", id))
		}
		if in.Damaged > in.Repaired {
			r.risk(degraded, fmt.Sprintf("disk %d (%s on %s) has %d damaged blocks", id, d.Path, st.Node, in.Damaged-in.Repaired),
				fmt.Sprintf("replace it: ashlar disk drain %d", id))
		}
		r.s.Disks = append(r.s.Disks, st)
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

// tally counts groups in a bad state for one line of Problems each.
type tally struct {
	groups int
	left   uint64
	lack   bool // somewhere nobody is being caught up
}

func (r *report) groups() {
	bad := map[string]*tally{}
	for _, g := range r.v.Groups {
		st := wire.GroupStatus{ID: uint32(g.ID), Epoch: uint64(g.Epoch), LastCopy: g.LastCopy}
		pool := r.v.Pool(g.Pool)
		want, least := 1, 1
		if pool != nil {
			st.Pool, want, least = pool.Name, int(pool.Replicas), int(pool.WriteMin)
		}
		left, syncing := r.members(g, &st)
		st.State = r.groupState(g, want, least, syncing)
		if st.State != healthy && st.State != moving {
			t := bad[st.State]
			if t == nil {
				t = new(tally)
				bad[st.State] = t
			}
			t.groups++
			t.left += left
			t.lack = t.lack || !syncing
			r.s.Redundant = false
		}
		r.s.Groups = append(r.s.Groups, st)
	}
	if t := bad[readOnly]; t != nil {
		r.risk(unavailable, fmt.Sprintf("%d of %d placement groups take no writes: they have fewer copies than their pool's write-min",
			t.groups, len(r.v.Groups)), r.nextFor(readOnly, t)+"; or lower it: ashlar pool set POOL --write-min 1")
	}
	for state, what := range map[string]string{
		unavailable: "have no copy that can be reached",
		atRisk:      "have one copy left",
		degraded:    "lack a copy",
	} {
		if t := bad[state]; t != nil {
			r.risk(state, fmt.Sprintf("%d of %d placement groups %s", t.groups, len(r.v.Groups), what), r.nextFor(state, t))
		}
	}
}

func (r *report) nextFor(state string, t *tally) string {
	switch {
	case state == unavailable:
		return "start the nodes that hold them; they are listed below"
	case t.left > 0 && r.speed > 0:
		return fmt.Sprintf("being repaired: about %d MiB to copy, done in about %s", t.left>>20,
			time.Duration(float64(t.left)/r.speed*float64(time.Second)).Round(time.Second))
	case t.left > 0:
		return fmt.Sprintf("being repaired: about %d MiB to copy", t.left>>20)
	case !t.lack:
		return "being repaired"
	}
	return "repaired as soon as a node returns or another has room: see the nodes below"
}

func (r *report) members(g *placement.Group, st *wire.GroupStatus) (left uint64, syncing bool) {
	primary := g.Group.Primary()
	for i, m := range g.Members {
		ms := wire.MemberStatus{
			Disk: uint32(m.Disk), State: m.State.String(), Primary: i == primary, Alive: r.v.Serves(m.Disk),
			Why: r.v.Reason(&placement.Facts{Now: r.now, RepairAfter: r.l.m.cfg.RepairAfter}, g, i),
		}
		if n := r.v.Nodes[m.Node]; n != nil {
			ms.Node = n.Name
		}
		if m.State == ashlar.Syncing {
			syncing = true
			for k, p := range r.progress {
				if k == (seat{g.ID, m.Disk}) {
					ms.Left = p.Left
					left += p.Left
				}
			}
		}
		st.Members = append(st.Members, ms)
	}
	return left, syncing
}

func (r *report) groupState(g *placement.Group, want, least int, syncing bool) string {
	copies := 0
	for _, m := range g.Members {
		if m.State == ashlar.InSync && r.v.Serves(m.Disk) {
			copies++
		}
	}
	_, up := r.v.Primary(g)
	switch {
	case !up:
		return unavailable
	case copies < least:
		return readOnly
	case copies == 1 && want > 1:
		return atRisk
	case copies < want:
		return degraded
	case syncing || len(g.Members) > want:
		return moving
	}
	return healthy
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
