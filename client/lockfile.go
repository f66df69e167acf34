package client

import (
	"context"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Locks of files are those of the kernel's open file descriptions: a File holds
// them, they are seen by fcntl(2) in every mount, and closing the File gives
// them up. Lock and its like take the whole file as flock(2) does, which sees
// no other sort.
//
// When the client's session is lost its locks go with it, and every later call
// on a File that held one fails with ashlar.IO: what it protected may have been
// changed by others.

// ToEnd as the length of a range reaches to the end of the file, wherever that
// will be.
const ToEnd = 0

// owners numbers open files as owners of locks.
var owners atomic.Uint64

// lockRange makes a lock of a range.
func (f *File) lockRange(op string, t wire.LockType, off, n int64) (wire.Lock, error) {
	if err := f.check(op); err != nil {
		return wire.Lock{}, err
	}
	if off < 0 || n < 0 || n > 0 && off > wire.LockEnd-(n-1) {
		return wire.Lock{}, pathError(op, f.name, refuse(ashlar.Invalid))
	}
	l := wire.Lock{Class: wire.LockOFD, Type: t, Owner: f.owner(), Start: uint64(off), End: wire.LockEnd}
	if n > 0 {
		l.End = uint64(off + n - 1)
	}
	return l, nil
}

// owner returns the file's number as an owner, given out when first needed.
func (f *File) owner() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locker == 0 {
		f.locker = owners.Add(1)
	}
	return f.locker
}

func lockType(exclusive bool) wire.LockType {
	if exclusive {
		return wire.Exclusive
	}
	return wire.Shared
}

// LockRange locks n bytes from off, waiting until others have given up what is
// in the way or ctx ends.
func (f *File) LockRange(ctx context.Context, off, n int64, exclusive bool) error {
	l, err := f.lockRange("lock", lockType(exclusive), off, n)
	if err == nil {
		err = pathError("lock", f.name, f.h.WaitLock(ctx, l))
	}
	return err
}

// TryLockRange locks n bytes from off if nothing is in the way.
func (f *File) TryLockRange(ctx context.Context, off, n int64, exclusive bool) (bool, error) {
	l, err := f.lockRange("lock", lockType(exclusive), off, n)
	if err != nil {
		return false, err
	}
	ok, err := f.h.SetLock(ctx, l)
	return ok, pathError("lock", f.name, err)
}

// UnlockRange unlocks n bytes from off. What was written before is seen by
// whoever locks them next.
func (f *File) UnlockRange(ctx context.Context, off, n int64) error {
	l, err := f.lockRange("unlock", wire.Unlocked, off, n)
	if err == nil {
		_, err = f.h.SetLock(ctx, l)
		err = pathError("unlock", f.name, err)
	}
	return err
}

// flock makes a lock of the whole file.
func (f *File) flock(op string, t wire.LockType) (wire.Lock, error) {
	if err := f.check(op); err != nil {
		return wire.Lock{}, err
	}
	return wire.Lock{Class: wire.LockFlock, Type: t, Owner: f.owner(), End: wire.LockEnd}, nil
}

// Lock locks the file as flock(2) does, waiting until it can or ctx ends. One
// that is held in the other mode is given up first.
func (f *File) Lock(ctx context.Context, exclusive bool) error {
	l, err := f.flock("lock", lockType(exclusive))
	if err == nil {
		err = pathError("lock", f.name, f.h.WaitLock(ctx, l))
	}
	return err
}

// TryLock is Lock that does not wait.
func (f *File) TryLock(ctx context.Context, exclusive bool) (bool, error) {
	l, err := f.flock("lock", lockType(exclusive))
	if err != nil {
		return false, err
	}
	ok, err := f.h.SetLock(ctx, l)
	return ok, pathError("lock", f.name, err)
}

// Unlock gives up what Lock or TryLock took.
func (f *File) Unlock(ctx context.Context) error {
	l, err := f.flock("unlock", wire.Unlocked)
	if err == nil {
		_, err = f.h.SetLock(ctx, l)
		err = pathError("unlock", f.name, err)
	}
	return err
}
