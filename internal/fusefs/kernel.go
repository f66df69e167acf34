package fusefs

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
)

// The kernel keeps attributes and names for as long as the leases they are
// known under surely hold, and is told to drop them when one is given back.
//
// Attributes and pages of an inode it drops at once: pages that are being read
// or written when that is done. To drop a name it takes the lock of the
// directory, which it also holds while a name there is being changed through
// this mount; such a change may itself wait for another session's lease, and
// that session for ours. Then nobody waits for names: a new epoch makes the
// kernel ask for all of them again. One that knows no epochs (before Linux 6.16)
// asks only for the attributes of what the names lead to, and for the names as
// soon as the lock is free.
//
// A name that is dropped for good is not only asked for again: what is mounted
// there or below is unmounted, and who stands in the directory can not tell where
// that is. Names of directories are only made to be asked for, and all are while
// something is mounted within this mount; then there is no new epoch either, which
// drops for good, too. An answer about such a name that was under way may still be
// taken in, so it is made to be asked for twice.

// shown is which names of directories the kernel may hold, and in which
// directories names are being changed.
type shown struct {
	mu   sync.Mutex
	dirs map[ashlar.Inode]*shownDir
}

// shownDir is one directory; shown.mu guards it.
type shownDir struct {
	names    map[string]shownName
	changing int
	busy     chan struct{} // closed while names are being changed
}

type shownName struct {
	ino   ashlar.Inode
	dir   bool // that is a directory
	at    time.Time
	until time.Time
}

// shownMax is how many names of a directory are remembered before those that
// the kernel has forgotten by itself are looked for.
const shownMax = 1024

// namesMax is how many names are dropped one by one; with more a new epoch is
// less to do, although the kernel asks for names of other directories, too.
const namesMax = 256

// namesPatience is how long that may take.
const namesPatience = 2 * time.Millisecond

// dir returns a directory's entry, made if needed. mu must be held.
func (s *shown) dir(ino ashlar.Inode) *shownDir {
	d := s.dirs[ino]
	if d == nil {
		if s.dirs == nil {
			s.dirs = map[ashlar.Inode]*shownDir{}
		}
		d = &shownDir{names: map[string]shownName{}, busy: make(chan struct{})}
		s.dirs[ino] = d
	}
	return d
}

// tidy forgets a directory of which nothing is remembered. mu must be held.
func (s *shown) tidy(ino ashlar.Inode, d *shownDir) {
	if len(d.names) == 0 && d.changing == 0 {
		delete(s.dirs, ino)
	}
}

// add notes a name that the kernel is about to be told for a while.
func (s *shown) add(dir ashlar.Inode, name string, a *ashlar.Attr, d time.Duration) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.dir(dir)
	if n := len(x.names); n >= shownMax && n&(n-1) == 0 {
		for k, v := range x.names {
			if now.After(v.until) {
				delete(x.names, k)
			}
		}
	}
	x.names[name] = shownName{a.Inode, a.Type == ashlar.TypeDir, now, now.Add(d)}
}

// take returns the names of a directory that the kernel may hold, and a channel
// that is closed once names are being changed there.
func (s *shown) take(dir ashlar.Inode) (map[string]shownName, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dirs[dir]
	if d == nil {
		return nil, nil
	}
	names, now := d.names, time.Now()
	d.names = map[string]shownName{}
	s.tidy(dir, d)
	for k, v := range names {
		if now.After(v.until) {
			delete(names, k)
		}
	}
	return names, d.busy
}

// change notes that a name of a directory is being changed, until end is
// called.
func (s *shown) change(dir ashlar.Inode) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dir(dir)
	if d.changing++; d.changing == 1 {
		close(d.busy)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.changing--; d.changing == 0 {
			d.busy = make(chan struct{})
			if s.dirs[dir] == d {
				s.tidy(dir, d)
			}
		}
	}
}

// drop makes the kernel drop data that it holds of an inode or, with 0, all;
// it is file.Options.Drop.
func (f *filesystem) drop(ino ashlar.Inode, off, n uint64) {
	switch {
	case ino == 0:
		f.newEpoch()
		return
	case n > 0:
		f.dropData(ino, off, n)
		return
	}
	f.dropNames(ino)
	if f.dropData(ino, 0, 0) != fuse.ENOENT || !f.told.lately(ino) {
		return
	}
	tick := time.NewTicker(toldPause)
	defer tick.Stop()
	for f.told.lately(ino) && f.dropData(ino, 0, 0) == fuse.ENOENT { // it is being told of it just now
		<-tick.C
	}
}

func (f *filesystem) dropNames(dir ashlar.Inode) {
	names, busy := f.shown.take(dir)
	if len(names) == 0 {
		return
	}
	if len(names) > namesMax && f.newEpoch() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.dropEach(dir, names)
	}()
	// The lock may also be held by somebody of whom nothing is known here yet: by
	// a rename that waits for the lock of its other directory.
	patience := time.NewTimer(namesPatience)
	defer patience.Stop()
	select {
	case <-done:
		return
	case <-busy:
	case <-patience.C:
	}
	if f.newEpoch() {
		return
	}
	for _, n := range names {
		f.dropAttr(n.ino)
	}
}

// dropEach makes the kernel drop names one by one, or ask for them.
func (f *filesystem) dropEach(dir ashlar.Inode, names map[string]shownName) {
	s := f.server.Load()
	if s == nil {
		return
	}
	lately := map[string]time.Time{}
	last := time.Time{}
	mounted := f.below.found()
	for name, n := range names { // ENOENT: it does not hold that any more
		if !n.dir && !mounted || !f.device.expire(f.node(dir), name) {
			s.EntryNotify(f.node(dir), name)
		} else if time.Since(n.at) < toldFor {
			lately[name] = n.at
			if n.at.After(last) {
				last = n.at
			}
		}
	}
	if len(lately) == 0 {
		return
	}
	again := func() {
		for name := range lately {
			f.device.expire(f.node(dir), name)
		}
	}
	if wait := answerTime - time.Since(last); wait > 0 {
		<-time.After(wait)
		again()
	}
	time.AfterFunc(toldFor, again)
}

// newEpoch has the kernel ask again for every name, if it can and there is nothing
// that it would unmount.
func (f *filesystem) newEpoch() bool { return !f.below.found() && f.device.newEpoch() }

// dropData makes the kernel drop pages, and attributes with them. It waits for
// reads of those pages that are under way.
func (f *filesystem) dropData(ino ashlar.Inode, off, n uint64) fuse.Status {
	s := f.server.Load()
	if s == nil {
		return fuse.OK
	}
	return s.InodeNotify(f.node(ino), int64(off), int64(n))
}

// dropAttr makes the kernel ask for an inode's attributes again.
func (f *filesystem) dropAttr(ino ashlar.Inode) {
	if s := f.server.Load(); s != nil {
		s.InodeNotify(f.node(ino), -1, 0)
	}
}

// told is what inodes the kernel was told of lately. Of one that it does not
// know yet it can drop nothing, and then takes in what it is being told.
type told struct {
	mu sync.Mutex
	m  map[ashlar.Inode]time.Time
}

const (
	// toldFor is how long an answer may take from here to the kernel.
	toldFor = 100 * time.Millisecond
	// answerTime is how long it takes as a rule.
	answerTime = time.Millisecond
	// toldPause is the pause before the kernel is told again to drop it.
	toldPause = time.Millisecond
	// toldMax is how many inodes are remembered before old ones are looked for.
	toldMax = 1024
)

// add notes that the kernel is about to be told of an inode.
func (t *told) add(ino ashlar.Inode) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[ashlar.Inode]time.Time{}
	}
	if n := len(t.m); n >= toldMax && n&(n-1) == 0 {
		for k, at := range t.m {
			if now.Sub(at) > toldFor {
				delete(t.m, k)
			}
		}
	}
	t.m[ino] = now
}

// forgotten notes that the kernel had taken in all it was told.
func (t *told) forgotten(ino ashlar.Inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, ino)
}

// lately tells whether the kernel may not have taken in yet what it was told.
func (t *told) lately(ino ashlar.Inode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.m[ino]
	return ok && time.Since(at) < toldFor
}

// keepAttr is how long the kernel may keep an inode's attributes. Those that the
// leader does not know yet change when it does.
func (f *filesystem) keepAttr(ino ashlar.Inode) time.Duration {
	if f.fs.Pending(ino) {
		return 0
	}
	return min(f.o.AttrTimeout, f.fs.Keep(ino))
}

// keepShownAttr is keepAttr for attributes of an inode that the kernel knows: none
// if others are known under the lease that is held now. An answer that was under
// way while the lease was given back and got anew may be older than that.
func (f *filesystem) keepShownAttr(a *ashlar.Attr) time.Duration {
	d := f.keepAttr(a.Inode)
	if d > 0 && !f.current(a) {
		return 0
	}
	return d
}

// keepNewAttr is keepAttr for an answer that may tell the kernel of the inode
// for the first time. It is noted before it is looked whether it may be kept: a
// lease that is given back in between is not missed. An answer that took its time
// may be older than the lease that is held now.
func (f *filesystem) keepNewAttr(a *ashlar.Attr) time.Duration {
	if !f.current(a) {
		return 0
	}
	f.told.add(a.Inode)
	if !f.current(a) {
		return 0
	}
	return f.keepAttr(a.Inode)
}

// current tells whether attributes are those known here under a lease.
func (f *filesystem) current(a *ashlar.Attr) bool {
	known, ok := f.fs.Known(a.Inode)
	return ok && known.Version == a.Version && known.Ctime == a.Ctime
}

// keepName is how long the kernel may keep a name, noted likewise.
func (f *filesystem) keepName(dir ashlar.Inode, name string, a *ashlar.Attr) time.Duration {
	left := f.fs.Keep(dir)
	d := min(f.o.EntryTimeout, left)
	if d <= 0 || !f.fs.Leads(dir, name, a.Inode) {
		return 0
	}
	f.shown.add(dir, name, a, d+left) // it counts from when the answer is there, which is before left is over
	if !f.fs.Leads(dir, name, a.Inode) {
		return 0
	}
	return min(d, f.fs.Keep(dir))
}
