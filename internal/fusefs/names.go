package fusefs

import (
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fill converts attributes.
func fill(out *fuse.Attr, a *ashlar.Attr) {
	*out = fuse.Attr{
		Ino: uint64(a.Inode), Size: a.Size, Blocks: a.Blocks,
		Mode: uint32(a.Type)<<12 | uint32(a.Mode), Nlink: a.Nlink,
		Owner: fuse.Owner{Uid: a.UID, Gid: a.GID}, Rdev: a.Rdev, Blksize: blockSize,
	}
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
}

func split(ns int64) (uint64, uint32) {
	t := time.Unix(0, ns)
	return uint64(t.Unix()), uint32(t.Nanosecond())
}

// entry answers a request that yields a node: what a name in a directory leads
// to.
func (f *filesystem) entry(op string, dir ashlar.Inode, name string, out *fuse.EntryOut, a ashlar.Attr, err error) fuse.Status {
	if err != nil {
		return f.status(op, err)
	}
	f.fs.Shown(&a)
	out.NodeId, out.Generation = f.node(a.Inode), uint64(a.Gen)
	fill(&out.Attr, &a)
	out.SetAttrTimeout(f.keepNewAttr(&a))
	out.SetEntryTimeout(f.keepName(dir, name, &a))
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (f *filesystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	var a ashlar.Attr
	var err error
	if name == "." { // a file handle being opened, of a file too
		a, err = f.fs.GetAttr(ctx, cred(h), f.inode(h.NodeId))
	} else {
		a, err = f.fs.Lookup(ctx, cred(h), f.inode(h.NodeId), name)
	}
	return f.entry("lookup", f.inode(h.NodeId), name, out, a, err)
}

// Forget implements fuse.RawFileSystem.
func (f *filesystem) Forget(node, _ uint64) { f.told.forgotten(f.inode(node)) }

// GetAttr implements fuse.RawFileSystem.
func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ino := f.inode(in.NodeId)
	ctx, cancel := f.context()
	defer cancel()
	a, err := f.fs.GetAttr(ctx, cred(&in.InHeader), ino)
	a, err = f.gone.visit(ino, a, err)
	return f.attr("stat", out, a, err)
}

func (f *filesystem) attr(op string, out *fuse.AttrOut, a ashlar.Attr, err error) fuse.Status {
	if err != nil {
		return f.status(op, err)
	}
	f.fs.Shown(&a)
	fill(&out.Attr, &a)
	out.SetTimeout(f.keepShownAttr(&a))
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem.
func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	m := &wire.SetAttr{Inode: f.inode(in.NodeId)}
	for _, b := range []struct{ fuse, wire uint32 }{
		{fuse.FATTR_MODE, wire.SetMode}, {fuse.FATTR_UID, wire.SetUID}, {fuse.FATTR_GID, wire.SetGID},
		{fuse.FATTR_SIZE, wire.SetSize}, {fuse.FATTR_CTIME, wire.SetCtime},
		{fuse.FATTR_ATIME, wire.SetAtime}, {fuse.FATTR_MTIME, wire.SetMtime},
	} {
		if in.Valid&b.fuse != 0 {
			m.Valid |= b.wire
		}
	}
	if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
		m.Valid = m.Valid&^wire.SetAtime | wire.SetAtimeNow
	}
	if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
		m.Valid = m.Valid&^wire.SetMtime | wire.SetMtimeNow
	}
	m.Mode, m.UID, m.GID, m.Size = uint16(in.Mode&ashlar.ModeMask), in.Uid, in.Gid, in.Size
	m.Atime, m.Mtime, m.Ctime = join(in.Atime, in.Atimensec), join(in.Mtime, in.Mtimensec), join(in.Ctime, in.Ctimensec)
	// Nothing at all is a chown to nobody else, which takes setuid away too.
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || m.Valid == 0 {
		m.Valid |= wire.SetKill
	}
	if m.Valid&wire.SetSize != 0 && m.Size > ashlar.FileSizeMax {
		return fuse.Status(syscall.EFBIG)
	}
	if m.Valid&(wire.SetAtime|wire.SetAtimeNow) != 0 {
		f.fs.Unread(m.Inode)
	}
	ctx, cancel := f.context()
	defer cancel()
	a, err := f.fs.SetAttr(ctx, credFor(&in.InHeader, m.Valid&(wire.SetSize|wire.SetUID|wire.SetGID|wire.SetKill) != 0), m)
	a, err = f.gone.change(m, a, err)
	status := f.attr("setattr", out, a, err)
	out.SetTimeout(0) // the kernel takes it in even if it was told to drop it meanwhile
	return status
}

// join makes a time of nanoseconds: one beyond what they can say (the years
// 1677 to 2262) is the nearest that they can.
func join(s uint64, ns uint32) int64 {
	const last = math.MaxInt64 / int64(time.Second)
	switch sec := int64(s); {
	case sec >= last:
		return last * 1e9
	case sec <= -last:
		return -last * 1e9
	default:
		return sec*1e9 + int64(ns)
	}
}

// make serves the requests that make a node.
func (f *filesystem) make(op string, h *fuse.InHeader, m *wire.Make, out *fuse.EntryOut) fuse.Status {
	m.Parent, m.Exclusive = f.inode(h.NodeId), true
	ctx, cancel := f.context()
	defer cancel()
	defer f.shown.change(m.Parent)()
	a, err := f.fs.Make(ctx, cred(h), m)
	return f.entry(op, m.Parent, m.Name, out, a, err)
}

// Mknod implements fuse.RawFileSystem.
func (f *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	t := ashlar.FileType(in.Mode & syscall.S_IFMT >> 12)
	if t == 0 {
		t = ashlar.TypeFile
	}
	return f.make("mknod", &in.InHeader, &wire.Make{
		Name: name, Type: t, Mode: uint16(in.Mode & ashlar.ModeMask), Umask: uint16(in.Umask), Rdev: in.Rdev,
	}, out)
}

// Mkdir implements fuse.RawFileSystem.
func (f *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.make("mkdir", &in.InHeader, &wire.Make{
		Name: name, Type: ashlar.TypeDir, Mode: uint16(in.Mode & ashlar.ModeMask), Umask: uint16(in.Umask),
	}, out)
}

// Symlink implements fuse.RawFileSystem.
func (f *filesystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.make("symlink", h, &wire.Make{Name: name, Type: ashlar.TypeSymlink, Mode: 0o777, Target: target}, out)
}

// Readlink implements fuse.RawFileSystem.
func (f *filesystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	ctx, cancel := f.context()
	defer cancel()
	target, err := f.fs.Readlink(ctx, cred(h), f.inode(h.NodeId))
	if a, ok := f.fs.Known(f.inode(h.NodeId)); ok && err == nil {
		f.accessed(a, 0)
	}
	return []byte(target), f.status("readlink", err)
}

// Link implements fuse.RawFileSystem.
func (f *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	dir := f.inode(in.NodeId)
	defer f.shown.change(dir)()
	a, err := f.fs.Link(ctx, cred(&in.InHeader), f.inode(in.Oldnodeid), dir, name)
	status := f.entry("link", dir, name, out, a, err)
	out.SetAttrTimeout(0) // as with SetAttr
	return status
}

func (f *filesystem) remove(op string, h *fuse.InHeader, name string, dir bool) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	defer f.shown.change(f.inode(h.NodeId))()
	a, err := f.fs.Remove(ctx, cred(h), f.inode(h.NodeId), name, dir)
	f.gone.bury(&a)
	return f.status(op, err)
}

// Unlink implements fuse.RawFileSystem.
func (f *filesystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove("unlink", h, name, false)
}

// Rmdir implements fuse.RawFileSystem.
func (f *filesystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove("rmdir", h, name, true)
}

// Rename implements fuse.RawFileSystem.
func (f *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, old, name string) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	from, to := f.inode(in.NodeId), f.inode(in.Newdir)
	defer f.shown.change(from)()
	defer f.shown.change(to)()
	_, err := f.fs.Rename(ctx, cred(&in.InHeader), &wire.Rename{
		OldParent: from, OldName: old, NewParent: to, NewName: name, Flags: in.Flags,
	})
	return f.status("rename", err)
}

// Access implements fuse.RawFileSystem: the kernel has checked.
func (f *filesystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// StatFs implements fuse.RawFileSystem.
func (f *filesystem) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	s, err := f.fs.StatFS(ctx, cred(h))
	if err != nil {
		return f.status("statfs", err)
	}
	const unit = ashlar.BlockSize
	*out = fuse.StatfsOut{
		Blocks: s.Total / unit, Bfree: s.Free / unit, Bavail: s.Free / unit,
		Bsize: unit, Frsize: unit, NameLen: ashlar.NameMax,
		Files: s.Inodes + s.Free/unit, Ffree: s.Free / unit,
	}
	return fuse.OK
}
