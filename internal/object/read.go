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

// ReadAt fills p with the object's bytes from off on; what was never written
// is zeros. p must not be touched before it returns. It fails with
// ashlar.ErrBeyondLayout, WrongGeneration (I-10), Corrupt (no copy has the
// data as it was written), or Timeout or Canceled when ctx ended.
func (s *Store) ReadAt(ctx context.Context, ref *Ref, p []byte, off uint64) error {
	pieces, err := split(ref, p, uint64(len(p)), off, readPiece)
	if err != nil {
		return err
	}
	return parallel(pieces, func(x *piece) error { return s.read(ctx, ref, x) })
}

// readPiece returns how much of an extent one read takes: whole blocks of at
// most ashlar.IOMax, and edges apart from a large middle.
func readPiece(e *ashlar.Extent, n uint64) uint64 {
	const b = ashlar.BlockSize
	head := uint64(e.Off % b)
	if head+n <= scratchMax {
		return n
	}
	if head != 0 {
		return min(n, b-head)
	}
	return min(n/b*b, ashlar.IOMax)
}

func (s *Store) read(ctx context.Context, ref *Ref, x *piece) error {
	const b = ashlar.BlockSize
	start := x.Off / b * b
	end := (x.Off + x.Len + b - 1) / b * b
	r := &readRequest{store: s, ref: ref, chunk: x.Chunk, off: start, len: end - start}
	if start == x.Off && r.len == x.Len {
		r.buf = x.data[:x.Len:x.Len]
		return s.run(ctx, x.Group, r)
	}
	r.buf = rpc.GetBuffer(int(r.len))
	defer rpc.PutBuffer(r.buf)
	if err := s.run(ctx, x.Group, r); err != nil {
		return err
	}
	copy(x.data, r.buf[x.Off-start:])
	return nil
}

// readRequest reads whole blocks into buf.
type readRequest struct {
	store    *Store
	ref      *Ref
	chunk    uint32
	off, len uint32
	buf      []byte
	addr     string
	reply    wire.ReadReply
}

func (r *readRequest) prepare(ctx context.Context, k *known) (wire.Message, wire.Message, error) {
	session, _, err := r.store.masters.WaitSession(ctx)
	if err != nil {
		return nil, nil, err
	}
	r.addr = k.addr
	r.reply = wire.ReadReply{Data: r.buf[:0:len(r.buf)]}
	return &wire.Read{Address: address(r.ref, k, session, r.chunk), Off: r.off, Len: r.len}, &r.reply, nil
}

func (r *readRequest) failed(error) {}

// done verifies what arrived.
func (r *readRequest) done() error {
	if r.reply.Zero {
		clear(r.buf)
		return nil
	}
	bad := func(err error) error {
		return ashlar.E("read", ashlar.Corrupt, fmt.Sprintf("layer %x chunk %d", uint64(r.ref.Layer), r.chunk), err)
	}
	if len(r.reply.Data) != len(r.buf) || &r.reply.Data[0] != &r.buf[0] {
		return bad(fmt.Errorf("%d bytes where %d were asked for", len(r.reply.Data), len(r.buf)))
	}
	if len(r.reply.Sums) == 0 {
		return bad(errors.New("no checksums"))
	}
	if i := checksum.Verify(r.reply.Sums, uint64(r.off), r.buf); i >= 0 {
		block := r.off/ashlar.BlockSize + uint32(i)
		r.store.log.Warn("data arrived damaged", "addr", r.addr, "layer", uint64(r.ref.Layer), "chunk", r.chunk, "block", block)
		return bad(fmt.Errorf("block %d from %s has a wrong checksum", block, r.addr))
	}
	return nil
}

func address(ref *Ref, k *known, session ashlar.SessionID, chunk uint32) wire.Address {
	return wire.Address{
		Group: k.group.ID, Epoch: k.group.Epoch, Session: session, Layer: ref.Layer, Gen: ref.Gen, Chunk: chunk,
	}
}
