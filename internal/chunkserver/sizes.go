package chunkserver

import (
	"slices"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// sizeEvery is how often one group is measured.
const sizeEvery = 2 * time.Second

// sizes is how much there is of each group here, so that the masters know
// what a move moves. mu is a leaf.
type sizes struct {
	mu    sync.Mutex
	bytes map[ashlar.PGID]uint64
	told  ashlar.PGID // the last one told
}

// next returns the sizes to tell now, in turn.
func (s *sizes) next() []wire.GroupSize {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]ashlar.PGID, 0, len(s.bytes))
	for id := range s.bytes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	from, _ := slices.BinarySearch(ids, s.told+1)
	out := make([]wire.GroupSize, 0, min(len(ids), wire.SizesMax))
	for i := range min(len(ids), wire.SizesMax) {
		id := ids[(from+i)%len(ids)]
		out = append(out, wire.GroupSize{Group: id, Bytes: s.bytes[id]})
		s.told = id
	}
	return out
}

// keep replaces all sizes but those of the groups that are still here.
func (s *sizes) keep(here map[ashlar.PGID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.bytes {
		if !here[id] {
			delete(s.bytes, id)
		}
	}
}

func (s *sizes) set(id ashlar.PGID, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes == nil {
		s.bytes = map[ashlar.PGID]uint64{}
	}
	s.bytes[id] = n
}

// sizeLoop measures one group after the other.
func (l *life) sizeLoop() {
	tick := l.s.clk.NewTicker(sizeEvery)
	defer tick.Stop()
	last := ashlar.PGID(0)
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C():
		}
		seats := l.all()
		slices.SortFunc(seats, func(a, b *seat) int { return int(a.group) - int(b.group) })
		here := map[ashlar.PGID]bool{}
		var next *seat
		for _, t := range seats {
			here[t.group] = true
			if next == nil && t.group > last {
				next = t
			}
		}
		l.sizes.keep(here)
		if next == nil {
			last = 0
			continue
		}
		last = next.group
		if next.d.failed() != nil {
			continue
		}
		if n, err := next.d.bytes(next.group, wire.ChunkKey{}, 0, nil); err == nil {
			l.sizes.set(next.group, n)
		}
	}
}
