package object

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// WriteAt stores p at off; when it returns nil, every in-sync member has it.
// With wire.WriteSync it is on stable storage too. p is not read any more
// once it has returned. If it fails, parts of p may be stored, and parts may
// be stored later, but none after a later write of this store was
// acknowledged (I-7). It fails with ashlar.ErrBeyondLayout, WrongGeneration,
// NoSpace, OutcomeUnknown (the session was lost with the write under way, or
// the servers can no longer tell), or Timeout or Canceled when ctx ended.
func (s *Store) WriteAt(ctx context.Context, ref *Ref, p []byte, off uint64, flags uint32) error {
	return s.writeRange(ctx, ref, p, uint64(len(p)), off, flags&wire.WriteSync)
}

// Zero makes [off, off+n) zeros, with the guarantees of WriteAt.
func (s *Store) Zero(ctx context.Context, ref *Ref, off, n uint64) error {
	return s.writeRange(ctx, ref, nil, n, off, wire.WriteZero)
}

func (s *Store) writeRange(ctx context.Context, ref *Ref, p []byte, n, off uint64, flags uint32) error {
	cut := writePiece
	if p == nil { // zeros take no room in a message
		cut = func(_ *ashlar.Extent, n uint64) uint64 { return n }
	}
	pieces, err := split(ref, p, n, off, cut)
	if err != nil {
		return err
	}
	return parallel(pieces, func(x *piece) error {
		w := &writeRequest{sequence: sequence{store: s}}
		w.msg = wire.Write{
			Flags: flags, Off: x.Off, Len: x.Len, ChunkSize: ref.Layout.ChunkSize, Origin: ref.origin(x.Chunk), Data: x.data,
		}
		w.ref, w.chunk = ref, x.Chunk
		if x.data != nil {
			w.msg.Sums = checksum.Append(make([]uint32, 0, checksum.Count(uint64(x.Off), len(x.data))), uint64(x.Off), x.data)
		}
		defer w.settle()
		return s.run(ctx, x.Group, w)
	})
}

// writePiece returns how much of an extent one write takes: up to the next
// multiple of ashlar.IOMax in the chunk, so that no two pieces share a block.
func writePiece(e *ashlar.Extent, n uint64) uint64 {
	return min(n, ashlar.IOMax-uint64(e.Off)%ashlar.IOMax)
}

// sequence is the number that a change of data keeps in every attempt (I-7).
type sequence struct {
	store *Store
	under *writes // the session that seq belongs to, nil while it has none
	seq   uint64
	maybe bool // it may have arrived under that session
}

// take sees to it that there is one of the present session.
func (q *sequence) take(ctx context.Context) error {
	for {
		now, err := q.store.window(ctx)
		if err != nil {
			return err
		}
		if q.under == now {
			return nil
		}
		if q.under != nil && q.maybe {
			return ashlar.E("write", ashlar.OutcomeUnknown, fmt.Sprintf("session %d", q.under.session), errSessionLost)
		}
		q.settle()
		seq, err := now.window.Begin(ctx)
		if err != nil {
			return err
		}
		if seq != 0 {
			q.under, q.seq = now, seq
		}
	}
}

var errSessionLost = errors.New("the session was lost while it was under way")

// flags says in a message's flags whether it may have arrived before.
func (q *sequence) flags(f uint32) uint32 {
	if q.maybe {
		return f | wire.WriteRetry
	}
	return f &^ wire.WriteRetry
}

// failed notes that the write may have taken effect, unless it never arrived
// or was refused for who sent it.
func (q *sequence) failed(err error) {
	switch {
	case errors.Is(err, rpc.ErrNotSent), errors.Is(err, ashlar.Auth), errors.Is(err, ashlar.NoSession):
	default:
		q.maybe = true
	}
}

func (q *sequence) done() error { return nil }

// settle ends the sequence: from now on servers may be told to refuse it.
func (q *sequence) settle() {
	if q.under != nil {
		q.under.window.Settle(q.seq)
		q.under, q.seq, q.maybe = nil, 0, false
	}
}

// writeRequest is one write.
type writeRequest struct {
	sequence
	ref   *Ref
	chunk uint32
	msg   wire.Write
}

func (w *writeRequest) prepare(ctx context.Context, k *known) (wire.Message, wire.Message, error) {
	if err := w.take(ctx); err != nil {
		return nil, nil, err
	}
	w.msg.Address = address(w.ref, k, w.under.session, w.chunk)
	w.msg.Seq, w.msg.Lowest, w.msg.Flags = w.seq, w.under.window.Lowest(), w.flags(w.msg.Flags)
	return &w.msg, nil, nil
}
