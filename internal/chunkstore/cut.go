package chunkstore

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Truncate durably cuts a chunk to n bytes: the rest of its last block becomes
// zeros, later blocks absent; with n 0 the chunk is removed. Cutting a chunk
// that is not there does nothing.
func (d *Disk) Truncate(k Key, n uint32, epoch ashlar.Epoch) error {
	if err := d.truncate(k, n, epoch); err != nil {
		return err
	}
	return d.settle(k.Group, []ashlar.LayerID{k.Layer})
}

// settle makes removals and cuts of layers durable.
func (d *Disk) settle(g ashlar.PGID, layers []ashlar.LayerID) error {
	slots := map[uint8]bool{}
	for _, l := range layers {
		if err := d.SyncLayer(g, l); err != nil {
			return err
		}
		slots[slotOf(l)] = true
	}
	for s := range slots {
		if err := d.syncDir(g, s); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) truncate(k Key, n uint32, epoch ashlar.Epoch) error {
	if n == 0 {
		return d.remove(k)
	}
	c, err := d.lockForWrite(k)
	if err != nil {
		return err
	}
	defer d.unlock(c)
	if c.state.Load() == absent || n >= c.hdr.size {
		return nil
	}
	return d.cutChunk(c, n, epoch)
}

// cutChunk makes everything from n on absent. c.wmu must be held.
func (d *Disk) cutChunk(c *chunk, n uint32, epoch ashlar.Epoch) error {
	e, err := d.edit(c, n, c.hdr.size-n, epoch)
	if err != nil {
		return err
	}
	defer e.s.put()
	// Regions past the last one that ever held anything need no record. The
	// others get the epoch also when they are empty already: a cut that was
	// not made on all members in its epoch is made again in the next, and a
	// member that missed the first has to be sent them.
	last := -1
	for i := range e.regs {
		if e.regs[i].states != 0 || e.regs[i].epoch != 0 {
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	e.regs = e.regs[:last+1]
	e.b1 = min(e.b1, (e.r0+last+1)*perRegion)
	e.how, e.end = cut, uint64(n)
	return d.zeroRange(e, n, c.hdr.size, Absent, c.hdr.size, &wire.Origin{})
}

// remove unlinks a chunk; durable after syncDir.
func (d *Disk) remove(k Key) error {
	if err := d.Failed(); err != nil {
		return err
	}
	c := d.handles.acquire(k)
	defer d.handles.release(c)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.state.Load() == absent && c.f == nil {
		// Known not to exist, but perhaps not durably.
		return nil
	}
	if err := d.removeFile(k); err != nil {
		return d.ioErr("remove", k, err)
	}
	d.handles.forget(c)
	d.healed.Add(d.rot.gone(k))
	d.unsynced.drop(k.Group, k.Layer, func(i uint32) bool { return i != k.Index })
	d.ClearSuspect(k)
	return nil
}

// Delete durably removes a chunk. One that is not there is no error.
func (d *Disk) Delete(k Key) error {
	if err := d.remove(k); err != nil {
		return err
	}
	return d.settle(k.Group, []ashlar.LayerID{k.Layer})
}

// DeleteLayer durably removes all chunks of an object in a group and forgets
// its generation.
func (d *Disk) DeleteLayer(g ashlar.PGID, l ashlar.LayerID) error {
	return d.DeleteLayers(g, []ashlar.LayerID{l})
}

// DeleteLayers is DeleteLayer of many objects; each directory is read and
// synced once.
func (d *Disk) DeleteLayers(g ashlar.PGID, layers []ashlar.LayerID) error {
	if err := d.Failed(); err != nil {
		return err
	}
	bySlot := map[uint8]map[ashlar.LayerID]bool{}
	var gens []groupEntry
	for _, l := range layers {
		s := slotOf(l)
		if bySlot[s] == nil {
			bySlot[s] = map[ashlar.LayerID]bool{}
		}
		bySlot[s][l] = true
		if d.Generation(g, l) > 1 {
			gens = append(gens, groupEntry{kind: groupNoGen, group: g, layer: l})
		}
	}
	for s, set := range bySlot {
		var keys []Key
		err := d.names(g, s, func(k Key) {
			if set[k.Layer] {
				keys = append(keys, k)
			}
		})
		if err != nil {
			return d.lose(err)
		}
		for _, k := range keys {
			if err := d.remove(k); err != nil {
				return err
			}
		}
	}
	if err := d.settle(g, layers); err != nil {
		return err
	}
	for _, l := range layers {
		d.forgetLayer(g, l)
	}
	if len(gens) == 0 {
		return nil
	}
	return d.groups.put(gens...)
}

// forgetLayer drops suspects of chunks that have no file.
func (d *Disk) forgetLayer(g ashlar.PGID, l ashlar.LayerID) {
	var keys []Key
	d.marks.mu.Lock()
	for k := range d.marks.suspects[g] {
		if k.Layer == l {
			keys = append(keys, k)
		}
	}
	d.marks.mu.Unlock()
	d.ClearSuspect(keys...)
}

// Cut durably cuts an object in a group: chunks in cuts to their lengths, every
// other chunk at or above from away (wire.Cut).
func (d *Disk) Cut(g ashlar.PGID, l ashlar.LayerID, from uint32, cuts []wire.ChunkCut, epoch ashlar.Epoch) error {
	if err := d.Failed(); err != nil {
		return err
	}
	lens := map[uint32]uint32{}
	for _, c := range cuts {
		lens[c.Chunk] = c.Len
	}
	var keys []Key
	err := d.names(g, slotOf(l), func(k Key) {
		if _, cut := lens[k.Index]; k.Layer == l && (cut || k.Index >= from) {
			keys = append(keys, k)
		}
	})
	if err != nil {
		return d.lose(err)
	}
	for _, k := range keys {
		if err := d.truncate(k, lens[k.Index], epoch); err != nil {
			return err
		}
	}
	return d.settle(g, []ashlar.LayerID{l})
}

// DeleteGroup durably forgets a group: its record first, so that what may be
// left of its chunks after a crash belongs to nobody, then everything else.
func (d *Disk) DeleteGroup(g ashlar.PGID) error {
	if err := d.Failed(); err != nil {
		return err
	}
	if err := d.groups.put(groupEntry{kind: groupDrop, group: g}); err != nil {
		return err
	}
	d.inflight.dropGroup(g)
	slots, err := d.slots(g)
	if err != nil {
		return d.lose(err)
	}
	for _, s := range slots {
		var keys []Key
		if err := d.names(g, s, func(k Key) { keys = append(keys, k) }); err != nil {
			return d.lose(err)
		}
		for _, k := range keys {
			if err := d.remove(k); err != nil {
				return err
			}
		}
	}
	var suspects []Key
	for _, k := range d.Suspect(g) {
		suspects = append(suspects, Key{g, k.Layer, k.Index})
	}
	d.ClearSuspect(suspects...)
	err = d.fs.RemoveAll(d.groupDir(g))
	if err == nil {
		err = d.fs.SyncDir(d.chunksDir)
	}
	if err != nil {
		return d.lose(fmt.Errorf("remove group %d: %w", g, err))
	}
	d.dirs.mu.Lock()
	for k := range d.dirs.m {
		if k.group == g {
			delete(d.dirs.m, k)
		}
	}
	d.dirs.mu.Unlock()
	return nil
}
