package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// The tree that workers share: so few names that they meet.
const (
	topDirs  = 4
	subDirs  = 4
	fileMany = 24
	sizeMax  = 1 << 20 // bytes of a file
	ioMax    = 64 << 10
)

type counter struct{ n atomic.Int64 }

// worker does one operation after the other below a mount.
type worker struct {
	root string
	rng  *rand.Rand
	n    *counter
	buf  []byte
}

func newWorker(root string, seed uint64, i int, n *counter) *worker {
	return &worker{root: root, rng: rand.New(rand.NewPCG(seed, uint64(i))), n: n, buf: make([]byte, ioMax)}
}

// mayBe are the errors that another worker's work may cause.
var mayBe = []error{
	syscall.ENOENT, syscall.EEXIST, syscall.ENOTEMPTY, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.ENODATA,
	syscall.EINVAL, // rename of a directory into itself
	syscall.ENXIO,  // SEEK_DATA beyond the end
}

func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		op := ops[w.rng.IntN(len(ops))]
		err := op.do(w)
		w.n.n.Add(1)
		if err != nil && !errors.Is(err, io.EOF) && !slices.ContainsFunc(mayBe, func(e error) bool { return errors.Is(err, e) }) {
			return fmt.Errorf("%s: %w", op.name, err)
		}
	}
	return nil
}

// dir and file are names that may be there.
func (w *worker) dir() string {
	d := filepath.Join(w.root, fmt.Sprintf("d%d", w.rng.IntN(topDirs)))
	if w.rng.IntN(2) == 0 {
		d = filepath.Join(d, fmt.Sprintf("s%d", w.rng.IntN(subDirs)))
	}
	return d
}

func (w *worker) file() string {
	return filepath.Join(w.dir(), fmt.Sprintf("f%d", w.rng.IntN(fileMany)))
}

// some fills part of the buffer with what will be known again.
func (w *worker) some() []byte {
	b := w.buf[:1+w.rng.IntN(ioMax)]
	x := byte(w.rng.Uint32())
	for i := range b {
		b[i] = x + byte(i>>8)
	}
	return b
}

// with opens a file, has something done with it and closes it.
func (w *worker) with(flags int, do func(f *os.File) error) error {
	f, err := os.OpenFile(w.file(), flags, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (w *worker) off() int64 { return w.rng.Int64N(sizeMax) }

var ops = []struct {
	name string
	do   func(*worker) error
}{
	{"mkdir", func(w *worker) error { return os.Mkdir(w.dir(), 0o755) }},
	{"mkdir", func(w *worker) error { return os.MkdirAll(w.dir(), 0o755) }},
	{"rmdir", func(w *worker) error { return syscall.Rmdir(w.dir()) }},
	{"create", func(w *worker) error {
		return w.with(os.O_RDWR|os.O_CREATE|os.O_EXCL, func(f *os.File) error { _, err := f.Write(w.some()); return err })
	}},
	{"create or truncate", func(w *worker) error {
		return w.with(os.O_RDWR|os.O_CREATE|os.O_TRUNC, func(f *os.File) error { _, err := f.Write(w.some()); return err })
	}},
	{"write", func(w *worker) error {
		return w.with(os.O_RDWR|os.O_CREATE, func(f *os.File) error { _, err := f.WriteAt(w.some(), w.off()); return err })
	}},
	{"write and fsync", func(w *worker) error {
		return w.with(os.O_WRONLY, func(f *os.File) error {
			_, err := f.WriteAt(w.some(), w.off())
			return errors.Join(err, f.Sync())
		})
	}},
	{"append", func(w *worker) error {
		return w.with(os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
			if st, err := f.Stat(); err != nil || st.Size() > sizeMax {
				return err
			}
			_, err := f.Write(w.some())
			return err
		})
	}},
	{"read", func(w *worker) error {
		return w.with(os.O_RDONLY, func(f *os.File) error { _, err := f.ReadAt(w.buf, w.off()); return err })
	}},
	{"read", func(w *worker) error { _, err := os.ReadFile(w.file()); return err }},
	{"map and read", func(w *worker) error {
		return w.with(os.O_RDONLY, func(f *os.File) error {
			st, err := f.Stat()
			if err != nil || st.Size() < int64(os.Getpagesize()) {
				return err
			}
			// Only its first page: another worker may cut the file meanwhile,
			// and touching what is gone is SIGBUS.
			m, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			return errors.Join(unix.Madvise(m, unix.MADV_WILLNEED), unix.Munmap(m))
		})
	}},
	{"truncate", func(w *worker) error { return os.Truncate(w.file(), w.off()) }},
	{"punch", func(w *worker) error {
		return w.with(os.O_WRONLY, func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, w.off(), 1+w.rng.Int64N(ioMax))
		})
	}},
	{"seek", func(w *worker) error {
		return w.with(os.O_RDONLY, func(f *os.File) error {
			_, err := unix.Seek(int(f.Fd()), w.off(), []int{unix.SEEK_DATA, unix.SEEK_HOLE}[w.rng.IntN(2)])
			return err
		})
	}},
	{"copy", func(w *worker) error {
		return w.with(os.O_RDONLY, func(from *os.File) error {
			return w.with(os.O_WRONLY|os.O_CREATE, func(to *os.File) error {
				off := w.off()
				same, err := sameFile(from, to)
				if err != nil || same {
					return err
				}
				_, err = unix.CopyFileRange(int(from.Fd()), &off, int(to.Fd()), &off, ioMax, 0)
				return err
			})
		})
	}},
	{"unlink", func(w *worker) error { return syscall.Unlink(w.file()) }},
	{"unlink while open", func(w *worker) error {
		name := w.file()
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		err = syscall.Unlink(name)
		_, werr := f.WriteAt(w.some(), 0)
		_, rerr := f.ReadAt(w.buf[:1], 0)
		return errors.Join(err, werr, rerr, f.Close())
	}},
	{"rename", func(w *worker) error { return os.Rename(w.file(), w.file()) }},
	{"rename a directory", func(w *worker) error { return os.Rename(w.dir(), w.dir()) }},
	{"exchange", func(w *worker) error {
		return unix.Renameat2(unix.AT_FDCWD, w.file(), unix.AT_FDCWD, w.file(), unix.RENAME_EXCHANGE)
	}},
	{"link", func(w *worker) error { return os.Link(w.file(), w.file()) }},
	{"symlink", func(w *worker) error { return os.Symlink(filepath.Base(w.file()), w.file()) }},
	{"chmod", func(w *worker) error { return os.Chmod(w.file(), 0o600|os.FileMode(w.rng.IntN(0o100))) }},
	{"xattr", func(w *worker) error { return unix.Setxattr(w.file(), "user.soak", w.buf[:w.rng.IntN(64)], 0) }},
	{"stat", func(w *worker) error { _, err := os.Lstat(w.file()); return err }},
	{"list", func(w *worker) error {
		names, err := os.ReadDir(w.dir())
		for i, n := range names {
			if i > 0 && names[i-1].Name() == n.Name() {
				return fmt.Errorf("a directory has %s twice", n.Name())
			}
		}
		return err
	}},
	{"fsync of a directory", func(w *worker) error {
		d, err := os.Open(w.dir())
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	}},
}

func sameFile(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y), err
}
