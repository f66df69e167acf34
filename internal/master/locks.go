package master

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/lock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// releaseMax is how many files' locks are released in one batch.
const releaseMax = 256

// waits is who waits for locks, and the requests that are to be answered when
// they get them. The evaluator alone uses it, and what is evaluated.
type waits struct {
	q       *lock.Queue
	parked  map[lock.WaitID]*request
	watches map[watched]*request
}

// watched is a lock that its holder wants to hear of.
type watched struct {
	session ashlar.SessionID
	name    string
	holder  uint64
}

func (w *waits) init() {
	w.q = lock.NewQueue()
	w.parked = map[lock.WaitID]*request{}
	w.watches = map[watched]*request{}
}

// settle carries out what an evaluation noted of waiters, or forgets it if the
// evaluation was undone. It returns those that are to be answered with it, and
// whether r itself waits now.
func (w *waits) settle(r *request, undone bool) (others []waiter, parked bool) {
	if undone {
		w.q.Discard()
		return nil, false
	}
	p, outcomes, notices := w.q.Settle()
	for _, o := range outcomes {
		if waiting := w.parked[o.Waiter.WaitID]; waiting != nil {
			delete(w.parked, o.Waiter.WaitID)
			a := answer{err: o.Err}
			switch {
			case o.Reply != nil:
				a.reply = o.Reply
			case o.NameReply != nil:
				a.reply = o.NameReply
			}
			others = append(others, waiter{r: waiting, a: a})
		}
	}
	for _, n := range notices {
		k := watched{n.Session, n.Name, n.Holder}
		if r := w.watches[k]; r != nil {
			delete(w.watches, k)
			others = append(others, waiter{r: r, a: answer{reply: &wire.WatchNameReply{Held: n.Held, Wanted: n.Wanted}}})
		}
	}
	if r.watch != nil {
		if old := w.watches[*r.watch]; old != nil {
			old.answer(nil, errAskedAgain)
		}
		w.watches[*r.watch] = r
		return others, true
	}
	if p == nil {
		return others, false
	}
	if old := w.parked[p.WaitID]; old != nil { // asked again through another connection
		old.answer(nil, errAskedAgain)
	}
	w.parked[p.WaitID] = r
	return others, true
}

var errAskedAgain error = ashlar.E("lock", ashlar.NotReady, "", errors.New("the request was made again"))

// withdraw removes a waiter if it is r that waits.
func (w *waits) withdraw(id lock.WaitID, r *request) {
	if w.parked[id] == r {
		delete(w.parked, id)
		w.q.Remove(id)
	}
}

// end removes the waiters of a session that has ended, and tells them.
func (w *waits) end(s ashlar.SessionID) {
	for _, id := range w.q.End(s) {
		if r := w.parked[id]; r != nil {
			delete(w.parked, id)
			r.answer(nil, noSession(s))
		}
	}
	var gone []watched
	for k := range w.watches {
		if k.session == s {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, func(a, b watched) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.holder, b.holder)) })
	for _, k := range gone {
		w.watches[k].answer(nil, noSession(s))
		delete(w.watches, k)
	}
}

// waitLock serves a request that may wait: it is answered when it is granted.
// Whoever does not wait any more, because its connection is lost, gets nothing.
func (l *lead) waitLock(ctx context.Context, o *wire.Operation, id uint64) (wire.Message, error) {
	req := l.request(o)
	reply, err := l.do(ctx, req)
	wait := lock.WaitID{Session: o.Session, ID: id}
	switch {
	case ctx.Err() != nil:
		l.inEvaluator(func() { l.locks.withdraw(wait, req) })
	case errors.Is(err, ashlar.NotReady): // its batch was dropped: it is asked again
		l.inEvaluator(func() { l.locks.q.Reopen(wait) })
	}
	return reply, err
}

// watchName serves a holder's wish to hear when its lock is in the way.
func (l *lead) watchName(ctx context.Context, o *wire.Operation, m *wire.WatchName) (wire.Message, error) {
	k := watched{o.Session, m.Name, m.Holder}
	req := l.request(o)
	evaluate := req.eval
	req.eval = func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		reply, note, err := evaluate(tx, env)
		if reply == nil && err == nil {
			req.watch = &k
		}
		return reply, note, err
	}
	reply, err := l.do(ctx, req)
	if ctx.Err() != nil {
		l.inEvaluator(func() {
			if l.locks.watches[k] == req {
				delete(l.locks.watches, k)
			}
		})
	}
	return reply, err
}

// listLocks serves wire.ListLocks: in the evaluator, because who waits is known
// there.
func (l *lead) listLocks(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	return l.do(ctx, newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		reply, err := meta.ListLocks(tx, env, r.Msg.(*wire.ListLocks))
		return reply, "", err
	}))
}

// inEvaluator has f called where no evaluation is under way, after all that was
// asked before, and grants what can be then; not if the term has ended.
func (l *lead) inEvaluator(f func()) {
	req := newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		f()
		note, err := meta.RegrantLocks(tx, env)
		if err != nil {
			tx.rollback()
			env.Locks.Discard()
		}
		return nil, note, err
	})
	select {
	case l.queue <- req:
	case <-l.ctx.Done():
		return
	}
	select {
	case <-req.done:
	case <-l.ctx.Done():
	}
}

// releaseEnded gives up the locks of sessions that were closed, or lost and
// fenced.
func (l *lead) releaseEnded(ctx context.Context) {
	l.sessMu.Lock()
	ended := make([]ashlar.SessionID, 0, len(l.ended))
	for s := range l.ended {
		ended = append(ended, s)
	}
	l.sessMu.Unlock()
	for _, s := range ended {
		for more := true; more; {
			_, err := l.do(ctx, newRequest(func(tx *layered, env *meta.Env) (reply wire.Message, note string, err error) {
				l.locks.end(s)
				if more, note, err = meta.ReleaseLocks(tx, env, s, releaseMax); err != nil {
					tx.rollback()
					env.Locks.Discard()
				}
				return nil, note, err
			}))
			if err != nil {
				l.logged("releasing locks", err)
				return
			}
		}
		l.sessMu.Lock()
		delete(l.ended, s)
		l.sessMu.Unlock()
	}
}
