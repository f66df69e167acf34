package chunkstore

import "github.com/ashlarfs/ashlar/internal/wire"

// restate takes over what is said of the file that an opened chunk is part of.
// c.wmu must be held.
func (c *chunk) restate(origin *wire.Origin) {
	o := c.hdr.origin.Restated(origin)
	if o == c.hdr.origin {
		return
	}
	c.mu.Lock()
	c.hdr.origin = o
	c.mu.Unlock()
	c.restated = true
}

// SetOrigin notes in a chunk's header what the masters say of its file: name,
// owner, mode and the time of its last change. Nothing else of the chunk
// changes. One that is not there is no error.
func (d *Disk) SetOrigin(k Key, origin *wire.Origin) error {
	c, err := d.lockForWrite(k)
	if err != nil {
		return err
	}
	defer d.unlock(c)
	if c.state.Load() != opened || c.headless {
		return nil
	}
	if c.restate(origin); !c.restated {
		return nil
	}
	if err := d.markDirty(c); err != nil {
		return err
	}
	b := make([]byte, recordsOff)
	c.hdr.encode(b)
	if _, err := c.f.WriteAt(b, 0); err != nil {
		return d.ioErr("write header of", k, err)
	}
	c.restated = false
	return nil
}
