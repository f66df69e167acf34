package file

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Giving a lease back takes rounds: data is written, caches above are told to
// drop what they hold, and if anything was read or written under the lease
// meanwhile, again. After some rounds uses that begin wait at a gate until the
// lease is gone, and get it anew.
//
// Whoever waits, there or for a lease that is not here yet, may hold pages of
// the kernel locked, and to drop those the kernel waits. They hold nothing yet:
// what is around them is dropped.
const (
	// gateAfter is how many rounds come before the gate.
	gateAfter = 2
	// dropLook is how long dropping all is waited for before it is looked who
	// may hold pages.
	dropLook = time.Millisecond
	// dropMax is how long dropping caches is waited for before that is logged; a
	// lease that others wait for is given back only when it is done.
	dropMax = 3 * time.Second
	// leasePause is the pause before a lease is asked for again.
	leasePause = 5 * time.Millisecond
	// dropsMax is how many inodes are dropped at a time when all are.
	dropsMax = 16
	// leaseMargin is how long before the session's lease is over that begins, and
	// dropTime how much earlier for each lease held.
	leaseMargin = 200 * time.Millisecond
	dropTime    = 5 * time.Microsecond
	// firstUseMax is how long a lease that was waited for is kept for that use.
	firstUseMax = 20 * time.Millisecond
)

// Recall gives a lease back but for what may be kept, and returns what the
// leader is to be told; Returned must be called when it was. Nothing is learnt
// of a lease in between, one that is not known here included: the answer that
// gives it may be on its way.
func (fs *FS) Recall(ino ashlar.Inode, keep ashlar.LeaseMode) wire.HeldLease {
	l := &fs.leases
	for waited := false; ; {
		l.mu.Lock()
		x := l.m[ino]
		if x == nil {
			x = &leased{ino: ino}
			l.m[ino] = x
		}
		if g := x.giving; g != nil { // the same recall again, or another
			l.mu.Unlock()
			<-g.over
			continue
		}
		if x.mode <= keep {
			x.giving = &giving{keep: keep, done: true, over: make(chan struct{})}
			mode := x.mode
			l.mu.Unlock()
			return fs.open1(wire.HeldLease{Inode: ino, Mode: mode})
		}
		if x.first != nil && !waited { // somebody has waited for it
			first := x.first
			l.mu.Unlock()
			_ = fs.waitAtMost(fs.base, first, firstUseMax)
			waited = true
			continue
		}
		g := &giving{keep: keep, over: make(chan struct{})}
		x.giving = g
		l.mu.Unlock()
		fs.shed(x, g)
		return fs.open1(wire.HeldLease{Inode: ino, Mode: keep})
	}
}

// open1 notes in a returned lease that the file is open here, which the leader
// knows from then on.
func (fs *FS) open1(h wire.HeldLease) wire.HeldLease {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if i := fs.inodes[h.Inode]; i != nil {
		h.Open, i.registered = true, true
	}
	return h
}

// shed writes and drops what is held under a lease, in rounds, and lowers it.
func (fs *FS) shed(x *leased, g *giving) {
	l := &fs.leases
	for round := 0; ; round++ {
		l.mu.Lock()
		var idle chan struct{}
		if g.gate = round >= gateAfter; g.gate && x.uses > 0 {
			if x.idle == nil {
				x.idle = make(chan struct{})
			}
			idle = x.idle
		}
		l.mu.Unlock()
		if idle != nil {
			_ = fs.waitAtMost(fs.base, idle, -1)
		}
		l.mu.Lock()
		// A use that is under way now may end, and leave data, after it was looked
		// for that: only a round without any is the last.
		begun, mode, calm := x.begun, x.mode, x.uses == 0
		l.mu.Unlock()
		wrote := mode == ashlar.LeaseExclusive // otherwise there is nothing to write, and whoever holds the file's locks may wait for us
		if wrote {
			fs.write(x.ino)
		}
		if g.keep == ashlar.LeaseNone && mode != ashlar.LeaseNone || wrote && fs.mapped(x.ino) {
			for !fs.drop(x.ino) && fs.base.Err() == nil && l.gives(x, g) { // the lease stays until it is dropped
			}
		}
		dirty := wrote && fs.Pending(x.ino)
		l.mu.Lock()
		if x.giving != g { // the session was lost
			l.mu.Unlock()
			return
		}
		if calm && x.begun == begun && !dirty || fs.base.Err() != nil {
			x.mode, g.done = min(x.mode, g.keep), true
			if x.mode == ashlar.LeaseNone {
				x.forget(l.asks)
				l.clearNames(x)
			}
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// write writes and commits what is buffered of a file. What can not be is lost,
// and the file's handles report it: nobody else waits for it. It is waited for
// what is in flight, which must not come after what others write next (I-7).
func (fs *FS) write(ino ashlar.Inode) {
	i := fs.state(ino)
	if i == nil {
		return
	}
	for fs.base.Err() == nil {
		ctx, cancel := fs.background()
		err := i.flush(ctx, false)
		if err == nil {
			if err = i.commit(ctx); err != nil {
				i.abandon(err)
			}
			cancel()
			return
		}
		cancel() // runs in flight end in their own time
	}
}

// abandon gives up what was written and can not be committed.
func (i *inode) abandon(err error) {
	if i.fs.base.Err() != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.changed {
		return
	}
	i.fs.o.Logger.Error("write lost: its size can not be committed and others wait for the file", "inode", i.id, "err", err)
	i.fail(err)
	if i.left == 0 && i.dirty.bytes == 0 {
		i.changed, i.localEnd, i.set.Valid = false, 0, 0
	}
}

// mapped tells whether the file may be written to through a shared mapping, of
// which nothing is known here.
func (fs *FS) mapped(ino ashlar.Inode) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	i := fs.inodes[ino]
	return i != nil && i.paged > 0
}

// Pending tells whether something was written to a file here that the leader
// does not know of.
func (fs *FS) Pending(ino ashlar.Inode) bool {
	i := fs.state(ino)
	return i != nil && i.pending()
}

// gives tells whether a lease is still being given back, and was not lost.
func (l *leases) gives(x *leased, g *giving) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return x.giving == g
}

// drop has caches above drop an inode, and tells whether they have in time.
func (fs *FS) drop(ino ashlar.Inode) bool {
	if fs.o.Drop == nil {
		return true
	}
	all, begun := fs.dropping(ino, span{}), around{}
	for since := fs.o.Clock.Now(); fs.o.Clock.Now().Sub(since) < dropMax; {
		if _ = fs.waitAtMost(context.Background(), all, dropLook); isClosed(all) {
			return true
		}
		if rest := fs.leases.around(ino); len(rest) > 0 && begun.dropped(fs, ino, rest) {
			return true
		}
	}
	fs.o.Logger.Warn("the kernel does not drop what it has cached", "inode", ino)
	return false
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Returned is called when the leader knows what is left of leases.
func (fs *FS) Returned(inos []ashlar.Inode) {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ino := range inos {
		l.void(ino)
		x := l.m[ino]
		if x == nil {
			continue
		}
		if g := x.giving; g != nil && g.done {
			x.giving = nil
			close(g.over)
		}
		if x.mode == ashlar.LeaseNone && x.giving == nil {
			l.remove(x)
		}
	}
}

// returned waits until none of these inodes' leases is being given back.
func (l *leases) returned(ctx context.Context, inos []ashlar.Inode) {
	for _, ino := range inos {
		l.mu.Lock()
		var over chan struct{}
		if x := l.m[ino]; x != nil && x.giving != nil {
			over = x.giving.over
		}
		l.mu.Unlock()
		if over != nil {
			select {
			case <-over:
			case <-ctx.Done():
				return
			}
		}
	}
}

// remove forgets a lease. mu must be held.
func (l *leases) remove(x *leased) {
	l.clearNames(x)
	if l.m[x.ino] == x {
		delete(l.m, x.ino)
	}
}

// giveBack returns leases that nobody asked for, each as soon as it is ready:
// whoever uses one that is not may be waiting for another of them.
func (fs *FS) giveBack(inos []ashlar.Inode) {
	if len(inos) == 0 {
		return
	}
	in := fs.o.Meta.Session()
	ready := make(chan wire.HeldLease, len(inos))
	go func() {
		defer close(ready)
		var g errgroup.Group
		g.SetLimit(dropsMax)
		for _, ino := range inos {
			g.Go(func() error {
				ready <- fs.Recall(ino, ashlar.LeaseNone)
				return nil
			})
		}
		_ = g.Wait()
	}()
	for h := range ready {
		m := &wire.ReturnLeases{Leases: []wire.HeldLease{h}}
		for more := true; more && len(m.Leases) < wire.ReturnsMax; {
			select {
			case h, ok := <-ready:
				if more = ok; ok {
					m.Leases = append(m.Leases, h)
				}
			default:
				more = false
			}
		}
		// Tried until the leader has it: what comes late would take a lease that was
		// got anew.
		if err := fs.o.Meta.DoIn(fs.base, in, ashlar.Cred{Checked: true}, m, nil); err != nil {
			fs.o.Logger.Debug("leases not returned", "err", err) // the session is over
		}
		back := make([]ashlar.Inode, 0, len(m.Leases))
		for _, h := range m.Leases {
			back = append(back, h.Inode)
		}
		fs.Returned(back)
	}
}

func (fs *FS) kickEvict() {
	l := &fs.leases
	l.mu.Lock()
	start := !l.evicting
	l.evicting = true
	l.mu.Unlock()
	if start {
		fs.work.Add(1)
		go func() {
			defer fs.work.Done()
			fs.evict()
		}()
	}
}

// evict gives back leases that were not used for a while, of what is not open; if
// that is not enough, of files that are open and not being used.
func (fs *FS) evict() {
	l := &fs.leases
	var inos []ashlar.Inode
	fs.mu.Lock()
	l.mu.Lock()
	looked, full := 0, len(l.m) >= LeasesMax+evictBatch
	for ino, x := range l.m { // any
		if looked++; looked > evictLook || len(inos) >= evictBatch {
			break
		}
		if x.used && !full {
			x.used = false
			continue
		}
		if (fs.inodes[ino] == nil || full && x.uses == 0) && x.giving == nil && x.mode != ashlar.LeaseNone {
			inos = append(inos, ino)
		}
	}
	l.mu.Unlock()
	fs.mu.Unlock()
	fs.giveBack(inos)
	l.mu.Lock()
	l.evicting = false
	l.mu.Unlock()
}

// loseLeases drops all that is known under leases: their session is gone. What
// is used meanwhile waits until caches above are dropped too.
func (fs *FS) loseLeases() {
	l := &fs.leases
	l.mu.Lock()
	lost := make([]*leased, 0, len(l.m))
	for _, x := range l.m {
		lost = append(lost, x)
		x.forget(l.asks)
		l.clearNames(x)
		if g := x.giving; g != nil {
			close(g.over)
		}
		x.mode = ashlar.LeaseNone
		x.giving = &giving{over: make(chan struct{})}
	}
	l.allVoid = l.asks
	clear(l.voids)
	l.mu.Unlock()
	fs.work.Add(1)
	go func() {
		defer fs.work.Done()
		fs.drop(everyName)
		fs.each(lost, func(x *leased) {
			fs.drop(x.ino)
			l.mu.Lock()
			defer l.mu.Unlock()
			g := x.giving
			x.giving = nil
			close(g.over)
			l.remove(x)
		})
	}()
}

// each calls f for many leases, some at a time.
func (fs *FS) each(all []*leased, f func(*leased)) {
	var g errgroup.Group
	g.SetLimit(dropsMax)
	for _, x := range all {
		g.Go(func() error {
			f(x)
			return nil
		})
	}
	_ = g.Wait()
}

// watchLease has caches above drop everything when the session's lease is about
// to be over, which they know nothing of (I-6). If it is renewed after all, the
// leases on inodes hold still.
func (fs *FS) watchLease() {
	defer fs.work.Done()
	lapsed := false
	for fs.base.Err() == nil {
		if left := fs.left(); left > 0 {
			lapsed = false
			_ = fs.waitAtMost(fs.base, nil, left)
			continue
		}
		if !lapsed {
			fs.dropSoon(everyName)
		}
		fs.each(fs.mayBeCached(lapsed), func(x *leased) { fs.dropSoon(x.ino) })
		lapsed = true
		_ = fs.waitAtMost(fs.base, nil, leaseMargin/4)
	}
}

// mayBeCached returns what caches above may hold something of: first that of
// which they may hold pages, which have no end of their own. With again it is
// only what was read or written since, or was being when it was dropped last.
func (fs *FS) mayBeCached(again bool) []*leased {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	var pages, rest []*leased
	for _, x := range l.m {
		switch {
		case x.begun > 0 && !x.clean:
			pages = append(pages, x)
		case !again:
			rest = append(rest, x)
		}
		x.clean = x.uses == 0
	}
	return append(pages, rest...)
}
