package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// errStale says that the connection was lost before the call was put on it.
var errStale = errors.New("connection was lost before")

// clientConn is one connection with the calls waiting on it.
type clientConn struct {
	client  *Client
	addr    string
	peer    *Peer
	conn    net.Conn
	w       *writer
	slots   chan struct{} // one for every call waiting
	waiting atomic.Int32
	heard   atomic.Bool // since the last tick of Client.watch
	silence time.Duration

	mu     sync.Mutex
	err    error // set once, by close
	onEnd  func()
	nextID uint64
	calls  map[uint64]*call
}

// call is one request waiting for its answer. Whoever takes it out of
// clientConn.calls owns it: the reader, which then sends on done, or the
// caller, which gives up.
type call struct {
	reply     wire.Message
	done      chan error // buffered 1
	abandoned atomic.Bool
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan error, 1)} }}

func newClientConn(c *Client, addr string, p *Peer, nc net.Conn) *clientConn {
	conn := &clientConn{
		client: c, addr: addr, peer: p, conn: nc,
		slots: make(chan struct{}, InflightMax), calls: map[uint64]*call{},
	}
	conn.w = newWriter(nc, conn.close)
	return conn
}

// start makes onEnd be called when the connection is closed, at once if it
// was already.
func (c *clientConn) start(onEnd func()) {
	c.mu.Lock()
	ended := c.err != nil
	c.onEnd = onEnd
	c.mu.Unlock()
	if ended {
		onEnd()
	}
}

// close fails every call waiting.
func (c *clientConn) close(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	onEnd := c.onEnd
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	c.w.fail(err)
	_ = c.conn.Close()
	if onEnd != nil {
		onEnd()
	}
	lost := ashlar.E("call", ashlar.Unreachable, c.addr, fmt.Errorf("connection lost: %w", err))
	for _, k := range calls {
		k.done <- lost
	}
}

// attach runs the hooks.
func (c *clientConn) attach(ctx context.Context, hooks []Hook) error {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	for _, h := range hooks {
		err := h(ctx, c.addr, func(req, reply wire.Message) error { return c.call(ctx, req, reply) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *clientConn) call(ctx context.Context, req, reply wire.Message) error {
	h := header{}
	if d, ok := ctx.Deadline(); ok {
		ms := time.Until(d).Milliseconds() + 1
		if ms <= 0 || ctx.Err() != nil {
			return ashlar.E("call", ashlar.Timeout, c.addr, &unsent{context.DeadlineExceeded})
		}
		h.deadline = uint32(min(ms, 1<<31))
	}
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return ashlar.E("call", ashlar.KindOf(contextError(ctx, "")), c.addr, &unsent{ctx.Err()})
		}
	}
	p, err := c.begin(h, req, reply)
	if err != nil {
		return err
	}
	return p.wait(ctx)
}

// abandon returns when the reader does not touch the call any more.
func (c *clientConn) abandon(id uint64, k *call) {
	if c.take(id) != nil {
		return
	}
	k.abandoned.Store(true)
	_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // wakes a reader that is inside the payload
	<-k.done
}

// take removes a call from those waiting; nil if somebody else did.
func (c *clientConn) take(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	delete(c.calls, id)
	return k
}

// checkSilence is called by Client.watch every so often.
func (c *clientConn) checkSilence(every time.Duration) {
	c.mu.Lock()
	n := len(c.calls)
	c.mu.Unlock()
	if c.heard.Swap(false) || n == 0 {
		c.silence = 0
		return
	}
	if c.silence += every; c.silence >= silentMax {
		c.close(ashlar.E("call", ashlar.Timeout, c.addr, fmt.Errorf("nothing heard for %v", silentMax)))
	}
}

// readLoop receives answers until the connection fails.
func (c *clientConn) readLoop() {
	r := &replyReader{c: c, br: bufio.NewReaderSize(c.conn, readBuffer)}
	for {
		if err := r.next(); err != nil {
			c.close(err)
			if kindOf(err) == ashlar.Corrupt {
				c.client.log.warn("connection closed", "addr", c.addr, "err", err)
			}
			return
		}
	}
}

// replyReader is the reading half of a clientConn.
type replyReader struct {
	c       *clientConn
	br      *bufio.Reader
	scratch []byte
	current *call // whose payload is being received
}

var errAbandoned = errors.New("caller gave up")

// full fills p. A read deadline in the past is how a caller asks for its
// buffer back; errAbandoned then says that it was this one, after which n
// bytes have been read.
func (r *replyReader) full(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := r.br.Read(p[n:])
		n += k
		if k > 0 {
			r.c.heard.Store(true)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		// The deadline goes before the flag is looked at: a caller that comes
		// later sets it again.
		_ = r.c.conn.SetReadDeadline(time.Time{})
		if r.current != nil && r.current.abandoned.Load() {
			return n, errAbandoned
		}
	}
	return n, nil
}

func (r *replyReader) discard(n int) error {
	buf := GetBuffer(min(n, 64<<10))
	defer PutBuffer(buf)
	for n > 0 {
		k, err := r.full(buf[:min(n, len(buf))])
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// next receives one frame. An error ends the connection.
func (r *replyReader) next() error {
	var hb [wire.HeaderSize]byte
	if _, err := r.full(hb[:]); err != nil {
		return err
	}
	var h header
	if err := h.parse(hb[:]); err != nil {
		return err
	}
	if h.flags&wire.FlagResponse == 0 || h.flags&^(wire.FlagResponse|wire.FlagError) != 0 {
		return ashlar.E("frame", ashlar.Corrupt, "", fmt.Errorf("answer with flags %#x", h.flags))
	}
	n := int(h.body)
	if n > cap(r.scratch) {
		r.scratch = make([]byte, max(n, 4<<10))
	}
	body := r.scratch[:n]
	if _, err := r.full(body); err != nil {
		return err
	}
	if cap(r.scratch) > headKept {
		r.scratch = nil
	}
	if h.id == 0 {
		return r.unasked(&h, body)
	}
	k := r.c.take(h.id)
	if k == nil { // its caller gave up
		return r.discard(int(h.payload))
	}
	return r.deliver(k, &h, body)
}

// unasked handles a frame that answers no call: a sign of life, or the reason
// why the server closes the connection.
func (r *replyReader) unasked(h *header, body []byte) error {
	if h.flags&wire.FlagError != 0 {
		m := new(wire.ErrorMessage)
		if h.kind == m.Kind() && wire.Decode(body, m) == nil {
			return remoteError(m)
		}
	}
	if h.kind != kindAlive || h.body != 0 || h.payload != 0 {
		return ashlar.E("frame", ashlar.Corrupt, "", fmt.Errorf("answer of kind %d to nothing", h.kind))
	}
	return nil
}

// deliver decodes an answer and ends its call. An error ends the connection.
func (r *replyReader) deliver(k *call, h *header, body []byte) error {
	dst, answer := decodeReply(k.reply, h, body)
	if h.payload == 0 || dst == nil {
		k.done <- answer
		return r.discard(int(h.payload))
	}
	r.current = k
	n, err := r.full(dst)
	r.current = nil
	switch {
	case errors.Is(err, errAbandoned):
		k.done <- nil
		return r.discard(int(h.payload) - n)
	case err != nil:
		k.done <- ashlar.E("call", ashlar.Unreachable, r.c.addr, fmt.Errorf("connection lost: %w", err))
		return err
	}
	k.done <- answer
	return nil
}

// decodeReply decodes a body into reply and returns where its payload goes,
// nil for nowhere, and what the call returns.
func decodeReply(reply wire.Message, h *header, body []byte) (dst []byte, answer error) {
	if h.flags&wire.FlagError != 0 {
		m := new(wire.ErrorMessage)
		if h.kind != m.Kind() {
			return nil, ashlar.E("answer", ashlar.Corrupt, "", fmt.Errorf("error of kind %d", h.kind))
		}
		if err := wire.Decode(body, m); err != nil {
			return nil, err
		}
		return nil, remoteError(m)
	}
	if reply == nil {
		return nil, nil
	}
	if h.kind != reply.Kind() {
		return nil, ashlar.E("answer", ashlar.Corrupt, "", fmt.Errorf("kind %d where %T was expected", h.kind, reply))
	}
	if err := wire.Decode(body, reply); err != nil {
		return nil, err
	}
	p, ok := reply.(wire.Payloader)
	if !ok && h.payload == 0 {
		return nil, nil
	}
	if ok {
		dst = p.PayloadBuffer(int(h.payload))
	}
	if len(dst) != int(h.payload) {
		return nil, ashlar.E("answer", ashlar.Corrupt, "", fmt.Errorf("%T does not take a payload of %d bytes", reply, h.payload))
	}
	return dst, nil
}
