package kv

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"sync/atomic"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlarfs/ashlar/internal/vfs"
)

// pebbleFS shows a vfs.FS to the engine. The real disk goes past it: the
// engine's own file system knows more about it.
func pebbleFS(fsys vfs.FS) pebblevfs.FS {
	if fsys == vfs.OS {
		return inOrder{pebblevfs.Default}
	}
	return inOrder{adapter{fsys}}
}

// inOrder makes what the engine's markers stand for durable in order. The
// engine names its manifest by a marker: it makes the manifest, makes a new
// marker, removes the old one, and only then syncs the directory. A file system
// that keeps the marker and not the manifest would hold a store that can not be
// opened, and one that keeps the removal and not the new marker an empty store.
type inOrder struct{ pebblevfs.FS }

// markerPrefix begins the names of the engine's markers.
const markerPrefix = "marker."

func (m inOrder) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := m.settle(name); err != nil {
		return nil, err
	}
	return m.FS.Create(name, c)
}

func (m inOrder) Remove(name string) error {
	if err := m.settle(name); err != nil {
		return err
	}
	return m.FS.Remove(name)
}

// settle makes the names durable that were made before a marker is made or
// removed.
func (m inOrder) settle(name string) error {
	if !strings.HasPrefix(m.PathBase(name), markerPrefix) {
		return nil
	}
	d, err := m.OpenDir(m.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Unwrap is for the engine's own inspection of its file systems.
func (m inOrder) Unwrap() pebblevfs.FS { return m.FS }

type adapter struct{ fs vfs.FS }

func (a adapter) open(name string) (*adapterFile, error) {
	f, err := a.fs.Open(name)
	if err != nil {
		return nil, err
	}
	return &adapterFile{File: f, a: a, name: name}, nil
}

func (a adapter) Create(name string, _ pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := a.fs.Create(name)
	if err != nil {
		return nil, err
	}
	return &adapterFile{File: f, a: a, name: name}, nil
}

func (a adapter) Link(oldname, newname string) error {
	if l, ok := a.fs.(vfs.Linker); ok {
		return l.Link(oldname, newname)
	}
	return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: os.ErrInvalid} // the engine copies
}

func (a adapter) Open(name string, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

func (a adapter) OpenReadWrite(name string, _ pebblevfs.DiskWriteCategory, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	return a.Open(name, opts...)
}

func (a adapter) OpenDir(name string) (pebblevfs.File, error) {
	if _, err := a.fs.List(name); err != nil {
		return nil, err
	}
	return &adapterDir{adapterFile{a: a, name: name}}, nil
}

func (a adapter) ReuseForWrite(oldname, newname string, _ pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := a.fs.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return a.open(newname)
}

func (a adapter) Stat(name string) (pebblevfs.FileInfo, error) {
	st, err := a.fs.Stat(name)
	if err != nil {
		return nil, err
	}
	return adapterInfo{st}, nil
}

func (a adapter) GetDiskUsage(name string) (pebblevfs.DiskUsage, error) {
	u, err := a.fs.Usage(name)
	if err != nil {
		return pebblevfs.DiskUsage{}, err
	}
	return pebblevfs.DiskUsage{AvailBytes: u.Free, TotalBytes: u.Total, UsedBytes: u.Total - u.Free}, nil
}

func (a adapter) Remove(name string) error                  { return a.fs.Remove(name) }
func (a adapter) RemoveAll(name string) error               { return a.fs.RemoveAll(name) }
func (a adapter) Rename(oldname, newname string) error      { return a.fs.Rename(oldname, newname) }
func (a adapter) MkdirAll(name string, _ os.FileMode) error { return a.fs.MkdirAll(name) }
func (a adapter) Lock(name string) (io.Closer, error)       { return a.fs.Lock(name) }
func (a adapter) List(name string) ([]string, error)        { return a.fs.List(name) }
func (a adapter) PathBase(name string) string               { return path.Base(name) }
func (a adapter) PathJoin(elem ...string) string            { return path.Join(elem...) }
func (a adapter) PathDir(name string) string                { return path.Dir(name) }
func (a adapter) Unwrap() pebblevfs.FS                      { return nil }

// adapterFile adds the sequential half of a file, which the engine uses from
// one goroutine at a time.
type adapterFile struct {
	vfs.File
	a    adapter
	name string
	r, w atomic.Int64
}

func (f *adapterFile) Read(p []byte) (int, error) {
	n, err := f.File.ReadAt(p, f.r.Load())
	f.r.Add(int64(n))
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *adapterFile) Write(p []byte) (int, error) {
	n, err := f.File.WriteAt(p, f.w.Load())
	f.w.Add(int64(n))
	return n, err
}

// Preallocate is a hint to the engine's mind, but one that changes the size
// in vfs's: it is left out.
func (f *adapterFile) Preallocate(off, n int64) error { return nil }

func (f *adapterFile) Stat() (pebblevfs.FileInfo, error) { return f.a.Stat(f.name) }

func (f *adapterFile) SyncTo(int64) (fullSync bool, err error) { return false, nil }

func (f *adapterFile) SyncData() error { return f.File.Sync() }

func (f *adapterFile) Prefetch(int64, int64) error { return nil }

func (f *adapterFile) Fd() uintptr { return pebblevfs.InvalidFd }

type adapterDir struct{ adapterFile }

func (d *adapterDir) Sync() error                              { return d.a.fs.SyncDir(d.name) }
func (d *adapterDir) SyncData() error                          { return d.Sync() }
func (d *adapterDir) Close() error                             { return nil }
func (d *adapterDir) Read([]byte) (int, error)                 { return 0, os.ErrInvalid }
func (d *adapterDir) Write([]byte) (int, error)                { return 0, os.ErrInvalid }
func (d *adapterDir) ReadAt([]byte, int64) (n int, err error)  { return 0, os.ErrInvalid }
func (d *adapterDir) WriteAt([]byte, int64) (n int, err error) { return 0, os.ErrInvalid }

type adapterInfo struct{ os.FileInfo }

func (adapterInfo) DeviceID() pebblevfs.DeviceID { return pebblevfs.DeviceID{} }
