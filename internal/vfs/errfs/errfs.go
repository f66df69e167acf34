// Package errfs wraps a vfs.FS and injects faults: errors at the n-th write or
// sync under a path, operations that stall, and bits that flip. It decides
// nothing itself; an Injector does. It is used by tests alone, and by
// internal/faults, which tests turn on in a real process.
//
// Lock order: an injector's own lock is a leaf. What survives a crash is what
// survives in the wrapped file system.
package errfs

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ashlarfs/ashlar/internal/vfs"
)

// Kind is a bit mask of operations.
type Kind uint32

// The kinds of operation.
const (
	Create Kind = 1 << iota // Create, and OpenOrCreate
	Open
	Read
	Write
	Sync // of files and regions
	SyncDir
	Writeback
	Preallocate
	PunchHole
	Truncate
	Rename
	Remove
	Mkdir
	List
	Stat
	Lock
	Map
	// Any is every kind.
	Any Kind = 1<<iota - 1
	// Mutation is every kind that changes the disk.
	Mutation = Create | Write | Sync | SyncDir | Preallocate | PunchHole | Truncate | Rename | Remove | Mkdir | Map
)

// Op is one operation about to be done.
type Op struct {
	Kind Kind
	Path string
	Off  int64
	Len  int
}

// Injector is asked before each operation. Its error is returned instead of
// doing the operation, but FlipBit lets it happen with one bit wrong; an
// injector that blocks stalls the operation. It is called concurrently.
type Injector func(Op) error

// FlipBit, as the answer of an Injector to a Read or Write, flips the bit of
// that number, counted from the lowest bit of the first byte and, past the last
// of what is read or written, from there again.
type FlipBit uint64

// Error implements error.
func (b FlipBit) Error() string { return fmt.Sprintf("flip bit %d", uint64(b)) }

// flip flips the bit in p.
func (b FlipBit) flip(p []byte) {
	if len(p) > 0 {
		i := uint64(b) % (8 * uint64(len(p)))
		p[i/8] ^= 1 << (i % 8)
	}
}

// Flip is the lowest bit of the first byte.
var Flip error = FlipBit(0)

// ErrnoAt injects err at the n-th operation (from 1) of the kinds under a
// path prefix, once.
func ErrnoAt(kinds Kind, under string, n int64, err error) Injector {
	var seen atomic.Int64
	return func(op Op) error {
		if op.Kind&kinds != 0 && strings.HasPrefix(op.Path, under) && seen.Add(1) == n {
			return err
		}
		return nil
	}
}

// ErrnoFrom injects err at the n-th operation (from 1) of the kinds under a
// path prefix and at every later one.
func ErrnoFrom(kinds Kind, under string, n int64, err error) Injector {
	var seen atomic.Int64
	return func(op Op) error {
		if op.Kind&kinds != 0 && strings.HasPrefix(op.Path, under) && seen.Add(1) >= n {
			return err
		}
		return nil
	}
}

// FlipAt flips a bit in the n-th operation (from 1) of the kinds, which are
// Read or Write, under a path prefix.
func FlipAt(kinds Kind, under string, n int64) Injector {
	return ErrnoAt(kinds&(Read|Write), under, n, Flip)
}

// StallUntil makes operations of the kinds under a path prefix wait until
// release is closed.
func StallUntil(kinds Kind, under string, release <-chan struct{}) Injector {
	return func(op Op) error {
		if op.Kind&kinds != 0 && strings.HasPrefix(op.Path, under) {
			<-release
		}
		return nil
	}
}

// All asks each injector in turn; the first error wins.
func All(injectors ...Injector) Injector {
	return func(op Op) error {
		for _, in := range injectors {
			if err := in(op); err != nil {
				return err
			}
		}
		return nil
	}
}

// Wrap returns inner with faults.
func Wrap(inner vfs.FS, inject Injector) vfs.FS { return &errFS{inner, inject} }

type errFS struct {
	inner  vfs.FS
	inject Injector
}

func (e *errFS) ask(k Kind, name string) error {
	_, err := e.judge(Op{Kind: k, Path: name})
	return err
}

// judge asks the injector. It returns the bit to flip, nil for none.
func (e *errFS) judge(op Op) (*FlipBit, error) {
	switch err := e.inject(op).(type) { //nolint:errorlint // a FlipBit is an answer, and never wrapped
	case nil:
		return nil, nil
	case FlipBit:
		return &err, nil
	default:
		return nil, &fs.PathError{Op: "injected", Path: op.Path, Err: err}
	}
}

func (e *errFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &errFile{f, e, name}, nil
}

func (e *errFS) Create(name string) (vfs.File, error) {
	if err := e.ask(Create, name); err != nil {
		return nil, err
	}
	f, err := e.inner.Create(name)
	return e.wrap(name, f, err)
}

func (e *errFS) Open(name string) (vfs.File, error) {
	if err := e.ask(Open, name); err != nil {
		return nil, err
	}
	f, err := e.inner.Open(name)
	return e.wrap(name, f, err)
}

func (e *errFS) OpenOrCreate(name string) (vfs.File, bool, error) {
	if err := e.ask(Create, name); err != nil {
		return nil, false, err
	}
	f, created, err := e.inner.OpenOrCreate(name)
	f, err = e.wrap(name, f, err)
	return f, created, err
}

func (e *errFS) Remove(name string) error {
	return e.then(Remove, name, func() error { return e.inner.Remove(name) })
}

func (e *errFS) RemoveAll(name string) error {
	return e.then(Remove, name, func() error { return e.inner.RemoveAll(name) })
}

func (e *errFS) Rename(oldname, newname string) error {
	return e.then(Rename, newname, func() error { return e.inner.Rename(oldname, newname) })
}

func (e *errFS) MkdirAll(name string) error {
	return e.then(Mkdir, name, func() error { return e.inner.MkdirAll(name) })
}

func (e *errFS) SyncDir(name string) error {
	return e.then(SyncDir, name, func() error { return e.inner.SyncDir(name) })
}

func (e *errFS) then(k Kind, name string, do func() error) error {
	if err := e.ask(k, name); err != nil {
		return err
	}
	return do()
}

func (e *errFS) List(name string) ([]string, error) {
	if err := e.ask(List, name); err != nil {
		return nil, err
	}
	return e.inner.List(name)
}

func (e *errFS) Stat(name string) (fs.FileInfo, error) {
	if err := e.ask(Stat, name); err != nil {
		return nil, err
	}
	return e.inner.Stat(name)
}

func (e *errFS) Lock(name string) (io.Closer, error) {
	if err := e.ask(Lock, name); err != nil {
		return nil, err
	}
	return e.inner.Lock(name)
}

func (e *errFS) Region(name string, size int) (vfs.Region, error) {
	if err := e.ask(Map, name); err != nil {
		return nil, err
	}
	r, err := e.inner.Region(name, size)
	if err != nil {
		return nil, err
	}
	return &errRegion{r, e, name}, nil
}

func (e *errFS) Usage(name string) (vfs.Usage, error) { return e.inner.Usage(name) }

type errFile struct {
	vfs.File
	e    *errFS
	name string
}

func (f *errFile) ask(k Kind, off int64, n int) (*FlipBit, error) {
	return f.e.judge(Op{Kind: k, Path: f.name, Off: off, Len: n})
}

func (f *errFile) ReadAt(p []byte, off int64) (int, error) {
	bit, err := f.ask(Read, off, len(p))
	if err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(p, off)
	if bit != nil {
		bit.flip(p[:n])
	}
	return n, err
}

func (f *errFile) WriteAt(p []byte, off int64) (int, error) {
	bit, err := f.ask(Write, off, len(p))
	if err != nil {
		return 0, err
	}
	if bit != nil {
		p = slices.Clone(p)
		bit.flip(p)
	}
	return f.File.WriteAt(p, off)
}

func (f *errFile) then(k Kind, off, n int64, do func() error) error {
	if _, err := f.ask(k, off, int(n)); err != nil {
		return err
	}
	return do()
}

func (f *errFile) Sync() error { return f.then(Sync, 0, 0, f.File.Sync) }

func (f *errFile) Writeback(off, n int64) error {
	return f.then(Writeback, off, n, func() error { return f.File.Writeback(off, n) })
}

func (f *errFile) Preallocate(size int64) error {
	return f.then(Preallocate, 0, size, func() error { return f.File.Preallocate(size) })
}

func (f *errFile) PunchHole(off, n int64) error {
	return f.then(PunchHole, off, n, func() error { return f.File.PunchHole(off, n) })
}

func (f *errFile) Truncate(size int64) error {
	return f.then(Truncate, size, 0, func() error { return f.File.Truncate(size) })
}

type errRegion struct {
	vfs.Region
	e    *errFS
	name string
}

func (r *errRegion) Sync() error {
	return r.e.then(Sync, r.name, r.Region.Sync)
}
