package vfs

import (
	"bytes"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
	"time"
)

type memFile struct {
	m      *Mem
	n      *memNode
	name   string
	closed atomic.Bool
}

func (f *memFile) check(op string, off int64) error {
	if f.closed.Load() {
		return pathErr(op, f.name, fs.ErrClosed)
	}
	if off < 0 {
		return pathErr(op, f.name, syscall.EINVAL)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check("read", off); err != nil {
		return 0, err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= f.n.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.n.size-off))
	f.n.read(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.check("write", off); err != nil {
		return 0, err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n, err := f.m.write(f.n, p, off)
	if err != nil {
		return n, pathErr("write", f.name, err)
	}
	return n, nil
}

func (f *memFile) Sync() error {
	if err := f.check("fdatasync", 0); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.sync()
	return nil
}

func (f *memFile) Writeback(off, n int64) error { return f.check("sync_file_range", off) }

func (f *memFile) Preallocate(size int64) error {
	if err := f.check("fallocate", size); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.used+uint64(size) > f.m.total() {
		return pathErr("fallocate", f.name, syscall.ENOSPC)
	}
	f.m.punch(f.n, 0, min(size, f.n.size))
	if f.n.size < size {
		f.m.resize(f.n, size)
	}
	return nil
}

func (f *memFile) PunchHole(off, n int64) error {
	if err := f.check("fallocate", off); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.punch(f.n, off, min(off+n, f.n.size))
	return nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.check("truncate", size); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.resize(f.n, size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.check("stat", 0); err != nil {
		return 0, err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.n.size, nil
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return pathErr("close", f.name, fs.ErrClosed)
	}
	return nil
}

// read fills p, which lies within the file. Mem.mu must be held.
func (n *memNode) read(p []byte, off int64) {
	if n.region != nil {
		copy(p, n.region[off:])
		return
	}
	for len(p) > 0 {
		i, at := off/memPage, int(off%memPage)
		c := min(memPage-at, len(p))
		if page := n.pages[i]; page != nil {
			copy(p[:c], page[at:])
		} else {
			clear(p[:c])
		}
		p, off = p[c:], off+int64(c)
	}
}

// write stores p. m.mu must be held.
func (m *Mem) write(n *memNode, p []byte, off int64) (int, error) {
	n.mtime = time.Now()
	if n.region != nil {
		if off+int64(len(p)) > n.size {
			return 0, syscall.EFBIG // a mapped file keeps its size
		}
		return copy(n.region[off:], p), nil
	}
	done := 0
	for done < len(p) {
		i, at := off/memPage, int(off%memPage)
		c := min(memPage-at, len(p)-done)
		if n.pages[i] == nil && m.used+memPage > m.total() {
			return done, syscall.ENOSPC
		}
		copy(m.touch(n, i)[at:], p[done:done+c])
		done, off = done+c, off+int64(c)
		n.size = max(n.size, off)
	}
	return done, nil
}

// touch returns page i for writing and remembers what was synced of it. m.mu
// must be held.
func (m *Mem) touch(n *memNode, i int64) []byte {
	page := n.pages[i]
	n.remember(i)
	if page == nil {
		page = make([]byte, memPage)
		n.pages[i] = page
		m.used += memPage
	}
	return page
}

// remember keeps the synced contents of page i if it is still as synced.
// Mem.mu must be held.
func (n *memNode) remember(i int64) {
	if _, ok := n.old[i]; ok {
		return
	}
	if n.old == nil {
		n.old = map[int64][]byte{}
	}
	n.old[i] = bytes.Clone(n.pages[i])
}

// punch zeroes [off, end). m.mu must be held.
func (m *Mem) punch(n *memNode, off, end int64) {
	if n.region != nil {
		clear(n.region[min(off, n.size):min(max(off, end), n.size)])
		return
	}
	for off < end {
		i, at := off/memPage, off%memPage
		c := min(memPage-at, end-off)
		if n.pages[i] != nil {
			if c == memPage {
				n.remember(i)
				delete(n.pages, i)
				m.used -= memPage
			} else {
				clear(m.touch(n, i)[at : at+c])
			}
		}
		off += c
	}
}

// resize sets the size. m.mu must be held.
func (m *Mem) resize(n *memNode, size int64) {
	if n.region != nil {
		if size == n.size {
			return
		}
		n.unmap()
	}
	if size < n.size {
		m.punch(n, size, (n.size+memPage-1)/memPage*memPage)
	}
	n.size = size
	n.mtime = time.Now()
}

// unmap turns a mapped file back into pages; mappings that are still open no
// longer reach it. Mem.mu must be held.
func (n *memNode) unmap() {
	n.pages, n.old = map[int64][]byte{}, map[int64][]byte{}
	for at := 0; at < len(n.region); at += memPage {
		page, old := make([]byte, memPage), make([]byte, memPage)
		copy(page, n.region[at:])
		if at < len(n.syncedRegion) {
			copy(old, n.syncedRegion[at:])
		}
		n.pages[int64(at/memPage)] = page
		n.old[int64(at/memPage)] = old
	}
	n.region, n.syncedRegion = nil, nil
}

// sync makes the contents durable. Mem.mu must be held.
func (n *memNode) sync() {
	if n.region != nil {
		n.syncedRegion = bytes.Clone(n.region)
	}
	clear(n.old)
	n.syncedSize = n.size
}

// free gives back the room of a removed file; its contents stay for those
// who have it open. m.mu must be held.
func (m *Mem) free(n *memNode) {
	if n.dir != nil {
		return
	}
	if n.links--; n.links > 0 {
		return
	}
	if n.region != nil {
		m.used -= min(m.used, uint64(len(n.region)))
		return
	}
	m.used -= min(m.used, uint64(len(n.pages))*memPage)
}

type memRegion struct {
	m *Mem
	n *memNode
	b []byte
}

// Region implements FS.
func (m *Mem) Region(name string, size int) (Region, error) {
	if size <= 0 {
		return nil, pathErr("map", name, syscall.EINVAL)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, _, err := m.create("map", name, true)
	if err != nil {
		return nil, err
	}
	if n.region == nil || n.size != int64(size) {
		if n.size != int64(size) {
			m.resize(n, int64(size))
		}
		synced := n.syncedContents(size)
		b := make([]byte, size)
		n.read(b, 0)
		m.used += uint64(size) - min(uint64(size), uint64(len(n.pages))*memPage)
		n.region, n.syncedRegion, n.pages, n.old = b, synced, nil, nil
	}
	return &memRegion{m: m, n: n, b: n.region}, nil
}

// syncedContents returns what of the first size bytes is durable. Mem.mu must
// be held.
func (n *memNode) syncedContents(size int) []byte {
	b := make([]byte, size)
	for i, page := range n.pages {
		if old, changed := n.old[i]; changed {
			page = old
		}
		if i*memPage < int64(size) {
			copy(b[i*memPage:], page)
		}
	}
	for i, old := range n.old {
		if n.pages[i] == nil && i*memPage < int64(size) {
			copy(b[i*memPage:], old)
		}
	}
	return b
}

func (r *memRegion) Bytes() []byte { return r.b }

func (r *memRegion) Sync() error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.n.region != nil && &r.n.region[0] == &r.b[0] {
		r.n.sync()
	}
	return nil
}

func (r *memRegion) Close() error { return nil }
