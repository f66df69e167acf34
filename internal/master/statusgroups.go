package master

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// tally counts groups in a bad state for one line of Problems each.
type tally struct {
	groups int
	first  ashlar.PGID
	left   uint64
	lack   bool // somewhere nobody is being caught up
	paused bool
	awaits []string // nodes and disks whose return would help
}

// groupNotes are how the states that are bad are told.
var groupNotes = []struct{ state, severity, what string }{
	{unavailable, unavailable, "have no copy that can be reached"},
	{readOnly, unavailable, "take no writes: they have fewer copies than their pool's write-min"},
	{atRisk, atRisk, "have one copy left"},
	{degraded, degraded, "lack a copy"},
}

func (r *report) groups() {
	bad := map[string]*tally{}
	x := placement.NewExplainer(r.v, r.l.facts())
	for _, g := range r.v.Groups {
		st := wire.GroupStatus{ID: uint32(g.ID), Epoch: uint64(g.Epoch), LastCopy: g.LastCopy}
		pool := r.v.Pool(g.Pool)
		if pool != nil {
			st.Pool = pool.Name
		}
		left, syncing := r.members(x, g, &st)
		st.State, _ = r.v.State(g, pool, nil)
		if st.State != healthy && st.State != moving {
			t := bad[st.State]
			if t == nil {
				t = &tally{first: g.ID}
				bad[st.State] = t
			}
			t.groups++
			t.left += left
			t.lack = t.lack || !syncing
			t.paused = t.paused || pool != nil && pool.Paused
			r.awaited(t, g, st.State)
			r.s.Redundant = false
		}
		r.s.Groups = append(r.s.Groups, st)
	}
	for _, n := range groupNotes {
		if t := bad[n.state]; t != nil {
			r.risk(n.severity, fmt.Sprintf("%d of %d placement groups %s", t.groups, len(r.v.Groups), n.what),
				fmt.Sprintf("%s; for instance: ashlar why pg %d", r.nextFor(n.state, t), t.first))
		}
	}
}

// awaited notes what an unreachable group waits for: those who have its data.
func (r *report) awaited(t *tally, g *placement.Group, state string) {
	for _, m := range g.Members {
		if r.v.Serves(m.Disk) || state == unavailable && m.State != ashlar.InSync {
			continue
		}
		name := fmt.Sprintf("disk %d", m.Disk)
		if n := r.v.Nodes[m.Node]; n != nil && !n.Up {
			name = "node " + n.Name
		}
		if !slices.Contains(t.awaits, name) {
			t.awaits = append(t.awaits, name)
		}
	}
}

func (r *report) nextFor(state string, t *tally) string {
	slices.Sort(t.awaits)
	who := strings.Join(t.awaits, ", ")
	switch {
	case state == unavailable && who != "":
		return "they wait for " + who
	case state == unavailable:
		return "their primaries are about to change"
	case state == readOnly:
		return "bring back " + orWords(who, "a copy") + ", or lower it: ashlar pool set POOL --write-min 1"
	case t.paused:
		return "repair is paused: ashlar repair resume"
	case t.left > 0 && r.speed > 0 && r.settled:
		return fmt.Sprintf("being repaired: about %d MiB to copy, done in about %s", t.left>>20,
			time.Duration(float64(t.left)/r.speed*float64(time.Second)).Round(time.Second))
	case t.left > 0:
		return fmt.Sprintf("being repaired: about %d MiB to copy", t.left>>20)
	case !t.lack:
		return "being repaired"
	case who != "":
		return "repaired as soon as " + who + " returns or another has room"
	}
	return "repaired as soon as there is a disk with room for another copy"
}

func orWords(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

func (r *report) members(x *placement.Explainer, g *placement.Group, st *wire.GroupStatus) (left uint64, syncing bool) {
	primary := g.Group.Primary()
	for i, m := range g.Members {
		ms := wire.MemberStatus{
			Disk: uint32(m.Disk), State: m.State.String(), Primary: i == primary, Alive: r.v.Serves(m.Disk),
			Why: x.Why(g, i),
		}
		if n := r.v.Nodes[m.Node]; n != nil {
			ms.Node = n.Name
		}
		if m.State == ashlar.Syncing {
			syncing = true
			ms.Left = r.progress[seat{g.ID, m.Disk}].Left
			left += ms.Left
		}
		st.Members = append(st.Members, ms)
	}
	return left, syncing
}
