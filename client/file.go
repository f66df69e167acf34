package client

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// File is an open file or directory. It implements fs.File, fs.ReadDirFile,
// io.Seeker, io.ReaderAt, io.Writer, io.WriterAt and io.StringWriter.
type File struct {
	v     *Volume
	name  string
	inode ashlar.Inode
	h     *file.Handle // nil for a directory

	mu      sync.Mutex
	off     int64
	closed  bool
	locker  uint64        // its number as an owner of locks, 0 before the first
	entries []fs.DirEntry // of a directory, not yet returned
	listed  bool
}

var (
	_ fs.ReadDirFile  = (*File)(nil)
	_ io.ReadWriter   = (*File)(nil)
	_ io.Seeker       = (*File)(nil)
	_ io.ReaderAt     = (*File)(nil)
	_ io.WriterAt     = (*File)(nil)
	_ io.StringWriter = (*File)(nil)
)

// Open opens a file or directory for reading; it is fs.FS.
func (v *Volume) Open(name string) (fs.File, error) {
	f, err := v.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Create makes or empties a file and opens it for reading and writing.
func (v *Volume) Create(name string) (*File, error) {
	return v.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
}

// OpenFile opens a file with the flags of package os. perm is taken as it is:
// there is no umask.
func (v *Volume) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	f, err := v.openFile(name, flag, perm)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return f, nil
}

func (v *Volume) openFile(name string, flag int, perm fs.FileMode) (*File, error) {
	if flag&os.O_EXCL != 0 && flag&os.O_CREATE != 0 {
		return v.createNew(name, flag, perm)
	}
	p, err := v.resolve(v.ctx, name, true)
	if err != nil {
		return nil, err
	}
	flags := openFlags(flag)
	f := &File{v: v, name: name, inode: p.attr.Inode}
	switch {
	case !p.exists && flag&os.O_CREATE == 0:
		return nil, refuse(ashlar.NotExist)
	case !p.exists:
		f.h, _, err = v.fs.Create(v.ctx, v.cred, &wire.Make{
			Parent: p.parent, Name: p.base, Mode: unixMode(perm),
		}, flags)
		if err == nil {
			f.inode = f.h.Inode()
		}
		return f, err
	case p.attr.Type == ashlar.TypeDir:
		if flags&file.Write != 0 {
			return nil, refuse(ashlar.IsDir)
		}
		return f, v.fs.Access(v.ctx, v.cred, p.attr.Inode, 4)
	case p.attr.Type != ashlar.TypeFile:
		return nil, refuse(ashlar.Unsupported) // nobody is at the other end of a pipe or device here
	}
	f.h, err = v.fs.Open(v.ctx, v.cred, p.attr.Inode, flags)
	return f, err
}

// createNew creates a file that must not be there: the masters say whether it
// is, so nobody looks first.
func (v *Volume) createNew(name string, flag int, perm fs.FileMode) (*File, error) {
	dir, base, err := v.parent(v.ctx, name)
	if err != nil {
		if ashlar.KindOf(err) == ashlar.Busy { // the root
			err = refuse(ashlar.Exist)
		}
		return nil, err
	}
	f := &File{v: v, name: name}
	f.h, _, err = v.fs.Create(v.ctx, v.cred, &wire.Make{
		Parent: dir, Name: base, Mode: unixMode(perm), Exclusive: true,
	}, openFlags(flag))
	if err != nil {
		return nil, err
	}
	f.inode = f.h.Inode()
	return f, nil
}

func openFlags(flag int) file.Flags {
	var out file.Flags
	switch flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR) {
	case os.O_RDONLY:
		out = file.Read
	case os.O_WRONLY:
		out = file.Write
	default:
		out = file.Read | file.Write
	}
	if flag&os.O_APPEND != 0 {
		out |= file.Append
	}
	if flag&os.O_TRUNC != 0 && out&file.Write != 0 {
		out |= file.Truncate
	}
	return out
}

// Name returns the name that the file was opened by.
func (f *File) Name() string { return f.name }

func (f *File) size() uint64 {
	if f.h == nil {
		return 0
	}
	return f.h.Attr().Size
}

// usable refuses a closed file, and a directory for data. mu must be held.
func (f *File) usable(op string) error {
	switch {
	case f.closed:
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	case f.h == nil:
		return pathError(op, f.name, refuse(ashlar.IsDir))
	}
	return nil
}

func (f *File) check(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.usable(op)
}

// Read reads from the present position.
func (f *File) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable("read"); err != nil {
		return 0, err
	}
	n, err := f.h.ReadAt(f.v.ctx, p, uint64(f.off))
	f.off += int64(n)
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, pathError("read", f.name, err)
}

// ReadAt reads len(p) bytes at off, fewer only with an error.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check("read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, refuse(ashlar.Invalid))
	}
	n, err := f.h.ReadAt(f.v.ctx, p, uint64(off))
	if err == nil && n < len(p) {
		return n, io.EOF
	}
	return n, pathError("read", f.name, err)
}

// Write writes at the present position, or with O_APPEND at the end.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable("write"); err != nil {
		return 0, err
	}
	if f.h.IsAppend() {
		off, err := f.h.Append(f.v.ctx, p, 0)
		if err != nil {
			return 0, pathError("write", f.name, err)
		}
		f.off = int64(off) + int64(len(p))
		return len(p), nil
	}
	if err := f.h.WriteAt(f.v.ctx, p, uint64(f.off)); err != nil {
		return 0, pathError("write", f.name, err)
	}
	f.off += int64(len(p))
	return len(p), nil
}

// WriteString is Write of a string.
func (f *File) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

// WriteAt writes at off; it is refused with O_APPEND.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.check("write"); err != nil {
		return 0, err
	}
	if off < 0 || f.h.IsAppend() {
		return 0, pathError("write", f.name, refuse(ashlar.Invalid))
	}
	if err := f.h.WriteAt(f.v.ctx, p, uint64(off)); err != nil {
		return 0, pathError("write", f.name, err)
	}
	return len(p), nil
}

// Seek moves the present position. A directory can be rewound only.
func (f *File) Seek(off int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, f.usable("seek")
	}
	switch whence {
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		off += int64(f.size())
	}
	if off < 0 || f.h == nil && off != 0 {
		return 0, pathError("seek", f.name, refuse(ashlar.Invalid))
	}
	f.off, f.listed, f.entries = off, false, nil
	return off, nil
}

// Sync puts all data, size and times of the file on stable storage, on every
// copy.
func (f *File) Sync() error { return f.sync(false) }

// SyncData is Sync without times.
func (f *File) SyncData() error { return f.sync(true) }

func (f *File) sync(dataOnly bool) error {
	if err := f.check("sync"); err != nil {
		return err
	}
	return pathError("sync", f.name, f.h.Sync(f.v.ctx, dataOnly))
}

// Truncate changes the size.
func (f *File) Truncate(size int64) error {
	if err := f.check("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", f.name, refuse(ashlar.Invalid))
	}
	return pathError("truncate", f.name, f.h.Truncate(f.v.ctx, uint64(size)))
}

// Stat describes the file.
func (f *File) Stat() (fs.FileInfo, error) {
	if err := f.check("stat"); err != nil && errors.Is(err, fs.ErrClosed) {
		return nil, err
	}
	inode := f.inode
	a, err := f.v.fs.GetAttr(f.v.ctx, f.v.cred, inode)
	if err != nil {
		return nil, pathError("stat", f.name, err)
	}
	return &fileInfo{last(f.name), a}, nil
}

// ReadDir lists a directory: all of what is left with n at most 0, otherwise
// up to n entries, and io.EOF after the last.
func (f *File) ReadDir(n int) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, f.usable("readdir")
	}
	if f.h != nil {
		return nil, pathError("readdir", f.name, refuse(ashlar.NotDir))
	}
	if !f.listed {
		entries, err := f.v.list(f.inode)
		if err != nil {
			return nil, pathError("readdir", f.name, err)
		}
		f.entries, f.listed = entries, true
	}
	if n <= 0 {
		n = len(f.entries)
	} else if len(f.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.entries))
	out := f.entries[:n:n]
	f.entries = f.entries[n:]
	return out, nil
}

// Close writes out what is buffered and closes the file. An error of an
// earlier write is returned here if Sync has not told it.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	f.closed = true
	if f.h == nil {
		return nil
	}
	return pathError("close", f.name, f.h.Close(f.v.ctx))
}
