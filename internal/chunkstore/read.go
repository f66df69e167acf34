package chunkstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
)

func (d *Disk) checkRange(op string, k Key, off, n uint32, dst []byte) error {
	if off%block != 0 || n%block != 0 || n == 0 || uint64(off)+uint64(n) > ashlar.ChunkSizeMax || uint32(len(dst)) < n {
		return ashlar.E(op, ashlar.Invalid, k.String(), fmt.Errorf("%d bytes at %d into %d", n, off, len(dst)))
	}
	return nil
}

// Read reads blocks [off, off+n) into dst and returns their checksums, which
// were compared with the data. zero says that there is no data: dst is
// untouched and there are no sums. Blocks that are absent read as zeros. If a
// block is damaged the error is Corrupt with a *Damage; one that is only being
// written meanwhile is not damaged.
func (d *Disk) Read(k Key, off, n uint32, dst []byte) (sums []uint32, zero bool, err error) {
	if err := d.checkRange("read chunk", k, off, n, dst); err != nil {
		return nil, false, err
	}
	c, err := d.get(k)
	if err != nil {
		return nil, false, err
	}
	defer d.handles.release(c)
	if c.state.Load() != opened {
		return nil, true, nil
	}
	if off+n > c.hdr.size {
		return nil, false, ashlar.E("read chunk", ashlar.Invalid, k.String(), fmt.Errorf("%d bytes at %d of %d", n, off, c.hdr.size))
	}
	s := scratches.Get().(*scratch)
	defer s.put()
	v, err := d.view(c, off, n, dst, s)
	if err != nil {
		return nil, false, err
	}
	if !v.hasData() {
		return nil, true, nil
	}
	return v.allSums(), false, nil
}

// view is blocks that were read, with their records.
type view struct {
	b0, b1 int
	r0     int
	regs   []region
}

func (v *view) state(b int) State { return v.regs[b/perRegion-v.r0].state(b % perRegion) }
func (v *view) sum(b int) uint32  { return v.regs[b/perRegion-v.r0].sums[b%perRegion] }

func (v *view) hasData() bool {
	for b := v.b0; b < v.b1; b++ {
		if v.state(b) == Data {
			return true
		}
	}
	return false
}

func (v *view) allSums() []uint32 {
	sums := make([]uint32, 0, v.b1-v.b0)
	for b := v.b0; b < v.b1; b++ {
		if v.state(b) == Data {
			sums = append(sums, v.sum(b))
		} else {
			sums = append(sums, checksum.Zero)
		}
	}
	return sums
}

// view reads and verifies blocks of an opened chunk. What does not verify is
// read again with writers kept out.
func (d *Disk) view(c *chunk, off, n uint32, dst []byte, s *scratch) (*view, error) {
	v, bad, err := d.tryView(c, off, n, dst, s)
	if err == nil && len(bad) > 0 {
		c.wmu.Lock()
		v, bad, err = d.tryView(c, off, n, dst, s)
		c.wmu.Unlock()
	}
	if err != nil {
		return v, err
	}
	if len(bad) == 0 {
		d.healed.Add(d.rot.sound(c.key, v.b0, v.b1))
		return v, nil
	}
	d.damaged.Add(d.rot.found(c.key, bad))
	return v, ashlar.E("read chunk", ashlar.Corrupt, c.key.String(), &Damage{Regions: bad})
}

func (d *Disk) tryView(c *chunk, off, n uint32, dst []byte, s *scratch) (v *view, bad []Region, err error) {
	v = &s.view
	*v = view{b0: int(off / block), b1: int((off + n) / block)}
	v.r0 = v.b0 / perRegion
	s.regs, err = d.records(c, v.r0, (v.b1-1)/perRegion, s.regs[:0])
	if err != nil {
		return nil, nil, err
	}
	v.regs = s.regs
	for b := v.b0; b < v.b1; {
		state, end := v.state(b), b+1
		for end < v.b1 && v.state(end) == state {
			end++
		}
		p := dst[(b-v.b0)*block : (end-v.b0)*block]
		switch state {
		case Data:
			bad = d.readRun(c, v, b, p, bad)
		case Lost:
			bad = addRegion(bad, uint32(b)*block, uint32(len(p)))
		default:
			clear(p)
		}
		b = end
	}
	return v, bad, nil
}

// readRun reads blocks that have data and appends those that are damaged.
func (d *Disk) readRun(c *chunk, v *view, b int, p []byte, bad []Region) []Region {
	got, err := c.f.ReadAt(p, c.at(b))
	if err != nil && !errors.Is(err, io.EOF) {
		if len(p) == block {
			return addRegion(bad, uint32(b)*block, block)
		}
		for i := 0; i < len(p); i += block { // find out which
			bad = d.readRun(c, v, b+i/block, p[i:i+block], bad)
		}
		return bad
	}
	clear(p[got:])
	for i := 0; i < len(p); i += block {
		if checksum.Of(p[i:i+block]) != v.sum(b+i/block) {
			bad = addRegion(bad, uint32(b*block+i), block)
		}
	}
	return bad
}

// Export reads blocks as they are kept, for another member: the state of each
// block and, of those that are Data, the checksum and the contents, packed
// into dst. Damage is an error, as in Read. Beyond the end of the chunk and in
// a chunk that is not there, blocks are absent.
func (d *Disk) Export(k Key, off, n uint32, dst []byte) (states []byte, sums []uint32, data []byte, err error) {
	if err := d.checkRange("export chunk", k, off, n, dst); err != nil {
		return nil, nil, nil, err
	}
	c, err := d.get(k)
	if err != nil {
		return nil, nil, nil, err
	}
	defer d.handles.release(c)
	states = make([]byte, n/block)
	if c.state.Load() != opened || off >= c.hdr.size {
		return states, nil, nil, nil
	}
	s := scratches.Get().(*scratch)
	defer s.put()
	v, err := d.view(c, off, min(n, c.hdr.size-off), dst, s)
	if err != nil {
		return nil, nil, nil, err
	}
	at := 0
	for b := v.b0; b < v.b1; b++ {
		i := b - v.b0
		states[i] = v.state(b)
		if states[i] == Data {
			sums = append(sums, v.sum(b))
			at += copy(dst[at:], dst[i*block:(i+1)*block])
		}
	}
	return states, sums, dst[:at], nil
}

// Holds tells whether every block that [off, off+n) touches holds data: writing
// there takes no room.
func (d *Disk) Holds(k Key, off, n uint32) (bool, error) {
	c, err := d.get(k)
	if err != nil {
		return false, err
	}
	defer d.handles.release(c)
	if n == 0 || c.state.Load() != opened || uint64(off)+uint64(n) > uint64(c.hdr.size) {
		return false, nil
	}
	s := scratches.Get().(*scratch)
	defer s.put()
	b0, b1 := int(off/block), int((off+n-1)/block)
	regs, err := d.records(c, b0/perRegion, b1/perRegion, s.regs)
	if err != nil {
		return false, err
	}
	s.regs = regs
	for b := b0; b <= b1; b++ {
		if regs[b/perRegion-b0/perRegion].state(b%perRegion) != Data {
			return false, nil
		}
	}
	return true, nil
}

// Sums returns the state and checksum of every block of a chunk up to the
// last that is not absent, without reading the data.
func (d *Disk) Sums(k Key) (states []byte, sums []uint32, err error) {
	regs, err := d.allRecords(k)
	if err != nil {
		return nil, nil, err
	}
	end := 0
	for i := range regs {
		for b := range perRegion {
			states = append(states, regs[i].state(b))
			sums = append(sums, regs[i].sums[b])
			if regs[i].state(b) != Absent {
				end = len(states)
			}
		}
	}
	return states[:end], sums[:end], nil
}

// allRecords returns the records of a chunk, none if it is not there.
func (d *Disk) allRecords(k Key) ([]region, error) {
	c, err := d.get(k)
	if err != nil {
		return nil, err
	}
	defer d.handles.release(c)
	if c.state.Load() != opened {
		return nil, nil
	}
	return d.everyRecord(c)
}

// ChangedRegions returns the ranges of a chunk last changed in an epoch after
// since, in units of ashlar.RegionSize, neighbours joined. A region whose
// record is damaged counts as changed.
func (d *Disk) ChangedRegions(k Key, since ashlar.Epoch) ([]Region, error) {
	regs, err := d.allRecords(k)
	if err != nil {
		return nil, err
	}
	var out []Region
	for i := range regs {
		if regs[i].epoch > since {
			out = addRegion(out, uint32(i)*ashlar.RegionSize, ashlar.RegionSize)
		}
	}
	return out, nil
}

// verifyStep is how much Verify reads at a time, in bytes.
const verifyStep = 1 << 20

// Verify reads all data of a chunk, for scrubbing. It returns how many bytes
// that were, and the blocks whose checksum differs or that can not be read.
func (d *Disk) Verify(k Key) (n uint64, bad []Region, err error) {
	c, err := d.get(k)
	if err != nil {
		return 0, nil, err
	}
	defer d.handles.release(c)
	if c.state.Load() != opened {
		return 0, nil, nil
	}
	regs, err := d.everyRecord(c)
	var damage *Damage
	if errors.As(err, &damage) {
		return 0, damage.Regions, nil
	} else if err != nil {
		return 0, nil, err
	}
	s := scratches.Get().(*scratch)
	defer s.put()
	buf := s.bytes(int(min(verifyStep, c.hdr.size)))
	for off := uint32(0); off < c.hdr.size; off += uint32(len(buf)) {
		first := int(off / ashlar.RegionSize)
		held := dataBytes(regs[first : first+len(buf)/ashlar.RegionSize])
		if n += held; held == 0 {
			continue // absent or zero throughout: most of a small file's chunk
		}
		_, err := d.view(c, off, uint32(len(buf)), buf, s)
		if errors.As(err, &damage) {
			for _, r := range damage.Regions {
				bad = addRegion(bad, r.Off, r.Len)
			}
		} else if err != nil {
			return n, bad, err
		}
	}
	return n, bad, nil
}

// dataBytes returns how many bytes of regions are neither absent nor zero.
func dataBytes(regs []region) (n uint64) {
	for i := range regs {
		if regs[i].states == 0 {
			continue
		}
		for b := range perRegion {
			if s := regs[i].state(b); s == Data || s == Lost {
				n += block
			}
		}
	}
	return n
}
