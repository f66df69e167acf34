package file

import (
	"context"
	"sync"

	"github.com/ashlarfs/ashlar"
)

// Limits of what caches above are told to drop at a time. The kernel may wait for
// a page that somebody reads, for as long as that takes, and each such drop holds
// a thread.
const (
	// dropsOfOne is how many parts of one inode are being dropped, or are about to
	// be; beyond it all of it is.
	dropsOfOne = 32
	// dropsAtOnce is how many drops are under way.
	dropsAtOnce = 1024
)

// everyName has caches above drop the names in all directories. How long they may
// keep one they count from when they are told: if this process was paused before
// the answer left it, from after the session's lease was over.
const everyName ashlar.Inode = 0

// drops is what caches above are dropping: each part of an inode once at a time,
// and once more for those who asked meanwhile.
type drops struct {
	slots chan struct{} // dropsAtOnce
	mu    sync.Mutex
	m     map[ashlar.Inode]map[span]*dropped
}

// dropped is one drop of a part. drops.mu guards it.
type dropped struct {
	done chan struct{}
	next *dropped // begins after this one; nil if nobody asked for it
}

func (d *drops) init() {
	d.slots, d.m = make(chan struct{}, dropsAtOnce), map[ashlar.Inode]map[span]*dropped{}
}

// add returns a drop that begins after now, and whether it is to be begun by the
// caller: otherwise it follows one that is under way.
func (d *drops) add(ino ashlar.Inode, s *span) (x *dropped, begin bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	parts := d.m[ino]
	if parts == nil {
		parts = map[span]*dropped{}
		d.m[ino] = parts
	}
	if parts[*s] == nil && len(parts) >= dropsOfOne {
		*s = span{}
	}
	now := parts[*s]
	if now == nil {
		x = &dropped{done: make(chan struct{})}
		parts[*s] = x
		return x, true
	}
	if now.next == nil {
		now.next = &dropped{done: make(chan struct{})}
	}
	return now.next, false
}

// end ends a drop and returns the one that follows it, if any.
func (d *drops) end(ino ashlar.Inode, s span, x *dropped) (next *dropped) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(x.done)
	if x.next != nil {
		d.m[ino][s] = x.next
		return x.next
	}
	if delete(d.m[ino], s); len(d.m[ino]) == 0 {
		delete(d.m, ino)
	}
	return nil
}

// dropping has caches above drop a part of an inode, or more, and returns a
// channel that is closed when they have.
func (fs *FS) dropping(ino ashlar.Inode, s span) <-chan struct{} {
	d := &fs.drops
	x, begin := d.add(ino, &s)
	if !begin {
		return x.done
	}
	go func() {
		for x := x; x != nil; x = d.end(ino, s, x) {
			d.slots <- struct{}{}
			i := fs.state(ino)
			if i != nil {
				i.dropsBegun.Add(1)
			}
			fs.o.Drop(ino, s.off, s.end-s.off)
			if i != nil {
				i.dropsEnded.Add(1)
			}
			<-d.slots
		}
	}()
	return x.done
}

// around is the drops of parts that a wait for one inode has begun. What it asked
// for before it does not ask for again.
type around map[span]<-chan struct{}

// dropped has caches above drop these parts, and tells whether they soon have.
func (a around) dropped(fs *FS, ino ashlar.Inode, parts []span) bool {
	done := true
	for _, s := range parts {
		ch := a[s]
		if ch == nil {
			ch = fs.dropping(ino, s)
			a[s] = ch
		}
		_ = fs.waitAtMost(context.Background(), ch, dropLook)
		done = done && isClosed(ch)
	}
	return done
}

// dropSoon has caches above drop an inode, but for parts of which somebody may
// hold pages, and does not wait long: those follow.
func (fs *FS) dropSoon(ino ashlar.Inode) {
	begun := around{}
	if !begun.dropped(fs, ino, []span{{}}) {
		begun.dropped(fs, ino, fs.leases.around(ino))
	}
}

// Drops is how often caches above have dropped something of the file so far.
func (h *Handle) Drops() uint64 { return h.i.dropsEnded.Load() }

// Rewritten is called when a write through a cache above was done, and before the
// cache is told. It writes to its pages before it asks; if one of those was dropped
// since before, which Drops returned then, somebody may have read what was there
// before the write into the cache again, and that is dropped. A page that the cache
// holds locked for the write itself, for which dropping it would wait, can not have
// been dropped or read.
func (h *Handle) Rewritten(before, off, n uint64) {
	i, fs := h.i, h.i.fs
	if h.flags&Direct != 0 || fs.o.Drop == nil || i.dropsBegun.Load() == before {
		return
	}
	const page = pageSize - 1
	ch := fs.dropping(i.id, span{off &^ page, (off + n + page) &^ page})
	l := &fs.leases
	for since := fs.o.Clock.Now(); fs.o.Clock.Now().Sub(since) < dropMax; {
		l.mu.Lock()
		x := l.m[i.id]
		others := x != nil && x.uses > 0 // who is reading it holds it, and is waited for
		l.mu.Unlock()
		if _ = fs.waitAtMost(context.Background(), ch, dropLook); isClosed(ch) || !others {
			return
		}
	}
}
