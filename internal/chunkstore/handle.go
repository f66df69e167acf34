package chunkstore

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// What is known of a chunk's file.
const (
	unopened = iota
	absent   // there is none, or one without a header
	opened
	gone // removed while it was open; get it again
)

// chunk is a chunk in the table of handles, with its file if there is one and
// the records read so far.
type chunk struct {
	key   Key
	salt  uint32
	elem  *list.Element // handles.mu
	refs  int           // handles.mu
	state atomic.Int32  // changed under wmu

	wmu      sync.Mutex // one writer at a time
	f        vfs.File   // set before state becomes opened
	dirty    bool       // wmu: in unsynced, and marked
	headless bool       // wmu: its file has no header yet
	restated bool       // wmu: what hdr says of the file is not in its file yet
	// wmu: bytes written to each writebackRun of the chunk and not given to
	// Writeback; nil if there are none
	unbacked []uint32

	mu    sync.RWMutex
	hdr   chunkHeader
	pages []*metaPage // by page of the file, nil if not read
}

// metaPage is a page of region records.
type metaPage struct{ regions [perPage]region }

// handles is the table of chunks in use and recently used, with a limit. It
// holds chunks that have no file too, so that reading holes costs nothing.
type handles struct {
	mu    sync.Mutex
	m     map[Key]*chunk
	lru   *list.List // front: most recent
	max   int
	pages atomic.Int64 // cached pages of records, of all chunks
}

func (h *handles) init(limit int) {
	h.m, h.lru, h.max = map[Key]*chunk{}, list.New(), limit
}

// acquire returns the chunk's handle, not opened yet if it is new.
func (h *handles) acquire(k Key) *chunk {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.m[k]
	if c == nil {
		c = &chunk{key: k, salt: recordSalt(k)}
		c.elem = h.lru.PushFront(c)
		h.m[k] = c
	} else if h.lru.Front() != c.elem {
		h.lru.MoveToFront(c.elem)
	}
	c.refs++
	return c
}

// release gives a handle back and closes what is over the limits.
func (h *handles) release(c *chunk) {
	var closing []*chunk
	h.mu.Lock()
	c.refs--
	if c.refs == 0 && h.m[c.key] != c {
		closing = append(closing, c)
	}
	if len(h.m) > h.max || h.pages.Load() > metaPagesMax {
		closing = h.evict(closing)
	}
	h.mu.Unlock()
	for _, c := range closing {
		h.close(c)
	}
}

// evict takes the least recently used chunks out. h.mu must be held.
func (h *handles) evict(out []*chunk) []*chunk {
	over := h.pages.Load() - metaPagesMax
	for e := h.lru.Back(); e != nil && (len(h.m) > h.max || over > 0); {
		c := e.Value.(*chunk)
		e = e.Prev()
		if c.refs > 0 {
			continue
		}
		over -= c.cachedPages()
		h.remove(c)
		out = append(out, c)
	}
	return out
}

func (c *chunk) cachedPages() (n int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, p := range c.pages {
		if p != nil {
			n++
		}
	}
	return n
}

// remove takes a chunk out of the table. h.mu must be held.
func (h *handles) remove(c *chunk) {
	if h.m[c.key] == c {
		delete(h.m, c.key)
		h.lru.Remove(c.elem)
	}
}

// forget takes a removed chunk out of the table; whoever waits for its wmu
// gets it again. c.wmu must be held.
func (h *handles) forget(c *chunk) {
	c.state.Store(gone)
	h.mu.Lock()
	h.remove(c)
	h.mu.Unlock()
}

func (h *handles) close(c *chunk) {
	h.pages.Add(-c.cachedPages())
	if c.f != nil {
		c.f.Close() // an error here would have shown at Sync
	}
}

func (h *handles) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.m {
		if c.f != nil {
			c.f.Close()
		}
	}
	clear(h.m)
	h.lru.Init()
}

// get returns an open or absent chunk, to be released.
func (d *Disk) get(k Key) (*chunk, error) {
	if err := d.Failed(); err != nil {
		return nil, err
	}
	for {
		c := d.handles.acquire(k)
		switch c.state.Load() {
		case opened, absent:
			return c, nil
		}
		err := d.open(c)
		if err == nil && c.state.Load() != gone {
			return c, nil
		}
		d.handles.release(c)
		if err != nil {
			return nil, err
		}
	}
}

// lockForWrite returns the chunk with wmu held, to be unlocked and released.
func (d *Disk) lockForWrite(k Key) (*chunk, error) {
	for {
		c, err := d.get(k)
		if err != nil {
			return nil, err
		}
		c.wmu.Lock()
		if c.state.Load() != gone {
			return c, nil
		}
		c.wmu.Unlock()
		d.handles.release(c)
	}
}

func (d *Disk) unlock(c *chunk) {
	c.wmu.Unlock()
	d.handles.release(c)
}

// open opens the chunk's file and reads its first page.
func (d *Disk) open(c *chunk) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.state.Load() != unopened {
		return nil
	}
	name := d.chunkPath(c.key)
	f, err := d.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		c.state.Store(absent)
		return nil
	}
	if err != nil {
		return d.ioErr("open", c.key, err)
	}
	b := make([]byte, pageSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		d.damaged.Add(1)
		return headerDamage(c.key, err)
	}
	hdr, err := decodeChunkHeader(b[:n], d.id.cluster, name)
	if err == nil && hdr.key != c.key {
		err = fmt.Errorf("its file says it is %v", hdr.key)
	}
	if err != nil {
		// A chunk cut short at birth: no write to it was ever complete. Its
		// mark was durable before its file was made.
		if isZero(b[:min(n, fixedEnd)]) && d.marks.isMarked(c.key) {
			c.f = f
			c.state.Store(absent)
			return nil
		}
		f.Close()
		if ashlar.KindOf(err) == ashlar.Version {
			return err
		}
		d.damaged.Add(1)
		return headerDamage(c.key, err)
	}
	c.f, c.hdr = f, hdr
	c.pages = make([]*metaPage, c.pageCount())
	c.pages[0] = d.decodePage(c, 0, b)
	d.handles.pages.Add(1)
	c.state.Store(opened)
	return nil
}

func (c *chunk) regions() int { return int(c.hdr.size / ashlar.RegionSize) }

func (c *chunk) pageCount() int {
	p, _ := metaPageOf(c.regions() - 1)
	return p + 1
}

// decodePage reads the records in a page of the file.
func (d *Disk) decodePage(c *chunk, page int, b []byte) *metaPage {
	p := &metaPage{}
	first, n, at := pageRegions(page)
	for i := range min(n, c.regions()-first) {
		p.regions[i].decode(b[at+i*recordSize:], c.salt, first+i)
	}
	return p
}

// page returns a page of records, reading it if it is not cached.
func (d *Disk) page(c *chunk, page int) (*metaPage, error) {
	c.mu.RLock()
	p := c.pages[page]
	c.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	b := make([]byte, pageSize)
	if _, err := c.f.ReadAt(b, int64(page)*pageSize); err != nil && !errors.Is(err, io.EOF) {
		d.damaged.Add(1)
		first, n, _ := pageRegions(page)
		return nil, ashlar.E("read records of", ashlar.Corrupt, c.key.String(),
			&Damage{Regions: []Region{{uint32(first) * ashlar.RegionSize, uint32(n) * ashlar.RegionSize}}, Err: err})
	}
	p = d.decodePage(c, page, b)
	c.mu.Lock()
	defer c.mu.Unlock()
	// A writer may have read the page and changed it meanwhile: then what was
	// read here is old, or torn.
	if c.pages[page] == nil {
		c.pages[page] = p
		d.handles.pages.Add(1)
	}
	return c.pages[page], nil
}

// records copies the records of regions [first, last] to out.
func (d *Disk) records(c *chunk, first, last int, out []region) ([]region, error) {
	for r := first; r <= last; {
		page, slot := metaPageOf(r)
		p, err := d.page(c, page)
		if err != nil {
			return nil, err
		}
		n := perPage
		if page == 0 {
			n = firstPage
		}
		n = min(n-slot, last-r+1)
		c.mu.RLock()
		out = append(out, p.regions[slot:slot+n]...)
		c.mu.RUnlock()
		r += n
	}
	return out, nil
}

// everyRecord returns the records of all regions. It reads the pages at one go
// and keeps none: most pages of a small file's chunk are a hole.
func (d *Disk) everyRecord(c *chunk) ([]region, error) {
	pages := c.pageCount()
	s := scratches.Get().(*scratch)
	defer s.put()
	b := s.bytes(pages * pageSize)
	got, err := c.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return d.records(c, 0, c.regions()-1, nil) // says which page it is
	}
	clear(b[got:])
	out := make([]region, c.regions())
	c.mu.RLock()
	defer c.mu.RUnlock()
	for page := range pages {
		first, n, at := pageRegions(page)
		n = min(n, c.regions()-first)
		raw := b[page*pageSize : (page+1)*pageSize]
		switch p := c.pages[page]; {
		case p != nil: // what was read may be torn by a writer, who keeps the page
			copy(out[first:first+n], p.regions[:n])
		case !bytes.Equal(raw, emptyPage[:]):
			for i := range n {
				out[first+i].decode(raw[at+i*recordSize:], c.salt, first+i)
			}
		}
	}
	return out, nil
}

var emptyPage [pageSize]byte

// pageRegions returns the first region of a page, how many fit, and where in
// the page their records begin.
func pageRegions(page int) (first, n, at int) {
	if page == 0 {
		return 0, firstPage, recordsOff
	}
	return firstPage + (page-1)*perPage, perPage, 0
}

// ioErr turns an error of the file system into one of the disk: no space is
// an answer, anything else loses the disk.
func (d *Disk) ioErr(op string, k Key, err error) error {
	if isNoSpace(err) {
		d.space.exhausted()
		return ashlar.E(op+" chunk", ashlar.NoSpace, k.String(), err)
	}
	return d.lose(fmt.Errorf("%s %v: %w", op, k, err))
}
