package master

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/master/lease"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// lead is what a master keeps while it leads in one term. All of it is lost
// with the term.
type lead struct {
	m    *Master
	term uint64
	over overlay

	timeMu sync.Mutex
	now    int64      // last operation time given out
	nowAt  clock.Time // and when

	evaluator evaluator

	queue  chan *request
	wake   chan struct{} // something was applied, or proposals were dropped
	voided atomic.Bool   // proposals lost their place

	mu       sync.Mutex
	inflight []*proposal // by index
	done     uint64      // applied up to here
	closed   bool

	sessMu   sync.Mutex
	sessions map[ashlar.SessionID]*clientSession
	servers  map[ashlar.NodeID]*server
	figures  map[wire.UUID]figures // of disks whose chunkservers are lost, as they last said
	restarts restarts
	past     []struct { // moments, oldest first; of longPast
		clock clock.Time
		op    int64
	}
	fencesMax int        // of the list
	steady    clock.Time // since when the lease has held without a gap
	ticked    clock.Time
	opens     openTable
	ended     map[ashlar.SessionID]bool // sessions whose locks are still to be released; sessMu
	locks     waits                     // the evaluator's
	leases    *lease.Table

	viewMu   sync.Mutex
	view     *placement.View
	viewRev  uint64
	table    atomic.Pointer[placement.Table]
	tableRev uint64

	cuts    cuts
	kick    chan struct{} // background work may be due
	proof   chan struct{} // a process is proven dead
	reaping chan struct{} // files were closed: some may be orphans to reap
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func newLead(m *Master, term uint64) (*lead, error) {
	l := &lead{
		m: m, term: term, done: m.store.Applied(),
		queue: make(chan *request, queueMax), wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		reaping:  make(chan struct{}, 1),
		proof:    make(chan struct{}, 1),
		sessions: map[ashlar.SessionID]*clientSession{}, servers: map[ashlar.NodeID]*server{}, figures: map[wire.UUID]figures{}, restarts: restarts{},
		fencesMax: wire.FencesMax, ended: map[ashlar.SessionID]bool{},
	}
	l.evaluator.l = l
	l.evaluator.tx.store, l.evaluator.tx.over = m.store, &l.over
	l.cuts.init()
	l.opens.init()
	l.locks.init()
	l.leases = lease.New()
	tx := &plain{store: m.store}
	last, err := meta.Time(tx)
	if err != nil {
		return nil, err
	}
	l.now, l.nowAt = last, m.clk.Now()
	if err := l.loadSessions(tx); err != nil {
		return nil, err
	}
	if tx.err != nil {
		return nil, tx.err
	}
	l.ctx, l.cancel = context.WithCancel(m.ctx)
	return l, nil
}

func (l *lead) start() {
	l.deathProven() // while it followed, perhaps
	l.wg.Go(l.evaluate)
	l.wg.Go(l.lookout)
	l.wg.Go(l.background)
	l.wg.Go(l.driveDeletes)
}

// stop ends everything of the term; who still waits is told that there is
// another leader.
func (l *lead) stop() {
	l.cancel()
	l.mu.Lock()
	waiting := l.inflight
	l.inflight, l.closed = nil, true
	l.mu.Unlock()
	for _, p := range waiting {
		p.fail(l.m.notLeader())
	}
	l.wg.Wait()
	for {
		select {
		case r := <-l.queue:
			r.answer(nil, l.m.notLeader())
		default:
			return
		}
	}
}

// spawn runs f as part of the term; not, and it says so, once that has ended.
func (l *lead) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.wg.Go(f)
	}
	return !l.closed
}

// opTime returns the operation time: the time of day, but never back. While
// what was given out is ahead of it, by a leader whose clock was wrong, time
// goes on at half its speed: what is to be done after a while is done.
func (l *lead) opTime() int64 {
	l.timeMu.Lock()
	defer l.timeMu.Unlock()
	at := l.m.clk.Now()
	l.now = max(l.m.clk.Wall(), l.now+int64(at.Sub(l.nowAt))/2)
	l.nowAt = at
	return l.now
}

// proposal is a batch on its way through the log, and who waits for it.
type proposal struct {
	index   uint64
	ops     []kv.Op
	waiters []waiter
}

// waiter is a request whose answer is known and may not be given before its
// index is applied.
type waiter struct {
	r   *request
	a   answer
	has bool
}

func (p *proposal) fail(err error) {
	for _, w := range p.waiters {
		w.r.answer(nil, err)
	}
}

// applied is called by the apply goroutine when the store has entries.
func (l *lead) applied(entries []consensusEntry, accepted []bool) {
	var done, lost []*proposal
	l.mu.Lock()
	for i, e := range entries {
		l.done = e.Index
		for len(l.inflight) > 0 && l.inflight[0].index <= e.Index {
			p := l.inflight[0]
			l.inflight[0] = nil
			l.inflight = l.inflight[1:]
			if p.index == e.Index && e.Term == l.term && accepted[i] {
				l.over.settle(p.index, p.ops)
				done = append(done, p)
			} else {
				lost = append(lost, p)
			}
		}
	}
	l.mu.Unlock()
	for _, p := range done {
		for _, w := range p.waiters {
			w.r.finish(w.a)
		}
	}
	if len(lost) > 0 {
		for _, p := range lost {
			p.fail(errDropped)
		}
		l.void()
	}
	l.signal()
}

// void makes the evaluator discard what it evaluated.
func (l *lead) void() {
	l.voided.Store(true)
	l.signal()
}

func (l *lead) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// kickBackground makes background work look for something to do now.
func (l *lead) kickBackground() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// kickReaping makes background work look for orphans now, and for nothing
// else: files are closed all the time.
func (l *lead) kickReaping() {
	select {
	case l.reaping <- struct{}{}:
	default:
	}
}

// current returns the placement state as committed, decoded once for every
// change of it.
func (l *lead) current() (*placement.View, error) {
	l.viewMu.Lock()
	defer l.viewMu.Unlock()
	rev, _ := l.m.revision()
	if l.view != nil && l.viewRev >= rev {
		return l.view, nil
	}
	snap, err := l.m.store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	tx := &plain{store: snap}
	v, err := placement.Load(tx)
	if err == nil {
		err = tx.err
	}
	if err != nil {
		return nil, err
	}
	l.view, l.viewRev = v, rev
	return v, nil
}
