package chunkstore

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
)

const (
	block = ashlar.BlockSize
	// gatherMax is the most bytes that an unaligned write is copied for, to
	// be written by one call.
	gatherMax = 64 << 10
	// writebackRun is how much is written in sequence before the kernel is
	// asked to begin writing it back, in bytes.
	writebackRun = 8 << 20
)

// Write is a write of a range of a chunk.
type Write struct {
	Off, Len uint32
	// Zero makes the range zeros; there is no Data.
	Zero bool
	Data []byte
	// Sums are CRC-32C, one for each piece of Data that lies in one block.
	Sums []uint32
	// ChunkSize, Owner and Hint go into the header of a chunk made by this
	// write; ChunkSize must be that of an existing one.
	ChunkSize uint32
	Owner     ashlar.Inode
	Hint      string
	Epoch     ashlar.Epoch
}

// Damage says which blocks of a chunk are damaged. It is the detail of an
// error of kind Corrupt.
type Damage struct{ Regions []Region }

// Error implements error.
func (e *Damage) Error() string {
	if len(e.Regions) == 0 {
		return "damaged"
	}
	return fmt.Sprintf("%d damaged ranges, the first %d bytes at %d", len(e.Regions), e.Regions[0].Len, e.Regions[0].Off)
}

// scratch is the memory of one operation.
type scratch struct {
	regs []region
	buf  []byte
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
	s      *scratch
}

// edit begins a change of [off, off+n). c.wmu must be held.
func (d *Disk) edit(c *chunk, off, n uint32, epoch ashlar.Epoch) (*edit, error) {
	e := &edit{c: c, b0: int(off / block), b1: int((uint64(off) + uint64(n) + block - 1) / block), epoch: epoch}
	e.r0 = e.b0 / perRegion
	last := (e.b1 - 1) / perRegion
	e.s = scratches.Get().(*scratch)
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

// old fills p with a block as it is, verified.
func (d *Disk) old(e *edit, b int, p []byte) error {
	switch e.state(b) {
	case Absent, Zero:
		clear(p)
		return nil
	case Data:
		n, err := e.c.f.ReadAt(p, e.c.at(b))
		if err == nil || errors.Is(err, io.EOF) {
			clear(p[n:])
			if checksum.Of(p) == e.sum(b) {
				return nil
			}
		}
	}
	d.damaged.Add(1)
	return ashlar.E("write chunk", ashlar.Corrupt, e.c.key.String(), &Damage{[]Region{{uint32(b) * block, block}}})
}

// Write stores a range, or zeros. The checksums are verified before anything
// is stored; a block written in part is merged with what is there, which is
// verified first. It fails with Corrupt (a checksum of the data differs, or,
// with a *Damage, the old block is damaged), NoSpace, Invalid, or IO once the
// disk is lost. Writes to ranges that overlap are ordered by the caller.
func (d *Disk) Write(k Key, w *Write) error {
	if err := w.check(k); err != nil || w.Len == 0 {
		return err
	}
	c, err := d.lockForWrite(k)
	if err != nil {
		return err
	}
	if c.state.Load() == opened && c.hdr.size != w.ChunkSize {
		d.unlock(c)
		return ashlar.E("write chunk", ashlar.Invalid, k.String(), fmt.Errorf("chunk size %d, it has %d", w.ChunkSize, c.hdr.size))
	}
	if w.Zero {
		err = d.writeZero(c, w)
	} else {
		err = d.writeData(c, w)
	}
	lo, n := int64(0), int64(0)
	if err == nil && !w.Zero {
		lo, n = c.written(w.Off, w.Len)
	}
	c.wmu.Unlock()
	if n > 0 {
		_ = c.f.Writeback(lo, n) // only a hint; Sync tells of errors
	}
	d.handles.release(c)
	return err
}

func (w *Write) check(k Key) error {
	if !validChunkSize(w.ChunkSize) || uint64(w.Off)+uint64(w.Len) > uint64(w.ChunkSize) || !w.Zero && len(w.Data) != int(w.Len) {
		return ashlar.E("write chunk", ashlar.Invalid, k.String(),
			fmt.Errorf("%d bytes of data for %d at %d of %d", len(w.Data), w.Len, w.Off, w.ChunkSize))
	}
	if !w.Zero {
		if i := checksum.Verify(w.Sums, uint64(w.Off), w.Data); i >= 0 {
			return ashlar.E("write chunk", ashlar.Corrupt, k.String(), fmt.Errorf("checksum of fragment %d of the data differs", i))
		}
	}
	return nil
}

// written notes a write and returns a range to write back, if a long enough
// run was completed. c.wmu must be held.
func (c *chunk) written(off, n uint32) (lo, length int64) {
	at := dataOff(c.hdr.size) + int64(off)
	if at != c.wbHi {
		c.wbLo = at
	}
	c.wbHi = at + int64(n)
	if c.wbHi-c.wbLo < writebackRun {
		return 0, 0
	}
	lo, length = c.wbLo, c.wbHi-c.wbLo
	c.wbLo = c.wbHi
	return lo, length
}

func (d *Disk) writeData(c *chunk, w *Write) error {
	e, err := d.edit(c, w.Off, w.Len, w.Epoch)
	if err != nil {
		return err
	}
	defer e.s.put()
	if err := d.space.take(e.missing()*block, false); err != nil {
		return err
	}
	pieces, err := d.gather(e, w)
	if err != nil {
		return err
	}
	if err := d.prepare(c, w.ChunkSize, w.Owner, w.Hint, w.Epoch); err != nil {
		return err
	}
	at := c.at(e.b0)
	for _, p := range pieces {
		if len(p) == 0 {
			continue
		}
		if _, err := c.f.WriteAt(p, at); err != nil {
			return d.ioErr("write", c.key, err)
		}
		at += int64(len(p))
	}
	return d.commit(e)
}

// gather returns whole blocks to be written, up to three pieces that follow
// each other, and puts their checksums into the records. Blocks written in
// part are merged with the old ones.
func (d *Disk) gather(e *edit, w *Write) (pieces [3][]byte, err error) {
	head, tail := int(w.Off%block), int((w.Off+w.Len)%block)
	if head == 0 && tail == 0 {
		for b := e.b0; b < e.b1; b++ {
			e.set(b, Data, w.Sums[b-e.b0])
		}
		pieces[0] = w.Data
		return pieces, nil
	}
	blocks := e.b1 - e.b0
	whole := blocks*block <= gatherMax
	n := 2
	if whole {
		n = blocks
	}
	buf := e.s.bytes(n * block)
	firstPart := head != 0 || blocks == 1
	lastPart := tail != 0 && blocks > 1
	data, mid := w.Data, w.Data
	if firstPart {
		if err := d.old(e, e.b0, buf[:block]); err != nil {
			return pieces, err
		}
		k := copy(buf[head:block], data)
		mid = mid[k:]
	}
	if lastPart {
		p := buf[len(buf)-block:]
		if err := d.old(e, e.b1-1, p); err != nil {
			return pieces, err
		}
		copy(p, data[len(data)-tail:])
		mid = mid[:len(mid)-tail]
	}
	for b := e.b0; b < e.b1; b++ {
		switch {
		case b == e.b0 && firstPart:
			e.set(b, Data, checksum.Of(buf[:block]))
		case b == e.b1-1 && lastPart:
			e.set(b, Data, checksum.Of(buf[len(buf)-block:]))
		default:
			e.set(b, Data, w.Sums[b-e.b0])
		}
	}
	first, last := 0, len(buf)
	if firstPart {
		first = block
	}
	if lastPart {
		last -= block
	}
	if whole {
		copy(buf[first:last], mid)
		pieces[0] = buf
		return pieces, nil
	}
	pieces[0], pieces[1], pieces[2] = buf[:first], mid, buf[len(buf)-(len(buf)-last):]
	return pieces, nil
}

func (d *Disk) writeZero(c *chunk, w *Write) error {
	e, err := d.edit(c, w.Off, w.Len, w.Epoch)
	if err != nil {
		return err
	}
	defer e.s.put()
	return d.zeroRange(e, w.Off, w.Off+w.Len, Zero, w.ChunkSize, w.Owner, w.Hint)
}

// zeroRange makes [off, end), which the edit covers, zeros: whole blocks get
// the state, those cut by an edge keep their other bytes.
func (d *Disk) zeroRange(e *edit, off, end uint32, state State, size uint32, owner ashlar.Inode, hint string) error {
	var edges [2]struct {
		b int
		p []byte
	}
	n := 0
	var holes []Region
	buf := e.s.bytes(2 * block)
	for b := e.b0; b < e.b1; b++ {
		lo, hi := max(off, uint32(b)*block)-uint32(b)*block, min(uint64(end), uint64(b+1)*block)-uint64(b)*block
		was := e.state(b)
		if (lo > 0 || hi < block) && (was == Data || was == Lost) {
			p := buf[n*block : (n+1)*block]
			if err := d.old(e, b, p); err != nil {
				return err
			}
			clear(p[lo:hi])
			edges[n].b, edges[n].p = b, p
			n++
			e.set(b, Data, checksum.Of(p))
			continue
		}
		if was == Data {
			holes = addRegion(holes, uint32(b)*block, block)
		}
		if lo > 0 || hi < block {
			continue // zeros already
		}
		e.set(b, state, 0)
	}
	if err := d.prepare(e.c, size, owner, hint, e.epoch); err != nil {
		return err
	}
	for _, x := range edges[:n] {
		if _, err := e.c.f.WriteAt(x.p, e.c.at(x.b)); err != nil {
			return d.ioErr("write", e.c.key, err)
		}
	}
	// The record goes first: until it says so, the data is still asked for.
	if err := d.commit(e); err != nil {
		return err
	}
	return d.punch(e.c, holes)
}

// punch gives the room of blocks that hold no data any more back.
func (d *Disk) punch(c *chunk, holes []Region) error {
	for _, h := range holes {
		if err := c.f.PunchHole(dataOff(c.hdr.size)+int64(h.Off), int64(h.Len)); err != nil {
			return d.ioErr("punch hole into", c.key, err)
		}
	}
	return nil
}

func addRegion(rs []Region, off, n uint32) []Region {
	if i := len(rs) - 1; i >= 0 && rs[i].Off+rs[i].Len == off {
		rs[i].Len += n
		return rs
	}
	return append(rs, Region{off, n})
}

// prepare makes the chunk durably marked dirty (I-8) and gives it a file. c.wmu
// must be held.
func (d *Disk) prepare(c *chunk, size uint32, owner ashlar.Inode, hint string, epoch ashlar.Epoch) error {
	err := d.markDirty(c)
	if err != nil || c.state.Load() != absent {
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
	if len(hint) > HintMax {
		hint = hint[len(hint)-HintMax:]
	}
	c.mu.Lock()
	c.hdr = chunkHeader{cluster: d.id.cluster, key: c.key, size: size, owner: owner, hint: hint, changed: epoch}
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
// chunk's first change or its first in this epoch. The header is never newer
// than needed: it goes first, or in the same write. c.wmu must be held.
func (d *Disk) commit(e *edit) error {
	c := e.c
	for i := range e.regs {
		e.regs[i].epoch = e.epoch
	}
	end := e.r0 + len(e.regs)
	from := e.r0
	d.fillPages(c, e.r0, end)
	hdr := c.hdr
	fresh := c.headless || hdr.changed < e.epoch
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
	c.headless = false
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
