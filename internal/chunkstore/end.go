package chunkstore

import "github.com/ashlarfs/ashlar"

// change is what an edit does to the end of what was written.
type change int

const (
	kept change = iota
	wrote
	cut
	imported
)

// regionEnd returns where the last byte written in a region of the edit is,
// once its states are what they will be. It lies in the last block that is
// there; where that is not known it is that block's end. c.wmu must be held.
func (e *edit) regionEnd(i int) uint32 {
	r := &e.regs[i]
	start := uint64(e.r0+i) * ashlar.RegionSize
	at := uint32(min(max(e.end, start)-start, ashlar.RegionSize))
	end := r.end
	switch e.how {
	case wrote:
		end = max(end, at)
	case cut:
		end = min(end, at)
	case imported:
		end = at
	}
	if last := r.blocksEnd(); end > last || end+block <= last {
		return last
	}
	return end
}

// End returns where in the chunk the last byte that was written of [off,
// off+n) is, 0 if nothing is there. It is for putting files together from
// their chunks: the masters know how long they are.
func (d *Disk) End(k Key, off, n uint32) (uint32, error) {
	c, err := d.get(k)
	if err != nil {
		return 0, err
	}
	defer d.handles.release(c)
	if c.state.Load() != opened || off >= c.hdr.size || n == 0 {
		return 0, nil
	}
	n = min(n, c.hdr.size-off)
	first := off / ashlar.RegionSize
	regs, err := d.records(c, int(first), int((off+n-1)/ashlar.RegionSize), nil)
	if err != nil {
		return 0, err
	}
	for i := len(regs) - 1; i >= 0; i-- {
		if end := (first+uint32(i))*ashlar.RegionSize + regs[i].end; regs[i].end > 0 && end > off {
			return min(end, off+n), nil
		}
	}
	return 0, nil
}
