package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// LockMode is a mode of a named lock.
type LockMode = wire.LockMode

// The modes, from the one that excludes nothing to the one that excludes all
// but it: null, concurrent read and write, protected read and write, exclusive.
// docs/protocol/locks.md has the table of which exclude which.
const (
	NL = wire.NL
	CR = wire.CR
	CW = wire.CW
	PR = wire.PR
	PW = wire.PW
	EX = wire.EX
)

// LockValueMax is the largest value block of a named lock, in bytes.
const LockValueMax = wire.LockValueMax

// LockStatus is a lock in a list.
type LockStatus = wire.LockStatus

// sessions is what named locks need of the session with the masters.
type sessions interface {
	DoIn(ctx context.Context, in ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error
	WaitSession(ctx context.Context) (ashlar.SessionID, <-chan struct{}, error)
	LeaseLeft() time.Duration
}

var (
	errLockLost  = errors.New("the lock was lost with the client's session")
	errLockGiven = errors.New("the lock was given up")
)

// Lock is a named lock that is held. It belongs to the client's session, and
// goes when that ends: Lost tells. A change of the masters' leader does not
// touch it. What is done to one Lock is done in turn.
type Lock struct {
	c       sessions
	name    string
	holder  uint64 // tells it from other locks of the session
	session ashlar.SessionID
	ended   <-chan struct{} // closed when that session is over

	lost  chan struct{} // closed when it may be another's soon
	given chan struct{} // closed by Unlock
	turn  chan struct{} // full while a request that changes the lock is under way

	mu       sync.Mutex
	now      wire.NameReply
	unlocked bool // Unlock was called
	released bool // and done; whoever has the turn uses it
}

// Lock acquires a named lock, waiting until its mode is compatible with those
// of all others and everybody who asked before has had his turn, or until ctx
// ends. A name is 1 to 255 bytes of text, and there without being made.
func (c *Client) Lock(ctx context.Context, name string, mode LockMode) (*Lock, error) {
	return acquire(ctx, c.conn, name, mode)
}

// TryLock is Lock that does not wait; it returns nil without an error if the
// lock can not be had now.
func (c *Client) TryLock(ctx context.Context, name string, mode LockMode) (*Lock, error) {
	return tryAcquire(ctx, c.conn, name, mode)
}

func acquire(ctx context.Context, c sessions, name string, mode LockMode) (*Lock, error) {
	for {
		l, err := newLock(ctx, c, name)
		if err != nil {
			return nil, err
		}
		r, late, err := l.wait(ctx, mode)
		switch {
		case err == nil:
			l.hold(r)
			return l, nil
		case errors.Is(err, errLockLost) && ctx.Err() == nil:
			continue // nothing was held: again under the next session
		case late != nil:
			go l.giveUp(late)
		}
		return nil, err
	}
}

func tryAcquire(ctx context.Context, c sessions, name string, mode LockMode) (*Lock, error) {
	for {
		l, err := newLock(ctx, c, name)
		if err != nil {
			return nil, err
		}
		r, err := l.try(ctx, wire.SetName{Mode: mode})
		switch {
		case errors.Is(err, errLockLost) && ctx.Err() == nil:
			continue
		case err != nil && ctx.Err() != nil: // it may have been granted
			go l.giveUp(nil)
			return nil, err
		case err != nil || !r.Granted:
			return nil, err
		}
		l.hold(r)
		return l, nil
	}
}

// newLock makes a lock of the present session that holds nothing yet.
func newLock(ctx context.Context, c sessions, name string) (*Lock, error) {
	id, ended, err := c.WaitSession(ctx)
	if err != nil {
		return nil, err
	}
	return &Lock{
		c: c, name: name, holder: file.NextWait(), session: id, ended: ended,
		lost: make(chan struct{}), given: make(chan struct{}), turn: make(chan struct{}, 1),
	}, nil
}

// hold takes in that the lock is held.
func (l *Lock) hold(r *wire.NameReply) {
	l.now = *r
	go l.guard()
}

// Name returns the lock's name.
func (l *Lock) Name() string { return l.name }

// Mode returns the mode that the lock is held in, as last told by the masters.
func (l *Lock) Mode() LockMode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now.Mode
}

// Value returns the value block as of the last acquisition or conversion. It is
// not valid if somebody was lost who held the lock in PW or EX and may have been
// about to write it, until somebody writes it again.
func (l *Lock) Value() (value []byte, valid bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.now.Value), l.now.Valid
}

// Lost is closed when the lock may soon be somebody else's, or is: the client's
// lease has run out because it can not reach the masters, or its session is
// over. Whatever the lock guards is not to be touched any more. Once Unlock was
// called nothing is told.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// begin waits for the lock's turn; end gives it on.
func (l *Lock) begin(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ashlar.E("lock", ashlar.Canceled, l.name, ctx.Err())
	}
	if err := l.usable(); err != nil {
		l.end()
		return err
	}
	return nil
}

func (l *Lock) end() { <-l.turn }

// usable refuses a lock that is lost or was given up.
func (l *Lock) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unlocked {
		return ashlar.E("lock", ashlar.Invalid, l.name, errLockGiven)
	}
	select {
	case <-l.lost:
		return l.wasLost()
	default:
		return nil
	}
}

func (l *Lock) wasLost() error { return ashlar.E("lock", ashlar.NoSession, l.name, errLockLost) }

// note takes in what the masters say of the lock.
func (l *Lock) note(r *wire.NameReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Mode, l.now.Value, l.now.Valid = r.Mode, r.Value, r.Valid
}

// Convert changes the mode, waiting until what others hold allows it or ctx
// ends; meanwhile the lock is held in the old one. To hold less needs no wait.
// Of two whose conversions wait for each other the later gets ashlar.Deadlock,
// and goes on holding what it held: one of them has to hold less first. After
// any other error Mode tells what is held.
func (l *Lock) Convert(ctx context.Context, mode LockMode) error {
	if err := checkMode(l.name, mode); err != nil {
		return err
	}
	if err := l.begin(ctx); err != nil {
		return err
	}
	r, late, err := l.wait(ctx, mode)
	if late != nil { // the turn goes on when it is known what is held
		go func() {
			defer l.end()
			if r, ok := <-late; ok {
				l.note(&r)
			}
		}()
		return err
	}
	defer l.end()
	if err == nil {
		l.note(r)
	}
	return err
}

// TryConvert changes the mode if that is possible now.
func (l *Lock) TryConvert(ctx context.Context, mode LockMode) (bool, error) {
	if err := checkMode(l.name, mode); err != nil {
		return false, err
	}
	r, err := l.set(ctx, wire.SetName{Mode: mode})
	return err == nil && r.Granted, err
}

// ConvertWith writes the value block and changes the mode, which may stay. Only
// who holds the lock in PW or EX may, and only to hold no more than that.
func (l *Lock) ConvertWith(ctx context.Context, mode LockMode, value []byte) error {
	if err := checkMode(l.name, mode); err != nil {
		return err
	}
	if len(value) > LockValueMax {
		return ashlar.E("lock", ashlar.TooBig, l.name, errors.New("a value has at most 64 bytes"))
	}
	_, err := l.set(ctx, wire.SetName{Mode: mode, SetValue: true, Value: value})
	return err
}

// set has its turn with a request that does not wait.
func (l *Lock) set(ctx context.Context, m wire.SetName) (*wire.NameReply, error) {
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	defer l.end()
	r, err := l.try(ctx, m)
	if err == nil {
		l.note(r)
	}
	return r, err
}

func checkMode(name string, mode LockMode) error {
	if mode < NL || mode > EX {
		return ashlar.E("lock", ashlar.Invalid, name, errors.New("the modes are NL, CR, CW, PR, PW and EX; Unlock gives a lock up"))
	}
	return nil
}

// Unlock gives the lock up; a conversion that waits ends with an error. If it
// was lost before, the error is ashlar.NoSession: others may have held it since.
// After any other error it is held still, and Unlock can be called again.
func (l *Lock) Unlock(ctx context.Context) error {
	l.mu.Lock()
	if !l.unlocked {
		l.unlocked = true
		close(l.given)
	}
	l.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
		defer l.end()
	case <-ctx.Done():
		return ashlar.E("unlock", ashlar.Canceled, l.name, ctx.Err())
	}
	if l.released {
		return nil
	}
	_, err := l.try(ctx, wire.SetName{Mode: wire.NoLock})
	l.released = err == nil || errors.Is(err, errLockLost)
	return err
}

// locksPage is how many locks are asked for at once.
const locksPage = 500

// Locks lists all locks that are held or waited for: named ones, those of
// files, then who waits.
func (c *Client) Locks(ctx context.Context) ([]LockStatus, error) {
	var out []LockStatus
	for m := (&wire.ListLocks{Limit: locksPage}); ; {
		var r wire.ListLocksReply
		if err := c.do(ctx, m, &r); err != nil {
			return nil, err
		}
		out = append(out, r.Locks...)
		if m.After = r.Next; m.After == nil {
			return out, nil
		}
	}
}
