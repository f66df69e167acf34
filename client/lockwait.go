package client

import (
	"context"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Times of named locks.
const (
	// lookEvery is the longest time after which a lock looks whether the
	// session's lease holds: a timer may be late after the machine slept.
	lookEvery = 500 * time.Millisecond
	// withdrawWait is how long the answer to a withdrawal is waited for.
	withdrawWait = 2 * time.Second
	// watchTime is how long one request to hear of waiters is good for.
	watchTime = 30 * time.Second
)

// do asks the masters in the lock's session.
func (l *Lock) do(ctx context.Context, body, reply wire.Message) error {
	err := l.c.DoIn(ctx, l.session, ashlar.Cred{Checked: true}, body, reply)
	select {
	case <-l.ended: // whatever was answered, nothing is held any more
		return l.wasLost()
	default:
		return err
	}
}

// try makes a request that is answered at once.
func (l *Lock) try(ctx context.Context, m wire.SetName) (*wire.NameReply, error) {
	m.Name, m.Holder = l.name, l.holder
	r := new(wire.NameReply)
	return r, l.do(ctx, &m, r)
}

// wait asks for a mode until it is granted, ctx or the session ends, or the
// lock is given up. If it is not known then whether it was granted, late tells:
// what is held, or by being closed that nothing is.
func (l *Lock) wait(ctx context.Context, mode LockMode) (r *wire.NameReply, late <-chan wire.NameReply, err error) {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.ended:
		case <-l.given:
		case <-asking.Done():
		}
		cancel()
	}()
	m := &wire.WaitName{Want: wire.SetName{Name: l.name, Holder: l.holder, Mode: mode}}
	r = new(wire.NameReply)
	for again := true; again; again = ashlar.KindOf(err) == ashlar.OutcomeUnknown { // it was not granted, and waited too long to be asked again under its number
		m.ID = file.NextWait()
		err = l.do(asking, m, r)
	}
	if err == nil || asking.Err() == nil {
		return r, nil, err
	}
	select {
	case <-l.ended:
		return nil, nil, l.wasLost()
	case <-l.given:
		err = ashlar.E("lock", ashlar.Canceled, l.name, errLockGiven)
	default:
	}
	answers := l.withdraw(m)
	timer := time.NewTimer(withdrawWait)
	defer timer.Stop()
	select {
	case now, ok := <-answers:
		if ok && now.Granted { // at the same time
			return &now, nil, nil
		}
		return nil, nil, err
	case <-timer.C:
		return nil, answers, err
	}
}

// withdraw ends a request that nobody waits for any more. Its answer, which
// says whether it was granted before, comes when a master gives one; the
// channel is closed without one if the session ends first.
func (l *Lock) withdraw(m *wire.WaitName) <-chan wire.NameReply {
	m = &wire.WaitName{ID: m.ID, Cancel: true, Want: m.Want}
	out := make(chan wire.NameReply, 1)
	go func() {
		defer close(out)
		var r wire.NameReply
		if l.do(context.Background(), m, &r) == nil {
			out <- r
		}
	}()
	return out
}

// giveUp gives up what a request may have been granted that nobody waits for.
func (l *Lock) giveUp(late <-chan wire.NameReply) {
	if late != nil {
		if r, ok := <-late; !ok || r.Mode == wire.NoLock {
			return
		}
	}
	_, _ = l.try(context.Background(), wire.SetName{Mode: wire.NoLock}) // or the session ends, and with it the lock
}

// guard tells when the lock is lost: with the session, or earlier with its
// lease, after which the masters may soon take it for lost.
func (l *Lock) guard() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.given:
			return
		case <-l.ended:
		case <-timer.C:
			if left := l.c.LeaseLeft(); left > 0 {
				timer.Reset(min(left, lookEvery))
				continue
			}
		}
		close(l.lost)
		return
	}
}

// Wanted returns when somebody waits for a mode that this lock keeps from him,
// with the strongest such mode. It returns at once as long as that is so. The
// error is ashlar.NoSession when the lock is lost, ashlar.Invalid when it was
// given up.
func (l *Lock) Wanted(ctx context.Context) (LockMode, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.lost:
		case <-l.given:
		case <-ctx.Done():
		}
		cancel()
	}()
	for {
		if err := l.usable(); err != nil {
			return wire.NoLock, err
		}
		var r wire.WatchNameReply
		wctx, done := context.WithTimeout(ctx, watchTime)
		err := l.do(wctx, &wire.WatchName{Name: l.name, Holder: l.holder}, &r)
		done()
		if gone := l.usable(); gone != nil {
			return wire.NoLock, gone
		}
		switch {
		case err == nil && r.Held == wire.NoLock:
			return wire.NoLock, l.wasLost()
		case err == nil:
			return r.Wanted, nil
		case ctx.Err() != nil:
			return wire.NoLock, ashlar.E("lock", ashlar.Canceled, l.name, ctx.Err())
		case ashlar.KindOf(err) != ashlar.Timeout:
			return wire.NoLock, err
		}
	}
}
