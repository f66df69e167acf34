package fusefs

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// openFile is a file open by the kernel.
type openFile struct {
	*file.Handle
	// hidden says that reads through it count and may come out of the kernel's
	// cache, without our being asked.
	hidden bool
	read   atomic.Bool // we were asked
}

// openFlags converts the flags of open(2). A file open for writing is also
// read, for a partial page.
func openFlags(flags uint32) file.Flags {
	out := file.Read
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		out |= file.Write
	}
	if flags&syscall.O_APPEND != 0 {
		out |= file.Append
	}
	if flags&syscall.O_TRUNC != 0 {
		out |= file.Truncate
	}
	if flags&syscall.O_DIRECT != 0 {
		out |= file.Through
	}
	// The kernel keeps no pages of what is read and written through a descriptor
	// whose user says so, or that appends: where that goes is known only
	// afterwards, and the kernel would put it where it thinks the end is. Nor of
	// a file that is being written so (Open): what is appended while a page is
	// read would be zeros in it.
	if flags&syscall.O_DIRECT != 0 || out&(file.Append|file.Write) == file.Append|file.Write {
		out |= file.Direct
	}
	return out
}

// opened numbers a handle and tells the kernel how to treat it. What the kernel
// has cached is right, as it is told to drop it with the lease.
func (f *filesystem) opened(h *file.Handle, flags file.Flags, by uint32, out *fuse.OpenOut) {
	hidden := by&(syscall.O_ACCMODE|syscall.O_NOATIME) == 0 && flags&file.Direct == 0
	out.Fh = f.files.add(&openFile{Handle: h, hidden: hidden})
	out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	if flags&file.Direct != 0 {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
		if flags&file.Append == 0 {
			out.OpenFlags |= fuse.FOPEN_PARALLEL_DIRECT_WRITES
		}
	}
}

// Open implements fuse.RawFileSystem.
func (f *filesystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	ino, flags := f.inode(in.NodeId), openFlags(in.Flags)
	if flags&file.Write == 0 && f.fs.Bypassed(ino) {
		flags |= file.Direct
	}
	h, err := f.fs.Open(ctx, credFor(&in.InHeader, in.Flags&syscall.O_TRUNC != 0), ino, flags)
	if err != nil {
		return f.status("open", err)
	}
	f.opened(h, flags, in.Flags, out)
	return fuse.OK
}

// Create implements fuse.RawFileSystem.
func (f *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	dir := f.inode(in.NodeId)
	defer f.shown.change(dir)()
	h, _, err := f.fs.Create(ctx, cred(&in.InHeader), &wire.Make{
		Parent: dir, Name: name, Mode: uint16(in.Mode & ashlar.ModeMask),
		Umask: uint16(in.Umask), Exclusive: in.Flags&syscall.O_EXCL != 0,
	}, openFlags(in.Flags))
	if err != nil {
		return f.status("create", err)
	}
	f.opened(h, openFlags(in.Flags), in.Flags, &out.OpenOut)
	return f.entry("create", dir, name, &out.EntryOut, h.Attr(), nil)
}

// Tmpfile implements fuse.RawFileSystem: a file without a name, which link(2)
// may give one.
func (f *filesystem) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	h, _, err := f.fs.Create(ctx, cred(&in.InHeader), &wire.Make{
		Parent: f.inode(in.NodeId), Mode: uint16(in.Mode & ashlar.ModeMask), Umask: uint16(in.Umask),
		Exclusive: in.Flags&syscall.O_EXCL != 0, Unnamed: true,
	}, openFlags(in.Flags))
	if err != nil {
		return f.status("tmpfile", err)
	}
	f.opened(h, openFlags(in.Flags), in.Flags, &out.OpenOut)
	return f.entry("tmpfile", f.inode(in.NodeId), "", &out.EntryOut, h.Attr(), nil)
}

// Read implements fuse.RawFileSystem: into the buffer that the answer is sent
// from.
func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return nil, fuse.EBADF
	}
	ctx, cancel := f.context()
	defer cancel()
	n, err := h.ReadAt(ctx, buf[:min(len(buf), int(in.Size))], in.Offset)
	if err != nil {
		return nil, f.status("read", err)
	}
	h.read.Store(true)
	f.accessed(h.Attr(), in.Flags)
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Bits of WriteIn.WriteFlags: the data comes out of the page cache (a shared
// mapping), not from write(2); and the writer may not keep setuid and setgid.
const (
	writeFromCache = 1 << 0
	writeKillPriv  = 1 << 2
)

// Write implements fuse.RawFileSystem.
func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return 0, fuse.EBADF
	}
	if end := in.Offset + uint64(len(data)); in.Offset < ashlar.FileSizeMax && end > ashlar.FileSizeMax {
		data = data[:ashlar.FileSizeMax-in.Offset] // as much as there is room for
	}
	ctx, cancel := f.context()
	defer cancel()
	drops := h.Drops()
	if in.WriteFlags&writeFromCache == 0 {
		if err := f.killPrivileges(ctx, h, &in.InHeader, in.WriteFlags&writeKillPriv != 0, in.Offset, uint64(len(data))); err != nil {
			return 0, f.status("write", err)
		}
	}
	if err := f.write(ctx, h, in, data); err != nil {
		return 0, f.status("write", err)
	}
	if in.WriteFlags&writeFromCache == 0 {
		h.Rewritten(drops, in.Offset, uint64(len(data)))
	}
	if in.Flags&syscall.O_DSYNC != 0 && in.WriteFlags&writeFromCache == 0 {
		if err := h.Sync(ctx, in.Flags&syscall.O_SYNC != syscall.O_SYNC); err != nil {
			return 0, f.status("write", err)
		}
	}
	return uint32(len(data)), fuse.OK
}

func (f *filesystem) write(ctx context.Context, h *openFile, in *fuse.WriteIn, data []byte) (err error) {
	off := in.Offset
	switch {
	case in.WriteFlags&writeFromCache != 0:
		return h.WriteBack(ctx, data, off)
	case in.Flags&syscall.O_APPEND == 0:
		err = h.WriteAt(ctx, data, off)
	default:
		off, err = h.Append(ctx, data, in.Offset)
	}
	// The kernel drops pages under what it does not write to its cache before it
	// sends that here, and may have read them again meanwhile; and if others
	// appended before, its idea of the end is old.
	if err == nil && (off != in.Offset || h.Shadowed()) {
		f.dropData(h.Inode(), off, uint64(len(data)))
	}
	return err
}

// killPrivileges takes away before a change of a file's data, of which the
// kernel may hold the pages of n bytes at off locked, what goes with it:
// capabilities, and if the kernel says so setuid, and setgid of what the group may
// execute or of a group that the caller is not in.
func (f *filesystem) killPrivileges(ctx context.Context, h *openFile, by *fuse.InHeader, setid bool, off, n uint64) error {
	if err := h.Own(ctx, off, n); err != nil { // so that it is known here
		return err
	}
	a, err := f.fs.GetAttr(ctx, ashlar.Cred{Checked: true}, h.Inode())
	if err != nil {
		return err
	}
	clean := a.Mode
	if setid {
		clean &^= ashlar.ModeSetuid
		if a.Mode&ashlar.ModeSetgid != 0 && (a.Mode&0o010 != 0 || !inGroup(by, a.GID)) {
			clean &^= ashlar.ModeSetgid
		}
	}
	if clean == a.Mode && a.Flags&ashlar.HasCapability == 0 {
		return nil
	}
	m := &wire.SetAttr{Inode: h.Inode(), Valid: wire.SetMode, Mode: clean}
	if a.Flags&ashlar.HasCapability != 0 {
		m.Valid |= wire.SetKill
	}
	_, err = f.fs.SetAttr(ctx, ashlar.Cred{Checked: true}, m)
	if err == nil {
		f.dropAttr(h.Inode())
	}
	return err
}

// inGroup tells whether the caller of a request is in a group.
func inGroup(h *fuse.InHeader, gid uint32) bool {
	return h.Gid == gid || slices.Contains(groups(h), gid)
}

// groups returns the caller's supplementary groups, of which the kernel does
// not tell with a request.
func groups(h *fuse.InHeader) (out []uint32) {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(h.Pid), 10) + "/status")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(b), "\nGroups:")
	list, _, _ := strings.Cut(rest, "\n")
	for _, f := range strings.Fields(list) {
		if n, err := strconv.ParseUint(f, 10, 32); err == nil && len(out) < ashlar.GroupsMax {
			out = append(out, uint32(n))
		}
	}
	return out
}

// credFor is cred for a change that may take setgid away from a file of a
// group that the caller is not in.
func credFor(h *fuse.InHeader, change bool) ashlar.Cred {
	c := cred(h)
	if change && h.Uid != 0 {
		c.Groups = groups(h)
	}
	return c
}

// Flush implements fuse.RawFileSystem: some descriptor was closed.
func (f *filesystem) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	ctx, cancel := f.context()
	defer cancel()
	if h.hidden && !h.read.Load() && f.accessed(h.Attr(), 0) {
		f.dropAttr(h.Inode())
	}
	err := h.Flush(ctx)
	if lerr := h.ReleaseOwner(ctx, in.LockOwner); err == nil {
		err = lerr
	}
	return f.status("close", err)
}

// Fsync implements fuse.RawFileSystem.
func (f *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	ctx, cancel := f.context()
	defer cancel()
	return f.status("fsync", h.Sync(ctx, in.FsyncFlags&1 != 0))
}

// Release implements fuse.RawFileSystem: the last descriptor was closed.
func (f *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	h, ok := f.files.remove(in.Fh)
	if !ok {
		return
	}
	ctx, cancel := f.context()
	defer cancel()
	if err := h.Release(ctx); err != nil {
		f.o.Logger.Error("data lost at the last close", "inode", h.Inode(), "err", err)
	}
}
