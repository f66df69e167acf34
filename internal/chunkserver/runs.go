package chunkserver

import (
	"context"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// handleRuns answers where in a chunk data is.
func (s *Server) handleRuns(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Runs)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if m.Len == 0 || uint64(m.Off)+uint64(m.Len) > ashlar.ChunkSizeMax {
		return nil, ashlar.E("runs", ashlar.Invalid, fmt.Sprintf("pg %d", m.Group), fmt.Errorf("%d bytes at %d", m.Len, m.Off))
	}
	t, err := l.admit(ctx, r, &m.Address)
	if err != nil {
		return nil, err
	}
	return t.runs(ctx, m)
}

// runs looks under a shared span, as a read does (I-5).
func (t *seat) runs(ctx context.Context, m *wire.Runs) (*wire.RunsReply, error) {
	s := span(m.Layer, m.Chunk, m.Off, m.Len, true)
	if err := t.lock(ctx, m.Epoch, s); err != nil {
		return nil, err
	}
	k := chunkstore.Key{Group: t.group, Layer: m.Layer, Index: m.Chunk}
	var regions []chunkstore.Region
	err := t.gateRead(&m.Address)
	if err == nil {
		regions, err = t.d.store.Runs(k, m.Off, m.Len)
	}
	t.unlock(s)
	if damage(err) != nil { // it is mended when it is read; zeros it is not
		regions, err = []chunkstore.Region{{Off: m.Off, Len: m.Len}}, nil
	}
	if err != nil {
		return nil, err
	}
	rep := &wire.RunsReply{Next: ^uint32(0)}
	for _, x := range regions {
		rep.Starts, rep.Ends = append(rep.Starts, x.Off), append(rep.Ends, x.Off+x.Len)
	}
	if len(regions) == 0 {
		next, ok, err := t.d.store.NextChunk(t.group, m.Layer, m.Chunk)
		if err != nil {
			return nil, err
		}
		if ok {
			rep.Next = next
		}
	}
	return rep, t.still(m.Epoch)
}
