package masterconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Leader finds the leader and follows it.
type Leader struct {
	rpc   *rpc.Client
	clock clock.Clock
	log   *slog.Logger

	mu      sync.Mutex
	masters []string // configured ones first, then those learned
	now     *view    // nil while no leader is known
	count   uint64   // of views
	suspect string   // the leader of the last view that failed
	term    uint64   // the highest heard of
	changed chan struct{}
}

// view is the belief that one master leads. It ends when that turns out
// wrong, which ends every attempt that relies on it.
type view struct {
	addr   string
	number uint64 // rises with every view
	ctx    context.Context
	end    context.CancelFunc
	doubts bool // somebody is asking; guarded by Leader.mu
}

// NewLeader returns a Leader that asks the given masters first.
func NewLeader(c *rpc.Client, masters []string, clk clock.Clock, log *slog.Logger) *Leader {
	if clk == nil {
		clk = clock.Real
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Leader{rpc: c, clock: clk, log: log, masters: slices.Clone(masters), changed: make(chan struct{})}
}

// Addr returns the address of the leader, "" if none is known now.
func (l *Leader) Addr() string {
	if v := l.view(); v != nil {
		return v.addr
	}
	return ""
}

// Masters returns the addresses of all masters that are known.
func (l *Leader) Masters() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.masters)
}

// Call sends req to the leader, whoever it is, and repeats it while the
// masters cannot serve it: NotLeader, NotReady, Overloaded, Unreachable and
// Timeout are retried until ctx ends. It is for requests that may be repeated.
func (l *Leader) Call(ctx context.Context, req, reply wire.Message) error {
	var b backoff
	for {
		v, err := l.find(ctx)
		if err != nil {
			return err
		}
		err = l.attempt(ctx, v, req, reply)
		if err == nil || !l.again(ctx, v, err) {
			return endOf(ctx, err)
		}
		if !b.wait(ctx, l.clock, l.after(v)) {
			return endOf(ctx, err)
		}
	}
}

// endOf turns the last attempt's error into that of ctx, if it ended, and
// keeps the former as the reason.
func endOf(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ashlar.E("masters", ashlar.Timeout, "", err)
	case ctx.Err() != nil:
		return ashlar.E("masters", ashlar.Canceled, "", err)
	}
	return err
}

func (l *Leader) view() *view {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// after returns a channel that is closed as soon as the view is another than
// v and not none.
func (l *Leader) after(v *view) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil && l.now != v {
		ch := make(chan struct{})
		close(ch)
		return ch
	}
	return l.changed
}

// attempt makes one call under a view. It has no time limit of its own: when
// the answer is late, the masters are asked whether the view still holds.
func (l *Leader) attempt(ctx context.Context, v *view, req, reply wire.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.ctx, cancel)()
	late := l.clock.AfterFunc(doubtAfter, func() { l.doubt(ctx, v) })
	defer late()
	err := l.rpc.Call(ctx, v.addr, req, reply)
	if err != nil && v.ctx.Err() != nil && errors.Is(err, ashlar.Canceled) {
		return ashlar.E("call", ashlar.Unreachable, v.addr, errNoLonger)
	}
	return err
}

var errNoLonger = errors.New("does not lead any more")

// again tells whether a call that failed with err is to be repeated, and
// draws from err what it says of the leader.
func (l *Leader) again(ctx context.Context, v *view, err error) bool {
	if ctx.Err() != nil || errors.Is(err, rpc.ErrClosed) {
		return false
	}
	switch ashlar.KindOf(err) {
	case ashlar.NotLeader:
		hint := ""
		var nl *rpc.NotLeaderError
		if errors.As(err, &nl) {
			hint = nl.Leader
		}
		l.drop(v)
		if hint != "" && hint != v.addr {
			l.adopt(hint, 0, v)
		}
	case ashlar.Unreachable, ashlar.Timeout, ashlar.Canceled:
		l.drop(v)
	case ashlar.NotReady, ashlar.Overloaded, ashlar.NoLease:
	default:
		return false
	}
	return true
}

// drop ends a view. Its leader is believed in again when it says itself that
// it leads, or when another master says so of a later term.
func (l *Leader) drop(v *view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == v {
		l.now = nil
		l.suspect = v.addr
	}
	v.end()
}

// adopt makes addr the leader, unless a later view than past is in force or
// term is behind what is known; term 0 is a mere hint.
func (l *Leader) adopt(addr string, term uint64, past *view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term != 0 && term < l.term {
		return
	}
	if l.now != nil {
		if l.now != past || l.now.addr == addr && term <= l.term {
			l.term = max(l.term, term)
			return
		}
		l.now.end()
	}
	l.term = max(l.term, term)
	l.count++
	v := &view{addr: addr, number: l.count}
	v.ctx, v.end = context.WithCancel(context.Background())
	l.now, l.suspect = v, ""
	close(l.changed)
	l.changed = make(chan struct{})
	l.log.Debug("leader found", "addr", addr, "term", l.term)
}

// find returns the present view, or asks the masters until one of them knows
// a leader. It fails when ctx ends, or when no master can be talked to for a
// reason that waiting does not cure.
func (l *Leader) find(ctx context.Context) (*view, error) {
	var b backoff
	for {
		if v := l.view(); v != nil {
			return v, nil
		}
		err := l.search(ctx)
		if v := l.view(); v != nil {
			return v, nil
		}
		switch ashlar.KindOf(err) {
		case ashlar.Auth, ashlar.Version, ashlar.WrongCluster:
			return nil, err
		}
		if errors.Is(err, rpc.ErrClosed) {
			return nil, err
		}
		if err == nil { // found, and given up by somebody else since
			err = ashlar.E("find leader", ashlar.NotReady, "", errNoLonger)
		}
		if !b.wait(ctx, l.clock, l.after(nil)) {
			return nil, endOf(ctx, err)
		}
	}
}

// told is a master's word on who leads.
type told struct {
	by    string
	reply wire.FindLeaderReply
	err   error
}

// ask asks every master at once. Exactly n answers arrive on the channel.
func (l *Leader) ask(ctx context.Context, q *wire.FindLeader) (answers <-chan told, n int) {
	l.mu.Lock()
	masters := slices.Clone(l.masters)
	l.mu.Unlock()
	ch := make(chan told, len(masters))
	for _, addr := range masters {
		go func() {
			a := told{by: addr}
			m := *q
			a.err = l.rpc.Call(ctx, addr, &m, &a.reply)
			ch <- a
		}()
	}
	return ch, len(masters)
}

// search asks once and adopts the first leader that is believable. Masters that
// know of none hold the question for a while, so that whoever is elected is
// found at once.
func (l *Leader) search(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	l.mu.Lock()
	q := &wire.FindLeader{Not: l.suspect, HoldMs: uint32(askHold / time.Millisecond)}
	l.mu.Unlock()
	answers, n := l.ask(ctx, q)
	if n == 0 {
		return ashlar.E("find leader", ashlar.Invalid, "", errors.New("no master's address is known"))
	}
	var refusal, failure error
	answered := false
	var stale *told
	for range n {
		a := <-answers
		if a.err != nil {
			if k := ashlar.KindOf(a.err); k == ashlar.Auth || k == ashlar.Version || k == ashlar.WrongCluster {
				refusal = a.err
			} else {
				failure = a.err
			}
			continue
		}
		answered = true
		l.learn(&a.reply)
		if a.reply.Leader == "" {
			continue
		}
		if l.believable(&a) {
			l.adopt(a.reply.Leader, a.reply.Term, nil)
			return nil
		}
		stale = &a
	}
	switch {
	case stale != nil: // nobody knows better, and it may just have been slow
		return ashlar.E("find leader", ashlar.Unreachable, stale.reply.Leader, errors.New("did not answer"))
	case answered:
		return ashlar.E("find leader", ashlar.NotReady, "", errors.New("the masters have no leader"))
	case refusal != nil:
		return refusal
	}
	return ashlar.E("find leader", ashlar.Unreachable, "", fmt.Errorf("no master answers: %w", failure))
}

// believable tells whether an answer is more than the memory of a leader that
// just failed: it names another one, or comes from the leader itself.
func (l *Leader) believable(a *told) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return a.reply.Leader != l.suspect || a.by == a.reply.Leader || a.reply.Term > l.term
}

// learn adds masters that were not configured.
func (l *Leader) learn(r *wire.FindLeaderReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	addrs := []string{r.Leader}
	for _, m := range r.Masters {
		addrs = append(addrs, m.Addr)
	}
	for _, a := range addrs {
		if a != "" && len(l.masters) < mastersMax && !slices.Contains(l.masters, a) {
			l.masters = append(l.masters, a)
		}
	}
}

// doubt asks the masters, as long as ctx lives, whether v holds. One caller
// does it for all that share the view.
func (l *Leader) doubt(ctx context.Context, v *view) {
	for ctx.Err() == nil && v.ctx.Err() == nil {
		l.mu.Lock()
		mine := !v.doubts
		v.doubts = true
		l.mu.Unlock()
		if mine {
			l.check(v)
			l.mu.Lock()
			v.doubts = false
			l.mu.Unlock()
		}
		timer := make(chan struct{})
		stop := l.clock.AfterFunc(doubtAfter, func() { close(timer) })
		select {
		case <-timer:
		case <-ctx.Done():
		case <-v.ctx.Done():
		}
		stop()
	}
}

// check asks once whether v holds, and ends it if the leader does not say so
// itself or another is named with a higher term.
func (l *Leader) check(v *view) {
	ctx, cancel := context.WithTimeout(v.ctx, askTimeout)
	defer cancel()
	answers, n := l.ask(ctx, new(wire.FindLeader))
	for range n {
		a := <-answers
		switch {
		case a.err != nil:
			continue
		case a.by == v.addr && a.reply.Leader == v.addr:
			return
		case a.reply.Leader != "" && a.reply.Leader != v.addr && l.newer(a.reply.Term):
			l.adopt(a.reply.Leader, a.reply.Term, v)
			return
		case a.by == v.addr:
			l.drop(v)
			return
		}
	}
	if v.ctx.Err() == nil {
		l.log.Info("the leader does not answer", "addr", v.addr)
		l.drop(v)
	}
}

func (l *Leader) newer(term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return term > l.term
}
