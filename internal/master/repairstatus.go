package master

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// rules are the rules of repair of a pool.
func (r *report) rules(p *placement.Pool) wire.Repair {
	f := placement.Facts{RepairAfter: r.l.m.cfg.RepairAfter}
	out := wire.Repair{Paused: p.Paused, Limit: p.RepairBytes, After: f.RepairTime(p).Seconds()}
	if out.Limit == 0 {
		out.Limit = placement.RepairBytesDefault
	}
	return out
}

// repair sums up what is being copied in each pool, and until when.
func (r *report) repair() {
	left := uint64(0)
	byID := map[uint32]*wire.Repair{}
	for i := range r.s.Pools {
		byID[r.s.Pools[i].ID] = &r.s.Pools[i].Repair
	}
	for _, g := range r.v.Groups {
		p := byID[g.Pool]
		if p == nil {
			continue
		}
		busy := false
		for _, m := range g.Members {
			if m.State == ashlar.Syncing && r.v.Serves(m.Disk) {
				x := r.progress[seat{g.ID, m.Disk}]
				busy = true
				p.Left += x.Left
				p.Done += x.Bytes
				left += x.Left
			}
		}
		if busy {
			p.Groups++
		}
	}
	for _, p := range byID {
		if p.Groups == 0 || p.Paused {
			continue
		}
		p.Rate = uint64(r.speed)
		if r.speed > 0 && r.settled { // the pools share it
			p.Time = float64(left) / r.speed
		}
	}
}
