package master

import (
	"fmt"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// States of nodes and disks.
const (
	nodeUp     = "up"
	nodeSilent = "silent"
	nodeDown   = "down"

	diskFull     = "full"
	diskDraining = "draining"
	diskDrained  = "drained"
	diskOffline  = "offline"
	diskFailed   = "failed"
)

// figures are what a chunkserver said of a disk, and when.
type figures struct {
	wire.DiskInfo
	at clock.Time
}

// hearing is how well a chunkserver that is in service is heard.
type hearing struct {
	silent time.Duration // since its last renewal
	never  bool          // not yet since this leader leads
	closed bool          // the connection of its last renewal is
}

func (r *report) gather() {
	l, now := r.l, r.l.m.clk.Now()
	r.hearing = map[ashlar.NodeID]hearing{}
	r.disks = map[wire.UUID]figures{}
	r.progress = map[seat]wire.SyncProgress{}
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	for u, f := range l.figures {
		r.disks[u] = f
	}
	for id, s := range l.servers {
		r.hearing[id] = hearing{silent: now.Sub(s.renewed), never: s.conn == nil, closed: s.conn != nil && !s.heard()}
		r.s.Synced += s.synced
		r.speed += s.speed.perSec()
		r.settled = r.settled || s.speed.settled()
		for u, d := range s.disks {
			r.disks[u] = figures{d, s.renewed}
		}
		for k, p := range s.progress {
			r.progress[k] = p
		}
	}
}

// silence says why the word of a node in service is not to be relied on, ""
// if it is.
func (r *report) silence(id ashlar.NodeID) string {
	switch h := r.hearing[id]; {
	case h.closed:
		return "has closed its connection"
	case h.never:
		return "has not been heard of since this leader leads"
	case h.silent > r.l.m.cfg.Dead/2:
		return fmt.Sprintf("has been silent for %.1f s", h.silent.Seconds())
	}
	return ""
}

func (r *report) nodes() {
	for _, id := range r.v.NodeIDs() {
		n := r.v.Nodes[id]
		st := wire.NodeStatus{
			ID: uint32(id), Name: n.Name, Addr: n.Addr, Rack: n.Rack, Alive: n.Up, State: nodeUp,
			Incarnation: uint64(n.Incarnation), Drain: n.Drain,
		}
		if n.Up {
			st.Silent = r.hearing[id].silent.Seconds()
			if why := r.silence(id); why != "" {
				st.State = nodeSilent
				r.doubt(n, why)
			}
		} else {
			st.State, st.Silent = nodeDown, time.Duration(r.now-n.Since).Seconds()
			r.risk(warning, fmt.Sprintf("node %s is down for %s", n.Name, r.ago(n.Since)),
				fmt.Sprintf("start it; %s; what it holds: ashlar why node %s", r.replaced(n), n.Name))
		}
		r.s.Nodes = append(r.s.Nodes, st)
	}
}

// doubt is about a node whose copies still count for placement: nobody should
// be told that all is well on the word of a process that may be gone.
func (r *report) doubt(n *placement.Node, why string) {
	severity := warning
	if len(r.v.OnNode(n.ID)) > 0 {
		severity = degraded
		h := r.hearing[n.ID]
		r.s.Redundant = r.s.Redundant && !h.closed && !h.never
	}
	r.risk(severity, fmt.Sprintf("node %s %s: its copies may be out of reach", n.Name, why),
		fmt.Sprintf("it counts as down if it is not heard of for %s", r.l.m.cfg.Dead))
}

// ago writes how long ago something was.
func (r *report) ago(t int64) string {
	return time.Duration(r.now - t).Round(time.Second).String()
}

// replaced tells when the seats on the disks of a node that went away are
// given to others.
func (r *report) replaced(n *placement.Node) string {
	f := placement.Facts{RepairAfter: r.l.m.cfg.RepairAfter}
	after, seats := time.Duration(0), 0
	for _, g := range r.v.Groups {
		for _, m := range g.Members {
			if m.Node != n.ID {
				continue
			}
			p := r.v.Pool(g.Pool)
			if p != nil && p.Paused {
				return fmt.Sprintf("its data is not copied elsewhere, because repair of pool %s is paused", p.Name)
			}
			if t := f.RepairTime(p); seats == 0 || t < after {
				after = t
			}
			seats++
		}
	}
	if seats == 0 {
		return "it holds no data"
	}
	if left := after - time.Duration(r.now-n.Since); left > 0 {
		return fmt.Sprintf("its data is copied elsewhere in %s", left.Round(time.Second))
	}
	return "its data is being copied elsewhere where there is room"
}

// diskState is the word for a disk. in is what was last said of it.
func (r *report) diskState(d *placement.Disk, in *figures) string {
	switch {
	case d.Failed != "":
		return diskFailed
	case in.Error != "" && r.v.Serves(d.ID): // about to be recorded
		return diskFailed
	case !r.v.Serves(d.ID):
		return diskOffline
	case r.silence(d.Node) != "":
		return nodeSilent
	case r.v.Draining(d.ID) && r.v.Seats(d.ID) == 0:
		return diskDrained
	case r.v.Draining(d.ID):
		return diskDraining
	case in.Total > 0 && in.Free == 0:
		return diskFull
	}
	return healthy
}

func (r *report) diskStatus(d *placement.Disk) (wire.DiskStatus, figures) {
	in, known := r.disks[d.UUID]
	st := wire.DiskStatus{
		ID: uint32(d.ID), Path: d.Path, UUID: fmt.Sprintf("%x", d.UUID[:]), State: r.diskState(d, &in), Error: d.Failed,
		Labels: d.Labels, Total: in.Total, Free: in.Free, Chunks: in.Chunks, Groups: r.v.Seats(d.ID),
		Damaged: in.Damaged, Repaired: in.Repaired, Age: -1,
	}
	if st.Error == "" {
		st.Error = in.Error
	}
	if d.Drain {
		st.Drained = d.Why
	}
	if known {
		st.Age = r.l.m.clk.Now().Sub(in.at).Seconds()
	}
	if n := r.v.Nodes[d.Node]; n != nil {
		st.Node = n.Name
	}
	return st, in
}

func (r *report) diskList() {
	for _, id := range r.v.DiskIDs() {
		d := r.v.Disks[id]
		st, in := r.diskStatus(d)
		if r.v.Serves(id) { // what nobody can reach is no capacity
			r.s.Total += in.Total
			r.s.Free += in.Free
		}
		r.diskRisks(d, &st)
		r.s.Disks = append(r.s.Disks, st)
	}
}

// diskRisks says what is wrong with a disk.
func (r *report) diskRisks(d *placement.Disk, st *wire.DiskStatus) {
	name := fmt.Sprintf("disk %d (%s on %s)", d.ID, d.Path, st.Node)
	why := fmt.Sprintf("; what it holds: ashlar why disk %d", d.ID)
	switch st.State {
	case diskFailed:
		r.risk(warning, fmt.Sprintf("%s failed: %s", name, st.Error),
			fmt.Sprintf("replace it, then: ashlar disk remove %d%s", d.ID, why))
	case diskOffline:
		if n := r.v.Nodes[d.Node]; n != nil && n.Up { // otherwise the node is what is said
			r.risk(warning, name+" is not attached, though its node is up", "its log says why; it joins when it can be read"+why)
		}
	case diskFull:
		r.risk(degraded, name+" is full", "delete files or add a disk"+why)
	case diskDraining:
		if d.Why != "" {
			r.risk(warning, fmt.Sprintf("%s is being emptied: %s", name, d.Why),
				fmt.Sprintf("replace it when it is empty; if it is good: ashlar disk undrain %d%s", d.ID, why))
		}
	case diskDrained:
		text, next := name+" is empty", fmt.Sprintf("ashlar disk remove %d", d.ID)
		if d.Why != "" {
			text += ", because " + d.Why
			next += fmt.Sprintf(", and replace it; if it is good: ashlar disk undrain %d", d.ID)
		}
		r.risk(warning, text, next)
	}
	if st.Damaged > st.Repaired {
		next := fmt.Sprintf("replace it: ashlar disk drain %d%s", d.ID, why)
		if d.Drain {
			next = "it is being emptied already" + why
		}
		r.risk(degraded, fmt.Sprintf("%s has %d damaged blocks", name, st.Damaged-st.Repaired), next)
	}
}
