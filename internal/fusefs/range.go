package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
)

// Fallocate implements fuse.RawFileSystem.
func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	ctx, cancel := f.context()
	defer cancel()
	keep := in.Mode&unix.FALLOC_FL_KEEP_SIZE != 0
	var change func() error
	switch in.Mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		change = func() error { return h.Allocate(ctx, in.Offset, in.Length, keep) }
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		change = func() error { return h.Zero(ctx, in.Offset, in.Length, keep) }
	default:
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	if in.Offset > ashlar.FileSizeMax || in.Length > ashlar.FileSizeMax-in.Offset {
		return fuse.Status(syscall.EFBIG)
	}
	err := f.killPrivileges(ctx, h, &in.InHeader, in.Uid != 0, 0, 0)
	if err == nil {
		err = change()
	}
	return f.status("fallocate", err)
}

// Lseek implements fuse.RawFileSystem: SEEK_DATA and SEEK_HOLE.
func (f *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	ctx, cancel := f.context()
	defer cancel()
	at, found, err := h.Seek(ctx, in.Offset, in.Whence == unix.SEEK_HOLE)
	switch {
	case err != nil:
		return f.status("lseek", err)
	case !found:
		return fuse.Status(syscall.ENXIO)
	}
	out.Offset = at
	return fuse.OK
}

// CopyFileRange implements fuse.RawFileSystem. The kernel has written out what
// it held of both ranges.
func (f *filesystem) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, ok := f.files.get(in.FhIn)
	if !ok {
		return 0, fuse.EBADF
	}
	dst, ok := f.files.get(in.FhOut)
	if !ok {
		return 0, fuse.EBADF
	}
	ctx, cancel := f.context()
	defer cancel()
	n, err := f.copyRange(ctx, src, dst, in)
	if err == nil {
		f.accessed(src.Attr(), 0)
	}
	return uint32(n), f.status("copy_file_range", err)
}

func (f *filesystem) copyRange(ctx context.Context, src, dst *openFile, in *fuse.CopyFileRangeIn) (uint64, error) {
	if err := f.killPrivileges(ctx, dst, &in.InHeader, in.Uid != 0, 0, 0); err != nil {
		return 0, err
	}
	return dst.CopyFrom(ctx, src.Handle, in.OffIn, in.OffOut, in.Len)
}
