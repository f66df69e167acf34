package file

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// span is a part of a file, up to end; up to the end of the file if that is 0.
type span struct{ off, end uint64 }

// pageSize is the least that caches above hold and drop, in bytes.
const pageSize = 4096

// demand is what a read or write needs of a file's data.
type demand struct {
	mode ashlar.LeaseMode // that it needs
	span
	// paged: the kernel may hold pages of the span locked meanwhile. Of a write
	// that is the last page.
	paged bool
	// cached: what is written comes out of the kernel's cache, which waits for
	// it when it is told to drop that.
	cached bool
}

// locked is what the kernel may hold locked while it waits.
func (a *demand) locked() span {
	s := span{a.off &^ (pageSize - 1), (a.end + pageSize - 1) &^ (pageSize - 1)}
	if a.mode == ashlar.LeaseExclusive && !a.cached {
		s.off = max(s.off, s.end-pageSize)
	}
	return s
}

// use relies on a lease for one read or write of a file, and gets it if need be. end
// must follow.
func (fs *FS) use(ctx context.Context, i *inode, a demand) (end func(), err error) {
	l := &fs.leases
	for {
		left := fs.left()
		if a.cached {
			left = fs.accepted()
		}
		l.mu.Lock()
		x := l.m[i.id]
		if x != nil && x.mode >= a.mode && left > 0 && x.open(a.cached) {
			x.begin()
			l.mu.Unlock()
			return func() { l.used(x) }, nil
		}
		var over <-chan struct{}
		enough := x != nil && x.mode >= a.mode
		if x != nil && x.giving != nil {
			over = x.giving.over
		}
		leave := l.wait(i.id, &a)
		l.mu.Unlock()
		switch {
		case over != nil:
			err = fs.waitAtMost(ctx, over, -1)
		case enough: // the session's lease is over, or about to be renewed
			err = fs.waitAtMost(ctx, nil, leasePause)
		default:
			err = fs.acquire(ctx, i, a.mode)
		}
		leave()
		if err != nil {
			return nil, err
		}
	}
}

// open tells whether a use may begin. leases.mu must be held.
func (x *leased) open(cached bool) bool {
	g := x.giving
	return g == nil || g.done || !g.gate || cached
}

// begin counts a use. leases.mu must be held.
func (x *leased) begin() {
	x.uses++
	x.begun++
	x.used, x.clean = true, false
	if x.first != nil {
		close(x.first)
		x.first = nil
	}
}

// used ends a use.
func (l *leases) used(x *leased) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.uses--; x.uses == 0 && x.idle != nil {
		close(x.idle)
		x.idle = nil
	}
}

// wait notes who waits for a lease on an inode. mu must be held, and not when
// leave is called.
func (l *leases) wait(ino ashlar.Inode, a *demand) (leave func()) {
	l.waiting[ino] = append(l.waiting[ino], a)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		all := l.waiting[ino]
		if k := slices.Index(all, a); k >= 0 {
			all = slices.Delete(all, k, k+1)
		}
		if l.waiting[ino] = all; len(all) == 0 {
			delete(l.waiting, ino)
		}
	}
}

// around returns the parts of a file of which nobody who waits may hold pages
// locked; none if nobody does.
func (l *leases) around(ino ashlar.Inode) []span {
	l.mu.Lock()
	defer l.mu.Unlock()
	var held, out []span
	for _, a := range l.waiting[ino] {
		if a.paged {
			held = append(held, a.locked())
		}
	}
	if len(held) == 0 {
		return nil
	}
	slices.SortFunc(held, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	at := uint64(0)
	for _, h := range held {
		if h.off > at {
			out = append(out, span{at, h.off})
		}
		at = max(at, h.end)
	}
	return append(out, span{at, ashlar.FileSizeMax})
}

// acquire asks for a lease.
func (fs *FS) acquire(ctx context.Context, i *inode, mode ashlar.LeaseMode) error {
	var e wire.Entry
	if err := fs.do(ctx, ashlar.Cred{Checked: true}, &wire.AcquireLease{Inode: i.id, Mode: mode}, &e); err != nil {
		return err
	}
	i.merge(&e, false)
	if fs.holds(i.id) >= mode {
		return nil
	}
	fs.kickEvict()
	return fs.waitAtMost(ctx, nil, leasePause)
}

// waitAtMost waits until ch is closed, for at most d if that is not negative.
func (fs *FS) waitAtMost(ctx context.Context, ch <-chan struct{}, d time.Duration) error {
	var timer chan struct{}
	if d >= 0 {
		timer = make(chan struct{})
		stop := fs.o.Clock.AfterFunc(d, func() { close(timer) })
		defer stop()
	}
	select {
	case <-ch:
	case <-timer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
