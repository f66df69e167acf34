package replication

import (
	"cmp"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Note is a replicated write at a member.
type Note struct {
	// Wait is the caller's: requests for the same write wait on it.
	Wait any

	num     uint64
	rec     *record
	applied bool
}

// Replicate admits a write from the primary. Do: apply it, then call
// NoteApplied with the Note. Already: answer success. Joined: it is being
// applied, wait for that Note.
func (g *Group) Replicate(m *wire.Replicate, wait any) (Verdict, *Note, error) {
	w := &m.Write
	switch { // I-4
	case g.phase == Closed || w.Epoch > g.cfg.Epoch:
		return Refused, nil, ashlar.NotReady
	case w.Epoch < g.cfg.Epoch:
		return Refused, nil, ashlar.WrongEpoch
	case g.phase != Following:
		return Refused, nil, ashlar.NotReady
	}
	g.Commit(w.Epoch, m.Committed)
	if m.Op <= g.committed { // L-3
		return Already, nil, nil
	}
	if n := g.notes[m.Op]; n != nil {
		if n.applied {
			return Already, nil, nil
		}
		return Joined, n, nil
	}
	s := g.mem.of(w.Session)
	g.mem.answered(s, w.Lowest)
	rec := g.mem.record(s, w)
	if err := g.mem.begin(rec, w.Epoch, m.Op); err != nil {
		g.mem.drop(rec)
		return Refused, nil, err
	}
	n := &Note{Wait: wait, num: m.Op, rec: rec}
	g.notes[m.Op] = n
	g.applying++
	return Do, n, nil
}

// NoteApplied reports the end of the local write of a Note.
func (g *Group) NoteApplied(n *Note, err error) {
	if err == nil {
		n.applied = true
		n.rec.rec.Applied = true
		if n.rec.slot != NoSlot {
			g.mem.slots.Applied(n.rec.slot)
		}
		if n.num <= g.committed && g.notes[n.num] == n {
			g.commit(n)
		}
	} else if g.notes[n.num] == n {
		delete(g.notes, n.num) // it stays noted: part of it may be there
	}
	g.applied()
}

// Commit takes the primary's word that every write of an epoch up to num is
// on every member.
func (g *Group) Commit(e ashlar.Epoch, num uint64) {
	if e != g.cfg.Epoch || g.phase != Following || num <= g.committed {
		return
	}
	if num-g.committed <= uint64(len(g.notes)) {
		for q := g.committed + 1; q <= num; q++ {
			g.commit(g.notes[q])
		}
	} else {
		var old []*Note
		for q, n := range g.notes {
			if q <= num {
				old = append(old, n)
			}
		}
		slices.SortFunc(old, func(a, b *Note) int { return cmp.Compare(a.num, b.num) })
		for _, n := range old {
			g.commit(n)
		}
	}
	g.committed = num
}

func (g *Group) commit(n *Note) {
	if n != nil && n.applied {
		g.mem.finish(n.rec)
		delete(g.notes, n.num)
	}
}

// Busy tells whether a write at or below Committed is being applied here: one
// that the primary gave up on.
func (g *Group) Busy() bool {
	for q, n := range g.notes {
		if q <= g.committed && !n.applied {
			return true
		}
	}
	return false
}

// Quiet tells whether nothing is being written to the local disk.
func (g *Group) Quiet() bool { return g.applying == 0 }

// Handover returns what this seat has noted, for the primary of the epoch it
// has recorded.
func (g *Group) Handover() *wire.Handover {
	h := &wire.Handover{}
	all := g.mem.all()
	for _, r := range all {
		if r.fate != done && (r.slot != NoSlot || r.fate != flying) { // begun
			h.Inflight = append(h.Inflight, r.rec)
		}
	}
	// What may not be on every member goes first: without it members would
	// differ. Of results that find no room the session is told so.
	for _, r := range all {
		switch {
		case r.fate != done:
		case len(h.Inflight) < wire.InflightMax:
			h.Inflight = append(h.Inflight, r.rec)
		default:
			r.session.horizon = max(r.session.horizon, r.rec.Seq)
		}
	}
	h.Horizons = g.mem.horizons()
	return h
}

// Results returns the results that every in-sync member is to hold when the
// primary begins to serve.
func (g *Group) Results() ([]wire.Inflight, []wire.Horizon) {
	var out []wire.Inflight
	for _, r := range g.mem.all() {
		if r.fate == done && len(out) < wire.InflightMax {
			out = append(out, r.rec)
		}
	}
	return out, g.mem.horizons()
}

// Resolve replaces what this member noted in earlier epochs by the primary's
// results: everything of theirs was made equal. A syncing member keeps what
// it had in flight until Caught, because it is still to be copied.
func (g *Group) Resolve(e ashlar.Epoch, results []wire.Inflight, horizons []wire.Horizon) error {
	if e != g.cfg.Epoch || g.phase != Following {
		return ashlar.WrongEpoch
	}
	for i := range results {
		g.mem.keep(&results[i])
	}
	if at := g.cfg.Index(g.me); at >= 0 && g.cfg.Members[at].State == ashlar.InSync {
		g.amnesia = 0
		g.forgetOld()
	}
	for _, z := range horizons {
		g.mem.raise(z)
	}
	return nil
}

// Flying returns what this member had in flight itself, for its catch-up.
func (g *Group) Flying() []wire.Inflight {
	live := make(map[*record]bool, len(g.notes))
	for _, n := range g.notes {
		live[n.rec] = true
	}
	var out []wire.Inflight
	for _, r := range g.mem.all() {
		if r.fate != done && !live[r] && len(out) < wire.InflightMax {
			out = append(out, r.rec)
		}
	}
	return out
}

// Caught reports, at a syncing member, that everything it noted in earlier
// epochs was copied from the primary and is durable: whether it had applied a
// write then says nothing any more.
func (g *Group) Caught(e ashlar.Epoch) error {
	if e != g.cfg.Epoch || g.phase != Following {
		return ashlar.WrongEpoch
	}
	g.forgetOld()
	return nil
}

// forgetOld drops what was noted in earlier epochs and is not known to be on
// every member.
func (g *Group) forgetOld() {
	live := make(map[*record]bool, len(g.notes))
	for _, n := range g.notes {
		live[n.rec] = true
	}
	for _, r := range g.mem.all() {
		if r.fate != done && !live[r] {
			g.mem.drop(r)
		}
	}
}

// Settled tells whether a write that a member noted is known to be on every
// member: if it was applied there too, its range need not be copied again
// unless it changed in a later epoch.
func (g *Group) Settled(f *wire.Inflight) bool {
	s := g.mem.sessions[f.Session]
	if s == nil || !f.Applied {
		return false
	}
	r := s.recs[f.Seq]
	return r != nil && r.fate == done
}
