package file

import (
	"context"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits of what is known under leases.
const (
	// LeasesMax is how many leases are held; beyond it those not used are given
	// back. It is below what the leader allows.
	LeasesMax = 48 << 10
	// NamesMax is how many names of directories are remembered.
	NamesMax = 256 << 10
	// evictBatch is how many leases are given back together.
	evictBatch = 1024
	// evictLook is how many leases are looked at for that.
	evictLook = 4 * evictBatch
	// voidsMax is how many inodes are remembered of which answers under way may
	// give no lease.
	voidsMax = 4096
)

// leases is what this client holds leases on, and what it knows under them.
type leases struct {
	mu    sync.Mutex
	m     map[ashlar.Inode]*leased
	names int // in all directories
	// asks counts operations asked. An answer gives no lease if it was asked
	// before its inode's lease was given back, or before all were.
	asks     uint64
	voids    map[ashlar.Inode]uint64
	allVoid  uint64
	evicting bool
	// waiting is accesses that wait for a lease, or for one to be given back.
	waiting map[ashlar.Inode][]*demand
	// changing is names that operations under way take away, by how many.
	changing map[place]int
}

// leased is a lease and what is known under it. leases.mu guards it.
type leased struct {
	ino    ashlar.Inode
	mode   ashlar.LeaseMode
	used   bool // since eviction looked last
	known  bool // attr is what the leader has
	attr   ashlar.Attr
	object wire.Object
	hint   string // the name that chunks note, "" if it is not known
	// unknown is when attr stopped being known: only what is asked later tells.
	unknown uint64
	dir

	uses   int           // accesses under way that rely on it
	begun  uint64        // so far
	clean  bool          // when caches above dropped it, none was under way nor has begun since
	idle   chan struct{} // closed when there are none
	first  chan struct{} // closed with the first use of a lease that somebody waits for
	giving *giving       // nothing is learnt of the lease meanwhile
	going  bool          // the file may be being removed: an open asks the leader
}

// giving is a lease being given back.
type giving struct {
	keep ashlar.LeaseMode
	gate bool          // uses wait until it is over
	done bool          // the mode is at most keep, the leader may not know
	over chan struct{} // closed when it does, or does not care
}

func (l *leases) init() {
	l.m, l.voids = map[ashlar.Inode]*leased{}, map[ashlar.Inode]uint64{}
	l.waiting = map[ashlar.Inode][]*demand{}
	l.changing = map[place]int{}
}

// ask numbers an operation.
func (l *leases) ask() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asks++
	return l.asks
}

// void makes answers that are under way give no lease on an inode. mu must be
// held.
func (l *leases) void(ino ashlar.Inode) {
	if len(l.voids) >= voidsMax {
		l.allVoid = l.asks
		clear(l.voids)
	}
	l.voids[ino] = l.asks
}

// firm returns an inode's lease if answers may be given under it. mu must be
// held.
func (l *leases) firm(ino ashlar.Inode) *leased {
	x := l.m[ino]
	if x == nil || x.mode == ashlar.LeaseNone || x.giving != nil && !x.giving.done {
		return nil
	}
	return x
}

// left is how long answers may be given from what is known here, and caches
// above be filled: until those are dropped, shortly before the session's lease is
// over (I-6).
func (fs *FS) left() time.Duration {
	if fs.o.Lease == nil {
		return 0
	}
	l := &fs.leases
	l.mu.Lock()
	n := len(l.m)
	l.mu.Unlock()
	return max(0, fs.o.Lease()-leaseMargin-time.Duration(n)*dropTime)
}

// accepted is how long what caches above give back is taken in: as long as the
// session's lease holds.
func (fs *FS) accepted() time.Duration {
	if fs.o.Lease == nil {
		return 0
	}
	return max(0, fs.o.Lease())
}

// do has the leader do an operation and takes in what its answer tells.
func (fs *FS) do(ctx context.Context, cred ashlar.Cred, m, reply wire.Message) error {
	asked := fs.leases.ask()
	return fs.answered(ctx, asked, m, reply, fs.o.Meta.Do(ctx, cred, m, reply))
}

// doIn is do in one session only.
func (fs *FS) doIn(ctx context.Context, in ashlar.SessionID, cred ashlar.Cred, m, reply wire.Message) error {
	asked := fs.leases.ask()
	return fs.answered(ctx, asked, m, reply, fs.o.Meta.DoIn(ctx, in, cred, m, reply))
}

// answered takes in the answer to an operation, or that there is none.
func (fs *FS) answered(ctx context.Context, asked uint64, m, reply wire.Message, err error) error {
	if err != nil {
		if unsure(ctx, err) {
			fs.doubt(m)
		}
		return err
	}
	switch r := reply.(type) {
	case *wire.Entry:
		fs.learnEntry(asked, r)
		fs.learnNames(m, r)
	case *wire.ReserveReply:
		fs.learnEntry(asked, &r.Entry)
	case *wire.ReaddirReply:
		fs.learnDir(asked, m.(*wire.Readdir), r)
	}
	return nil
}

// unsure tells whether an operation may have taken effect although it failed.
func unsure(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	k := ashlar.KindOf(err)
	return k == ashlar.Other || k == ashlar.IO || k >= ashlar.NotLeader && k < ashlar.TooManySymlinks
}

// doubt forgets what an operation may have changed.
func (fs *FS) doubt(m wire.Message) {
	switch m := m.(type) {
	case *wire.SetAttr:
		fs.doubtInode(m.Inode)
	case *wire.Commit:
		fs.doubtInode(m.Inode)
	case *wire.Grow:
		fs.doubtInode(m.Inode)
	case *wire.Open:
		fs.doubtInode(m.Inode)
	case *wire.Make:
		fs.doubtName(m.Parent, m.Name)
	case *wire.Link:
		fs.doubtInode(m.Inode)
		fs.doubtName(m.Parent, m.Name)
	case *wire.Remove:
		fs.doubtName(m.Parent, m.Name)
	case *wire.Rename:
		fs.doubtName(m.OldParent, m.OldName)
		fs.doubtName(m.NewParent, m.NewName)
	}
}

// doubtInode forgets an inode's attributes, and has caches above drop it.
func (fs *FS) doubtInode(ino ashlar.Inode) {
	fs.forget(ino)
	if fs.o.Drop != nil {
		fs.dropping(ino, span{}) // later: what failed may hold locks that it waits for
	}
}

// doubtName does so with a directory and, if a name is known there, with what it
// leads to.
func (fs *FS) doubtName(dir ashlar.Inode, s string) {
	l := &fs.leases
	l.mu.Lock()
	var ino ashlar.Inode
	if x := l.m[dir]; x != nil {
		ino = x.names[s].ino
		l.clearNames(x)
	}
	l.mu.Unlock()
	fs.doubtInode(dir)
	if ino != 0 {
		fs.doubtInode(ino)
	}
}

func (fs *FS) learnEntry(asked uint64, e *wire.Entry) {
	fs.ahead(e)
	fs.learn(asked, &e.Attr, &e.Object, e.Lease)
	if e.Hint != "" {
		fs.leases.named(e.Attr.Inode, e.Hint)
	}
	fs.orphaned(&e.Attr)
	for k := range e.Also {
		a := &e.Also[k]
		fs.learn(asked, &a.Attr, nil, a.Lease)
		fs.orphaned(&a.Attr)
		if i := fs.state(a.Attr.Inode); i != nil {
			i.mergeAttr(&a.Attr)
		}
	}
}

// named notes what chunks are to note of a file's name; "" if that is not known
// any more.
func (l *leases) named(ino ashlar.Inode, hint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.m[ino]; x != nil {
		x.hint = hint
	}
}

// ahead has an open file know what comes with a higher lease before the lease is
// used.
func (fs *FS) ahead(e *wire.Entry) {
	if e.Lease > fs.holds(e.Attr.Inode) {
		if i := fs.state(e.Attr.Inode); i != nil {
			i.merge(e, false)
		}
	}
}

// learn takes in the attributes of an inode and a lease that came with them.
func (fs *FS) learn(asked uint64, a *ashlar.Attr, o *wire.Object, mode ashlar.LeaseMode) {
	l := &fs.leases
	l.mu.Lock()
	x := l.m[a.Inode]
	if mode != ashlar.LeaseNone && asked > l.allVoid && asked > l.voids[a.Inode] {
		if x == nil {
			x = &leased{ino: a.Inode}
			l.m[a.Inode] = x
		}
		if x.giving == nil && mode > x.mode {
			if x.mode == ashlar.LeaseNone {
				x.floor = max(x.floor, a.Version) // what was before is of no use
			}
			x.mode = mode
			if x.first == nil && len(l.waiting[a.Inode]) > 0 {
				x.first = make(chan struct{})
			}
		}
		x.used = true
	}
	if x != nil {
		x.learn(asked, l.asks, a, o)
	}
	evict := len(l.m) > LeasesMax && !l.evicting
	l.evicting = l.evicting || evict
	l.mu.Unlock()
	if evict {
		fs.work.Add(1)
		go func() {
			defer fs.work.Done()
			fs.evict()
		}()
	}
}

// learn takes in attributes if they are newer. Two answers of one moment whose
// order can not be told make them unknown.
func (x *leased) learn(asked, asks uint64, a *ashlar.Attr, o *wire.Object) {
	switch {
	case !x.known && asked <= x.unknown:
		return
	case x.known && (a.Version < x.attr.Version || a.Version == x.attr.Version && a.Ctime < x.attr.Ctime):
		return
	case x.known && a.Version == x.attr.Version && a.Ctime == x.attr.Ctime && !sameButAtime(a, &x.attr):
		x.forget(asks)
		return
	}
	x.attr, x.known = *a, true
	if o != nil {
		x.object = *o
	}
	if a.Type == ashlar.TypeFile && o == nil {
		x.forget(asks) // where its data is was not told
	}
}

// sameButAtime compares attributes but for the access time, which changes without
// a word.
func sameButAtime(a, b *ashlar.Attr) bool {
	c := *a
	c.Atime = b.Atime
	return c == *b
}

// orphaned gives the lease on a file back that has lost its last name and is
// not open here: the leader keeps the file for it.
func (fs *FS) orphaned(a *ashlar.Attr) {
	if a.Nlink > 0 {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.m[a.Inode]
	if x == nil || x.going || x.giving != nil || fs.inodes[a.Inode] != nil {
		return
	}
	fs.work.Add(1)
	go func() {
		defer fs.work.Done()
		fs.giveBack([]ashlar.Inode{a.Inode})
	}()
}

func (x *leased) forget(asks uint64) { x.known, x.unknown = false, asks }

// forget makes an inode's attributes unknown: something that does not answer
// with them changes them.
func (fs *FS) forget(ino ashlar.Inode) {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.m[ino]; x != nil {
		x.forget(l.asks)
	}
}

// cachedAttr returns an inode's attributes and object if they are known under a
// lease.
func (fs *FS) cachedAttr(ino ashlar.Inode) (a ashlar.Attr, o wire.Object, ok bool) {
	if fs.left() == 0 {
		return a, o, false
	}
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.firm(ino)
	if x == nil || !x.known {
		return a, o, false
	}
	x.used = true
	return x.attr, x.object, true
}

// Known returns attributes that are known here without asking, if any are.
func (fs *FS) Known(ino ashlar.Inode) (ashlar.Attr, bool) {
	a, _, ok := fs.cachedAttr(ino)
	if !ok {
		return a, false
	}
	if i := fs.state(ino); i != nil {
		if v := i.view(); v.Inode != 0 { // an open that is under way knows nothing yet
			return v, true
		}
	}
	return a, true
}

// Keep is how long caches above may answer for an inode (its attributes, of a
// directory its names) without asking again; they are told before that if the
// lease is given back.
func (fs *FS) Keep(ino ashlar.Inode) time.Duration {
	l := &fs.leases
	l.mu.Lock()
	x := l.m[ino]
	ok := x != nil && x.giving == nil && x.mode != ashlar.LeaseNone
	l.mu.Unlock()
	if !ok {
		return 0
	}
	return fs.left()
}

// holds returns the mode of the lease on an inode.
func (fs *FS) holds(ino ashlar.Inode) ashlar.LeaseMode {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.m[ino]; x != nil {
		return x.mode
	}
	return ashlar.LeaseNone
}

// Leases returns the leases held, for the session's hello to a new leader: no
// answer of the one before adds any after that.
func (fs *FS) Leases() []wire.HeldLease {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allVoid = l.asks
	clear(l.voids)
	out := make([]wire.HeldLease, 0, len(l.m))
	for ino, x := range l.m {
		if x.mode != ashlar.LeaseNone {
			out = append(out, wire.HeldLease{Inode: ino, Mode: x.mode})
		}
	}
	return out
}
