package lock

import (
	"slices"

	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Range is a locked range, both ends included.
type Range struct {
	Start, End uint64
	Type       wire.LockType
	PID        uint32
	Since      int64 // operation time at which it was granted
}

// ranges is the record of what an owner has locked of an inode (L-2).
type ranges struct {
	List []Range
}

// Fields implements key.Record.
func (r *ranges) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.List(c, &r.List, RangesMax, func(c *wire.Codec, e *Range) {
		wire.U64(c, &e.Start)
		wire.U64(c, &e.End)
		wire.U8(c, &e.Type)
		wire.U32(c, &e.PID)
		wire.I64(c, &e.Since)
	})
	if !c.Reading() || c.Err() != nil {
		return
	}
	for i, e := range r.List {
		if e.Type != wire.Shared && e.Type != wire.Exclusive || e.Start > e.End || i > 0 && r.List[i-1].End >= e.Start {
			c.Fail("locked range %d: bytes %d to %d, type %d", i, e.Start, e.End, e.Type)
			return
		}
	}
}

// lay returns the ranges of an owner after n was laid over them: what they had
// of its range is replaced, or with type Unlocked removed, and ranges that
// touch and are alike become one. It does not change list.
func lay(list []Range, n Range) []Range {
	out := make([]Range, 0, len(list)+2)
	placed := n.Type == wire.Unlocked
	for _, r := range list {
		if r.Start > n.End && !placed {
			out, placed = join(out, n), true
		}
		if r.End < n.Start || r.Start > n.End {
			out = join(out, r)
			continue
		}
		if r.Start <= n.Start && r.End >= n.End && r.Type == n.Type && r.PID == n.PID {
			return list // it has it already
		}
		if r.Start < n.Start {
			left := r
			left.End = n.Start - 1
			out = join(out, left)
		}
		if r.End > n.End {
			if !placed {
				out, placed = join(out, n), true
			}
			right := r
			right.Start = n.End + 1
			out = join(out, right)
		}
	}
	if !placed {
		out = join(out, n)
	}
	return out
}

// join appends a range that begins after the last one ends.
func join(out []Range, r Range) []Range {
	if k := len(out) - 1; k >= 0 && out[k].End+1 == r.Start && out[k].Type == r.Type && out[k].PID == r.PID {
		out[k].End, out[k].Since = r.End, min(out[k].Since, r.Since)
		return out
	}
	return append(out, r)
}

// meets returns the first range that keeps others from locking [start, end]
// with a type, and whether there is one.
func meets(list []Range, start, end uint64, t wire.LockType) (Range, bool) {
	k, _ := slices.BinarySearchFunc(list, start, func(r Range, at uint64) int {
		if r.End < at {
			return -1
		}
		return 1
	})
	for ; k < len(list) && list[k].Start <= end; k++ {
		if t == wire.Exclusive || list[k].Type == wire.Exclusive {
			return list[k], true
		}
	}
	return Range{}, false
}

// covers tells whether all of [start, end] is locked with exactly a type.
func covers(list []Range, start, end uint64, t wire.LockType) bool {
	for _, r := range list {
		if r.End < start {
			continue
		}
		if r.Start > start || r.Type != t {
			return false
		}
		if r.End >= end {
			return true
		}
		start = r.End + 1
	}
	return false
}
