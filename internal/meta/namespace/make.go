package namespace

import (
	"math"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var typeWords = map[ashlar.FileType]string{
	ashlar.TypeFIFO: "fifo", ashlar.TypeChar: "char", ashlar.TypeDir: "dir", ashlar.TypeBlock: "block",
	ashlar.TypeFile: "file", ashlar.TypeSymlink: "symlink", ashlar.TypeSocket: "socket",
}

// make evaluates wire.Make. An existing regular file is returned as it is:
// whether the caller may open it is for Open and Access to say.
func (o *op) make(m *wire.Make) (wire.Message, error) {
	o.name = "make"
	dir, err := o.directory(m.Parent)
	if err != nil {
		return nil, err
	}
	if m.Unnamed {
		return o.makeUnnamed(m, dir)
	}
	if special(m.Name) {
		return nil, o.fail(ashlar.Exist, m.Name)
	}
	if err := o.checkName(m.Name); err != nil {
		return nil, err
	}
	d, ok, err := o.find(dir, m.Name)
	if err != nil {
		return nil, err
	}
	if ok {
		return o.makeExisting(m, &d)
	}
	if err := o.mayCreate(dir); err != nil {
		return nil, err
	}
	if err := o.checkMake(m, dir); err != nil {
		return nil, err
	}
	vol, err := o.volumeOf(dir)
	if err != nil {
		return nil, err
	}
	i, err := o.newInode(m, dir, vol)
	if err != nil {
		return nil, err
	}
	cookie := o.addName(dir, m.Name, i)
	o.attach(i, dir.Attr.Inode, cookie, true)
	o.put(i)
	o.put(dir)
	o.count(i, 1, 0, 0)
	o.say("make").say(typeWords[m.Type]).sayName(m.Parent, m.Name).say("inode").sayInode(i.Attr.Inode)
	e := o.entry(i)
	if m.Open {
		e = o.named(i)
	}
	e.Created = true
	return e, nil
}

// makeUnnamed makes a file without a name (O_TMPFILE): an orphan, which the
// leader registers as open.
func (o *op) makeUnnamed(m *wire.Make, dir *Inode) (wire.Message, error) {
	if m.Type != ashlar.TypeFile || !m.Open {
		return nil, o.fail(ashlar.Invalid, "only an open file can be without a name")
	}
	if err := o.mayCreate(dir); err != nil {
		return nil, err
	}
	vol, err := o.volumeOf(dir)
	if err != nil {
		return nil, err
	}
	i, err := o.newInode(m, dir, vol)
	if err != nil {
		return nil, err
	}
	i.Attr.Nlink = 0
	if !m.Exclusive {
		i.Attr.Flags |= ashlar.Linkable
	}
	key.StoreMark(o.tx, key.Orphan(i.Attr.Inode))
	o.put(i)
	o.count(i, 1, 0, 0)
	o.say("make file without a name inode").sayInode(i.Attr.Inode)
	e := o.entry(i)
	e.Created = true
	return e, nil
}

// makeExisting answers for a name that is taken.
func (o *op) makeExisting(m *wire.Make, d *Dentry) (wire.Message, error) {
	switch {
	case m.Exclusive || m.Type != ashlar.TypeFile:
		return nil, o.fail(ashlar.Exist, m.Name)
	case d.Type == ashlar.TypeDir:
		return nil, o.fail(ashlar.IsDir, m.Name)
	case d.Type != ashlar.TypeFile:
		return nil, o.fail(ashlar.Exist, m.Name)
	}
	i, err := o.child(d)
	if err != nil {
		return nil, err
	}
	return o.entry(i), nil
}

// checkMake checks what depends on the type.
func (o *op) checkMake(m *wire.Make, dir *Inode) error {
	switch m.Type {
	case ashlar.TypeDir:
		if dir.Attr.Nlink == math.MaxUint32 {
			return o.fail(ashlar.TooManyLinks, "")
		}
	case ashlar.TypeSymlink:
		switch {
		case m.Target == "":
			return o.fail(ashlar.NotExist, "empty target")
		case len(m.Target) > ashlar.SymlinkMax:
			return o.fail(ashlar.NameTooLong, "target")
		case strings.IndexByte(m.Target, 0) >= 0:
			return o.fail(ashlar.Invalid, "target")
		}
	case ashlar.TypeChar, ashlar.TypeBlock:
		if !o.cred.Checked && o.cred.UID != 0 {
			return o.fail(ashlar.NotOwner, "device")
		}
	case ashlar.TypeFile, ashlar.TypeFIFO, ashlar.TypeSocket:
	default:
		return o.fail(ashlar.Invalid, "type")
	}
	return nil
}

// newInode makes the inode of a new name: the caller's, in the group of a
// setgid directory if it is in one.
func (o *op) newInode(m *wire.Make, dir *Inode, vol *Volume) (*Inode, error) {
	now := o.env.Now
	i := &Inode{Volume: dir.Volume, Attr: ashlar.Attr{
		Gen: 1, Type: m.Type, Mode: m.Mode & ashlar.ModeMask, Nlink: 1, UID: o.cred.UID, GID: o.cred.GID,
		Atime: now, Mtime: now, Ctime: now, Btime: now, Project: dir.Attr.Project, Version: 1,
	}}
	a := &i.Attr
	if dir.Attr.Mode&ashlar.ModeSetgid != 0 {
		a.GID = dir.Attr.GID
		if m.Type == ashlar.TypeDir {
			a.Mode |= ashlar.ModeSetgid
		} else if a.Mode&(ashlar.ModeSetgid|0o010) == ashlar.ModeSetgid|0o010 && !o.cred.Checked && o.cred.UID != 0 && !o.cred.Has(a.GID) {
			a.Mode &^= ashlar.ModeSetgid
		}
	}
	p := ashlar.PartitionOf(dir.Attr.Inode)
	n := uint64(1)
	if m.Type == ashlar.TypeFile {
		n = 2 // the inode and its first layer
	}
	id, err := key.NextN(o.tx, p, key.CounterID, n)
	if err != nil {
		return nil, err
	}
	a.Inode = ashlar.InPartition[ashlar.Inode](p, id)
	switch m.Type {
	case ashlar.TypeDir:
		a.Nlink, a.Size, i.NextCookie = 2, directorySize, CookieFirst
	case ashlar.TypeFile:
		i.Object = o.freshObject(ashlar.InPartition[ashlar.LayerID](p, id+1), vol)
	case ashlar.TypeSymlink:
		a.Mode, a.Size, i.Target = 0o777, uint64(len(m.Target)), m.Target
	case ashlar.TypeChar, ashlar.TypeBlock:
		a.Rdev = m.Rdev
	}
	return i, o.inheritACL(i, dir, m.Umask)
}

// link evaluates wire.Link.
func (o *op) link(m *wire.Link) (wire.Message, error) {
	o.name = "link"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	dir, err := o.directory(m.Parent)
	if err != nil {
		return nil, err
	}
	if special(m.Name) {
		return nil, o.fail(ashlar.Exist, m.Name)
	}
	if err := o.checkName(m.Name); err != nil {
		return nil, err
	}
	if _, ok, err := o.find(dir, m.Name); err != nil {
		return nil, err
	} else if ok {
		return nil, o.fail(ashlar.Exist, m.Name)
	}
	if i.Volume != dir.Volume {
		return nil, o.fail(ashlar.CrossVolume, "")
	}
	if err := o.mayCreate(dir); err != nil {
		return nil, err
	}
	switch {
	case i.Attr.Type == ashlar.TypeDir:
		return nil, o.fail(ashlar.NotOwner, "directory")
	case i.Attr.Nlink == 0 && i.Attr.Flags&ashlar.Linkable == 0:
		return nil, o.fail(ashlar.NotExist, "the file was removed")
	case i.Attr.Nlink >= ashlar.LinkMax:
		return nil, o.fail(ashlar.TooManyLinks, "")
	}
	cookie := o.addName(dir, m.Name, i)
	first := i.Attr.Nlink == 0
	if first {
		o.tx.Delete(key.Orphan(m.Inode))
		i.Attr.Flags &^= ashlar.Linkable
	}
	o.attach(i, dir.Attr.Inode, cookie, first)
	i.Attr.Nlink++
	i.Attr.Ctime = o.env.Now
	o.put(i)
	o.put(dir)
	o.say("link").sayName(m.Parent, m.Name).say("inode").sayInode(m.Inode)
	return o.entry(i), nil
}
