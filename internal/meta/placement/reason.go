package placement

import (
	"fmt"
	"time"

	"github.com/ashlarfs/ashlar"
)

// Reason says in words why a seat of a group is not simply in-sync: what is
// being copied there and what for, or why nothing is. It is "" for a seat that
// is in-sync and stays.
func (v *View) Reason(f *Facts, g *Group, i int) string {
	p := v.Pool(g.Pool)
	if p == nil {
		return ""
	}
	switch {
	case g.Members[i].State == ashlar.Syncing:
		return v.syncingReason(f, p, g, i)
	case g.Members[i].State == ashlar.Offline:
		return v.offlineReason(f, p, g, i)
	case !v.Serves(g.Members[i].Disk):
		return "it has what is acknowledged and cannot be reached: " + v.gone(f, p, g.Members[i].Disk)
	case g.Seats[i].Leave:
		return "it makes room: another disk takes this copy over to even out use"
	case v.Draining(g.Members[i].Disk):
		return "its disk is being drained" + v.drainWhy(g.Members[i].Disk)
	}
	return ""
}

func (v *View) drainWhy(id ashlar.DiskID) string {
	if d := v.Disks[id]; d != nil && d.Why != "" {
		return ": " + d.Why
	}
	return ""
}

// syncingReason says whose place a seat that is being copied to takes.
func (v *View) syncingReason(f *Facts, p *Pool, g *Group, i int) string {
	paused := ""
	if p.Paused {
		paused = "; repair of the pool is paused"
	}
	if _, up := v.Primary(g); !up {
		return "it waits for a member that holds everything" + paused
	}
	for j := range g.Members {
		d := v.Disks[g.Members[j].Disk]
		switch {
		case j == i:
		case d == nil:
			return fmt.Sprintf("it replaces disk %d, which was removed%s", g.Members[j].Disk, paused)
		case d.Failed != "":
			return fmt.Sprintf("it replaces disk %d, which failed: %s%s", d.ID, d.Failed, paused)
		case v.Draining(d.ID):
			return fmt.Sprintf("it takes over from disk %d, which is being drained%s%s", d.ID, v.drainWhy(d.ID), paused)
		case d.Away != 0 && f.since(d.Away, f.RepairTime(p)):
			return fmt.Sprintf("it replaces disk %d, which has been away for longer than %v%s", d.ID, f.RepairTime(p), paused)
		case g.Seats[j].Leave:
			return fmt.Sprintf("it takes over from disk %d to even out use%s", d.ID, paused)
		}
	}
	return "it is brought up to date: it was away, or is one copy more" + paused
}

func (v *View) offlineReason(f *Facts, p *Pool, g *Group, i int) string {
	id := g.Members[i].Disk
	if !v.Serves(id) {
		return v.gone(f, p, id)
	}
	if n := g.Seats[i].Failures; n > 0 {
		return fmt.Sprintf("it did not answer its primary, %d times in a row; it is tried again", n)
	}
	return "it is brought up to date as soon as its turn comes"
}

// gone says why a disk does not serve, and until when it is waited for.
func (v *View) gone(f *Facts, p *Pool, id ashlar.DiskID) string {
	d := v.Disks[id]
	if d == nil {
		return "its disk was removed"
	}
	if d.Failed != "" {
		return "its disk failed: " + d.Failed
	}
	n := v.Nodes[d.Node]
	what := "its disk is not attached"
	if n != nil && !n.Up {
		what = fmt.Sprintf("node %s is down", n.Name)
	}
	if d.Away == 0 {
		return what
	}
	away := time.Duration(f.Now - d.Away)
	what += " for " + away.Round(time.Second).String()
	if left := f.RepairTime(p) - away; left > 0 {
		return what + ", and replaced if it is not back in " + left.Round(time.Second).String()
	}
	return what + "; its copy is made elsewhere where there is room"
}
