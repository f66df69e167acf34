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
}

// leased is a lease and what is known under it. leases.mu guards it.
type leased struct {
	ino    ashlar.Inode
	mode   ashlar.LeaseMode
	used   bool // since eviction looked last
	known  bool // attr is what the leader has
	attr   ashlar.Attr
	object wire.Object
	// unknown is when attr stopped being known: only what is asked later tells.
	unknown uint64
	// names of a directory, and since which version those that are missing are
	// not known.
	names map[string]name
	floor uint64

	uses   int           // accesses under way that rely on it
	begun  uint64        // so far
	idle   chan struct{} // closed when there are none
	first  chan struct{} // closed with the first use of a lease that somebody waits for
	giving *giving       // nothing is learnt of the lease meanwhile
	going  bool          // the file may be being removed: an open asks the leader
}

// name is what a directory's name leads to, 0 for nothing, as of a version of
// the directory.
type name struct {
	ino     ashlar.Inode
	version uint64
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

// left is how long answers may be given from what is known here (I-6).
func (fs *FS) left() time.Duration {
	if fs.o.Lease == nil {
		return 0
	}
	return max(0, fs.o.Lease())
}

// do has the leader do an operation and takes in what its answer tells.
func (fs *FS) do(ctx context.Context, cred ashlar.Cred, m, reply wire.Message) error {
	asked := fs.leases.ask()
	if err := fs.o.Meta.Do(ctx, cred, m, reply); err != nil {
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
		fs.learnDir(asked, m.(*wire.Readdir).Inode, r)
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

// dirVersion is the version of a directory that an answer tells, 0 for none.
func dirVersion(e *wire.Entry, dir ashlar.Inode) uint64 {
	for k := range e.Also {
		if e.Also[k].Attr.Inode == dir {
			return e.Also[k].Attr.Version
		}
	}
	return 0
}

// learnNames takes in what an answer tells of names.
func (fs *FS) learnNames(m wire.Message, e *wire.Entry) {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m := m.(type) {
	case *wire.Lookup:
		if m.Name != "." && m.Name != ".." {
			l.name(m.Parent, m.Name, e.Attr.Inode, dirVersion(e, m.Parent))
		}
	case *wire.Make:
		if m.Name != "" {
			l.name(m.Parent, m.Name, e.Attr.Inode, dirVersion(e, m.Parent))
		}
	case *wire.Link:
		l.name(m.Parent, m.Name, e.Attr.Inode, dirVersion(e, m.Parent))
	case *wire.Remove:
		l.name(m.Parent, m.Name, 0, dirVersion(e, m.Parent))
	case *wire.Rename:
		if m.Flags&^wire.RenameNoReplace == 0 {
			l.name(m.OldParent, m.OldName, 0, dirVersion(e, m.OldParent))
			l.name(m.NewParent, m.NewName, e.Attr.Inode, dirVersion(e, m.NewParent))
			return
		}
		l.unname(m.OldParent, m.OldName, dirVersion(e, m.OldParent))
		l.unname(m.NewParent, m.NewName, dirVersion(e, m.NewParent))
	}
}

// name notes what a name leads to as of a version of its directory; what was
// learnt of a later one stays. mu must be held.
func (l *leases) name(dir ashlar.Inode, s string, ino ashlar.Inode, version uint64) {
	x := l.m[dir]
	if x == nil || version < x.floor || version == 0 {
		return
	}
	old, ok := x.names[s]
	if ok && old.version > version {
		return
	}
	if !ok {
		if l.names++; l.names > NamesMax {
			l.dropNames()
		}
	}
	if x.names == nil {
		x.names = map[string]name{}
	}
	x.names[s] = name{ino, version}
}

// unname forgets a name that was changed at a version. mu must be held.
func (l *leases) unname(dir ashlar.Inode, s string, version uint64) {
	if x := l.m[dir]; x != nil {
		if _, ok := x.names[s]; ok {
			l.names--
			delete(x.names, s)
		}
		x.floor = max(x.floor, version+1) // one asked before may still answer
	}
}

// dropNames forgets names until half of them are left. mu must be held.
func (l *leases) dropNames() {
	for _, x := range l.m { // any
		if l.names <= NamesMax/2 {
			return
		}
		l.clearNames(x)
	}
}

// clearNames forgets a directory's names. mu must be held.
func (l *leases) clearNames(x *leased) {
	l.names -= len(x.names)
	x.names = nil
	x.floor = max(x.floor, x.attr.Version)
}

// learnDir takes in a part of a listing.
func (fs *FS) learnDir(asked uint64, dir ashlar.Inode, r *wire.ReaddirReply) {
	fs.learn(asked, &r.Dir.Attr, nil, r.Dir.Lease)
	for k := range r.Entries {
		if e := &r.Entries[k]; r.Plus {
			fs.ahead(&wire.Entry{Attr: e.Attr, Object: e.Object, Lease: e.Lease})
			fs.learn(asked, &e.Attr, &e.Object, e.Lease)
		}
	}
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range r.Entries {
		l.name(dir, r.Entries[k].Name, r.Entries[k].Inode, r.Dir.Attr.Version)
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

// cachedName returns what a name leads to, 0 for nothing, if that is known
// under a lease on its directory.
func (fs *FS) cachedName(dir ashlar.Inode, s string) (ino ashlar.Inode, ok bool) {
	if fs.left() == 0 {
		return 0, false
	}
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.firm(dir)
	if x == nil {
		return 0, false
	}
	x.used = true
	n, ok := x.names[s]
	return n.ino, ok
}

// Known returns attributes that are known here without asking, if any are.
func (fs *FS) Known(ino ashlar.Inode) (ashlar.Attr, bool) {
	a, _, ok := fs.cachedAttr(ino)
	if !ok {
		return a, false
	}
	if i := fs.state(ino); i != nil {
		return i.view(), true
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
