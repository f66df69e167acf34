package chunkstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	block = ashlar.BlockSize
	// gatherMax is the most bytes that an unaligned write is copied for, to
	// be written by one call.
	gatherMax = 64 << 10
	// writebackRun is how much is written of a part of a chunk before the kernel is
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
	// ChunkSize and Origin go into the header of a chunk made by this write;
	// ChunkSize must be that of an existing one.
	ChunkSize uint32
	wire.Origin
	Epoch ashlar.Epoch
}

// Damage says which blocks of a chunk are damaged. It is the detail of an
// error of kind Corrupt.
type Damage struct {
	Regions []Region
	// Header says that the chunk's header is damaged, and so all of it, until
	// RestoreHeader or an Import.
	Header bool
	Err    error // what was found, if more is known
}

// Error implements error.
func (e *Damage) Error() string {
	s := "damaged"
	switch {
	case e.Header:
		s = "its header is damaged"
	case len(e.Regions) > 0:
		s = fmt.Sprintf("%d damaged ranges, the first %d bytes at %d", len(e.Regions), e.Regions[0].Len, e.Regions[0].Off)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// headerDamage is the error of a chunk whose header can not be believed.
func headerDamage(k Key, err error) error {
	return ashlar.E("open chunk", ashlar.Corrupt, k.String(),
		&Damage{Regions: []Region{{0, ashlar.ChunkSizeMax}}, Header: true, Err: err})
}

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
	return ashlar.E("write chunk", ashlar.Corrupt, e.c.key.String(), &Damage{Regions: []Region{{uint32(b) * block, block}}})
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

// written notes a write and returns a range to write back, if as much was
// written to a part of the chunk as it has room: in whatever order, for a
// client sends the pieces of a stream side by side. c.wmu must be held.
func (c *chunk) written(off, n uint32) (lo, length int64) {
	if c.unbacked == nil {
		c.unbacked = make([]uint32, (c.hdr.size+writebackRun-1)/writebackRun)
	}
	part := off / writebackRun // a write across two counts for the first
	if c.unbacked[part] += n; c.unbacked[part] < min(writebackRun, c.hdr.size) {
		return 0, 0
	}
	c.unbacked[part] = 0
	return dataOff(c.hdr.size) + int64(part)*writebackRun, writebackRun
}

func (d *Disk) writeData(c *chunk, w *Write) error {
	e, err := d.edit(c, w.Off, w.Len, w.Epoch)
	if err != nil {
		return err
	}
	defer e.s.put()
	e.how, e.end = wrote, uint64(w.Off)+uint64(w.Len)
	if err := d.space.take(e.missing()*block, false); err != nil {
		return err
	}
	pieces, err := d.gather(e, w)
	if err != nil {
		return err
	}
	if err := d.prepare(c, w.ChunkSize, &w.Origin, w.Epoch); err != nil {
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
	e.how, e.end = wrote, uint64(w.Off)+uint64(w.Len)
	return d.zeroRange(e, w.Off, w.Off+w.Len, Zero, w.ChunkSize, &w.Origin)
}

// zeroRange makes [off, end), which the edit covers, zeros: whole blocks get
// the state, those cut by an edge keep their other bytes.
func (d *Disk) zeroRange(e *edit, off, end uint32, state State, size uint32, origin *wire.Origin) error {
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
	if err := d.prepare(e.c, size, origin, e.epoch); err != nil {
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
