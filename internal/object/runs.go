package object

import (
	"context"
	"errors"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Seek returns the first offset from off on, below size, at which the object
// has data, or with hole at which it has none; size if there is no such. Data
// is told by whole blocks. It fails as ReadAt does; what the layout does not
// cover is a hole.
func (s *Store) Seek(ctx context.Context, ref *Ref, off, size uint64, hole bool) (uint64, error) {
	m := &chunkMap{store: s, ref: ref, runs: map[uint32]*wire.RunsReply{}, empty: map[ashlar.PGID]span{}}
	for off < size {
		e, err := ref.Layout.Locate(off, size-off)
		if errors.Is(err, ashlar.ErrBeyondLayout) {
			if hole {
				return off, nil
			}
			return size, nil
		} else if err != nil {
			return 0, err
		}
		at, err := m.seek(ctx, &e, hole)
		if err != nil {
			return 0, err
		}
		if at < e.Off+e.Len {
			return off + uint64(at-e.Off), nil
		}
		off += uint64(e.Len)
	}
	return size, nil
}

// Data returns the runs of data in [off, off+n), in order: start and end of
// each, in whole blocks but cut to the range.
func (s *Store) Data(ctx context.Context, ref *Ref, off, n uint64) (runs [][2]uint64, err error) {
	for end := off + n; off < end; {
		start, err := s.Seek(ctx, ref, off, end, false)
		if err != nil || start == end {
			return runs, err
		}
		if off, err = s.Seek(ctx, ref, start, end, true); err != nil {
			return nil, err
		}
		runs = append(runs, [2]uint64{start, off})
	}
	return runs, nil
}

// span is a range of chunk indexes, ends excluded.
type span struct{ after, next uint32 }

// chunkMap is what one call has learned of where data is.
type chunkMap struct {
	store *Store
	ref   *Ref
	runs  map[uint32]*wire.RunsReply // of chunks with data
	empty map[ashlar.PGID]span       // chunks that a group has nothing of
}

// seek returns where in an extent, in bytes of its chunk, data or a hole
// begins, the extent's end if it does not.
func (m *chunkMap) seek(ctx context.Context, e *ashlar.Extent, hole bool) (uint32, error) {
	end := e.Off + e.Len
	nothing := func() (uint32, error) {
		if hole {
			return e.Off, nil
		}
		return end, nil
	}
	if x, ok := m.empty[e.Group]; ok && e.Chunk >= x.after && e.Chunk < x.next {
		return nothing()
	}
	r := m.runs[e.Chunk]
	if r == nil {
		q := &runsRequest{store: m.store, ref: m.ref, chunk: e.Chunk, len: m.ref.Layout.ChunkSize}
		if err := m.store.run(ctx, e.Group, q); err != nil {
			return 0, err
		}
		if r = &q.reply; len(r.Starts) == 0 {
			m.empty[e.Group] = span{e.Chunk, r.Next}
			return nothing()
		}
		if len(m.runs) >= ashlar.StripeWidthMax { // those of one stripe set are met in turn
			clear(m.runs)
		}
		m.runs[e.Chunk] = r
	}
	i, inside := slices.BinarySearch(r.Ends, e.Off)
	if inside {
		i++ // one that ends there
	}
	at := e.Off
	switch {
	case i < len(r.Starts) && r.Starts[i] <= e.Off: // in data
		if hole {
			at = r.Ends[i]
		}
	case !hole && i < len(r.Starts):
		at = r.Starts[i]
	case !hole:
		at = end
	}
	return min(at, end), nil
}

type runsRequest struct {
	store *Store
	ref   *Ref
	chunk uint32
	len   uint32
	reply wire.RunsReply
}

func (r *runsRequest) prepare(ctx context.Context, k *known) (wire.Message, wire.Message, error) {
	session, _, err := r.store.masters.WaitSession(ctx)
	if err != nil {
		return nil, nil, err
	}
	r.reply = wire.RunsReply{}
	return &wire.Runs{Address: address(r.ref, k, session, r.chunk), Len: r.len}, &r.reply, nil
}

func (r *runsRequest) failed(error) {}
func (r *runsRequest) done() error  { return nil }
