package sim

import (
	"encoding/binary"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// frames follows the frames in a stream, so that whole consensus packets can
// be lost, repeated and reordered. They are the only messages that are sent
// without an answer to wait for; TCP keeps the order of all others.
type frames struct {
	first bool // the stream begins with the preface
	begun bool
	skip  int    // bytes before the next header
	head  []byte // of a header that is not whole yet
}

// part is a run of bytes: one whole consensus packet, or anything.
type part struct {
	data []byte
	raft bool
}

// raftKind is the kind of a frame that carries consensus messages.
var raftKind = (*wire.Raft)(nil).Kind()

// whole tells that the stream is between frames.
func (f *frames) whole() bool { return f.skip == 0 && len(f.head) == 0 }

// cut divides what is written next.
func (f *frames) cut(p []byte) []part {
	if !f.begun {
		f.begun = true
		if f.first {
			f.skip = len(wire.Preface)
		}
	}
	var out []part
	rest := 0 // what is not in out yet begins here
	for at := 0; at < len(p); {
		if f.skip > 0 {
			n := min(f.skip, len(p)-at)
			f.skip -= n
			at += n
			continue
		}
		if len(f.head) == 0 && len(p)-at >= wire.HeaderSize {
			size, raft := frameOf(p[at:])
			if raft && at+size <= len(p) {
				if at > rest {
					out = append(out, part{data: p[rest:at]})
				}
				out = append(out, part{data: p[at : at+size], raft: true})
				at += size
				rest = at
				continue
			}
			f.skip = size
			continue
		}
		n := min(wire.HeaderSize-len(f.head), len(p)-at)
		f.head = append(f.head, p[at:at+n]...)
		at += n
		if len(f.head) == wire.HeaderSize {
			size, _ := frameOf(f.head)
			f.skip = size - wire.HeaderSize
			f.head = f.head[:0]
		}
	}
	if rest < len(p) {
		out = append(out, part{data: p[rest:]})
	}
	return out
}

// frameOf returns the size of the frame whose header b begins with.
func frameOf(b []byte) (size int, raft bool) {
	body, payload := binary.LittleEndian.Uint32(b[0:]), binary.LittleEndian.Uint32(b[4:])
	kind := wire.Kind(binary.LittleEndian.Uint16(b[8:]))
	return wire.HeaderSize + int(body) + int(payload), kind == raftKind
}
