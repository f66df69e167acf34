package file

import (
	"cmp"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// dir is what is known of a directory's names under a lease on it. leases.mu
// guards it.
type dir struct {
	names map[string]name
	floor uint64 // what was so before this version is not taken in
	full  bool   // a name that is missing is not there

	// The last listing, without attributes: of which version it is, 0 for none
	// that may go on, what it goes on after, and whether that is the end.
	listed  []wire.DirEntry
	version uint64
	next    uint64
	whole   bool
	parent  ashlar.Inode
}

// name is what a directory's name leads to, 0 for nothing, as of a version of
// the directory.
type name struct {
	ino     ashlar.Inode
	version uint64
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
		if x := l.firm(e.Attr.Inode); x != nil && m.Type == ashlar.TypeDir && e.Attr.Version >= x.floor {
			x.full = true // it was empty then, and nobody else can have changed it since
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
	x := l.firm(dir)
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
		x.full = false
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

// clearNames forgets a directory's names; a listing under way does not go on.
// mu must be held.
func (l *leases) clearNames(x *leased) {
	l.names -= len(x.names)
	x.names, x.full = nil, false
	l.unlist(x)
	x.floor = max(x.floor, x.attr.Version)
}

// unlist forgets a directory's last listing. mu must be held.
func (l *leases) unlist(x *leased) {
	l.names -= len(x.listed)
	x.listed, x.version, x.next, x.whole = nil, 0, 0, false
}

// learnDir takes in a part of a listing.
func (fs *FS) learnDir(asked uint64, m *wire.Readdir, r *wire.ReaddirReply) {
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
	if x := l.firm(m.Inode); x != nil {
		l.list(x, m.Cookie, r) // first: for want of room the names may clear it
	}
	for k := range r.Entries {
		l.name(m.Inode, r.Entries[k].Name, r.Entries[k].Inode, r.Dir.Attr.Version)
	}
}

// list takes in a part of a listing that was made under the lease x. If nothing
// was changed between its parts, all names are known at its end. mu must be held.
func (l *leases) list(x *leased, after uint64, r *wire.ReaddirReply) {
	version := r.Dir.Attr.Version
	switch {
	case after == 0:
		l.unlist(x)
		x.version = version
	case x.version != version || x.next != after || x.whole:
		return
	}
	if l.names+len(r.Entries) > NamesMax {
		l.unlist(x)
		l.dropNames()
		return
	}
	l.names += len(r.Entries)
	for _, e := range r.Entries {
		x.listed = append(x.listed, wire.DirEntry{Name: e.Name, Inode: e.Inode, Type: e.Type, Cookie: e.Cookie})
		x.next = e.Cookie
	}
	if r.EOF {
		x.whole, x.parent = true, r.Parent
		x.full = x.full || x.floor <= version
	}
}

// cachedDir answers a part of a listing if all of it is known under leases.
func (fs *FS) cachedDir(m *wire.Readdir) (*wire.ReaddirReply, bool) {
	if fs.left() == 0 {
		return nil, false
	}
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.firm(m.Inode)
	if x == nil || !x.known || !x.whole || x.version != x.attr.Version {
		return nil, false
	}
	x.used = true
	from, _ := slices.BinarySearchFunc(x.listed, m.Cookie+1, func(e wire.DirEntry, c uint64) int { return cmp.Compare(e.Cookie, c) })
	rest := x.listed[from:]
	r := &wire.ReaddirReply{Plus: m.Plus, EOF: true, Parent: x.parent, Dir: wire.Leased{Attr: x.attr}}
	if m.Limit > 0 && len(rest) > int(m.Limit) {
		rest, r.EOF = rest[:m.Limit], false
	}
	r.Entries = append(make([]wire.DirEntry, 0, len(rest)), rest...)
	if !m.Plus {
		return r, true
	}
	for k := range r.Entries {
		e := &r.Entries[k]
		y := l.firm(e.Inode)
		if y == nil || !y.known {
			return nil, false
		}
		y.used = true
		e.Attr, e.Object = y.attr, y.object
	}
	return r, true
}

// cachedName returns what a name leads to, 0 for nothing, if that is known
// under a lease on its directory.
func (fs *FS) cachedName(dir ashlar.Inode, s string) (ino ashlar.Inode, ok bool) {
	if fs.left() == 0 || s == "." || s == ".." || len(s) > ashlar.NameMax {
		return 0, false
	}
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.firm(dir)
	if x == nil || l.changing[place{dir, s}] > 0 {
		return 0, false
	}
	x.used = true
	n, ok := x.names[s]
	return n.ino, ok || x.full
}

// place is a name in a directory.
type place struct {
	dir  ashlar.Inode
	name string
}

// change has the leader asked for a name until end is called: it is taking what
// the name leads to away, and has perhaps done so before that is known here.
func (l *leases) change(dir ashlar.Inode, s string) (end func()) {
	p := place{dir, s}
	l.mu.Lock()
	l.changing[p]++
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.changing[p]--; l.changing[p] == 0 {
			delete(l.changing, p)
		}
	}
}

// Leads tells whether it is known here under a lease that a name leads to an
// inode.
func (fs *FS) Leads(dir ashlar.Inode, name string, ino ashlar.Inode) bool {
	to, ok := fs.cachedName(dir, name)
	return ok && to == ino
}
