package chunkserver

import (
	"math"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// lack says what of a chunk a member lacks: regions changed after an epoch, or
// all of it.
type lack struct {
	since ashlar.Epoch
	whole bool
}

// lacks says it of a whole chunk: of the part before split, which it had got
// in an earlier epoch, and of the rest.
type lacks struct {
	before, behind lack
	split          uint32
	missing        bool // it has not even the chunk
}

// needs is what a member's answer says of every chunk.
type needs struct {
	since ashlar.Epoch
	whole map[wire.ChunkKey]bool
	cut   map[ashlar.LayerID]bool // and whether the cut came after the mark
	mark  wire.CatchupMark
}

func newNeeds(rep *wire.CatchupReply) *needs {
	n := &needs{since: rep.Since, mark: rep.Mark, whole: map[wire.ChunkKey]bool{}, cut: map[ashlar.LayerID]bool{}}
	for _, k := range rep.Whole {
		n.whole[k] = true
	}
	for _, l := range rep.Layers {
		n.cut[l] = true
	}
	for _, l := range rep.Known {
		n.cut[l] = false
	}
	return n
}

// of says what the member lacks of a chunk, beside ranges that it had in
// flight. See mark for why that is all.
func (n *needs) of(k wire.ChunkKey) (out lacks) {
	missed, cut := n.cut[k.Layer]
	out.behind = lack{n.since, n.whole[k] || cut}
	if n.mark.Epoch == 0 || keyLess(n.mark.At, k) {
		return out
	}
	out.before = lack{max(n.since, n.mark.Epoch-1), missed}
	if out.split = math.MaxUint32; k == n.mark.At {
		out.split = n.mark.Off
	}
	return out
}

// nothing tells that the member lacks nothing of a chunk that last changed in
// an epoch.
func (n *lacks) nothing(changed ashlar.Epoch) bool {
	has := func(l lack) bool { return !l.whole && changed <= l.since }
	return !n.missing && (n.split == 0 || has(n.before)) && (n.split == math.MaxUint32 || has(n.behind))
}

// clip returns what of regions is in [lo, hi).
func clip(rs []chunkstore.Region, lo, hi uint32) (out []chunkstore.Region) {
	for _, r := range rs {
		if from, to := max(r.Off, lo), min(r.Off+r.Len, hi); from < to {
			out = append(out, chunkstore.Region{Off: from, Len: to - from})
		}
	}
	return out
}

// overlap is how much of [off, off+n) is in regions.
func overlap(rs []chunkstore.Region, off, n uint32) (bytes uint32) {
	for _, r := range rs {
		lo, hi := max(r.Off, off), min(r.Off+r.Len, off+n)
		if lo < hi {
			bytes += hi - lo
		}
	}
	return bytes
}

func size(rs []chunkstore.Region) (n uint64) {
	for _, r := range rs {
		n += uint64(r.Len)
	}
	return n
}

// merge adds ranges, widened to whole blocks, to regions in order.
func merge(regions, extra []chunkstore.Region) []chunkstore.Region {
	const b = ashlar.BlockSize
	out := append([]chunkstore.Region(nil), regions...)
	for _, r := range extra {
		off := r.Off / b * b
		end := (uint64(r.Off) + uint64(r.Len) + b - 1) / b * b
		out = append(out, chunkstore.Region{Off: off, Len: uint32(min(end, ashlar.ChunkSizeMax)) - off})
	}
	return out
}
