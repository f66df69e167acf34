package placement

import (
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
)

// Lost names a chunkserver's session that is lost.
type Lost struct {
	Node    ashlar.NodeID
	Session ashlar.SessionID
}

// NodesDown takes nodes out of service whose sessions are lost, unless they
// have registered anew. The caller is sure that the leases are over (I-6).
// Nodes lost together are passed together: a group of which all in-sync
// members went down keeps them in-sync, since none of them can have taken a
// write without the others.
func NodesDown(tx Tx, now int64, lost []Lost) error {
	v, err := Load(tx)
	if err != nil {
		return err
	}
	var down []ashlar.NodeID
	for _, l := range lost {
		n := v.Nodes[l.Node]
		if n == nil || !n.Up || n.Session != l.Session {
			continue
		}
		n.Up, n.Since = false, now
		putNode(tx, n)
		down = append(down, n.ID)
		for _, id := range v.DiskIDs() {
			if d := v.Disks[id]; d.Node == n.ID && d.Away == 0 {
				d.Away = now
				putDisk(tx, d)
			}
		}
	}
	for _, g := range v.Groups {
		if slices.ContainsFunc(g.Members, func(m ashlar.Member) bool { return slices.Contains(down, m.Node) }) {
			v.dropDead(tx, g, now)
		}
	}
	return nil
}

// dropDead takes every seat of a group offline whose disk does not serve, but
// only while an in-sync one does; otherwise the in-sync seats wait as they
// are.
func (v *View) dropDead(tx Tx, g *Group, now int64) {
	alive := otherInSync(g, -1, func(m *ashlar.Member) bool { return v.Serves(m.Disk) })
	c := edit(g, now)
	for i := range g.Members {
		m := &g.Members[i]
		if !v.Serves(m.Disk) && (m.State == ashlar.Syncing || alive) {
			c.set(i, ashlar.Offline)
		}
	}
	c.save(tx)
}

// MemberFailed is a primary's report against a member of its group. It acts
// at once: the reporter is the primary and so consents. It is ignored when it
// is of another epoch or does not come from the primary's node. Against itself
// it is heard while another in-sync member serves: that one is primary then.
func MemberFailed(tx Tx, now int64, reporter ashlar.NodeID, id ashlar.PGID, epoch ashlar.Epoch, disk ashlar.DiskID) (bool, error) {
	g, ok, err := getGroup(tx, id)
	if err != nil || !ok || g.Epoch != epoch {
		return false, err
	}
	p, i := g.Group.Primary(), g.Index(disk)
	if p < 0 || i < 0 || g.Members[p].Node != reporter || g.Members[i].State == ashlar.Offline {
		return false, nil
	}
	if i == p {
		v, err := Load(tx)
		if err != nil || !otherInSync(g, p, func(m *ashlar.Member) bool { return v.Serves(m.Disk) }) {
			return false, err
		}
	}
	s := &g.Seats[i]
	if now-s.Since > int64(CalmTime) && g.Members[i].State == ashlar.InSync {
		s.Failures = 0
	}
	if s.Failures < 255 {
		s.Failures++
	}
	c := edit(g, now)
	c.set(i, ashlar.Offline)
	return c.save(tx), nil
}

// Synced is a primary's word that a member has everything: it becomes
// in-sync, and seats that were only kept until then are dropped.
func Synced(tx Tx, now int64, reporter ashlar.NodeID, id ashlar.PGID, epoch ashlar.Epoch, disk ashlar.DiskID) (bool, error) {
	g, ok, err := getGroup(tx, id)
	if err != nil || !ok {
		return false, err
	}
	i := g.Index(disk)
	if i >= 0 && g.Members[i].State == ashlar.InSync {
		return false, nil // a repetition
	}
	p := g.Group.Primary()
	if g.Epoch != epoch || p < 0 || i < 0 || g.Members[p].Node != reporter || g.Members[i].State != ashlar.Syncing {
		return false, fail("report synced", ashlar.WrongEpoch, fmt.Sprintf("pg %d", id), "")
	}
	c := edit(g, now)
	c.set(i, ashlar.InSync)
	if i < p {
		c.toEnd(i) // the primary stays: its seat is not taken without consent (I-6)
	}
	v, err := Load(tx)
	if err != nil {
		return false, err
	}
	if pool := v.Pool(g.Pool); pool != nil {
		v.trim(c, pool)
	}
	return c.save(tx), nil
}

// DiskFailed marks a disk of a node as lost. Its seats go offline: where it
// was primary the node itself says so, which is its consent. The last in-sync
// seat of a group stays.
func DiskFailed(tx Tx, now int64, reporter ashlar.NodeID, disk ashlar.DiskID, reason string) (bool, error) {
	v, err := Load(tx)
	if err != nil {
		return false, err
	}
	d := v.Disks[disk]
	if d == nil || d.Node != reporter || d.Failed != "" {
		return false, nil
	}
	if reason == "" {
		reason = "failed"
	}
	d.Failed = reason[:min(len(reason), textMax)]
	if d.Away == 0 {
		d.Away = now
	}
	putDisk(tx, d)
	for _, g := range v.Groups {
		if g.Index(disk) >= 0 {
			v.dropDead(tx, g, now)
		}
	}
	return true, nil
}

// Rotate takes the primary's role from a group's primary, which has consented
// or whose lease is over, for the member on disk to; 0 is for whoever is next,
// and drops the seat if it is to be left. It tells whether it changed
// anything; it does not if the epoch has moved on or the other is not in-sync.
func Rotate(tx Tx, now int64, id ashlar.PGID, epoch ashlar.Epoch, to ashlar.DiskID) (bool, error) {
	v, err := Load(tx)
	if err != nil {
		return false, err
	}
	g := v.Group(id)
	if g == nil || g.Epoch != epoch {
		return false, nil
	}
	p := g.Group.Primary()
	next := func(m *ashlar.Member) bool { return v.Serves(m.Disk) && (to == 0 || m.Disk == to) }
	if p < 0 || !otherInSync(g, p, next) {
		return false, nil
	}
	c := edit(g, now)
	for range g.Members {
		c.toEnd(g.Group.Primary())
		if m := &g.Members[g.Group.Primary()]; next(m) {
			break
		}
	}
	if pool := v.Pool(g.Pool); pool != nil {
		v.trim(c, pool)
	}
	return c.save(tx), nil
}
