package master

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/wire"
)

type consensusEntry = consensus.Entry

// Limits of the evaluator.
const (
	// queueMax is the most requests that wait for the evaluator.
	queueMax = 8192
	// batchMax is the most requests evaluated into one batch.
	batchMax = 512
	// inflightMax is the most batches proposed and not applied. A few are
	// enough to keep the log busy; more would only make batches smaller.
	inflightMax = 4
)

// errDropped is answered when it is not known whether a change took effect:
// the client asks again under the same sequence (I-3).
var errDropped error = ashlar.E("propose", ashlar.NotReady, "", errors.New("the proposal lost its place"))

// request is something for the evaluator. eval writes to tx and says what to
// answer; for a client's operation it is meta.Evaluate.
type request struct {
	eval func(tx *layered, env *meta.Env) (reply wire.Message, note string, err error)
	// settled, if set, is called by the evaluator once eval succeeded and its
	// writes are part of a batch, before anything else is evaluated.
	settled func(reply wire.Message)
	done    chan answer // of capacity 1
	// then, if set, is called with the answer instead of it being sent on
	// done. It must not block.
	then func(answer)
	// watch is set by eval if it is to be answered when that lock is in the way.
	watch *watched
}

type answer struct {
	reply wire.Message
	err   error
	// bare says that no log entry stands behind the answer: it holds only
	// under the leader's lease (I-2).
	bare bool
}

func newRequest(eval func(*layered, *meta.Env) (wire.Message, string, error)) *request {
	return &request{eval: eval, done: make(chan answer, 1)}
}

func (r *request) answer(reply wire.Message, err error) { r.finish(answer{reply: reply, err: err}) }

func (r *request) finish(a answer) {
	if r.then != nil {
		r.then(a)
		return
	}
	r.done <- a
}

// do has a request evaluated and returns its answer when that may be given.
func (l *lead) do(ctx context.Context, r *request) (wire.Message, error) {
	select {
	case l.queue <- r:
	default:
		return nil, ashlar.E("evaluate", ashlar.Overloaded, "", nil)
	}
	select {
	case a := <-r.done:
		if a.bare {
			if err := l.confirm(ctx); err != nil {
				return nil, err
			}
		}
		return a.reply, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, l.m.notLeader()
	}
}

// change has eval's writes proposed and returns when they are applied.
func (l *lead) change(ctx context.Context, eval func(tx meta.Tx, now int64) (note string, err error)) error {
	_, err := l.do(ctx, newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		note, err := eval(tx, env.Now)
		if err != nil {
			tx.rollback()
		}
		return nil, note, err
	}))
	return err
}

// confirm returns nil when what was read from committed state before the call
// may be answered (I-2).
func (l *lead) confirm(ctx context.Context) error {
	n := l.m.node.Load()
	if !n.LeaseValid() {
		if err := n.ReadIndex(ctx); err != nil {
			return err
		}
	}
	if l.m.lead.Load() != l { // it may be a later term's
		return l.m.notLeader()
	}
	return nil
}

// evaluator evaluates: in its own goroutine, or, when nothing is under way, in
// that of whoever has something to be evaluated (lead.evaluateNow).
type evaluator struct {
	l  *lead
	mu sync.Mutex // guards everything below; lead.mu is taken inside

	now   bool // it is not its own goroutine that evaluates: nothing may wait
	tx    layered
	term  uint64
	next  uint64
	known bool   // term and next are
	last  uint64 // index of the last proposal
	held  []*request
	notes strings.Builder
	p     *proposal
}

// evaluate is the evaluator goroutine.
func (l *lead) evaluate() {
	e := &l.evaluator
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
			e.mu.Lock()
			if l.voided.Load() {
				e.discard()
			}
			e.mu.Unlock()
		case r := <-l.queue:
			e.mu.Lock()
			if e.ready() {
				e.pass(r)
			} else {
				r.answer(nil, l.m.notLeader())
			}
			e.mu.Unlock()
		}
	}
}

// evaluateNow evaluates r here and now if nothing else is being evaluated,
// waits to be, or is on its way through the log. It does not block.
func (l *lead) evaluateNow(r *request) bool {
	e := &l.evaluator
	if !e.mu.TryLock() {
		return false
	}
	defer e.mu.Unlock()
	l.mu.Lock()
	idle := len(l.inflight) == 0 && !l.closed
	l.mu.Unlock()
	if !idle || !e.known || l.voided.Load() || len(l.queue) > 0 {
		return false
	}
	e.now = true
	e.pass(r)
	e.now = false
	return true
}

// ready waits until there is room for another batch, and finds its place in
// the log.
func (e *evaluator) ready() bool {
	for e.l.ctx.Err() == nil {
		if e.l.voided.Load() {
			e.discard()
		}
		if !e.known {
			if !e.find() {
				return false
			}
			continue
		}
		e.l.mu.Lock()
		room := len(e.l.inflight) < inflightMax
		e.l.mu.Unlock()
		if room {
			return true
		}
		select {
		case <-e.l.wake:
		case <-e.l.ctx.Done():
		}
	}
	return false
}

// find asks for the next place in the log; after a drop it is taken only once
// everything before it is applied, because the overlay is gone.
func (e *evaluator) find() bool {
	term, index, ok := e.l.m.node.Load().NextIndex()
	if !ok || term != e.l.term {
		return false
	}
	if e.last != 0 && index <= e.last {
		e.l.voided.Store(true) // dropped without our having been told yet
		e.last = 0
		return true
	}
	e.term, e.next, e.known = term, index, true
	return true
}

// discard forgets all that is proposed and not applied. What stands in the
// log nevertheless is waited for, so that the next evaluation sees it.
func (e *evaluator) discard() {
	e.l.voided.Store(false)
	e.l.mu.Lock()
	waiting := e.l.inflight
	e.l.inflight = nil
	e.l.mu.Unlock()
	for _, p := range waiting {
		p.fail(errDropped)
	}
	e.known, e.last = false, 0
	for e.l.ctx.Err() == nil {
		term, index, ok := e.l.m.node.Load().NextIndex()
		if !ok || term != e.l.term {
			break
		}
		if e.l.m.store.Applied()+1 >= index {
			break
		}
		select {
		case <-e.l.wake:
		case <-e.l.ctx.Done():
		}
	}
	e.l.over.clear()
}

// pass evaluates r and what else is waiting into one batch and proposes it.
func (e *evaluator) pass(r *request) {
	e.tx.index, e.tx.ops, e.tx.bytes = e.next, nil, 0
	e.notes.Reset()
	e.p = &proposal{}
	env := e.l.env()
	env.Locks = e.l.locks.q
	e.one(r, env)
	for n := 1; n < batchMax && e.tx.bytes < entryTarget; n++ {
		select {
		case r = <-e.l.queue:
			e.one(r, env)
			continue
		default:
		}
		break
	}
	if len(e.tx.ops) > 0 {
		e.propose(env.Now)
	}
	e.p = nil
}

// one evaluates one request.
func (e *evaluator) one(r *request, env *meta.Env) {
	e.tx.begin()
	undone := false
	reply, note, err := r.eval(&e.tx, env)
	if e.tx.err != nil { // the store failed under it
		err = ashlar.E("evaluate", ashlar.IO, "", e.tx.err)
	}
	if k := ashlar.KindOf(err); err != nil && (k == ashlar.Corrupt || k == ashlar.IO) {
		e.tx.rollback()
		undone = true
	}
	if e.tx.bytes > entryMax {
		e.tx.rollback()
		undone = true
		err = ashlar.E("evaluate", ashlar.TooBig, "", errors.New("the change does not fit a log entry"))
	}
	if note != "" && e.tx.wrote() && e.notes.Len()+len(note) < noteMax {
		if e.notes.Len() > 0 {
			e.notes.WriteByte('\n')
		}
		e.notes.WriteString(note)
	}
	if err == nil && r.settled != nil {
		r.settled(reply)
	}
	if e.tx.depends == e.tx.index && len(e.tx.ops) == 0 {
		// It read what it then took back, so no batch may come of this: what
		// else it depends on is at most the last one proposed.
		e.tx.depends = e.last
	}
	others, parked := e.l.locks.settle(r, undone || asNeedRecall(err) != nil)
	for _, w := range others {
		e.answer(w)
	}
	if !parked {
		e.answer(waiter{r: r, a: answer{reply: reply, err: err}})
	}
}

// answer has a waiter answered once what its answer depends on is applied.
func (e *evaluator) answer(w waiter) {
	switch {
	case e.tx.wrote() || e.tx.depends == e.tx.index:
		e.p.waiters = append(e.p.waiters, w)
	case e.tx.depends > 0 && e.attach(e.tx.depends, w):
	default:
		w.a.bare = true
		w.r.finish(w.a)
	}
}

// attach makes a waiter wait for an earlier batch; false if that is applied.
func (e *evaluator) attach(index uint64, w waiter) bool {
	e.l.mu.Lock()
	defer e.l.mu.Unlock()
	for _, p := range e.l.inflight {
		if p.index == index {
			p.waiters = append(p.waiters, w)
			return true
		}
	}
	return false
}

// propose gives the batch its place in the log. If other entries came between
// (changes of members, which change nothing that was read), it takes the next
// place; if earlier batches were dropped, everything goes.
func (e *evaluator) propose(now int64) {
	p := e.p
	p.ops = e.tx.ops
	b := batch{Term: e.term, Time: now, Note: e.notes.String(), Ops: p.ops}
	for {
		b.Index, p.index = e.next, e.next
		data := appendBatch(make([]byte, 0, entryHead+len(b.Note)+e.tx.bytes+64), &b)
		err := e.register(p, data)
		if err == nil {
			e.last = e.next
			e.next++
			return
		}
		switch {
		case errors.Is(err, consensus.ErrMoved):
			from := e.next
			e.known = false
			if e.find() && e.known {
				e.l.over.restamp(from, e.next, p.ops)
				e.tx.index = e.next
				continue
			}
			e.l.voided.Store(true)
		case errors.Is(err, consensus.ErrOverloaded) && !e.now:
			select {
			case <-e.l.wake:
				continue
			case <-e.l.ctx.Done():
			}
		default:
			e.l.voided.Store(true)
		}
		p.fail(err)
		e.l.signal()
		return
	}
}

// register proposes a batch and notes that it is in flight, as one step for
// the apply goroutine.
func (e *evaluator) register(p *proposal, data []byte) error {
	e.l.mu.Lock()
	defer e.l.mu.Unlock()
	if e.l.closed {
		return e.l.m.notLeader()
	}
	err := e.l.m.node.Load().Propose(e.term, e.next, data)
	if err == nil {
		e.l.inflight = append(e.l.inflight, p)
	}
	return err
}
