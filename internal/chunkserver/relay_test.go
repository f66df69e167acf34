package chunkserver

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// relay is a network that can hold what is sent: a sender that is paused, or
// killed with bytes in its socket, or a network that is slow.
type relay struct {
	mu    sync.Mutex
	holds bool
	conns []*heldConn
}

// heldConn is one connection through it.
type heldConn struct {
	net.Conn
	r      *relay
	held   []byte
	closed bool
}

// dialer is what makes connections through the relay; a nil one is none.
func (r *relay) dialer() func(context.Context, string) (net.Conn, error) {
	if r == nil {
		return nil
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		h := &heldConn{Conn: c, r: r}
		r.conns = append(r.conns, h)
		return h, nil
	}
}

// hold keeps back what is sent from now on.
func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = true
}

// bytes is how much is held.
func (r *relay) bytes() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		n += len(c.held)
	}
	return n
}

// release sends what was held, and ends connections that were closed
// meanwhile once the other side has taken everything.
func (r *relay) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = false
	for _, c := range r.conns {
		_, _ = c.Conn.Write(c.held) // the other side may be gone
		c.held = nil
		if c.closed {
			_ = c.Conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c.Conn)
			_ = c.Conn.Close()
		}
	}
}

// lose forgets what was held and breaks every connection, as a network does
// that was cut for a while.
func (r *relay) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = false
	for _, c := range r.conns {
		c.held = nil
		_ = c.Conn.Close() // it may be closed already
	}
}

// Write implements net.Conn.
func (c *heldConn) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !c.r.holds {
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

// Close implements net.Conn.
func (c *heldConn) Close() error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.closed = true
	if len(c.held) > 0 { // they are the kernel's now
		return c.Conn.SetReadDeadline(time.Unix(1, 0)) // for whoever reads
	}
	return c.Conn.Close()
}

// Read implements net.Conn.
func (c *heldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	return n, err
}
