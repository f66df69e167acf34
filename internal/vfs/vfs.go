// Package vfs is the seam between Ashlar and the disks it runs on: the few
// file operations that the log, the chunk store and the identity files use.
// OS is the real thing; NewMem is an in-memory disk that forgets what was not
// synced when it crashes. vfs/errfs wraps either and injects faults.
//
// It is not a general file system: there are no symbolic links, no permissions beyond
// the creation mode and no current directory. Paths are slash-separated and
// absolute or relative to the process, as the caller chooses.
//
// # What survives a crash
//
// Of a process (kill -9): every completed WriteAt, Truncate, PunchHole,
// Create, Rename and Remove, and every store into a Region. Of the machine:
// data and size of a file as of its last Sync; names (created, renamed,
// removed) as of the last SyncDir of their directory; nothing of a Region
// unless it was synced. Anything later may or may not be there, block by
// block.
package vfs

import (
	"io"
	"io/fs"
)

// FS is a tree of files on one disk. Errors satisfy errors.Is against
// fs.ErrNotExist, fs.ErrExist and syscall errnos (ENOSPC, EIO).
type FS interface {
	// Create opens name for reading and writing and truncates it to zero
	// length, making it if it does not exist.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenOrCreate opens name for reading and writing, making it empty if it
	// does not exist; created tells which. It never truncates.
	OpenOrCreate(name string) (f File, created bool, err error)
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// RemoveAll removes name and everything below it; no error if absent.
	RemoveAll(name string) error
	// Rename atomically moves oldname to newname, replacing a file there.
	Rename(oldname, newname string) error
	// MkdirAll makes a directory and its parents.
	MkdirAll(name string) error
	// List returns the base names in a directory, sorted.
	List(name string) ([]string, error)
	// Stat returns size and kind of a name.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a file, making it if needed, and fails
	// at once if any process (or, in memory, any holder) has it. Close of the
	// result releases it; so does the death of the process.
	Lock(name string) (io.Closer, error)
	// Region maps a file of exactly size bytes into memory, making and zero
	// filling it if needed. Stores survive the death of the process.
	Region(name string, size int) (Region, error)
	// Usage tells capacity and free bytes of the disk that holds name.
	Usage(name string) (Usage, error)
}

// Linker is what an FS may be besides: one that can give a file a second
// name. Checkpoints use it and copy where it is missing.
type Linker interface {
	Link(oldname, newname string) error
}

// File is an open file. Methods may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes data and size durable (fdatasync). After an error the file
	// must be considered lost: Sync is never retried and believed.
	Sync() error
	// Writeback starts writing [off, off+n) back without waiting and without
	// any promise; it only spreads work ahead of a Sync.
	Writeback(off, n int64) error
	// Preallocate reserves and zeroes [0, size), so that later overwrites
	// change no metadata.
	Preallocate(size int64) error
	// PunchHole gives [off, off+n) back to the disk; it reads as zeros. The
	// size does not change.
	PunchHole(off, n int64) error
	// Truncate sets the size.
	Truncate(size int64) error
	// Size returns the size.
	Size() (int64, error)
}

// Region is a file mapped into memory.
type Region interface {
	io.Closer
	// Bytes is the mapping itself; it is valid until Close.
	Bytes() []byte
	// Sync makes the whole region durable.
	Sync() error
}

// Usage is the fill of a disk, in bytes.
type Usage struct {
	Total uint64 // size of the file system
	Free  uint64 // bytes an ordinary user may still write
}
