package vfs

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memPage is the unit in which Mem stores and forgets; memSector is the unit
// that is never torn.
const (
	memPage   = 4096
	memSector = 512
)

// Mem is an in-memory disk. The same Mem opened again is what a process finds
// after it was killed (ReleaseLocks drops what it held); CrashClone is what a
// machine finds after it lost power.
type Mem struct {
	mu       sync.Mutex
	root     *memNode
	ops      []memOp // changes of names that no SyncDir has covered, in order
	locked   map[string]*memLock
	capacity uint64 // 0: 1 TiB
	used     uint64
}

// memNode is a file or a directory; Mem.mu guards all of it but the contents
// of region.
type memNode struct {
	dir     map[string]*memNode // nil: a file
	durable map[string]*memNode // names that survive a power loss
	links   int                 // names of a file
	mtime   time.Time

	size, syncedSize int64
	pages            map[int64][]byte // current; an absent page is zeros
	old              map[int64][]byte // synced contents of pages changed since
	region           []byte           // if mapped once: the contents, instead of pages
	syncedRegion     []byte
}

// memOp is one atomic change of names: node appears as to and, for a rename,
// is gone from from. A nil node is a removal of to.
type memOp struct {
	node     *memNode
	to, from memName
}

type memName struct {
	dir  *memNode
	name string
}

// NewMem returns an empty disk.
func NewMem() *Mem {
	return &Mem{root: newMemDir(), locked: map[string]*memLock{}}
}

func newMemDir() *memNode {
	return &memNode{dir: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// SetCapacity bounds the bytes stored; writes beyond it fail with ENOSPC.
func (m *Mem) SetCapacity(bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// ReleaseLocks drops every lock, as the death of the process holding them
// does.
func (m *Mem) ReleaseLocks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.locked)
}

// CrashClone returns the disk as it may be found after power was lost now:
// what was synced is there; of the rest, each change of a name and each
// sector of a file is there or not as rng decides, and a nil rng keeps
// nothing. The original is untouched and nothing is shared.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crashCloner{rng: rng, kept: map[*memNode]map[string]*memNode{}, clones: map[*memNode]*memNode{}}
	for _, op := range m.ops {
		if c.keep() {
			op.apply(c.names)
		}
	}
	out := NewMem()
	out.capacity = m.capacity
	out.root = c.clone(m.root, &out.used)
	return out
}

// apply performs the change on the name tables that names returns.
func (op memOp) apply(names func(*memNode) map[string]*memNode) {
	if op.node == nil {
		delete(names(op.to.dir), op.to.name)
		return
	}
	names(op.to.dir)[op.to.name] = op.node
	if op.from.dir != nil && names(op.from.dir)[op.from.name] == op.node {
		delete(names(op.from.dir), op.from.name)
	}
}

type crashCloner struct {
	rng    *rand.Rand
	kept   map[*memNode]map[string]*memNode
	clones map[*memNode]*memNode
}

func (c *crashCloner) keep() bool { return c.rng != nil && c.rng.IntN(2) == 0 }

func (c *crashCloner) names(d *memNode) map[string]*memNode {
	if c.kept[d] == nil {
		c.kept[d] = maps.Clone(d.durable)
	}
	return c.kept[d]
}

func (c *crashCloner) clone(n *memNode, used *uint64) *memNode {
	if done := c.clones[n]; done != nil {
		return done
	}
	out := &memNode{mtime: n.mtime, links: n.links}
	c.clones[n] = out
	if n.dir != nil {
		out.dir = map[string]*memNode{}
		names := c.names(n)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			out.dir[name] = c.clone(names[name], used)
		}
		out.durable = maps.Clone(out.dir)
		return out
	}
	if n.region != nil {
		out.region = c.mix(n.syncedRegion, n.region)
		out.syncedRegion = bytes.Clone(out.region)
		out.size = int64(len(out.region))
		out.syncedSize = out.size
		*used += uint64(out.size)
		return out
	}
	out.size = n.syncedSize
	if n.size != n.syncedSize && c.keep() {
		out.size = n.size
	}
	out.syncedSize = out.size
	out.pages = map[int64][]byte{}
	for _, i := range slices.Sorted(maps.Keys(unionKeys(n.pages, n.old))) {
		page := n.pages[i]
		if old, changed := n.old[i]; changed {
			page = c.mix(old, page)
		}
		if page == nil || i*memPage >= out.size {
			continue
		}
		page = bytes.Clone(page)
		if over := (i+1)*memPage - out.size; over > 0 {
			clear(page[memPage-over:])
		}
		out.pages[i] = page
		*used += memPage
	}
	return out
}

func unionKeys(a, b map[int64][]byte) map[int64]struct{} {
	u := make(map[int64]struct{}, len(a)+len(b))
	for k := range a {
		u[k] = struct{}{}
	}
	for k := range b {
		u[k] = struct{}{}
	}
	return u
}

// mix returns, sector by sector, old or current; nil stands for zeros. Most
// pages are kept or lost whole, some are torn.
func (c *crashCloner) mix(old, current []byte) []byte {
	n := max(len(old), len(current))
	out := make([]byte, n)
	copy(out, old)
	if c.rng == nil {
		return out
	}
	for page := 0; page < n; page += memPage {
		how := c.rng.IntN(4)
		for at := page; at < min(page+memPage, n); at += memSector {
			if how == 0 || how == 1 && c.keep() {
				clear(out[at:min(at+memSector, n)])
				if at < len(current) {
					copy(out[at:min(at+memSector, n)], current[at:])
				}
			}
		}
	}
	return out
}

// clean returns the components of a name.
func clean(name string) []string {
	p := strings.Trim(path.Clean("/"+name), "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

func pathErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// lookup returns the node of a name. m.mu must be held.
func (m *Mem) lookup(op, name string) (*memNode, error) {
	n := m.root
	for _, c := range clean(name) {
		if n.dir == nil {
			return nil, pathErr(op, name, syscall.ENOTDIR)
		}
		if n = n.dir[c]; n == nil {
			return nil, pathErr(op, name, fs.ErrNotExist)
		}
	}
	return n, nil
}

// parent returns the directory a name is in. m.mu must be held.
func (m *Mem) parent(op, name string) (memName, error) {
	parts := clean(name)
	if len(parts) == 0 {
		return memName{}, pathErr(op, name, syscall.EINVAL)
	}
	d, err := m.lookup(op, strings.Join(parts[:len(parts)-1], "/"))
	if err != nil {
		return memName{}, err
	}
	if d.dir == nil {
		return memName{}, pathErr(op, name, syscall.ENOTDIR)
	}
	return memName{d, parts[len(parts)-1]}, nil
}

// change performs and records a change of names. m.mu must be held.
func (m *Mem) change(op memOp) {
	op.apply(func(d *memNode) map[string]*memNode { return d.dir })
	m.ops = append(m.ops, op)
}

func (m *Mem) create(op, name string, exclusive bool) (*memNode, bool, error) {
	at, err := m.parent(op, name)
	if err != nil {
		return nil, false, err
	}
	if n := at.dir.dir[at.name]; n != nil {
		if n.dir != nil {
			return nil, false, pathErr(op, name, syscall.EISDIR)
		}
		if !exclusive {
			m.resize(n, 0)
		}
		return n, false, nil
	}
	n := &memNode{links: 1, pages: map[int64][]byte{}, old: map[int64][]byte{}, mtime: time.Now()}
	m.change(memOp{node: n, to: at})
	return n, true, nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, _, err := m.create("create", name, false)
	if err != nil {
		return nil, err
	}
	return &memFile{m: m, n: n, name: name}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir != nil {
		return nil, pathErr("open", name, syscall.EISDIR)
	}
	return &memFile{m: m, n: n, name: name}, nil
}

// OpenOrCreate implements FS.
func (m *Mem) OpenOrCreate(name string) (File, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, created, err := m.create("open", name, true)
	if err != nil {
		return nil, false, err
	}
	return &memFile{m: m, n: n, name: name}, created, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, err := m.parent("remove", name)
	if err != nil {
		return err
	}
	n := at.dir.dir[at.name]
	if n == nil {
		return pathErr("remove", name, fs.ErrNotExist)
	}
	if len(n.dir) > 0 {
		return pathErr("remove", name, syscall.ENOTEMPTY)
	}
	m.free(n)
	m.change(memOp{to: at})
	return nil
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, err := m.parent("remove", name)
	if err != nil || at.dir.dir[at.name] == nil {
		return nil
	}
	m.removeTree(at)
	return nil
}

func (m *Mem) removeTree(at memName) {
	n := at.dir.dir[at.name]
	for _, name := range slices.Sorted(maps.Keys(n.dir)) {
		m.removeTree(memName{n, name})
	}
	m.free(n)
	m.change(memOp{to: at})
}

// Rename implements FS.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, err := m.parent("rename", oldname)
	if err != nil {
		return err
	}
	to, err := m.parent("rename", newname)
	if err != nil {
		return err
	}
	n := from.dir.dir[from.name]
	if n == nil {
		return pathErr("rename", oldname, fs.ErrNotExist)
	}
	there := to.dir.dir[to.name]
	switch {
	case there == n:
		return nil
	case there != nil && there.dir != nil && n.dir == nil:
		return pathErr("rename", newname, syscall.EISDIR)
	case there != nil && there.dir == nil && n.dir != nil:
		return pathErr("rename", newname, syscall.ENOTDIR)
	case there != nil && len(there.dir) > 0:
		return pathErr("rename", newname, syscall.ENOTEMPTY)
	case there != nil:
		m.free(there)
	}
	m.change(memOp{node: n, to: to, from: from})
	return nil
}

// Link implements Linker.
func (m *Mem) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("link", oldname)
	if err != nil {
		return err
	}
	if n.dir != nil {
		return pathErr("link", oldname, syscall.EPERM)
	}
	to, err := m.parent("link", newname)
	if err != nil {
		return err
	}
	if to.dir.dir[to.name] != nil {
		return pathErr("link", newname, fs.ErrExist)
	}
	n.links++
	m.change(memOp{node: n, to: to})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.root
	for _, c := range clean(name) {
		if n.dir == nil {
			return pathErr("mkdir", name, syscall.ENOTDIR)
		}
		next := n.dir[c]
		if next == nil {
			next = newMemDir()
			m.change(memOp{node: next, to: memName{n, c}})
		}
		n = next
	}
	if n.dir == nil {
		return pathErr("mkdir", name, syscall.ENOTDIR)
	}
	return nil
}

// List implements FS.
func (m *Mem) List(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("list", name)
	if err != nil {
		return nil, err
	}
	if n.dir == nil {
		return nil, pathErr("list", name, syscall.ENOTDIR)
	}
	return slices.Sorted(maps.Keys(n.dir)), nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return memInfo{name: path.Base(name), size: n.size, dir: n.dir != nil, mtime: n.mtime}, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.lookup("sync", name)
	if err != nil {
		return err
	}
	if d.dir == nil {
		return pathErr("sync", name, syscall.ENOTDIR)
	}
	var rest []memOp
	for _, op := range m.ops {
		if op.to.dir == d || op.from.dir == d {
			op.apply(func(n *memNode) map[string]*memNode { return n.durable })
		} else {
			rest = append(rest, op)
		}
	}
	m.ops = rest
	return nil
}

type memLock struct {
	m    *Mem
	name string
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, _, err := m.OpenOrCreate(name)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := path.Clean("/" + name)
	if m.locked[key] != nil {
		return nil, pathErr("lock", name, syscall.EWOULDBLOCK)
	}
	l := &memLock{m, key}
	m.locked[key] = l
	return l, nil
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.locked[l.name] == l {
		delete(l.m.locked, l.name)
	}
	return nil
}

// Usage implements FS.
func (m *Mem) Usage(name string) (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.lookup("statfs", name); err != nil {
		return Usage{}, err
	}
	total := m.total()
	return Usage{Total: total, Free: total - min(m.used, total)}, nil
}

func (m *Mem) total() uint64 {
	if m.capacity == 0 {
		return 1 << 40
	}
	return m.capacity
}

type memInfo struct {
	name  string
	size  int64
	dir   bool
	mtime time.Time
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.mtime }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | dirMode
	}
	return fileMode
}
