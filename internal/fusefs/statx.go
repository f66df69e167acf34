package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
)

// Statx implements fuse.RawFileSystem: what GetAttr says, and when the file
// was made. The kernel asks when a program wants to know that.
func (f *filesystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	ino := f.inode(in.NodeId)
	a, err := f.fs.GetAttr(ctx, cred(&in.InHeader), ino)
	if a, err = f.gone.visit(ino, a, err); err != nil {
		return f.status("statx", err)
	}
	f.fs.Shown(&a)
	fillStatx(&out.Statx, &a)
	out.SetTimeout(f.keepShownAttr(&a))
	return fuse.OK
}

func fillStatx(out *fuse.Statx, a *ashlar.Attr) {
	at := func(ns int64) fuse.SxTime {
		s, n := split(ns)
		return fuse.SxTime{Sec: s, Nsec: n}
	}
	*out = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS | unix.STATX_BTIME, Blksize: blockSize, Nlink: a.Nlink, Uid: a.UID, Gid: a.GID,
		Mode: uint16(a.Type)<<12 | a.Mode, Ino: uint64(a.Inode), Size: a.Size, Blocks: a.Blocks,
		Atime: at(a.Atime), Btime: at(a.Btime), Ctime: at(a.Ctime), Mtime: at(a.Mtime),
		RdevMajor: unix.Major(uint64(a.Rdev)), RdevMinor: unix.Minor(uint64(a.Rdev)),
	}
}
