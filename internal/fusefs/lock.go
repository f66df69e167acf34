package fusefs

import (
	"context"
	"os"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The kernel passes every lock on and keeps none of its own. It tells flock
// from fcntl, but not locks of open file descriptions from those of processes:
// both come with an owner, and that is what they differ in. A process's locks
// go when it closes a descriptor (FLUSH names the owner), a description's with
// the last one (RELEASE); whatever was locked through a handle and is left then
// is a description's.

// lockOf converts a request.
func lockOf(in *fuse.LkIn) (l wire.Lock, ok bool) {
	l = wire.Lock{Class: wire.LockPOSIX, Owner: in.Owner, Start: in.Lk.Start, End: min(in.Lk.End, wire.LockEnd), PID: in.Lk.Pid}
	if in.LkFlags&fuse.LK_FLOCK != 0 {
		l.Class, l.Start, l.End = wire.LockFlock, 0, wire.LockEnd
	}
	switch in.Lk.Typ {
	case syscall.F_RDLCK:
		l.Type = wire.Shared
	case syscall.F_WRLCK:
		l.Type = wire.Exclusive
	case syscall.F_UNLCK:
		l.Type = wire.Unlocked
	default:
		return l, false
	}
	return l, l.Start <= l.End
}

// lockRequest finds the handle and the lock that a request is about.
func (f *filesystem) lockRequest(in *fuse.LkIn) (*openFile, wire.Lock, fuse.Status) {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return nil, wire.Lock{}, fuse.EBADF
	}
	l, ok := lockOf(in)
	if !ok {
		return nil, l, fuse.EINVAL
	}
	return h, l, fuse.OK
}

// GetLk implements fuse.RawFileSystem.
func (f *filesystem) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h, l, status := f.lockRequest(in)
	if !status.Ok() {
		return status
	}
	ctx, cancel := f.context()
	defer cancel()
	r, err := h.TestLock(ctx, l)
	if err != nil {
		return f.status("test lock", err)
	}
	out.Lk = fuse.FileLock{Typ: syscall.F_UNLCK}
	if r.Found {
		out.Lk = fuse.FileLock{Start: r.Lock.Start, End: r.Lock.End, Typ: syscall.F_RDLCK, Pid: r.Lock.PID}
		if r.Lock.Type == wire.Exclusive {
			out.Lk.Typ = syscall.F_WRLCK
		}
		if !sameHost(r.Client) {
			out.Lk.Pid = 0 // the number means another process here
		}
	}
	return fuse.OK
}

// sameHost tells whether a session, by its name, is one of this machine.
func sameHost(client string) bool {
	host, err := os.Hostname()
	return err == nil && strings.HasPrefix(client, host+":")
}

// SetLk implements fuse.RawFileSystem.
func (f *filesystem) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	h, l, status := f.lockRequest(in)
	if !status.Ok() {
		return status
	}
	ctx, cancel := f.context()
	defer cancel()
	if h.GivesUp(&l) {
		f.launder(h.Inode())
	}
	granted, err := h.SetLock(ctx, l)
	switch {
	case err != nil:
		return f.status("lock", err)
	case !granted:
		return fuse.EAGAIN
	}
	return fuse.OK
}

// launder has the kernel write out what was written through shared mappings,
// which it would otherwise do much later, and forget the pages: what others
// write once the lock is theirs is not in them.
func (f *filesystem) launder(ino ashlar.Inode) {
	f.dropData(ino, 0, 0)
}

// SetLkw implements fuse.RawFileSystem. It is the one request that an interrupt
// ends: the lock is not taken then.
func (f *filesystem) SetLkw(interrupted <-chan struct{}, in *fuse.LkIn) fuse.Status {
	h, l, status := f.lockRequest(in)
	if !status.Ok() {
		return status
	}
	if l.Type == wire.Unlocked {
		return f.SetLk(nil, in)
	}
	if h.GivesUp(&l) {
		f.launder(h.Inode())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-interrupted:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := h.WaitLock(ctx, l)
	switch {
	case err != nil && ctx.Err() != nil:
		return fuse.EINTR
	case err != nil:
		return f.status("lock", err)
	}
	return fuse.OK
}
