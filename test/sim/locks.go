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
	lockNames   = 2
	lockHoldMax = 400 * time.Millisecond
)

// held is a named lock that a client holds, or takes for held.
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

// owed is a lock that its holder could not give up in time.
type owed struct {
	in ashlar.SessionID
	m  wire.SetName
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
	modes := []wire.LockMode{wire.CR, wire.CW, wire.PR, wire.PW, wire.EX, wire.EX}
	m := &wire.WaitName{ID: w.value(), Want: wire.SetName{
		Name: fmt.Sprintf("lock%d", w.rng.IntN(lockNames)), Holder: w.value(), Mode: modes[w.rng.IntN(len(modes))],
	}}
	name := m.Want.Name
	w.owed = append(w.owed, owed{in, wire.SetName{Name: name, Holder: m.Want.Holder}})
	var r wire.NameReply
	err = w.conn.DoIn(ctx, in, ashlar.Cred{Checked: true}, m, &r)
	h := &held{k: w.client, mode: m.Want.Mode, since: w.c.trace.Now(), ended: ended}
	w.c.trace.add("lock %s in %v: %v %v", name, m.Want.Mode, r.Granted, err)
	if err != nil || !r.Granted || !h.sure() {
		w.withdraw(in, m)
		return
	}
	if err := w.c.holders.granted(name, h); err != nil {
		w.c.mu.Lock()
		w.c.errs = append(w.c.errs, err)
		w.c.mu.Unlock()
	}
	<-time.After(time.Duration(w.rng.Int64N(int64(lockHoldMax))))
	w.c.holders.gone(name, h)
	ctx, cancel = context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	w.payLocks(ctx)
}

// withdraw ends a request that nobody waits for; what it was granted is owed.
func (w *worker) withdraw(in ashlar.SessionID, m *wire.WaitName) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	m.Cancel = true
	err := w.conn.DoIn(ctx, in, ashlar.Cred{Checked: true}, m, new(wire.NameReply))
	w.c.trace.add("withdrawn %s: %v", m.Want.Name, err)
}

// payLocks gives up what was not yet, and tells whether that is done.
func (w *worker) payLocks(ctx context.Context) bool {
	for len(w.owed) > 0 {
		o := &w.owed[0]
		err := w.conn.DoIn(ctx, o.in, ashlar.Cred{Checked: true}, &o.m, new(wire.NameReply))
		w.c.trace.add("unlock %s: %v", o.m.Name, err)
		if err != nil && !errors.Is(err, ashlar.NoSession) {
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
