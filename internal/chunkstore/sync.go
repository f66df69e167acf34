package chunkstore

import (
	"errors"
	"sync"

	"github.com/ashlarfs/ashlar"
	"golang.org/x/sync/errgroup"
)

// unsynced is which chunks were written since they were last synced, by
// object. A chunk enters it before its first write and before that write's
// mark is looked for, and leaves it when a sync of it succeeded.
type unsynced struct {
	mu     sync.Mutex
	groups map[ashlar.PGID]map[ashlar.LayerID]*layerSync
	n      int
	tick   uint64
}

// layerSync is the unsynced chunks of one object in one group.
type layerSync struct {
	chunks  map[uint32]struct{} // written and not taken by a run
	taken   map[uint32]struct{} // being synced by running
	running *syncRun
	next    *syncRun // waits for running; whoever comes now joins it
	since   uint64   // tick of the oldest write
}

// syncRun is one sync of a layer, shared by all that wait for it.
type syncRun struct {
	done chan struct{}
	err  error
}

type layerKey struct {
	group ashlar.PGID
	layer ashlar.LayerID
}

func (u *unsynced) init() { u.groups = map[ashlar.PGID]map[ashlar.LayerID]*layerSync{} }

// add notes that a chunk is about to be written.
func (u *unsynced) add(k Key) (total int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	layers := u.groups[k.Group]
	if layers == nil {
		layers = map[ashlar.LayerID]*layerSync{}
		u.groups[k.Group] = layers
	}
	ls := layers[k.Layer]
	if ls == nil {
		ls = &layerSync{since: u.tick}
		layers[k.Layer] = ls
	}
	if ls.chunks == nil {
		ls.chunks = map[uint32]struct{}{}
	}
	if _, ok := ls.chunks[k.Index]; !ok {
		ls.chunks[k.Index] = struct{}{}
		u.n++
	}
	return u.n
}

func (u *unsynced) has(k Key) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	ls := u.groups[k.Group][k.Layer]
	if ls == nil {
		return false
	}
	_, a := ls.chunks[k.Index]
	_, b := ls.taken[k.Index]
	return a || b
}

// each calls f for every chunk whose sync has not succeeded.
func (u *unsynced) each(f func(Key)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for g, layers := range u.groups {
		for l, ls := range layers {
			for i := range ls.chunks {
				f(Key{g, l, i})
			}
			for i := range ls.taken {
				if _, again := ls.chunks[i]; !again {
					f(Key{g, l, i})
				}
			}
		}
	}
}

func (u *unsynced) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n
}

func (u *unsynced) advance() {
	u.mu.Lock()
	u.tick++
	u.mu.Unlock()
}

// layers returns the objects with unsynced chunks in a group, in all groups if
// nil.
func (u *unsynced) layers(g *ashlar.PGID) (out []layerKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for group, layers := range u.groups {
		if g != nil && *g != group {
			continue
		}
		for l := range layers {
			out = append(out, layerKey{group, l})
		}
	}
	return out
}

// older returns the objects that have been unsynced for age ticks, or all.
func (u *unsynced) older(age uint64, all bool) (out []layerKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for g, layers := range u.groups {
		for l, ls := range layers {
			if all || ls.since+age <= u.tick {
				out = append(out, layerKey{g, l})
			}
		}
	}
	return out
}

// drop forgets a layer's chunks from an index on: they are removed.
func (u *unsynced) drop(g ashlar.PGID, l ashlar.LayerID, keep func(index uint32) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	ls := u.groups[g][l]
	if ls == nil {
		return
	}
	for i := range ls.chunks {
		if !keep(i) {
			delete(ls.chunks, i)
			u.n--
		}
	}
	u.tidy(g, l, ls)
}

// tidy forgets a layer with nothing to remember. u.mu must be held.
func (u *unsynced) tidy(g ashlar.PGID, l ashlar.LayerID, ls *layerSync) {
	if len(ls.chunks) == 0 && ls.running == nil && ls.next == nil {
		delete(u.groups[g], l)
		if len(u.groups[g]) == 0 {
			delete(u.groups, g)
		}
	}
}

// SyncLayer makes durable everything that was written of an object in a group
// before the call, by anyone. It costs what is unsynced, and callers that
// wait for each other share the work. Its error has lost the disk.
func (d *Disk) SyncLayer(g ashlar.PGID, l ashlar.LayerID) error {
	if err := d.Failed(); err != nil {
		return err
	}
	u := &d.unsynced
	u.mu.Lock()
	ls := u.groups[g][l]
	if ls == nil {
		u.mu.Unlock()
		return nil
	}
	if ls.next != nil { // begins after this call did: it covers it
		run := ls.next
		u.mu.Unlock()
		<-run.done
		return run.err
	}
	run := &syncRun{done: make(chan struct{})}
	if before := ls.running; before != nil {
		ls.next = run
		u.mu.Unlock()
		<-before.done
		u.mu.Lock()
		ls.next = nil
	}
	ls.running = run
	ls.taken, ls.chunks = ls.chunks, nil
	ls.since = u.tick
	u.mu.Unlock()

	run.err = d.syncChunks(g, l, ls.taken)
	u.mu.Lock()
	if run.err == nil {
		u.n -= len(ls.taken)
	}
	ls.running, ls.taken = nil, nil
	u.tidy(g, l, ls)
	u.mu.Unlock()
	close(run.done)
	return run.err
}

// syncChunks syncs the files of chunks and then their directory.
func (d *Disk) syncChunks(g ashlar.PGID, l ashlar.LayerID, indexes map[uint32]struct{}) error {
	if len(indexes) == 1 {
		for i := range indexes {
			if err := d.syncChunk(Key{g, l, i}); err != nil {
				return err
			}
		}
		return d.syncDir(g, slotOf(l))
	}
	var eg errgroup.Group
	eg.SetLimit(syncParallel)
	for i := range indexes {
		eg.Go(func() error { return d.syncChunk(Key{g, l, i}) })
	}
	if err := eg.Wait(); err != nil || len(indexes) == 0 {
		return err
	}
	return d.syncDir(g, slotOf(l))
}

func (d *Disk) syncChunk(k Key) error {
	c, err := d.lockForWrite(k)
	if ashlar.KindOf(err) == ashlar.Corrupt {
		return d.syncRaw(k) // its header is damaged, its data may still matter
	}
	if err != nil {
		return err
	}
	defer d.handles.release(c)
	// A write from here on enters the chunk among the unsynced again.
	c.dirty = false
	f := c.f
	c.unbacked = nil
	c.wmu.Unlock()
	if f == nil {
		return nil
	}
	if err := f.Sync(); err != nil {
		return d.lose(err)
	}
	return nil
}

func (d *Disk) syncRaw(k Key) error {
	f, err := d.fs.Open(d.chunkPath(k))
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return d.lose(err)
	}
	return nil
}

// SyncGroup is SyncLayer of every object of a group.
func (d *Disk) SyncGroup(g ashlar.PGID) error { return d.syncLayers(d.unsynced.layers(&g)) }

func (d *Disk) syncLayers(layers []layerKey) error {
	if err := d.Failed(); err != nil {
		return err
	}
	var eg errgroup.Group
	eg.SetLimit(syncParallel)
	for _, l := range layers {
		eg.Go(func() error { return d.SyncLayer(l.group, l.layer) })
	}
	return eg.Wait()
}
