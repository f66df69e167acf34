package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// What clients do with locks.
const (
	lockNames   = 2 // and bytes of a file
	lockHoldMax = 400 * time.Millisecond
)

// held is a lock that a client holds, or takes for held.
type held struct {
	k     *client
	mode  wire.LockMode
	since time.Duration
	ended <-chan struct{} // closed when the session is over that it is held in
}

// sure tells whether the holder may rely on it: its session is not lost, and its
// lease is not over by its own clock (I-6).
func (h *held) sure() bool {
	select {
	case <-h.ended:
		return false
	default:
		return h.k.conn.LeaseLeft() > 0
	}
}

// holders is who holds which lock. Whoever is granted one must find nobody who
// is sure to hold it in a mode that excludes his.
type holders struct {
	mu     sync.Mutex
	by     map[string][]*held
	grants int
	passed int // of these, after a holder that was sure no more
}

// granted notes a holder, and says what is wrong with that.
func (x *holders) granted(name string, h *held) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.by == nil {
		x.by = map[string][]*held{}
	}
	x.grants++
	var left []*held
	for _, o := range x.by[name] {
		if o.sure() {
			left = append(left, o)
			if !beside(o.mode, h.mode) {
				return fmt.Errorf("lock %s: granted to %s in %v at %v, while %s holds it in %v since %v", name, h.k.name, h.mode, h.since, o.k.name, o.mode, o.since)
			}
			continue
		}
		x.passed++
	}
	x.by[name] = append(left, h)
	return nil
}

// beside tells whether two modes allow each other.
func beside(a, b wire.LockMode) bool {
	return a == b && (a == wire.CR || a == wire.CW || a == wire.PR) || min(a, b) == wire.CR && max(a, b) != wire.EX
}

func (x *holders) gone(name string, h *held) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, o := range x.by[name] {
		if o == h {
			x.by[name] = append(x.by[name][:i:i], x.by[name][i+1:]...)
			return
		}
	}
}

// asked is a request for a lock, a named one or of bytes of a file.
type asked struct {
	in   ashlar.SessionID
	key  string
	mode wire.LockMode
	wait wire.Message
	free wire.Message // gives it up
}

// ask makes a request for any lock.
func (w *worker) ask(in ashlar.SessionID) *asked {
	if w.rng.IntN(2) == 0 {
		modes := []wire.LockMode{wire.CR, wire.CW, wire.PR, wire.PW, wire.EX, wire.EX}
		n := wire.SetName{Name: fmt.Sprintf("lock%d", w.rng.IntN(lockNames)), Holder: w.value(), Mode: modes[w.rng.IntN(len(modes))]}
		a := &asked{in: in, key: n.Name, mode: n.Mode, wait: &wire.WaitName{ID: w.value(), Want: n}}
		n.Mode = wire.NoLock
		a.free = &n
		return a
	}
	byt := w.rng.Uint64N(lockNames)
	l := wire.Lock{Inode: w.refs[0].Owner, Class: wire.LockPOSIX, Type: wire.Exclusive, Owner: w.value(), Start: byt, End: byt}
	a := &asked{in: in, key: fmt.Sprintf("byte %d", byt), mode: wire.EX}
	if w.rng.IntN(3) == 0 {
		l.Type, a.mode = wire.Shared, wire.PR
	}
	a.wait = &wire.WaitLock{ID: w.value(), Lock: l}
	l.Type = wire.Unlocked
	a.free = &wire.SetLock{Lock: l}
	return a
}

// send asks the masters in the session of a request.
func (a *asked) send(ctx context.Context, w *worker, m wire.Message) (granted bool, err error) {
	switch m.(type) {
	case *wire.WaitName, *wire.SetName:
		var r wire.NameReply
		err = w.conn.DoIn(ctx, a.in, ashlar.Cred{Checked: true}, m, &r)
		granted = r.Granted
	default:
		var r wire.LockReply
		err = w.conn.DoIn(ctx, a.in, ashlar.Cred{Checked: true}, m, &r)
		granted = r.Granted
	}
	w.c.trace.add("%T of %s in %v: %v %v", m, a.key, a.mode, granted, err)
	return granted && err == nil, err
}

// locks takes a lock, holds it for a while, and gives it up.
func (w *worker) locks() {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	if !w.payLocks(ctx) {
		return
	}
	in, ended, err := w.conn.WaitSession(ctx)
	if err != nil {
		return
	}
	a := w.ask(in)
	w.owed = append(w.owed, a)
	granted, _ := a.send(ctx, w, a.wait)
	h := &held{k: w.client, mode: a.mode, since: w.c.trace.Now(), ended: ended}
	if !granted || !h.sure() {
		w.withdraw(a)
		return
	}
	if err := w.c.holders.granted(a.key, h); err != nil {
		w.c.mu.Lock()
		w.c.errs = append(w.c.errs, err)
		w.c.mu.Unlock()
	}
	<-time.After(time.Duration(w.rng.Int64N(int64(lockHoldMax))))
	w.c.holders.gone(a.key, h)
	ctx, cancel = context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	w.payLocks(ctx)
}

// withdraw ends a request that nobody waits for; what it was granted is owed.
func (w *worker) withdraw(a *asked) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	switch m := a.wait.(type) {
	case *wire.WaitName:
		m.Cancel = true
	case *wire.WaitLock:
		m.Cancel = true
	}
	_, _ = a.send(ctx, w, a.wait) // what comes of it is in the trace
}

// payLocks gives up what was not yet, and tells whether that is done.
func (w *worker) payLocks(ctx context.Context) bool {
	for len(w.owed) > 0 {
		if _, err := w.owed[0].send(ctx, w, w.owed[0].free); err != nil && !errors.Is(err, ashlar.NoSession) {
			return false
		}
		w.owed = w.owed[1:]
	}
	return true
}

// judge says whether locks were of any use.
func (x *holders) judge() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.grants == 0 {
		return errors.New("no lock was granted in the whole run")
	}
	return nil
}
