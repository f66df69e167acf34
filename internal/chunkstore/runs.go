package chunkstore

import (
	"github.com/ashlarfs/ashlar"
)

// Runs returns where in [off, off+n), widened to whole blocks, a chunk holds
// data, neighbours joined; what is lost counts, since zeros it is not.
func (d *Disk) Runs(k Key, off, n uint32) ([]Region, error) {
	c, err := d.get(k)
	if err != nil {
		return nil, err
	}
	defer d.handles.release(c)
	if n == 0 || c.state.Load() != opened || off >= c.hdr.size {
		return nil, nil
	}
	s := scratches.Get().(*scratch)
	defer s.put()
	b0, b1 := int(off/block), int((off+min(n, c.hdr.size-off)-1)/block)
	r0 := b0 / perRegion
	regs, err := d.records(c, r0, b1/perRegion, s.regs[:0])
	if err != nil {
		return nil, err
	}
	s.regs = regs
	var out []Region
	for b := b0; b <= b1; b++ {
		if st := regs[b/perRegion-r0].state(b % perRegion); st == Data || st == Lost {
			out = addRegion(out, uint32(b)*block, block)
		}
	}
	return out, nil
}

// NextChunk returns the lowest index above after that a layer has a chunk of
// in a group, and false if there is none.
func (d *Disk) NextChunk(g ashlar.PGID, layer ashlar.LayerID, after uint32) (index uint32, ok bool, err error) {
	if err := d.Failed(); err != nil {
		return 0, false, err
	}
	err = d.names(g, slotOf(layer), func(k Key) {
		if k.Layer == layer && k.Index > after && (!ok || k.Index < index) {
			index, ok = k.Index, true
		}
	})
	if err != nil {
		return 0, false, ashlar.E("list chunks", ashlar.IO, d.dir, err)
	}
	return index, ok, nil
}
