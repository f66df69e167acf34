package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// ServerConn is the serving side of one connection, or of the calls that one
// Client of the same process makes.
type ServerConn struct {
	server *Server
	peer   *Peer
	conn   net.Conn // nil for a local one
	w      *writer
	ctx    context.Context
	cancel context.CancelFunc
	value  atomic.Value
	clean  atomic.Bool // the peer ended it between two requests

	mu       sync.Mutex
	room     sync.Cond // signalled when one of the counts below falls, and at the end
	inflight int
	payload  int // bytes of request payloads
	buffers  int // bytes out of Request.Buffer
	ended    bool

	stalled   int    // ticks without progress; of Server.watch
	wroteSeen uint64 // of Server.watch
}

func newServerConn(s *Server, p *Peer, c net.Conn) *ServerConn {
	sc := &ServerConn{server: s, peer: p, conn: c}
	sc.room.L = &sc.mu
	sc.ctx, sc.cancel = context.WithCancel(s.ctx)
	if c != nil {
		sc.w = newWriter(c, sc.close)
	}
	return sc
}

type boxed struct{ v any }

// Value returns what SetValue set last, nil before.
func (c *ServerConn) Value() any {
	b, _ := c.value.Load().(boxed)
	return b.v
}

// SetValue attaches a handler's state to the connection.
func (c *ServerConn) SetValue(v any) { c.value.Store(boxed{v}) }

// Closed is closed when the connection is.
func (c *ServerConn) Closed() <-chan struct{} { return c.ctx.Done() }

func (c *ServerConn) close(err error) {
	c.cancel()
	c.mu.Lock()
	c.ended = true
	c.room.Broadcast()
	c.mu.Unlock()
	if c.conn != nil {
		c.w.fail(err)
		_ = c.conn.Close()
	}
}

// alive is called at every tick of Server.watch.
func (c *ServerConn) alive() {
	c.mu.Lock()
	working := c.inflight > 0
	c.mu.Unlock()
	if working {
		if f, err := newFrame(header{kind: kindAlive, flags: wire.FlagResponse}, nil); err == nil {
			_ = c.w.send(f, false, 0) // a failed connection is being closed already
		}
	}
	_, busy := c.w.queued()
	if n := c.w.wrote.Load(); n != c.wroteSeen || !busy {
		c.wroteSeen, c.stalled = n, 0
	} else if c.stalled++; time.Duration(c.stalled)*aliveEvery >= stalledMax {
		c.close(ashlar.E("serve", ashlar.Timeout, c.peer.Addr, errors.New("the peer takes no answers")))
	}
}

// take waits until one more request with a payload of n bytes may be held.
func (c *ServerConn) take(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.ended && (c.inflight >= InflightMax || c.payload > 0 && c.payload+n > PayloadBytesMax) {
		c.room.Wait()
	}
	if c.ended {
		return false
	}
	c.inflight++
	c.payload += n
	return true
}

func (c *ServerConn) give(payload, buffers int) {
	c.mu.Lock()
	c.inflight--
	c.payload -= payload
	c.buffers -= buffers
	c.room.Broadcast()
	c.mu.Unlock()
}

// readLoop serves the connection until it fails.
func (c *ServerConn) readLoop() {
	br := bufio.NewReaderSize(c.conn, readBuffer)
	var scratch []byte
	for {
		err := c.readRequest(br, &scratch)
		if err == nil {
			continue
		}
		if err == io.EOF && br.Buffered() == 0 { //nolint:errorlint // of a wrapped one it is not known where it came
			c.clean.Store(true) // before anybody hears that it is closed
		}
		c.close(err)
		if kindOf(err) == ashlar.Corrupt {
			c.server.garbage(c.peer.Addr, "connection closed", err)
		}
		return
	}
}

// readRequest reads one frame and starts its handler. An error ends the
// connection; a request that merely makes no sense is answered with one.
func (c *ServerConn) readRequest(br *bufio.Reader, scratch *[]byte) error {
	hb, err := br.Peek(wire.HeaderSize)
	if err != nil {
		return err
	}
	var h header
	if err := h.parse(hb); err != nil {
		return err
	}
	if h.flags != 0 {
		return ashlar.E("frame", ashlar.Corrupt, "", fmt.Errorf("request with flags %#x", h.flags))
	}
	if _, err := br.Discard(wire.HeaderSize); err != nil {
		return err
	}
	body, err := readBody(br, int(h.body), scratch)
	if err != nil {
		return err
	}
	if !c.take(int(h.payload)) {
		return net.ErrClosed
	}
	r := &Request{Peer: c.peer, Conn: c, id: h.id, held: int(h.payload)}
	if r.Msg = wire.New(h.kind); r.Msg == nil || c.server.handler(h.kind) == nil {
		err = ashlar.E("request", ashlar.Unsupported, fmt.Sprintf("kind %d", h.kind), nil)
	} else {
		err = wire.Decode(body, r.Msg)
	}
	var dst []byte
	if err == nil && h.payload > 0 {
		if dst = r.payloadBuffer(int(h.payload)); len(dst) != int(h.payload) {
			err = ashlar.E("request", ashlar.Corrupt, "", fmt.Errorf("kind %d with a payload", h.kind))
		}
	}
	if err != nil {
		if _, derr := br.Discard(int(h.payload)); derr != nil {
			r.frameGone()
			return derr
		}
		r.answer(nil, err)
		return nil
	}
	if _, err := io.ReadFull(br, dst); err != nil {
		r.frameGone()
		return err
	}
	if h.deadline > 0 {
		r.deadline = time.Now().Add(time.Duration(h.deadline) * time.Millisecond)
	}
	if q := c.server.quick[h.kind]; q != nil && r.pooled == nil {
		switch m, err, what := q(r, br.Buffered() == 0); what {
		case Answered:
			r.answer(m, err)
			return nil
		case Later:
			return nil
		}
	}
	c.server.run(r)
	return nil
}

// readBody reads n bytes into memory that is valid until the next call.
func readBody(br *bufio.Reader, n int, scratch *[]byte) ([]byte, error) {
	if n > cap(*scratch) {
		*scratch = make([]byte, max(n, 4<<10))
	}
	b := (*scratch)[:n]
	if cap(*scratch) > headKept {
		*scratch = nil
	}
	_, err := io.ReadFull(br, b)
	return b, err
}
