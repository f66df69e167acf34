package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// OS is the machine's file systems.
var OS FS = osFS{}

// zeroRun is how many zero bytes Preallocate writes at a time.
const zeroRun = 1 << 20

// dirMode and fileMode are the modes of what OS creates: a server's data is
// nobody else's business.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

type osFS struct{}

func (osFS) open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o osFS) Create(name string) (File, error) {
	return o.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (o osFS) Open(name string) (File, error) { return o.open(name, os.O_RDWR) }

func (o osFS) OpenOrCreate(name string) (File, bool, error) {
	for {
		f, err := o.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if err == nil {
			return f, true, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, false, err
		}
		f, err = o.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in between
		}
		return f, false, err
	}
}

func (osFS) Remove(name string) error             { return os.Remove(name) }
func (osFS) RemoveAll(name string) error          { return os.RemoveAll(name) }
func (osFS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// Link implements Linker.
func (osFS) Link(oldname, newname string) error { return os.Link(oldname, newname) }

func (osFS) MkdirAll(name string) error { return os.MkdirAll(name, dirMode) }
func (osFS) Stat(name string) (fs.FileInfo, error) {
	return os.Stat(name)
}

func (osFS) List(name string) ([]string, error) {
	d, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	slices.Sort(names)
	return names, err
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// Lock takes a flock: it belongs to the open file, so that two holders in one
// process exclude each other too, and the kernel drops it with the process.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := ignoringEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}

func (osFS) Region(name string, size int) (Region, error) {
	if size <= 0 {
		return nil, &fs.PathError{Op: "map", Path: name, Err: unix.EINVAL}
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping keeps the file
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != int64(size) {
		if err := f.Truncate(int64(size)); err != nil {
			return nil, err
		}
		// Blocks are taken now: a store into a hole of a full disk is SIGBUS.
		if err := (osFile{f}).fallocate(0, 0, int64(size)); err != nil {
			return nil, err
		}
	}
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: name, Err: err}
	}
	return &osRegion{name: name, b: b}, nil
}

func (osFS) Usage(name string) (Usage, error) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Statfs(name, &st) }); err != nil {
		return Usage{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	return Usage{Total: st.Blocks * uint64(st.Bsize), Free: st.Bavail * uint64(st.Bsize)}, nil
}

type osFile struct{ f *os.File }

func (f osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f osFile) Close() error                             { return f.f.Close() }
func (f osFile) Truncate(size int64) error                { return f.f.Truncate(size) }

func (f osFile) Sync() error {
	return f.wrap("fdatasync", ignoringEINTR(func() error { return unix.Fdatasync(int(f.f.Fd())) }))
}

func (f osFile) Writeback(off, n int64) error {
	err := ignoringEINTR(func() error {
		return unix.SyncFileRange(int(f.f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // only a hint
	}
	return f.wrap("sync_file_range", err)
}

func (f osFile) Preallocate(size int64) error {
	if err := f.fallocate(0, 0, size); err != nil {
		return err
	}
	// An allocated extent that was never written still changes metadata at
	// its first overwrite, so the zeros are written out.
	zeros := make([]byte, min(size, zeroRun))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

func (f osFile) PunchHole(off, n int64) error {
	if n <= 0 {
		return nil
	}
	return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f osFile) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// fallocate falls back to writing where a file system cannot: reserving is
// then left to the writes that follow, and a hole is written as zeros.
func (f osFile) fallocate(mode uint32, off, n int64) error {
	if n <= 0 {
		return nil
	}
	err := ignoringEINTR(func() error { return unix.Fallocate(int(f.f.Fd()), mode, off, n) })
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return f.wrap("fallocate", err)
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
		if size < off+n {
			return f.Truncate(off + n)
		}
		return nil
	}
	zeros := make([]byte, zeroRun)
	for end := min(off+n, size); off < end; off += zeroRun {
		if _, err := f.WriteAt(zeros[:min(zeroRun, end-off)], off); err != nil {
			return err
		}
	}
	return nil
}

func (f osFile) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.f.Name(), Err: err}
}

type osRegion struct {
	name string
	b    []byte
}

func (r *osRegion) Bytes() []byte { return r.b }

func (r *osRegion) Sync() error {
	if err := unix.Msync(r.b, unix.MS_SYNC); err != nil {
		return fmt.Errorf("sync of mapped %s: %w", filepath.Base(r.name), err)
	}
	return nil
}

func (r *osRegion) Close() error {
	if r.b == nil {
		return nil
	}
	b := r.b
	r.b = nil
	return unix.Munmap(b)
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
