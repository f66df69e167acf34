package rpc

import (
	"context"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Request is one request being served. Msg and its payload are valid until
// the handler has returned and its answer was sent; a handler that keeps any
// of it longer copies it.
type Request struct {
	Peer *Peer
	Conn *ServerConn
	Msg  wire.Message

	id       uint64
	deadline time.Time
	held     int // bytes of payload counted in Conn
	pooled   []byte
	buffers  [][]byte
	buffered int // bytes of buffers counted in Conn
	onSent   []func()
	local    chan localReply // not nil for a local request
}

// Buffer returns n bytes for the payload of the answer. They go back to a
// pool when the answer was sent. It waits while the answers that the
// connection has not taken hold too much, but never for a second buffer.
func (r *Request) Buffer(n int) []byte {
	c := r.Conn
	c.mu.Lock()
	for len(r.buffers) == 0 && !c.ended && c.buffers > 0 && c.buffers+n > PayloadBytesMax {
		c.room.Wait()
	}
	c.buffers += n
	c.mu.Unlock()
	b := GetBuffer(n)
	r.buffers = append(r.buffers, b)
	r.buffered += n
	return b
}

// OnSent makes f be called when the answer was sent, or will never be. f must
// not block.
func (r *Request) OnSent(f func()) { r.onSent = append(r.onSent, f) }

// payloadBuffer returns where to receive the payload.
func (r *Request) payloadBuffer(n int) []byte {
	p, ok := r.Msg.(wire.Payloader)
	if !ok {
		return nil
	}
	b := GetBuffer(n)
	if presetPayload(r.Msg, b) {
		r.pooled = b
	} else {
		PutBuffer(b)
	}
	return p.PayloadBuffer(n)
}

func (r *Request) serve() {
	s := r.Conn.server
	defer s.running.Done()
	ctx := r.Conn.ctx
	if !r.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.deadline)
		defer cancel()
	}
	if err := ctx.Err(); err != nil { // nobody waits for it any more
		r.answer(nil, err)
		return
	}
	m, err := s.handler(r.Msg.Kind())(ctx, r)
	r.answer(m, err)
}

// Answer ends a request that a Quick took for Later. It does not block.
func (r *Request) Answer(m wire.Message, err error) { r.answer(m, err) }

// answer sends the reply, or notes that there is none to be sent.
func (r *Request) answer(m wire.Message, err error) {
	if r.local != nil {
		r.answerLocal(m, err)
		return
	}
	if r.id == 0 { // one-way
		r.frameGone()
		return
	}
	h := header{flags: wire.FlagResponse, id: r.id}
	if err != nil {
		m = errorMessage(err)
		h.flags |= wire.FlagError
	} else if m == nil {
		m = new(wire.Empty)
	}
	f, err := newFrame(h, m)
	if err != nil {
		h.flags |= wire.FlagError
		if f, err = newFrame(h, errorMessage(ashlar.E("answer", kindOf(err), "", err))); err != nil {
			r.frameGone()
			r.Conn.close(err)
			return
		}
	}
	f.owner = r
	r.Conn.mu.Lock()
	alone := r.Conn.inflight == 1
	r.Conn.mu.Unlock()
	_ = r.Conn.w.send(f, alone, 0) // a failed connection is being closed already
}

// frameGone implements frameOwner: the answer was sent or dropped.
func (r *Request) frameGone() {
	for _, f := range r.onSent {
		f()
	}
	for _, b := range r.buffers {
		PutBuffer(b)
	}
	if r.pooled != nil {
		PutBuffer(r.pooled)
	}
	r.Conn.give(r.held, r.buffered)
	r.onSent, r.buffers, r.pooled = nil, nil, nil
}
