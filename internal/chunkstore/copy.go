package chunkstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Import stores blocks exported by another member: Off, States, Sums, Data,
// End, ChunkSize, Origin and Replace of in are used. The checksums are verified
// first. Repairs may use most of the reserve of a full disk. A damaged header
// is written anew, and what then is not known of the chunk is Lost. Replace
// first makes the whole chunk absent: until the rest was imported too, the
// chunk must not be served.
func (d *Disk) Import(k Key, in *wire.Copy, epoch ashlar.Epoch) error {
	if err := checkCopy(k, in); err != nil {
		return err
	}
	if in.Replace {
		if err := d.replace(k, in.ChunkSize, epoch); err != nil {
			return err
		}
	}
	if len(in.States) == 0 {
		return nil
	}
	c, err := d.lockForWrite(k)
	if HeaderDamaged(err) {
		if err = d.RestoreHeader(k, in.ChunkSize, in.Origin, epoch); err == nil {
			c, err = d.lockForWrite(k)
		}
	}
	if err != nil {
		return err
	}
	defer d.unlock(c)
	if c.state.Load() == opened && c.hdr.size != in.ChunkSize {
		return ashlar.E("import chunk", ashlar.Invalid, k.String(), fmt.Errorf("chunk size %d, it has %d", in.ChunkSize, c.hdr.size))
	}
	return d.importBlocks(c, in, epoch)
}

func checkCopy(k Key, in *wire.Copy) error {
	bad := func(format string, args ...any) error {
		return ashlar.E("import chunk", ashlar.Invalid, k.String(), fmt.Errorf(format, args...))
	}
	n := uint64(len(in.States)) * block
	if !validChunkSize(in.ChunkSize) || in.Off%block != 0 || uint64(in.Off)+n > uint64(in.ChunkSize) {
		return bad("%d blocks at %d of %d", len(in.States), in.Off, in.ChunkSize)
	}
	data := 0
	for _, s := range in.States {
		if s == Data {
			data++
		} else if s != Absent && s != Zero {
			return bad("block in state %d", s)
		}
	}
	if len(in.Sums) != data || len(in.Data) != data*block {
		return bad("%d blocks of data, %d sums, %d bytes", data, len(in.Sums), len(in.Data))
	}
	if i := checksum.Verify(in.Sums, 0, in.Data); i >= 0 {
		return ashlar.E("import chunk", ashlar.Corrupt, k.String(), fmt.Errorf("checksum of block %d of the data differs", i))
	}
	return nil
}

// importBlocks stores what checkCopy passed. c.wmu must be held.
func (d *Disk) importBlocks(c *chunk, in *wire.Copy, epoch ashlar.Epoch) error {
	e, err := d.edit(c, in.Off, uint32(len(in.States))*block, epoch)
	if err != nil {
		return err
	}
	defer e.s.put()
	e.how, e.end = imported, uint64(in.End)
	if err := d.space.take(e.missing()*block, true); err != nil {
		return err
	}
	if err := d.prepare(c, in.ChunkSize, &in.Origin, epoch); err != nil {
		return err
	}
	var holes []Region
	data, at := in.Data, 0
	for i := 0; i < len(in.States); {
		s, end := in.States[i], i+1
		for end < len(in.States) && in.States[end] == s {
			end++
		}
		if s == Data {
			n := (end - i) * block
			if _, err := c.f.WriteAt(data[:n], c.at(e.b0+i)); err != nil {
				return d.ioErr("write", c.key, err)
			}
			data = data[n:]
		}
		for b := e.b0 + i; b < e.b0+end; b++ {
			was, sum := e.state(b), uint32(0)
			if s == Data {
				sum = in.Sums[at]
				at++
			} else if was == Data || was == Lost {
				holes = addRegion(holes, uint32(b)*block, block)
			}
			e.set(b, s, sum)
		}
		i = end
	}
	if err := d.commit(e); err != nil {
		return err
	}
	return d.punch(c, holes)
}

// replace makes every block of a chunk absent, before all of it is imported.
func (d *Disk) replace(k Key, size uint32, epoch ashlar.Epoch) error {
	c, err := d.lockForWrite(k)
	if ashlar.KindOf(err) == ashlar.Corrupt {
		return d.discard(k)
	}
	if err != nil {
		return err
	}
	same := c.state.Load() == absent || c.hdr.size == size
	if same && c.state.Load() == opened {
		err = d.cutChunk(c, 0, epoch)
	}
	d.unlock(c)
	if err == nil && !same {
		return d.discard(k)
	}
	return err
}

// discard removes a chunk without a durable trace: its place is taken at
// once.
func (d *Disk) discard(k Key) error {
	c := d.handles.acquire(k)
	defer d.handles.release(c)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := d.markDirty(c); err != nil {
		return err
	}
	if err := d.removeFile(k); err != nil {
		return d.ioErr("remove", k, err)
	}
	d.handles.forget(c)
	d.healed.Add(d.rot.gone(k))
	return nil
}

// Accept makes the blocks of [off, off+n) whose checksum does not match what
// they are on the disk: for a chunk that was dirty when the machine or the
// process died, once no member has a good copy (I-8). It returns how many
// blocks it took as read. What can not be read stays damaged.
func (d *Disk) Accept(k Key, off, n uint32, epoch ashlar.Epoch) (blocks int, err error) {
	if off%block != 0 || n%block != 0 || n == 0 {
		return 0, ashlar.E("accept chunk", ashlar.Invalid, k.String(), fmt.Errorf("%d bytes at %d", n, off))
	}
	c, err := d.lockForWrite(k)
	if err != nil {
		return 0, err
	}
	defer d.unlock(c)
	if c.state.Load() == absent || off >= c.hdr.size {
		return 0, nil
	}
	e, err := d.edit(c, off, min(n, c.hdr.size-off), epoch)
	if err != nil {
		return 0, err
	}
	defer e.s.put()
	p := make([]byte, block)
	for b := e.b0; b < e.b1; b++ {
		if s := e.state(b); s != Data && s != Lost {
			continue
		}
		got, err := c.f.ReadAt(p, c.at(b))
		if err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		clear(p[got:])
		if sum := checksum.Of(p); e.state(b) == Lost || e.sum(b) != sum {
			e.set(b, Data, sum)
			blocks++
		}
	}
	if blocks == 0 {
		return 0, nil
	}
	if err := d.prepare(c, c.hdr.size, nil, epoch); err != nil {
		return 0, err
	}
	d.accepted.Add(uint64(blocks))
	return blocks, d.commit(e)
}

// Touch makes all that a chunk holds changed in epoch: after a power loss it
// may lack writes that other members kept, and they are to be given what is
// here.
func (d *Disk) Touch(k Key, epoch ashlar.Epoch) error {
	c, err := d.lockForWrite(k)
	if err != nil {
		return err
	}
	defer d.unlock(c)
	if c.state.Load() == absent {
		return nil
	}
	regs, err := d.everyRecord(c)
	if err != nil {
		return err
	}
	var used []Region
	for i := range regs {
		if regs[i].states != 0 || regs[i].epoch != 0 {
			used = addRegion(used, uint32(i)*ashlar.RegionSize, ashlar.RegionSize)
		}
	}
	if len(used) == 0 {
		return nil
	}
	if err := d.prepare(c, c.hdr.size, nil, epoch); err != nil {
		return err
	}
	for _, r := range used {
		e, err := d.edit(c, r.Off, r.Len, epoch)
		if err != nil {
			return err
		}
		err = d.commit(e)
		e.s.put()
		if err != nil {
			return err
		}
	}
	return nil
}
