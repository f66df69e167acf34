package file

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Locks of files are held by the masters. What is kept here is which handles an
// owner has locked through: to release what is left when they are closed, and
// to fail them when the session is lost and the locks with it.
//
// A lock makes others' data visible: before one is given up, what was written
// under it is in the object and committed, and whoever is granted one learns
// the file's version with it and drops what is older.

// locker is an owner of locks of one file.
type locker struct {
	class wire.LockClass
	owner uint64
}

// waitIDs numbers requests that wait, in all sessions of the process.
var waitIDs atomic.Uint64

// NextWait returns a number for a request that waits, higher than any before.
func NextWait() uint64 { return waitIDs.Add(1) }

// errLockLost is what a handle reports whose locks went with the session.
var errLockLost = ashlar.E("lock", ashlar.IO, "", errors.New("the session was lost, and locks held through this handle with it"))

// holding is what is known of a locker's locks.
type holding struct {
	through   map[*Handle]bool
	exclusive bool // it may hold one that is
}

// intact refuses a handle that lost locks.
func (h *Handle) intact() error {
	if h.broken.Load() {
		return errLockLost
	}
	return nil
}

// SetLock sets, changes or clears a lock at once; granted is false if others
// are in the way. The inode is filled in.
func (h *Handle) SetLock(ctx context.Context, l wire.Lock) (granted bool, err error) {
	l.Inode = h.i.id
	if l.Type == wire.Unlocked {
		return true, h.unlock(ctx, l)
	}
	if err := h.show(ctx, &l); err != nil {
		return false, err
	}
	if err := h.intact(); err != nil {
		return false, err
	}
	known := h.noteLock(&l)
	var r wire.LockReply
	err = h.i.fs.o.Meta.Do(ctx, ashlar.Cred{Checked: true}, &wire.SetLock{Lock: l}, &r)
	if err == nil && !r.Granted && !known {
		h.forgetLock(&l)
	}
	return r.Granted, h.granted(&l, &r, err)
}

// WaitLock sets a lock as soon as nobody is in the way. When ctx ends first, the
// request is withdrawn; if the lock was granted at the same time, that is no
// error.
func (h *Handle) WaitLock(ctx context.Context, l wire.Lock) error {
	l.Inode = h.i.id
	if err := h.show(ctx, &l); err != nil {
		return err
	}
	for {
		if err := h.intact(); err != nil {
			return err
		}
		lost := h.i.fs.lockContext()
		known := h.noteLock(&l)
		r, err := h.i.fs.wait(ctx, lost, &wire.WaitLock{ID: NextWait(), Lock: l})
		if lost.Err() != nil && ctx.Err() == nil && err != nil {
			continue // another session asks again
		}
		if err != nil && !known {
			h.forgetLock(&l)
		}
		if ashlar.KindOf(err) == ashlar.OutcomeUnknown {
			continue // it was not granted, and waited too long to be asked again under its number
		}
		return h.granted(&l, r, err)
	}
}

// granted takes in an answer.
func (h *Handle) granted(l *wire.Lock, r *wire.LockReply, err error) error {
	if err != nil {
		return err
	}
	if r.Granted {
		h.noteLock(l) // a release may have been under way
		h.wasGranted(l)
		for k := range r.Entries {
			h.i.merge(&r.Entries[k], false)
		}
	}
	return h.intact()
}

// wait asks, and withdraws the request when ctx or the session ends.
func (fs *FS) wait(ctx, lost context.Context, m *wire.WaitLock) (*wire.LockReply, error) {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lost, cancel)()
	r := new(wire.LockReply)
	err := fs.o.Meta.Do(asking, ashlar.Cred{Checked: true}, m, r)
	if err == nil || asking.Err() == nil {
		return r, err
	}
	withdraw := *m
	withdraw.Cancel = true
	bg, done := fs.background()
	defer done()
	if cerr := fs.o.Meta.Do(bg, ashlar.Cred{Checked: true}, &withdraw, r); cerr == nil && r.Granted {
		return r, nil
	}
	return nil, err
}

// TestLock tells what is in the way of a lock.
func (h *Handle) TestLock(ctx context.Context, l wire.Lock) (*wire.TestLockReply, error) {
	if err := h.intact(); err != nil {
		return nil, err
	}
	l.Inode = h.i.id
	r := new(wire.TestLockReply)
	return r, h.i.fs.o.Meta.Do(ctx, ashlar.Cred{Checked: true}, &wire.TestLock{Lock: l}, r)
}

// GivesUp tells whether to set a lock may give up an exclusive one: then what
// was written under it is to be shown to others first.
func (h *Handle) GivesUp(l *wire.Lock) bool {
	if l.Type == wire.Exclusive {
		return false
	}
	h.i.mu.Lock()
	defer h.i.mu.Unlock()
	k := h.i.lockers[locker{l.Class, l.Owner}]
	return k != nil && k.exclusive
}

// show puts what was written under a lock that may be given up where others
// find it. That this fails is reported where failed writes are, and does not
// keep the lock.
func (h *Handle) show(ctx context.Context, l *wire.Lock) error {
	if !h.GivesUp(l) || !h.i.pending() {
		return nil
	}
	if err := h.i.flush(ctx, false); err != nil {
		return err
	}
	if err := h.i.commit(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// unlock clears a range.
func (h *Handle) unlock(ctx context.Context, l wire.Lock) error {
	if err := h.show(ctx, &l); err != nil {
		return err
	}
	var r wire.LockReply
	if err := h.i.fs.o.Meta.Do(ctx, ashlar.Cred{Checked: true}, &wire.SetLock{Lock: l}, &r); err != nil {
		return err
	}
	return h.intact()
}

// ReleaseOwner clears all POSIX locks that an owner holds of the file: one of
// its descriptors was closed.
func (h *Handle) ReleaseOwner(ctx context.Context, owner uint64) error {
	return h.release(ctx, locker{wire.LockPOSIX, owner})
}

func (h *Handle) release(ctx context.Context, o locker) error {
	l := wire.Lock{Inode: h.i.id, Class: o.class, Owner: o.owner, End: wire.LockEnd}
	if err := h.show(ctx, &l); err != nil {
		return err
	}
	h.i.mu.Lock()
	_, held := h.i.lockers[o]
	delete(h.i.lockers, o)
	h.i.mu.Unlock()
	if !held {
		return nil
	}
	return h.unlock(ctx, l)
}

// releaseAll clears what is left of locks made through the handle.
func (h *Handle) releaseAll(ctx context.Context) error {
	var left []locker
	h.i.mu.Lock()
	for o, k := range h.i.lockers {
		if k.through[h] {
			left = append(left, o)
		}
	}
	h.i.mu.Unlock()
	slices.SortFunc(left, func(a, b locker) int { return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.owner, b.owner)) })
	var first error
	for _, o := range left {
		if err := h.release(ctx, o); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// noteLock notes that an owner may hold locks through the handle, and returns
// whether that was noted before.
func (h *Handle) noteLock(l *wire.Lock) (known bool) {
	o := locker{l.Class, l.Owner}
	h.i.mu.Lock()
	defer h.i.mu.Unlock()
	if h.i.lockers == nil {
		h.i.lockers = map[locker]*holding{}
	}
	k := h.i.lockers[o]
	if k == nil {
		k = &holding{through: map[*Handle]bool{}}
		h.i.lockers[o] = k
	}
	known = k.through[h]
	k.through[h] = true
	return known
}

// wasGranted notes that an owner may hold an exclusive lock.
func (h *Handle) wasGranted(l *wire.Lock) {
	h.i.mu.Lock()
	defer h.i.mu.Unlock()
	if k := h.i.lockers[locker{l.Class, l.Owner}]; k != nil && l.Type == wire.Exclusive {
		k.exclusive = true
	}
}

// forgetLock takes noteLock back: nothing was granted.
func (h *Handle) forgetLock(l *wire.Lock) {
	o := locker{l.Class, l.Owner}
	h.i.mu.Lock()
	defer h.i.mu.Unlock()
	k := h.i.lockers[o]
	if k == nil {
		return
	}
	if delete(k.through, h); len(k.through) == 0 {
		delete(h.i.lockers, o)
	}
}

// loseLocks fails handles through which locks were held.
func (i *inode) loseLocks() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.lockers {
		for h := range k.through {
			h.broken.Store(true)
		}
	}
	i.lockers = nil
}

// lockContext ends when the present session is lost.
func (fs *FS) lockContext() context.Context {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.locking == nil {
		fs.locking, fs.stopLocking = context.WithCancel(fs.base)
	}
	return fs.locking
}

// endLocking ends all waiting for locks under a session that is lost.
func (fs *FS) endLocking() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.locking != nil {
		fs.stopLocking()
		fs.locking = nil
	}
}
