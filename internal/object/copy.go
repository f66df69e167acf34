package object

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Copy makes [off, off+n) of to what is at fromOff of from, without the data
// coming here: the primaries of to fetch it from those of from. It gives the
// guarantees of WriteAt for to; holes stay holes where a whole piece is one.
// It fails with ashlar.Unsupported if a source can not be had that way just
// now (the caller then reads and writes), with WrongGeneration, ErrBeyondLayout
// and so on if it is to that can not be written.
func (s *Store) Copy(ctx context.Context, from *Ref, fromOff uint64, to *Ref, off, n uint64) error {
	var pieces []copyPiece
	for n > 0 {
		dst, err := to.Layout.Locate(off, n)
		if err != nil {
			return err
		}
		k := writePiece(&dst, uint64(dst.Len))
		src, err := from.Layout.Locate(fromOff, k)
		if errors.Is(err, ashlar.ErrBeyondLayout) {
			// Not that error itself: it would say that to has to grow.
			return ashlar.E("copy", ashlar.Unsupported, "the source", errSourceEnds)
		} else if err != nil {
			return err
		}
		k = min(k, uint64(src.Len))
		dst.Len = uint32(k)
		pieces = append(pieces, copyPiece{src, dst})
		off, fromOff, n = off+k, fromOff+k, n-k
	}
	return parallel(pieces, func(x *copyPiece) error {
		q := &copyRequest{sequence: sequence{store: s}, copyPiece: *x, from: from, to: to}
		defer q.settle()
		return s.run(ctx, x.dst.Group, q)
	})
}

var errSourceEnds = errors.New("its layout ends before what is to be copied")

// copyPiece is what one message copies.
type copyPiece struct{ src, dst ashlar.Extent }

// copyRequest is one write whose data is in another chunk.
type copyRequest struct {
	sequence
	copyPiece
	from, to *Ref
	msg      wire.CopyRange
}

func (q *copyRequest) prepare(ctx context.Context, k *known) (wire.Message, wire.Message, error) {
	source, err := q.store.place(q.src.Group).get(ctx)
	if err != nil {
		return nil, nil, err
	}
	if source.addr == "" {
		return nil, nil, ashlar.E("copy", ashlar.Unsupported, "the source", errNoPrimary)
	}
	if err := q.take(ctx); err != nil {
		return nil, nil, err
	}
	session := q.under.session
	q.msg = wire.CopyRange{
		Address: address(q.to, k, session, q.dst.Chunk), Origin: q.to.origin(q.dst.Chunk),
		Seq: q.seq, Lowest: q.under.window.Lowest(), Flags: q.flags(0),
		Off: q.dst.Off, Len: q.dst.Len, ChunkSize: q.to.Layout.ChunkSize,
		Source: address(q.from, source, session, q.src.Chunk), SourceAddr: source.addr, SourceOff: q.src.Off,
	}
	return &q.msg, nil, nil
}
