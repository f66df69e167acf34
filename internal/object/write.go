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
	pieces, err := split(ref, p, n, off, writePiece)
	if err != nil {
		return err
	}
	return parallel(pieces, func(x *piece) error {
		w := &writeRequest{store: s}
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

// writeRequest is one write. It keeps its sequence in every attempt (I-7).
type writeRequest struct {
	store *Store
	ref   *Ref
	chunk uint32
	msg   wire.Write
	under *writes // the session that msg.Seq belongs to, nil while it has none
	maybe bool    // it may have arrived under that session
}

func (w *writeRequest) prepare(ctx context.Context, k *known) (wire.Message, wire.Message, error) {
	for {
		now, err := w.store.window(ctx)
		if err != nil {
			return nil, nil, err
		}
		if w.under == now {
			break
		}
		if w.under != nil && w.maybe {
			return nil, nil, ashlar.E("write", ashlar.OutcomeUnknown, fmt.Sprintf("session %d", w.under.session), errSessionLost)
		}
		w.settle()
		seq, err := now.window.Begin(ctx)
		if err != nil {
			return nil, nil, err
		}
		if seq != 0 {
			w.under, w.msg.Seq = now, seq
		}
	}
	w.msg.Address = address(w.ref, k, w.under.session, w.chunk)
	w.msg.Lowest = w.under.window.Lowest()
	if w.maybe {
		w.msg.Flags |= wire.WriteRetry
	}
	return &w.msg, nil, nil
}

var errSessionLost = errors.New("the session was lost while it was under way")

// failed notes that the write may have taken effect, unless it never arrived
// or was refused for who sent it.
func (w *writeRequest) failed(err error) {
	switch {
	case errors.Is(err, rpc.ErrNotSent), errors.Is(err, ashlar.Auth), errors.Is(err, ashlar.NoSession):
	default:
		w.maybe = true
	}
}

func (w *writeRequest) done() error { return nil }

// settle ends the sequence: from now on servers may be told to refuse it.
func (w *writeRequest) settle() {
	if w.under != nil {
		w.under.window.Settle(w.msg.Seq)
		w.under, w.msg.Seq, w.maybe = nil, 0, false
		w.msg.Flags &^= wire.WriteRetry
	}
}
