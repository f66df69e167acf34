package ashlar

import (
	"errors"
	"fmt"
)

// Layout says where the bytes of an object are. The object is cut into chunks
// of ChunkSize bytes; its segments say, from their first chunk on, which
// placement groups hold them: chunk i of a segment lives in
// Groups[(i-First) mod len(Groups)].
//
// Within a segment of width W and stripe unit U the bytes of each run of W
// chunks (a stripe set) go round the W chunks U bytes at a time:
//
//	W=2, U=C/4:   byte ->  | u0 u1 u2 u3 u4 u5 u6 u7 | next set ...
//	              chunk 0  | u0 u2 u4 u6             |
//	              chunk 1  | u1 u3 u5 u7             |
//
// With U equal to ChunkSize, or W equal to 1, chunk i holds the bytes
// [i*ChunkSize, (i+1)*ChunkSize). A segment's First is a multiple of the
// width of the segment before it, counted from that segment's First.
type Layout struct {
	ChunkSize uint32 // bytes, a power of two
	// Limit is how many chunks the segments cover; a write beyond it first
	// asks the masters to grow the layout. 0 means no limit.
	Limit    uint32
	Segments []Segment
}

// Segment is one run of a layout.
type Segment struct {
	First      uint32 // index of its first chunk
	StripeUnit uint32 // bytes, a power of two, at most ChunkSize
	Groups     []PGID
}

// Policy is how the layouts of new files in a volume are made.
type Policy struct {
	ChunkSize   uint32 // bytes
	StripeWidth uint8  // of every segment after the first chunk
	StripeUnit  uint32 // bytes; ChunkSize for none
}

// DefaultPolicy is the policy of a volume that states none: one group for the
// first chunk, then four abreast.
var DefaultPolicy = Policy{ChunkSize: ChunkSizeFile, StripeWidth: 4, StripeUnit: ChunkSizeFile}

// Validate tells what is wrong with p, nil if nothing is.
func (p Policy) Validate() error {
	switch {
	case p.ChunkSize < ChunkSizeMin || p.ChunkSize > ChunkSizeMax || p.ChunkSize&(p.ChunkSize-1) != 0:
		return fmt.Errorf("chunk size %d: want a power of two from %d to %d", p.ChunkSize, ChunkSizeMin, ChunkSizeMax)
	case p.StripeWidth < 1 || p.StripeWidth > StripeWidthMax:
		return fmt.Errorf("stripe width %d: want 1 to %d", p.StripeWidth, StripeWidthMax)
	case p.StripeUnit < RegionSize || p.StripeUnit > p.ChunkSize || p.StripeUnit&(p.StripeUnit-1) != 0:
		return fmt.Errorf("stripe unit %d: want a power of two from %d to the chunk size", p.StripeUnit, RegionSize)
	}
	return nil
}

// Extent is a contiguous run of an object that lies in one chunk.
type Extent struct {
	Chunk  uint32
	Off    uint32 // within the chunk
	Len    uint32
	Group  PGID
	Object uint64 // offset in the object
}

// ErrBeyondLayout is returned by Locate for an offset that no segment covers;
// the caller asks the masters to grow the layout.
var ErrBeyondLayout = errors.New("offset beyond the layout")

// segment returns the segment of the byte at off, the index of the first
// chunk after it (the limit, or ^0, for the last) and the byte where it starts.
func (l *Layout) segment(off uint64) (s *Segment, end uint32, start uint64) {
	for i := range l.Segments {
		seg := &l.Segments[i]
		end = ^uint32(0)
		if i+1 < len(l.Segments) {
			end = l.Segments[i+1].First
		} else if l.Limit > 0 {
			end = l.Limit
		}
		start = uint64(seg.First) * uint64(l.ChunkSize)
		if off < uint64(end)*uint64(l.ChunkSize) || i+1 == len(l.Segments) {
			return seg, end, start
		}
	}
	return nil, 0, 0
}

// Locate returns the extent at off, at most n bytes long.
func (l *Layout) Locate(off, n uint64) (Extent, error) {
	s, end, start := l.segment(off)
	if s == nil {
		return Extent{}, ErrBeyondLayout
	}
	c, u, w := uint64(l.ChunkSize), uint64(s.StripeUnit), uint64(len(s.Groups))
	rel := off - start
	var index, in, run uint64
	if u == c || w == 1 {
		index, in = rel/c, rel%c
		run = c - in
	} else {
		set, inSet := rel/(c*w), rel%(c*w)
		unit := inSet / u
		index = set*w + unit%w
		in = unit/w*u + inSet%u
		run = u - inSet%u
	}
	chunk := uint64(s.First) + index
	if chunk >= uint64(end) {
		return Extent{}, ErrBeyondLayout
	}
	return Extent{
		Chunk: uint32(chunk), Off: uint32(in), Len: uint32(min(run, n)),
		Group: s.Groups[index%w], Object: off,
	}, nil
}

// SegmentOf returns the segment that a chunk belongs to.
func (l *Layout) SegmentOf(chunk uint32) (s Segment, ok bool) {
	for i := len(l.Segments) - 1; i >= 0; i-- {
		if l.Segments[i].First <= chunk {
			return l.Segments[i], true
		}
	}
	return Segment{}, false
}

// Group returns the placement group of a chunk.
func (l *Layout) Group(chunk uint32) (PGID, bool) {
	for i := len(l.Segments) - 1; i >= 0; i-- {
		if s := &l.Segments[i]; chunk >= s.First {
			return s.Groups[(chunk-s.First)%uint32(len(s.Groups))], true
		}
	}
	return 0, false
}

// ChunkLen returns how many bytes of a chunk belong to an object of the given
// size: 0 means the chunk holds nothing of it.
func (l *Layout) ChunkLen(chunk uint32, size uint64) uint32 {
	for i := len(l.Segments) - 1; i >= 0; i-- {
		s := &l.Segments[i]
		if chunk < s.First {
			continue
		}
		c, u, w := uint64(l.ChunkSize), uint64(s.StripeUnit), uint64(len(s.Groups))
		start := uint64(s.First) * c
		if size <= start {
			return 0
		}
		rel, index := size-start, uint64(chunk-s.First)
		if u == c || w == 1 {
			if rel <= index*c {
				return 0
			}
			return uint32(min(rel-index*c, c))
		}
		set := index / w
		if rel <= set*c*w {
			return 0
		}
		in := min(rel-set*c*w, c*w) // bytes of this stripe set
		full, rest := in/(u*w), in%(u*w)
		n, lane := full*u, index%w
		if rest > lane*u {
			n += min(rest-lane*u, u)
		}
		return uint32(n)
	}
	return 0
}

// Chunks returns the number of leading chunk indexes that an object of the
// given size may use: every index at or above it is empty.
func (l *Layout) Chunks(size uint64) uint32 {
	if size == 0 || len(l.Segments) == 0 {
		return 0
	}
	s, _, start := l.segment(size - 1)
	c, w := uint64(l.ChunkSize), uint64(len(s.Groups))
	rel := size - start
	if uint64(s.StripeUnit) == c || w == 1 {
		return s.First + uint32((rel+c-1)/c)
	}
	return s.First + uint32((rel+c*w-1)/(c*w)*w)
}

// AllGroups returns every placement group the layout names, once each, in
// order of first use.
func (l *Layout) AllGroups() []PGID {
	var out []PGID
	seen := map[PGID]bool{}
	for _, s := range l.Segments {
		for _, g := range s.Groups {
			if !seen[g] {
				seen[g] = true
				out = append(out, g)
			}
		}
	}
	return out
}
