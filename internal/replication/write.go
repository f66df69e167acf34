package replication

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// LineMax is the most spans in line in one group; a write beyond it is
// refused as Overloaded.
const LineMax = 8192

// Op is a client's write from its admission by the primary to its end.
type Op struct {
	Write *wire.Write
	// Wait is the caller's, to tell who waits.
	Wait any

	span    Span
	rec     *record
	epoch   ashlar.Epoch
	num     uint64
	pending uint64 // bits of the members that have not applied it
	started bool
	over    bool

	prev, next *Op
}

// Over tells whether the write is finished.
func (o *Op) Over() bool { return o.over }

// Verdict is what becomes of a request.
type Verdict uint8

// The verdicts.
const (
	// Taken: it is in line; ActFinish will tell.
	Taken Verdict = iota + 1
	// Already: it has taken effect; answer success without applying (I-7).
	Already
	// Joined: the same write is in line already; wait for that one.
	Joined
	// Refused: answer the error.
	Refused
	// Do: apply it and report it (members).
	Do
)

// Order admits a client's write. With Joined the Op returned is the one to
// wait for.
func (g *Group) Order(op *Op) (Verdict, *Op, error) {
	w := op.Write
	if err := g.Ready(w.Epoch); err != nil {
		return Refused, nil, err
	}
	if g.line.n >= LineMax {
		return Refused, nil, ashlar.Overloaded
	}
	s := g.mem.of(w.Session)
	g.mem.answered(s, w.Lowest)
	r := s.recs[w.Seq]
	switch {
	case r == nil && (w.Seq <= s.horizon || g.forgotten(s, w)):
		return Refused, nil, ashlar.OutcomeUnknown
	case r != nil && r.op != nil:
		return Joined, r.op, nil
	case r != nil && r.fate == done:
		return Already, nil, nil
	case r != nil && r.fate == unknown:
		return Refused, nil, ashlar.OutcomeUnknown
	}
	if r == nil {
		r = g.mem.record(s, w)
	}
	r.op, op.rec = op, r
	// Whole blocks: what is copied and mended is blocks.
	const b = ashlar.BlockSize
	op.span = Span{Layer: w.Layer, Chunk: w.Chunk, Off: w.Off / b * b, End: (w.Off + w.Len + b - 1) / b * b, Owner: op}
	if g.line.add(&op.span) {
		g.start(op)
	}
	g.settle()
	return Taken, op, nil
}

// forgotten tells whether a retry may be of a write that was noted before
// power was lost, or before its session was dropped to make room.
func (g *Group) forgotten(s *session, w *wire.Write) bool {
	if w.Session >= g.amnesia && !s.blank {
		return false
	}
	if w.Flags&wire.WriteRetry == 0 {
		if s.fresh == 0 {
			s.fresh = w.Seq + ashlar.WriteWindow
		}
		return false
	}
	return s.fresh == 0 || w.Seq <= s.fresh
}

// start takes a granted write into the in-flight list (L-1).
func (g *Group) start(op *Op) {
	if g.phase != Serving {
		if g.phase == Closed {
			g.finish(op, g.closing)
			return
		}
		g.held = append(g.held, op)
		return
	}
	if err := g.gate(op); err != nil {
		g.finish(op, err)
		return
	}
	if err := g.mem.begin(op.rec, g.cfg.Epoch, g.next+1); err != nil {
		g.finish(op, err)
		return
	}
	op.started = true
	g.mem.overwritten(op.Write)
	g.launch(op)
}

// launch sends a started write under the current epoch.
func (g *Group) launch(op *Op) {
	g.next++
	op.epoch, op.num, op.pending = g.cfg.Epoch, g.next, g.selfBit
	if op.prev = g.newest; op.prev != nil {
		op.prev.next = op
	} else {
		g.oldest = op
	}
	g.newest = op
	for i := range g.targets {
		if t := &g.targets[i]; t.attached {
			op.pending |= t.bit
			g.emit(Action{Kind: ActSend, Disk: t.disk, Epoch: op.epoch, Num: op.num, Committed: g.committed, Op: op})
		}
	}
	g.applying++
	g.emit(Action{Kind: ActApply, Disk: g.me, Epoch: op.epoch, Num: op.num, Op: op})
}

// Applied reports the end of ActApply. One that failed in an epoch that is
// over is made equal in the next.
func (g *Group) Applied(op *Op, e ashlar.Epoch, err error) {
	if err != nil {
		if e == g.cfg.Epoch {
			g.Broken(err)
		}
	} else if !op.over {
		op.rec.rec.Applied = true
		if op.rec.slot != NoSlot {
			g.mem.slots.Applied(op.rec.slot)
		}
		if e == op.epoch {
			op.pending &^= g.selfBit
			g.complete(op)
		}
	}
	g.applied()
	g.settle()
}

// Acked reports that a member has applied a write of an epoch.
func (g *Group) Acked(op *Op, d ashlar.DiskID, e ashlar.Epoch) {
	t := g.target(d)
	if t == nil || op.over || e != op.epoch || e != g.cfg.Epoch {
		return
	}
	op.pending &^= t.bit
	g.complete(op)
	g.settle()
}

// complete finishes a write that every member has applied (L-2, I-5).
func (g *Group) complete(op *Op) {
	if op.pending != 0 || op.over || g.phase != Serving {
		return
	}
	if op.prev != nil {
		op.prev.next = op.next
	} else {
		g.oldest = op.next
	}
	if op.next != nil {
		op.next.prev = op.prev
	} else {
		g.newest = op.prev
	}
	op.prev, op.next = nil, nil
	if g.oldest != nil {
		g.committed = g.oldest.num - 1
	} else {
		g.committed = g.next
	}
	op.rec.op = nil
	g.mem.finish(op.rec)
	g.finish(op, nil)
}

// finish answers a write and gives up its place in line. One that was never
// started leaves no record.
func (g *Group) finish(op *Op, err error) {
	if op.over {
		return
	}
	op.over = true
	if r := op.rec; r.op == op {
		r.op = nil
		if !op.started && r.slot == NoSlot {
			g.mem.drop(r)
		}
	}
	g.granted = g.line.remove(&op.span, g.granted)
	g.emit(Action{Kind: ActFinish, Op: op, Err: err})
}

// settle goes through the spans that were granted, until there is none, and
// begins catch-ups whose barrier was passed.
func (g *Group) settle() {
	for i := 0; i < len(g.granted); i++ { // it grows meanwhile
		s := g.granted[i]
		if !s.Granted() {
			continue
		}
		if op, ok := s.Owner.(*Op); ok && s == &op.span {
			g.start(op)
		} else {
			g.emit(Action{Kind: ActGrant, Span: s})
		}
	}
	g.granted = g.granted[:0]
	g.catchups()
}

// abandon finishes every write: this seat orders none any more. Those that
// were started stay noted, for the next primary.
func (g *Group) abandon(err error) {
	for op := g.oldest; op != nil; {
		next := op.next
		op.prev, op.next = nil, nil
		g.finish(op, err)
		op = next
	}
	g.oldest, g.newest, g.held = nil, nil, nil
	for s := g.line.head; s != nil; {
		next := s.next
		if op, ok := s.Owner.(*Op); ok && s == &op.span {
			g.finish(op, err)
		}
		s = next
	}
	g.settle()
}

// Withdraw takes a write out of line that was not started, and tells whether
// it did; ActFinish follows.
func (g *Group) Withdraw(op *Op, err error) bool {
	if op.started || op.over {
		return false
	}
	for i, h := range g.held {
		if h == op {
			g.held = append(g.held[:i], g.held[i+1:]...)
			break
		}
	}
	g.finish(op, err)
	g.settle()
	return true
}

// Fence finishes the waiting writes of a session and tells whether none of
// its started ones is left (I-7). Once it is so, its results are forgotten:
// nobody can retry them.
func (g *Group) Fence(id ashlar.SessionID) bool {
	s := g.mem.sessions[id]
	if s == nil {
		return true
	}
	clean := true
	for _, r := range s.sorted() {
		if r.op == nil {
			continue
		}
		if !g.Withdraw(r.op, ashlar.NoSession) {
			clean = false
		}
	}
	if clean && g.phase == Serving {
		g.mem.forget(s)
	}
	return clean
}

// Line puts a span that is not a write's in line and tells whether it is
// granted; if not, ActGrant will say so.
func (g *Group) Line(s *Span) bool { return g.line.add(s) }

// Unline gives a span up, granted or not.
func (g *Group) Unline(s *Span) {
	g.granted = g.line.remove(s, g.granted)
	g.settle()
}
