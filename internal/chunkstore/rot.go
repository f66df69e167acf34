package chunkstore

import (
	"sync"
	"sync/atomic"
)

// rotMax is how many damaged blocks are remembered, so that each is counted
// once; those beyond count whenever they are met.
const rotMax = 1 << 16

// rot is which blocks were found damaged and have not been found good since.
// A block is met several times before it is mended, by the scrub alone twice;
// if each counted, more would seem damaged than were mended.
type rot struct {
	known atomic.Int64 // of blocks, so that good reads of a good disk take no lock
	mu    sync.Mutex
	at    map[Key]map[uint32]struct{}
}

// found notes damaged blocks and returns how many were not known.
func (r *rot) found(k Key, regions []Region) (fresh uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.at[k]
	for _, reg := range regions {
		for b := reg.Off / block; b < (reg.Off+reg.Len)/block; b++ {
			if _, known := of[b]; known {
				continue
			}
			fresh++
			if r.known.Load() >= rotMax {
				continue
			}
			if of == nil {
				of = map[uint32]struct{}{}
				if r.at == nil {
					r.at = map[Key]map[uint32]struct{}{}
				}
				r.at[k] = of
			}
			of[b] = struct{}{}
			r.known.Add(1)
		}
	}
	return fresh
}

// gone forgets a chunk that was removed and returns how many of its blocks had
// been found damaged.
func (r *rot) gone(k Key) uint64 {
	if r.known.Load() == 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.at[k])
	delete(r.at, k)
	r.known.Add(-int64(n))
	return uint64(n)
}

// sound forgets blocks [b0, b1), which were found good, and returns how many
// had been found damaged.
func (r *rot) sound(k Key, b0, b1 int) (mended uint64) {
	if r.known.Load() == 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.at[k]
	for b := range of {
		if int(b) >= b0 && int(b) < b1 {
			delete(of, b)
			r.known.Add(-1)
			mended++
		}
	}
	if of != nil && len(of) == 0 {
		delete(r.at, k)
	}
	return mended
}

// Mended tells how many blocks of a chunk from block b0 on, n of them, had
// been found damaged: the caller has just overwritten them. It forgets them.
func (d *Disk) Mended(k Key, b0, n int) uint64 { return d.rot.sound(k, b0, b0+n) }
