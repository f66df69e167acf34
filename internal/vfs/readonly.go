package vfs

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ReadOnly is the machine's file systems for whoever only looks: files are
// opened for reading, everything that would change something fails with EROFS,
// and a lock is not taken but asked for: Lock fails if a process has it.
var ReadOnly FS = readOnlyFS{}

type readOnlyFS struct{}

func readOnly(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: unix.EROFS} }

func (readOnlyFS) Create(name string) (File, error) { return nil, readOnly("create", name) }

func (readOnlyFS) Open(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{osFile{f}}, nil
}

func (r readOnlyFS) OpenOrCreate(name string) (File, bool, error) {
	f, err := r.Open(name)
	return f, false, err
}

func (readOnlyFS) Remove(name string) error              { return readOnly("remove", name) }
func (readOnlyFS) RemoveAll(name string) error           { return readOnly("remove", name) }
func (readOnlyFS) Rename(name, _ string) error           { return readOnly("rename", name) }
func (readOnlyFS) MkdirAll(name string) error            { return readOnly("mkdir", name) }
func (readOnlyFS) List(name string) ([]string, error)    { return OS.List(name) }
func (readOnlyFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }
func (readOnlyFS) SyncDir(name string) error             { return readOnly("sync", name) }
func (readOnlyFS) Usage(name string) (Usage, error)      { return OS.Usage(name) }

func (readOnlyFS) Region(name string, _ int) (Region, error) { return nil, readOnly("map", name) }

func (readOnlyFS) Lock(name string) (io.Closer, error) {
	f, err := os.Open(name)
	if os.IsNotExist(err) {
		return io.NopCloser(nil), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // drops the lock: a server may start while others look
	if err := ignoringEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) }); err != nil {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return io.NopCloser(nil), nil
}

type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, readOnly("write", "") }
func (readOnlyFile) Sync() error                        { return nil }
func (readOnlyFile) Writeback(int64, int64) error       { return nil }
func (readOnlyFile) Preallocate(int64) error            { return readOnly("write", "") }
func (readOnlyFile) PunchHole(int64, int64) error       { return readOnly("write", "") }
func (readOnlyFile) Truncate(int64) error               { return readOnly("write", "") }
