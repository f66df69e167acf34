package chunkstore

import (
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// scratch is the memory of one operation.
type scratch struct {
	regs []region
	buf  []byte
	edit edit
	view view
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) bytes(n int) []byte {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	return s.buf[:n]
}

func (s *scratch) put() {
	s.regs = s.regs[:0]
	s.edit, s.view = edit{}, view{}
	scratches.Put(s)
}

// edit is a range of blocks of a chunk being changed and the records of the
// regions they are in.
type edit struct {
	c      *chunk
	b0, b1 int // blocks
	r0     int // first region
	regs   []region
	epoch  ashlar.Epoch
	how    change
	end    uint64 // of what is written, or where it is cut, in the chunk
	s      *scratch
}

// edit begins a change of [off, off+n). c.wmu must be held.
func (d *Disk) edit(c *chunk, off, n uint32, epoch ashlar.Epoch) (*edit, error) {
	s := scratches.Get().(*scratch)
	e := &s.edit
	*e = edit{c: c, b0: int(off / block), b1: int((uint64(off) + uint64(n) + block - 1) / block), epoch: epoch, s: s}
	e.r0 = e.b0 / perRegion
	last := (e.b1 - 1) / perRegion
	if c.state.Load() != opened {
		for range last - e.r0 + 1 {
			e.s.regs = append(e.s.regs, region{})
		}
		e.regs = e.s.regs
		return e, nil
	}
	regs, err := d.records(c, e.r0, last, e.s.regs)
	if err != nil {
		e.s.put()
		return nil, err
	}
	e.s.regs, e.regs = regs, regs
	return e, nil
}

func (e *edit) state(b int) State { return e.regs[b/perRegion-e.r0].state(b % perRegion) }
func (e *edit) sum(b int) uint32  { return e.regs[b/perRegion-e.r0].sums[b%perRegion] }
func (e *edit) set(b int, s State, sum uint32) {
	if s != Data {
		sum = 0
	}
	e.regs[b/perRegion-e.r0].set(b%perRegion, s, sum)
}

// missing counts the blocks of the range that hold no data yet.
func (e *edit) missing() (n uint64) {
	for b := e.b0; b < e.b1; b++ {
		if e.state(b) != Data {
			n++
		}
	}
	return n
}

func (c *chunk) at(b int) int64 { return dataOff(c.hdr.size) + int64(b)*block }

// prepare makes the chunk durably marked dirty (I-8) and gives it a file. c.wmu
// must be held.
// What a writer says of the file replaces what the header said.
func (d *Disk) prepare(c *chunk, size uint32, origin *wire.Origin, epoch ashlar.Epoch) error {
	err := d.markDirty(c)
	if err != nil || c.state.Load() != absent {
		if err == nil && origin != nil {
			c.restate(origin)
		}
		return err
	}
	if c.f == nil {
		c.f, err = d.createFile(c.key)
	} else { // left without a header by a crash: begin again
		err = c.f.Truncate(0)
	}
	if err != nil {
		return d.ioErr("create", c.key, err)
	}
	c.mu.Lock()
	c.hdr = chunkHeader{cluster: d.id.cluster, key: c.key, size: size, changed: epoch}
	if origin != nil {
		c.hdr.origin = *origin
		c.hdr.origin.Hint = origin.Hint[max(0, len(origin.Hint)-HintMax):]
	}
	c.pages = make([]*metaPage, c.pageCount())
	c.pages[0] = &metaPage{}
	c.mu.Unlock()
	c.headless = true
	d.handles.pages.Add(1)
	c.state.Store(opened)
	return nil
}

// markDirty returns when a mark of the chunk is durable. c.wmu must be held.
func (d *Disk) markDirty(c *chunk) error {
	if c.dirty {
		return nil
	}
	if d.unsynced.add(c.key) > unsyncedMax {
		d.kick()
	}
	if err := d.marks.ensure(c.key, c.state.Load() == absent); err != nil {
		return err
	}
	c.dirty = true
	return nil
}

// commit writes the records of an edit, and the header if this is the
// chunk's first change or its first in this epoch, or its file has another
// name. The header is never newer
// than needed: it goes first, or in the same write. c.wmu must be held.
func (d *Disk) commit(e *edit) error {
	c := e.c
	for i := range e.regs {
		e.regs[i].epoch = e.epoch
		e.regs[i].end = e.regionEnd(i)
	}
	end := e.r0 + len(e.regs)
	from := e.r0
	d.fillPages(c, e.r0, end)
	hdr := c.hdr
	fresh := c.headless || c.restated || hdr.changed < e.epoch
	hdr.changed = max(hdr.changed, e.epoch)
	var b []byte
	switch {
	case fresh && e.r0 < firstPage:
		b = e.s.bytes(int(recordOff(end)))
		hdr.encode(b)
		c.encodeFirst(b[recordsOff:], e.r0)
		from = 0
	case fresh:
		b = e.s.bytes(recordsOff)
		hdr.encode(b)
		if _, err := c.f.WriteAt(b, 0); err != nil {
			return d.ioErr("write header of", c.key, err)
		}
		fallthrough
	default:
		b = e.s.bytes(len(e.regs) * recordSize)
	}
	at := recordOff(from)
	recs := b
	if from != e.r0 || fresh && e.r0 < firstPage {
		recs, at = b[recordOff(e.r0):], 0
	}
	for i := range e.regs {
		e.regs[i].encode(recs[i*recordSize:], c.salt, e.r0+i)
	}
	if _, err := c.f.WriteAt(b, at); err != nil {
		return d.ioErr("write records of", c.key, err)
	}
	c.headless, c.restated = false, false
	c.mu.Lock()
	c.hdr.changed = hdr.changed
	c.cache(e.r0, e.regs)
	c.mu.Unlock()
	return nil
}

// fillPages makes the pages of records [first, end) cached, before they are
// written: a reader that reads them meanwhile keeps ours. One that is not
// cached yet is of a chunk made just now, and empty.
func (d *Disk) fillPages(c *chunk, first, end int) {
	lo, _ := metaPageOf(first)
	hi, _ := metaPageOf(end - 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := lo; p <= hi; p++ {
		if c.pages[p] == nil {
			c.pages[p] = &metaPage{}
			d.handles.pages.Add(1)
		}
	}
}

// encodeFirst encodes the first n regions as they are. c.wmu must be held.
func (c *chunk) encodeFirst(b []byte, n int) {
	for i := range n {
		r := &c.pages[0].regions[i]
		if r.states == 0 && r.epoch == 0 {
			clear(b[i*recordSize : (i+1)*recordSize])
			continue
		}
		r.encode(b[i*recordSize:], c.salt, i)
	}
}

// cache puts records where readers find them. c.mu must be held; pages that
// are not cached need nothing.
func (c *chunk) cache(first int, regs []region) {
	for i := range regs {
		page, slot := metaPageOf(first + i)
		if p := c.pages[page]; p != nil {
			p.regions[slot] = regs[i]
		}
	}
}
