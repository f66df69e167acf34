package chunkserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// handleCopyRange is a client's write whose data is in another chunk. It is
// read under its own group's rules first and then ordered as any write is, so
// that a retry of one that took effect changes nothing (I-7).
func (s *Server) handleCopyRange(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.CopyRange)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	defer s.serve()()
	if m.Len == 0 || m.Len > ashlar.IOMax || uint64(m.SourceOff)+uint64(m.Len) > ashlar.ChunkSizeMax || m.Source.Session != m.Session {
		return nil, ashlar.E("copy", ashlar.Invalid, fmt.Sprintf("pg %d", m.Group), fmt.Errorf("%d bytes at %d", m.Len, m.SourceOff))
	}
	t, err := l.admit(ctx, r, &m.Address)
	if err != nil {
		return nil, err
	}
	w := &wire.Write{
		Address: m.Address, Origin: m.Origin, Seq: m.Seq, Lowest: m.Lowest, Flags: m.Flags, Off: m.Off, Len: m.Len, ChunkSize: m.ChunkSize,
	}
	buf := rpc.GetBuffer(int(m.Len) + 2*ashlar.BlockSize)
	defer rpc.PutBuffer(buf) // a write that has returned is read by nobody
	data, err := l.source(ctx, r, m, buf)
	if err != nil {
		return nil, sourceFailed(err)
	}
	if data == nil {
		w.Flags |= wire.WriteZero
	} else {
		w.Data, w.Sums = data, checksum.Append(nil, uint64(m.Off), data)
	}
	if err := checkWrite(w); err != nil {
		return nil, err
	}
	return nil, t.write(ctx, w)
}

// sourceFailed tells the client that it is the source that could not be read:
// it then copies itself, and meets what is wrong there.
func sourceFailed(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return ashlar.E("copy", ashlar.Unsupported, "the source", err)
}

// source reads what is to be copied, whole blocks, and returns the part that
// was asked for; nil if it is zeros.
func (l *life) source(ctx context.Context, r *rpc.Request, m *wire.CopyRange, buf []byte) ([]byte, error) {
	const b = ashlar.BlockSize
	start := m.SourceOff / b * b
	end := (m.SourceOff + m.Len + b - 1) / b * b
	var out []byte
	zero := true
	for off := start; off < end; off += ashlar.IOMax { // two at most: the edges may add a block
		n := min(end-off, ashlar.IOMax)
		q := &wire.Read{Address: m.Source, Off: off, Len: n}
		part := buf[off-start : off-start+n]
		z, err := l.readSource(ctx, r, q, m.SourceAddr, part)
		if err != nil {
			return nil, err
		}
		if z {
			clear(part)
		}
		zero = zero && z
	}
	if zero {
		return nil, nil
	}
	out = buf[m.SourceOff-start:]
	return out[:m.Len:m.Len], nil
}

func (l *life) readSource(ctx context.Context, r *rpc.Request, q *wire.Read, addr string, buf []byte) (zero bool, err error) {
	if t := l.primary(q.Group); t != nil && t.ready(q.Epoch) == nil {
		if t, err = l.admit(ctx, r, &q.Address); err != nil {
			return false, err
		}
		_, zero, err = t.read(ctx, q, buf)
		return zero, err
	}
	if !l.knows(addr) {
		return false, ashlar.E("copy", ashlar.Unreachable, addr, errors.New("not known here as a node's"))
	}
	rep := wire.ReadReply{Data: buf[:0:len(buf)]}
	if err := l.s.cfg.RPC.Call(ctx, addr, q, &rep); err != nil {
		return false, err
	}
	if rep.Zero {
		return true, nil
	}
	if len(rep.Data) != len(buf) || &rep.Data[0] != &buf[0] || len(rep.Sums) == 0 || checksum.Verify(rep.Sums, uint64(q.Off), buf) >= 0 {
		return false, ashlar.E("copy", ashlar.Corrupt, addr, errors.New("the source arrived damaged"))
	}
	return false, nil
}

// knows tells whether the masters have named a node at an address: of a member
// of some group that has another here. What a client names is not dialled
// otherwise.
func (l *life) knows(addr string) bool {
	for _, t := range l.all() {
		t.mu.Lock()
		cfg := t.sm.Config()
		named := slices.ContainsFunc(cfg.Members, func(m ashlar.Member) bool { return m.Addr == addr })
		t.mu.Unlock()
		if named {
			return true
		}
	}
	return false
}
