package chunkstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// Chunk (group, layer, index) is the file
//
//	<dir>/chunks/<group %08x>/<XX>/<layer %016x>.<index %08x>
//
// where XX, 00 to FF, is (layer>>8)&0xff: 256 consecutive layers share a
// directory, so that files made together are synced together, and only then
// comes the next one. Directories are made when first needed.
const (
	fanout    = 256
	nameBytes = 16 + 1 + 8
)

func slotOf(l ashlar.LayerID) uint8 { return uint8(l >> 8) }

func (d *Disk) groupDir(g ashlar.PGID) string {
	return path.Join(d.chunksDir, fmt.Sprintf("%08x", uint32(g)))
}

func (d *Disk) slotDir(g ashlar.PGID, slot uint8) string {
	return d.chunksDir + fmt.Sprintf("/%08x/%02X", uint32(g), slot)
}

func chunkName(k Key) string { return fmt.Sprintf("%016x.%08x", uint64(k.Layer), k.Index) }

func (d *Disk) chunkPath(k Key) string {
	return d.slotDir(k.Group, slotOf(k.Layer)) + "/" + chunkName(k)
}

// parseChunkName is the inverse of chunkName.
func parseChunkName(g ashlar.PGID, name string) (Key, bool) {
	if len(name) != nameBytes || name[16] != '.' {
		return Key{}, false
	}
	layer, err1 := strconv.ParseUint(name[:16], 16, 64)
	index, err2 := strconv.ParseUint(name[17:], 16, 32)
	k := Key{Group: g, Layer: ashlar.LayerID(layer), Index: uint32(index)}
	return k, err1 == nil && err2 == nil && chunkName(k) == name
}

func parseGroupDir(name string) (ashlar.PGID, bool) {
	g, err := strconv.ParseUint(name, 16, 32)
	return ashlar.PGID(g), err == nil && fmt.Sprintf("%08x", g) == name
}

// nameDir is one directory of chunk files.
type nameDir struct {
	path   string
	parent string // of the group

	mu         sync.Mutex
	counted    bool
	count      uint64
	changes    uint64 // names made or removed
	newParents bool   // the directory itself may be new

	syncMu sync.Mutex
	synced uint64 // changes known durable; syncMu must be held
}

type slotKey struct {
	group ashlar.PGID
	slot  uint8
}

// dirs holds a nameDir for each directory that was used.
type dirs struct {
	mu sync.Mutex
	m  map[slotKey]*nameDir
}

func (d *Disk) nameDir(g ashlar.PGID, slot uint8) *nameDir {
	d.dirs.mu.Lock()
	defer d.dirs.mu.Unlock()
	k := slotKey{g, slot}
	nd := d.dirs.m[k]
	if nd == nil {
		// A process before this one may have left changes unsynced.
		nd = &nameDir{path: d.slotDir(g, slot), parent: d.groupDir(g), changes: 1, newParents: true}
		d.dirs.m[k] = nd
	}
	return nd
}

// createFile makes the file of a chunk; an existing one is opened.
func (d *Disk) createFile(k Key) (vfs.File, error) {
	nd := d.nameDir(k.Group, slotOf(k.Layer))
	nd.mu.Lock()
	defer nd.mu.Unlock()
	name := nd.path + "/" + chunkName(k)
	f, created, err := d.fs.OpenOrCreate(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.fs.MkdirAll(nd.path); err == nil {
			nd.newParents = true
			f, created, err = d.fs.OpenOrCreate(name)
		}
	}
	if err != nil {
		return nil, err
	}
	if created {
		nd.changes++
		if nd.counted {
			nd.count++
		}
	}
	return f, nil
}

// removeFile removes the file of a chunk; durable after syncDir.
func (d *Disk) removeFile(k Key) error {
	nd := d.nameDir(k.Group, slotOf(k.Layer))
	nd.mu.Lock()
	defer nd.mu.Unlock()
	err := d.fs.Remove(nd.path + "/" + chunkName(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		nd.changes++
		if nd.counted {
			nd.count--
		}
	}
	return err
}

// syncDir makes the names in the directory of a layer durable. Callers that
// wait for each other share one sync.
func (d *Disk) syncDir(g ashlar.PGID, slot uint8) error {
	nd := d.nameDir(g, slot)
	nd.mu.Lock()
	want := nd.changes
	nd.mu.Unlock()
	nd.syncMu.Lock()
	defer nd.syncMu.Unlock()
	if nd.synced >= want {
		return nil
	}
	nd.mu.Lock()
	want, parents := nd.changes, nd.newParents
	nd.mu.Unlock()
	err := d.fs.SyncDir(nd.path)
	if err == nil && parents {
		if err = d.fs.SyncDir(nd.parent); err == nil {
			err = d.fs.SyncDir(d.chunksDir)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing in it ever, or the group was deleted meanwhile
	}
	if err != nil {
		return d.lose(err)
	}
	nd.synced = want
	if parents {
		nd.mu.Lock()
		nd.newParents = nd.changes != want
		nd.mu.Unlock()
	}
	return nil
}

// names calls f for each chunk in a directory.
func (d *Disk) names(g ashlar.PGID, slot uint8, f func(Key)) error {
	list, err := d.fs.List(d.slotDir(g, slot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range list {
		if k, ok := parseChunkName(g, name); ok {
			f(k)
		}
	}
	return nil
}

// groupDirs returns the groups that have a directory.
func (d *Disk) groupDirs() ([]ashlar.PGID, error) {
	list, err := d.fs.List(d.chunksDir)
	if err != nil {
		return nil, err
	}
	var out []ashlar.PGID
	for _, name := range list {
		if g, ok := parseGroupDir(name); ok {
			out = append(out, g)
		}
	}
	return out, nil
}

// slots returns which directories a group has.
func (d *Disk) slots(g ashlar.PGID) ([]uint8, error) {
	list, err := d.fs.List(d.groupDir(g))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []uint8
	for _, name := range list {
		if n, err := strconv.ParseUint(name, 16, 8); err == nil && fmt.Sprintf("%02X", n) == name {
			out = append(out, uint8(n))
		}
	}
	return out, nil
}

// countSlot counts the chunks of a directory, once.
func (d *Disk) countSlot(g ashlar.PGID, slot uint8) error {
	nd := d.nameDir(g, slot)
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.counted {
		return nil
	}
	n := uint64(0)
	if err := d.names(g, slot, func(Key) { n++ }); err != nil {
		return err
	}
	nd.counted, nd.count = true, n
	return nil
}

// Chunks returns how many chunks the disk has. It counts what was not counted
// yet.
func (d *Disk) Chunks() uint64 {
	groups, err := d.groupDirs()
	if err != nil {
		return 0
	}
	var total uint64
	for _, g := range groups {
		slots, err := d.slots(g)
		if err != nil {
			continue
		}
		for _, s := range slots {
			if d.countSlot(g, s) == nil {
				nd := d.nameDir(g, s)
				nd.mu.Lock()
				total += nd.count
				nd.mu.Unlock()
			}
		}
	}
	return total
}
