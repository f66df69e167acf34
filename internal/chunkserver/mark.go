package chunkserver

import (
	"math"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// mark is how far a catch-up of this seat came that did not end, so that the
// next one, in whatever epoch and from whatever primary, goes on there.
//
// Up to the mark (epoch e) this disk has what the primary of e had when it
// copied, with writes kept out, or what it sent as a write since. So it
// differs from the primary of a later epoch E only
//
//   - where that one has taken something since: a write, a range made equal, a
//     cut or a copy of its own catch-up. Each stamps the region with the epoch
//     that it happens in, e or later: regions stamped e or later are sent. What
//     the primary of E has it has by I-5, also if it was not in-sync in e.
//   - where a write reached this disk and not that one, whose epoch ended in
//     between. This disk noted it before it applied it (I-4), and it stays noted
//     until a catch-up ends: those ranges are sent, wherever they are.
//   - in chunks that were deleted or made since: the lists of chunks are
//     compared from the beginning in every epoch.
//   - where a cut was missed: the object has a higher generation than at the
//     mark, and is sent whole. (What was cut is stamped as well.)
//
// A late copy of an older epoch or pass is refused as ever (seat.inPass). The
// mark is in memory only and goes with the seat: a process that was restarted,
// or a member that was dropped and whose chunks were deleted, has none. What it
// covers may still be in the page cache: CatchupEnd syncs the whole group, and
// only then the member is proposed as in-sync.
type mark struct {
	wire.CatchupMark
	// gens are the generations that the objects lacking had in the pass that
	// set the mark; knew is the same by object, for the present pass.
	gens []wire.ObjectGen
	knew map[ashlar.LayerID]ashlar.Generation
}

// lastChunk is behind every chunk.
var lastChunk = wire.ChunkKey{Layer: math.MaxUint64, Index: math.MaxUint32}

// remember makes knew, at the beginning of a pass.
func (m *mark) remember() {
	m.knew = make(map[ashlar.LayerID]ashlar.Generation, len(m.gens))
	for _, o := range m.gens {
		m.knew[o.Layer] = o.Gen
	}
}

// reached moves the mark on. While a pass is at what an earlier epoch's had
// done already, sending only what changed since, the mark stays.
func (t *seat) reached(e ashlar.Epoch, at wire.ChunkKey, off uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mark
	if m.Epoch != 0 && (keyLess(at, m.At) || at == m.At && off < m.Off) {
		return
	}
	m.CatchupMark = wire.CatchupMark{Epoch: e, At: at, Off: off}
	m.gens = t.lacking
}

// unreached moves the mark back: a chunk is to be copied whole.
func (t *seat) unreached(at wire.ChunkKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := &t.mark; m.Epoch != 0 && !keyLess(m.At, at) {
		m.At, m.Off = at, 0
	}
}
