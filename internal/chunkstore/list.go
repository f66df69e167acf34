package chunkstore

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// ChunkInfo is what List tells of a chunk.
type ChunkInfo struct {
	Key          Key
	ChangedEpoch ashlar.Epoch
	ChunkSize    uint32
	wire.Origin
	// Damaged says that its header can not be read; the fields before are
	// empty then.
	Damaged bool
}

func compareChunkKeys(a, b wire.ChunkKey) int {
	return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Index, b.Index))
}

// lowest keeps the lowest keys seen, up to a limit.
type lowest struct {
	limit int
	keys  []wire.ChunkKey // a heap, highest first
}

func (l *lowest) Len() int           { return len(l.keys) }
func (l *lowest) Less(i, j int) bool { return compareChunkKeys(l.keys[i], l.keys[j]) > 0 }
func (l *lowest) Swap(i, j int)      { l.keys[i], l.keys[j] = l.keys[j], l.keys[i] }
func (l *lowest) Push(x any)         { l.keys = append(l.keys, x.(wire.ChunkKey)) }
func (l *lowest) Pop() any {
	k := l.keys[len(l.keys)-1]
	l.keys = l.keys[:len(l.keys)-1]
	return k
}

func (l *lowest) add(k wire.ChunkKey) {
	if len(l.keys) < l.limit {
		heap.Push(l, k)
	} else if compareChunkKeys(k, l.keys[0]) < 0 {
		l.keys[0] = k
		heap.Fix(l, 0)
	}
}

// Keys returns the chunks of a group from a key on, in order of layer and
// index, at most limit of them.
func (d *Disk) Keys(g ashlar.PGID, from wire.ChunkKey, limit int) ([]wire.ChunkKey, error) {
	if err := d.Failed(); err != nil {
		return nil, err
	}
	if limit <= 0 {
		return nil, nil
	}
	slots, err := d.slots(g)
	if err != nil {
		return nil, ashlar.E("list chunks", ashlar.IO, d.dir, err)
	}
	l := &lowest{limit: limit}
	for _, s := range slots {
		err := d.names(g, s, func(k Key) {
			if ck := (wire.ChunkKey{Layer: k.Layer, Index: k.Index}); compareChunkKeys(ck, from) >= 0 {
				l.add(ck)
			}
		})
		if err != nil {
			return nil, ashlar.E("list chunks", ashlar.IO, d.dir, err)
		}
	}
	slices.SortFunc(l.keys, compareChunkKeys)
	return l.keys, nil
}

// List is Keys with what is in the chunks' headers. Chunks removed meanwhile
// are left out, so that it may return fewer than limit before the end; use the
// last key to go on, and Keys to tell the end.
func (d *Disk) List(g ashlar.PGID, from wire.ChunkKey, limit int) ([]ChunkInfo, error) {
	keys, err := d.Keys(g, from, limit)
	if err != nil {
		return nil, err
	}
	out := make([]ChunkInfo, 0, len(keys))
	for _, k := range keys {
		info, ok, err := d.Info(Key{g, k.Layer, k.Index})
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, info)
		}
	}
	return out, nil
}

// Info returns what is in a chunk's header, and false if there is no chunk. A
// damaged header is no error but told.
func (d *Disk) Info(key Key) (ChunkInfo, bool, error) {
	c, err := d.get(key)
	if k := ashlar.KindOf(err); k == ashlar.Corrupt || k == ashlar.Version {
		return ChunkInfo{Key: key, Damaged: true}, true, nil
	}
	if err != nil {
		return ChunkInfo{}, false, err
	}
	defer d.handles.release(c)
	if c.state.Load() != opened {
		return ChunkInfo{}, false, nil
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return ChunkInfo{Key: key, ChangedEpoch: c.hdr.changed, ChunkSize: c.hdr.size, Origin: c.hdr.origin}, true, nil
}
