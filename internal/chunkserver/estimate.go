package chunkserver

import (
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// estimates tells what catch-ups have to copy before they have done so. One
// that has begun is measured: what changed since its member was in-sync. One
// that waits is taken for its share of the group by what the measured ones
// came to, and for all of the group while none has been measured.
//
// mu is a leaf.
type estimates struct {
	mu     sync.Mutex
	whole  uint64 // bytes in the groups that were measured
	needed uint64 // of these, what had to be copied
	by     map[seatKey]*estimate
}

// estimate is that of one member.
type estimate struct {
	group uint64 // bytes of the group
	known bool   // left was measured
	done  uint64
	left  uint64
}

// waits notes a catch-up in line, of a group of so many bytes.
func (e *estimates) waits(k seatKey, group uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by == nil {
		e.by = map[seatKey]*estimate{}
	}
	if len(e.by) == 0 { // a new wave says nothing of the last one
		e.whole, e.needed = 0, 0
	}
	if e.by[k] == nil {
		e.by[k] = &estimate{group: group}
	}
}

// holds notes how many bytes a group has.
func (e *estimates) holds(k seatKey, group uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.by[k]; x != nil && !x.known {
		x.group = group
	}
}

// measured notes what a catch-up that begins has to copy.
func (e *estimates) measured(k seatKey, need uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.by[k]
	if x == nil {
		return
	}
	if !x.known {
		e.whole, e.needed = e.whole+max(x.group, need), e.needed+need
	}
	x.known, x.left = true, need
}

// copied notes bytes sent.
func (e *estimates) copied(k seatKey, n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.by[k]; x != nil {
		x.done += n
		x.left -= min(n, x.left)
	}
}

// over forgets a catch-up.
func (e *estimates) over(k seatKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.by, k)
}

// list returns the progress of all, for the masters.
func (e *estimates) list() []wire.SyncProgress {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]wire.SyncProgress, 0, len(e.by))
	for k, x := range e.by {
		left := x.left
		if !x.known {
			left = x.group
			if e.whole > 0 {
				left = uint64(float64(x.group) * float64(e.needed) / float64(e.whole))
			}
		}
		out = append(out, wire.SyncProgress{Group: k.group, Disk: k.disk, Bytes: x.done, Left: left})
	}
	return out
}

// bytes returns how many bytes a disk holds of a group from a chunk on, in whole
// regions, that changed after an epoch: 0 for all of them.
func (d *disk) bytes(g ashlar.PGID, from wire.ChunkKey, since ashlar.Epoch, also func(wire.ChunkKey) bool) (n uint64, err error) {
	for more := true; more; {
		keys, err := d.store.Keys(g, from, listPage)
		if err != nil {
			return 0, err
		}
		for _, ck := range keys {
			k := chunkstore.Key{Group: g, Layer: ck.Layer, Index: ck.Index}
			after := since
			if also != nil && also(ck) {
				after = 0
			}
			rs, err := d.store.ChangedRegions(k, after)
			if err != nil {
				continue // it is mended before it is copied, or deleted by now
			}
			n += size(rs)
		}
		if more = len(keys) == listPage; more {
			from = keys[len(keys)-1]
			from.Index++
		}
	}
	return n, nil
}
