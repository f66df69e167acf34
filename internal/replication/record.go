package replication

import (
	"cmp"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits of what a group remembers.
const (
	// KeptMax is the most results of finished writes kept for retries.
	KeptMax = 4096
	// sessionsMax is the most sessions whose horizon is known: with that of all
	// others they fit one message.
	sessionsMax = wire.InflightMax - 1
)

// fate is what is known of a write.
type fate uint8

const (
	flying  fate = iota // begun, not known to be on every member
	done                // on every member
	torn                // begun here, then cut short by a crash; made equal
	unknown             // torn, and overwritten since
)

// record is what a member has noted of one write (I-7).
type record struct {
	session *session
	rec     wire.Inflight
	slot    Slot
	fate    fate
	op      *Op // while it is alive on the primary

	linked       bool // in the list of kept results
	older, newer *record
}

// session is what a group remembers of one session's writes.
type session struct {
	id ashlar.SessionID
	// horizon: of writes at or below it only what is in recs is known.
	horizon uint64
	// fresh: a write above it was first sent after this seat began; 0: none
	// was seen.
	fresh uint64
	// blank: what was known of it may have been dropped to make room.
	blank bool
	recs  map[uint64]*record

	older, newer *session
}

// memory is every record of a group, the finished ones by age, and the
// sessions by last use.
type memory struct {
	slots    Slots
	sessions map[ashlar.SessionID]*session
	// floor is the highest session that was dropped to make room, here or by
	// somebody whose memory this was merged with.
	floor  ashlar.SessionID
	oldest *session
	newest *session

	keptOldest, keptNewest *record
	kept                   int
	torn                   int
}

func newMemory(slots Slots) memory {
	return memory{slots: slots, sessions: map[ashlar.SessionID]*session{}}
}

// of returns the entry of a session, making it if need be, as the last used.
func (m *memory) of(id ashlar.SessionID) *session {
	s := m.sessions[id]
	if s == nil {
		if len(m.sessions) >= sessionsMax {
			m.forgetIdle()
		}
		s = &session{id: id, blank: id <= m.floor, recs: map[uint64]*record{}}
		m.sessions[id] = s
	} else {
		if m.newest == s {
			return s
		}
		m.unlink(s)
	}
	s.older, s.newer = m.newest, nil
	if m.newest != nil {
		m.newest.newer = s
	} else {
		m.oldest = s
	}
	m.newest = s
	return s
}

func (m *memory) unlink(s *session) {
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		m.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		m.newest = s.older
	}
	s.older, s.newer = nil, nil
}

// forgetIdle drops the session used longest ago that has nothing in flight.
func (m *memory) forgetIdle() {
	for s := m.oldest; s != nil; s = s.newer {
		if m.forget(s) {
			m.floor = max(m.floor, s.id)
			return
		}
	}
}

// forget drops all results of a session unless one is in flight.
func (m *memory) forget(s *session) bool {
	for _, r := range s.recs {
		if r.fate == flying {
			return false
		}
	}
	for _, r := range s.sorted() {
		m.drop(r)
	}
	m.unlink(s)
	delete(m.sessions, s.id)
	return true
}

// sorted returns the records of s by sequence.
func (s *session) sorted() []*record {
	out := make([]*record, 0, len(s.recs))
	for _, r := range s.recs {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *record) int { return cmp.Compare(a.rec.Seq, b.rec.Seq) })
	return out
}

// all returns every record, by session and sequence.
func (m *memory) all() []*record {
	ids := make([]ashlar.SessionID, 0, len(m.sessions))
	for id := range m.sessions {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var out []*record
	for _, id := range ids {
		out = append(out, m.sessions[id].sorted()...)
	}
	return out
}

// raise takes in what somebody else has forgotten. Of session 0 it is the
// highest session of which nothing may be known.
func (m *memory) raise(z wire.Horizon) {
	if z.Session == 0 {
		m.floor = max(m.floor, ashlar.SessionID(z.Seq))
		return
	}
	m.answered(m.of(z.Session), z.Seq+1)
}

// horizons lists what was forgotten, by session.
func (m *memory) horizons() []wire.Horizon {
	var out []wire.Horizon
	if m.floor > 0 {
		out = append(out, wire.Horizon{Seq: uint64(m.floor)})
	}
	for id, s := range m.sessions {
		if s.horizon > 0 {
			out = append(out, wire.Horizon{Session: id, Seq: s.horizon})
		}
	}
	slices.SortFunc(out, func(a, b wire.Horizon) int { return cmp.Compare(a.Session, b.Session) })
	return out
}

// answered drops the results below lowest: their session has them all.
func (m *memory) answered(s *session, lowest uint64) {
	if lowest == 0 || lowest-1 <= s.horizon {
		return
	}
	from := s.horizon + 1
	s.horizon = lowest - 1
	if uint64(len(s.recs)) < lowest-from {
		for _, r := range s.sorted() {
			if r.rec.Seq < lowest && r.fate != flying {
				m.drop(r)
			}
		}
		return
	}
	for q := from; q < lowest; q++ {
		if r := s.recs[q]; r != nil && r.fate != flying {
			m.drop(r)
		}
	}
}

// record makes the entry of a write; begin notes it before it is applied here.
func (m *memory) record(s *session, w *wire.Write) *record {
	if old := s.recs[w.Seq]; old != nil {
		m.drop(old)
	}
	r := &record{session: s, slot: NoSlot, rec: wire.Inflight{
		Session: w.Session, Seq: w.Seq, Layer: w.Layer, Gen: w.Gen, Chunk: w.Chunk, Off: w.Off, Len: w.Len,
	}}
	s.recs[w.Seq] = r
	return r
}

func (m *memory) begin(r *record, epoch ashlar.Epoch, num uint64) error {
	if r.slot != NoSlot {
		return nil
	}
	slot, err := m.slots.Begin(epoch, num, &r.rec)
	if err != nil {
		return err
	}
	r.slot = slot
	return nil
}

// finish keeps r as the result of a write that is on every member.
func (m *memory) finish(r *record) {
	if r.fate == done {
		return
	}
	if r.fate == torn {
		m.torn--
	}
	r.fate = done
	r.rec.Applied, r.rec.Done = true, true
	if r.slot != NoSlot {
		m.slots.Done(r.slot)
	}
	if s := r.session; s.recs[r.rec.Seq] != r {
		return // dropped meanwhile
	} else if r.rec.Seq <= s.horizon {
		m.drop(r)
		return
	}
	r.linked, r.older, r.newer = true, m.keptNewest, nil
	if m.keptNewest != nil {
		m.keptNewest.newer = r
	} else {
		m.keptOldest = r
	}
	m.keptNewest = r
	if m.kept++; m.kept > KeptMax {
		old := m.keptOldest
		old.session.horizon = max(old.session.horizon, old.rec.Seq)
		m.drop(old)
	}
}

// drop forgets r.
func (m *memory) drop(r *record) {
	if r.slot != NoSlot {
		m.slots.Free(r.slot)
		r.slot = NoSlot
	}
	if r.fate == torn || r.fate == unknown {
		m.torn--
		r.fate = done
	}
	if r.linked {
		if r.older != nil {
			r.older.newer = r.newer
		} else {
			m.keptOldest = r.newer
		}
		if r.newer != nil {
			r.newer.older = r.older
		} else {
			m.keptNewest = r.older
		}
		r.linked, r.older, r.newer = false, nil, nil
		m.kept--
	}
	if r.session.recs[r.rec.Seq] == r {
		delete(r.session.recs, r.rec.Seq)
	}
}

// keep adds the result of a write finished elsewhere.
func (m *memory) keep(f *wire.Inflight) {
	s := m.of(f.Session)
	if r := s.recs[f.Seq]; r != nil {
		if r.op == nil {
			m.finish(r)
		}
		return
	}
	if f.Seq <= s.horizon {
		return
	}
	r := &record{session: s, slot: NoSlot, rec: *f}
	s.recs[f.Seq] = r
	if slot, err := m.slots.Begin(0, 0, &r.rec); err == nil {
		r.slot = slot
		m.slots.Applied(slot)
	}
	m.finish(r)
}

// overwritten marks what a new write makes impossible to judge.
func (m *memory) overwritten(w *wire.Write) {
	if m.torn == 0 {
		return
	}
	for _, r := range m.all() {
		f := &r.rec
		if r.fate == torn && f.Layer == w.Layer && f.Chunk == w.Chunk &&
			f.Off < w.Off+w.Len && w.Off < f.Off+f.Len && (f.Session != w.Session || f.Seq != w.Seq) {
			r.fate = unknown
		}
	}
}
