package file

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// entry runs an operation that answers with an Entry, and returns its
// attributes as they are seen here.
func (fs *FS) entry(ctx context.Context, cred ashlar.Cred, m wire.Message) (ashlar.Attr, error) {
	var e wire.Entry
	if err := fs.do(ctx, cred, m, &e); err != nil {
		return ashlar.Attr{}, err
	}
	return fs.take(&e, false), nil
}

// take merges an entry into the state of an open inode, if it is open.
func (fs *FS) take(e *wire.Entry, own bool) ashlar.Attr {
	i := fs.state(e.Attr.Inode)
	if i == nil {
		return e.Attr
	}
	i.merge(e, own)
	return i.view()
}

// Lookup finds a name in a directory, "." and ".." included.
func (fs *FS) Lookup(ctx context.Context, cred ashlar.Cred, parent ashlar.Inode, name string) (ashlar.Attr, error) {
	if ino, ok := fs.cachedName(parent, name); ok && cred.Checked {
		if ino == 0 {
			return ashlar.Attr{}, ashlar.E("lookup", ashlar.NotExist, name, nil)
		}
		if a, ok := fs.Known(ino); ok {
			return a, nil
		}
	}
	return fs.entry(ctx, cred, &wire.Lookup{Parent: parent, Name: name})
}

// GetAttr returns the attributes of an inode.
func (fs *FS) GetAttr(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode) (ashlar.Attr, error) {
	if a, ok := fs.Known(ino); ok {
		return a, nil
	}
	return fs.entry(ctx, cred, &wire.GetAttr{Inode: ino})
}

// Entry returns an inode with its object.
func (fs *FS) Entry(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode) (wire.Entry, error) {
	var e wire.Entry
	err := fs.do(ctx, cred, &wire.GetAttr{Inode: ino}, &e)
	return e, err
}

// SetAttr changes attributes. Data written here before a change of size or
// times is in the object before it.
func (fs *FS) SetAttr(ctx context.Context, cred ashlar.Cred, m *wire.SetAttr) (ashlar.Attr, error) {
	const data = wire.SetSize | wire.SetMtime | wire.SetMtimeNow
	set := func() (*wire.Entry, error) {
		e := new(wire.Entry)
		return e, fs.do(ctx, cred, m, e)
	}
	i := fs.state(m.Inode)
	if i != nil {
		if done, err := fs.setBehind(ctx, i, m); done || err != nil {
			return i.view(), err
		}
	}
	if i != nil && m.Valid&(data|wire.SetAtime|wire.SetAtimeNow|wire.SetCtime) != 0 {
		if err := i.setFirst(ctx); err != nil {
			return ashlar.Attr{}, err
		}
	}
	if i != nil && m.Valid&data != 0 {
		if m.Valid&wire.SetSize != 0 {
			if err := i.truncate(ctx, m.Size, set); err != nil {
				return ashlar.Attr{}, err
			}
			return i.view(), nil
		}
		if err := i.flush(ctx, false); err != nil {
			return ashlar.Attr{}, err
		}
		if err := i.commit(ctx); err != nil {
			return ashlar.Attr{}, err
		}
	}
	e, err := set()
	if err != nil {
		return ashlar.Attr{}, err
	}
	return fs.take(e, m.Valid&data != 0), nil
}

// Make creates a directory, symbolic link, special file or, not opened, a
// regular file.
func (fs *FS) Make(ctx context.Context, cred ashlar.Cred, m *wire.Make) (ashlar.Attr, error) {
	m.Open = false
	a, err := fs.entry(ctx, cred, m)
	if err == nil {
		fs.sawTime(a.Ctime)
	}
	return a, err
}

// Link gives an inode another name.
func (fs *FS) Link(ctx context.Context, cred ashlar.Cred, ino, parent ashlar.Inode, name string) (ashlar.Attr, error) {
	return fs.entry(ctx, cred, &wire.Link{Inode: ino, Parent: parent, Name: name})
}

// Remove takes a name away: unlink, or rmdir with dir.
func (fs *FS) Remove(ctx context.Context, cred ashlar.Cred, parent ashlar.Inode, name string, dir bool) (ashlar.Attr, error) {
	m := &wire.Remove{Parent: parent, Name: name, Dir: dir}
	if m.Closed = fs.goes(parent, name); m.Closed != 0 {
		defer fs.went(m.Closed)
	}
	defer fs.leases.change(parent, name)()
	a, err := fs.entry(ctx, cred, m)
	if err == nil && a.Nlink == 0 {
		_ = fs.tell(a.Inode) // nobody will open it
	}
	if err == nil && a.Inode == m.Closed && a.Nlink == 0 {
		fs.Returned([]ashlar.Inode{a.Inode}) // the leader took it as returned
		fs.unlease(a.Inode)
	}
	return a, err
}

// goes returns the file that a name leads to if that is known and it is not
// open here. Until went is called an open of it asks the leader.
func (fs *FS) goes(parent ashlar.Inode, name string) ashlar.Inode {
	ino, ok := fs.cachedName(parent, name)
	if !ok || ino == 0 {
		return 0
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.firm(ino)
	if x == nil || fs.inodes[ino] != nil || x.attr.Type != ashlar.TypeFile {
		return 0
	}
	x.going = true
	return ino
}

func (fs *FS) went(ino ashlar.Inode) {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.m[ino]; x != nil {
		x.going = false
	}
}

// unlease forgets the lease on a file that is no more.
func (fs *FS) unlease(ino ashlar.Inode) {
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.m[ino]; x != nil && x.giving == nil {
		x.mode = ashlar.LeaseNone
		l.remove(x)
	}
}

// Rename moves a name.
func (fs *FS) Rename(ctx context.Context, cred ashlar.Cred, m *wire.Rename) (ashlar.Attr, error) {
	if err := fs.settle(ctx, cred, m.OldParent, m.OldName); err != nil {
		return ashlar.Attr{}, err
	}
	if m.Flags&wire.RenameExchange != 0 {
		if err := fs.settle(ctx, cred, m.NewParent, m.NewName); err != nil {
			return ashlar.Attr{}, err
		}
	}
	defer fs.leases.change(m.OldParent, m.OldName)()
	defer fs.leases.change(m.NewParent, m.NewName)()
	a, err := fs.entry(ctx, cred, m)
	if err == nil {
		fs.leases.named(a.Inode, "")
	}
	return a, err
}

// Readlink reads a symbolic link.
func (fs *FS) Readlink(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode) (string, error) {
	var r wire.ReadlinkReply
	err := fs.o.Meta.Do(ctx, cred, &wire.Readlink{Inode: ino}, &r)
	return r.Target, err
}

// Readdir lists entries of a directory after a cookie.
func (fs *FS) Readdir(ctx context.Context, cred ashlar.Cred, m *wire.Readdir) (*wire.ReaddirReply, error) {
	r, known := fs.cachedDir(m)
	if known = known && cred.Checked; !known {
		r = new(wire.ReaddirReply)
		if err := fs.do(ctx, cred, m, r); err != nil {
			return nil, err
		}
	}
	if m.Plus {
		for k := range r.Entries {
			d := &r.Entries[k]
			d.Attr = fs.take(&wire.Entry{Attr: d.Attr, Object: d.Object}, false)
		}
	}
	return r, nil
}

// capability is what the kernel asks for before it writes to a file, to take
// it away.
const capability = "security.capability"

// GetXattr reads an extended attribute.
func (fs *FS) GetXattr(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode, name string) ([]byte, error) {
	if name == capability {
		if a, _, ok := fs.cachedAttr(ino); ok && a.Flags&ashlar.HasCapability == 0 {
			return nil, ashlar.E("getxattr", ashlar.NoAttr, name, nil)
		}
	}
	var r wire.XattrReply
	err := fs.o.Meta.Do(ctx, cred, &wire.GetXattr{Inode: ino, Name: name}, &r)
	return r.Value, err
}

// SetXattr sets an extended attribute; flags as setxattr(2) numbers them.
func (fs *FS) SetXattr(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode, name string, value []byte, flags uint32) error {
	if len(value) > ashlar.XattrValueMax {
		return ashlar.E("setxattr", ashlar.TooBig, name, nil)
	}
	if i := fs.state(ino); i != nil {
		i.mu.Lock()
		i.bare = false
		i.mu.Unlock()
	}
	defer fs.forget(ino)
	return fs.o.Meta.Do(ctx, cred, &wire.SetXattr{Inode: ino, Name: name, Value: value, Flags: flags}, nil)
}

// ListXattr lists the names of extended attributes.
func (fs *FS) ListXattr(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode) ([]string, error) {
	var r wire.ListXattrReply
	err := fs.o.Meta.Do(ctx, cred, &wire.ListXattr{Inode: ino}, &r)
	return r.Names, err
}

// RemoveXattr removes an extended attribute.
func (fs *FS) RemoveXattr(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode, name string) error {
	defer fs.forget(ino)
	return fs.o.Meta.Do(ctx, cred, &wire.RemoveXattr{Inode: ino, Name: name}, nil)
}

// Access checks permission; mask as access(2).
func (fs *FS) Access(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode, mask uint8) error {
	return fs.o.Meta.Do(ctx, cred, &wire.Access{Inode: ino, Mask: mask}, nil)
}

// StatFS returns the space of the volume.
func (fs *FS) StatFS(ctx context.Context, cred ashlar.Cred) (wire.StatFSReply, error) {
	var r wire.StatFSReply
	err := fs.o.Meta.Do(ctx, cred, &wire.StatFS{Inode: fs.Root()}, &r)
	return r, err
}
