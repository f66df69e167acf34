package chunkstore

import (
	"errors"
	"io"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// RestoreHeader writes the header of a chunk anew if it is damaged, by what
// another member says of the chunk. Its records and data stay. A record that
// is damaged too makes its blocks Lost, as ever, and so does one that is all
// zeros: whatever zeroed the header may have zeroed that. The chunk counts as
// changed in epoch. It may be done at any time: writes to the chunk fail until
// then.
func (d *Disk) RestoreHeader(k Key, size uint32, origin wire.Origin, epoch ashlar.Epoch) error {
	if !validChunkSize(size) {
		return ashlar.E("restore header of", ashlar.Invalid, k.String(), errors.New("chunk size"))
	}
	c := d.handles.acquire(k)
	defer d.handles.release(c)
	err := d.open(c)
	if !HeaderDamaged(err) {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.state.Load() != unopened {
		return nil // somebody else did it
	}
	f, err := d.fs.Open(d.chunkPath(k))
	if err != nil {
		return d.ioErr("open", k, err)
	}
	defer f.Close()
	if h := origin.Hint; len(h) > HintMax {
		origin.Hint = h[len(h)-HintMax:]
	}
	if err := d.markDirty(c); err != nil {
		return err
	}
	if err := d.loseZeros(c, f, size, epoch); err != nil {
		return err
	}
	h := chunkHeader{cluster: d.id.cluster, key: k, size: size, origin: origin, changed: epoch}
	b := make([]byte, recordsOff)
	h.encode(b)
	if _, err := f.WriteAt(b, 0); err != nil {
		return d.ioErr("write header of", k, err)
	}
	return nil
}

// loseZeros makes the blocks Lost whose records are all zeros, durably: the
// header must not be there before. c.wmu must be held.
func (d *Disk) loseZeros(c *chunk, f vfs.File, size uint32, epoch ashlar.Epoch) error {
	b := make([]byte, recordSize*int(size/ashlar.RegionSize))
	if _, err := f.ReadAt(b, recordsOff); err != nil && !errors.Is(err, io.EOF) {
		return d.ioErr("read records of", c.key, err)
	}
	lost := region{states: allLost, epoch: epoch}
	for i := 0; i < len(b); i += recordSize {
		if isZero(b[i : i+recordSize]) {
			lost.encode(b[i:], c.salt, i/recordSize)
		}
	}
	if _, err := f.WriteAt(b, recordsOff); err != nil {
		return d.ioErr("write records of", c.key, err)
	}
	if err := f.Sync(); err != nil {
		return d.lose(err)
	}
	return nil
}

// HeaderDamaged tells whether an error says that the header of a chunk is
// damaged, so that nothing of the chunk can be used before RestoreHeader.
func HeaderDamaged(err error) bool {
	var damage *Damage
	return errors.As(err, &damage) && damage.Header
}
