package sim

import (
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// endpoint is one end of a connection. Network.mu guards all of it.
type endpoint struct {
	n               *Network
	host            *host
	remote          string // the other machine
	local, far      string // addresses
	peer            *endpoint
	dialing         bool // this end connected
	frames          frames
	readBy, writeBy deadline

	// What this end sends: segments on their way, in order.
	queue   []*segment
	flying  int       // bytes sent and not read at the other end
	last    time.Time // when the newest segment arrives
	blocked uint64    // counts the times that the way was blocked
	held    *segment  // a consensus packet that is overtaken

	// What it has received.
	buffer []byte
	eof    bool
	wake   chan struct{} // closed and replaced when something changed

	err    error // the connection is broken
	closed bool  // by this process, or its end
}

// segment is what one write sent, or the end of the stream.
type segment struct {
	data  []byte
	fin   bool
	reset bool
	at    time.Time
	armed bool
}

func newEndpoint(n *Network, h *host, remote, local, far string) *endpoint {
	e := &endpoint{n: n, host: h, remote: remote, local: local, far: far, wake: make(chan struct{})}
	h.ends = append(h.ends, e)
	return e
}

// signal wakes who waits at this end.
func (e *endpoint) signal() {
	close(e.wake)
	e.wake = make(chan struct{})
}

// gone takes the end out of its machine.
func (e *endpoint) gone() {
	if i := slices.Index(e.host.ends, e); i >= 0 {
		e.host.ends = slices.Delete(e.host.ends, i, i+1)
	}
	if e.err == nil {
		e.err = syscall.ECONNRESET
	}
	e.queue, e.held = nil, nil
	e.signal()
}

// fail breaks this end.
func (e *endpoint) fail(err error) {
	if e.err != nil || e.closed {
		return
	}
	e.n.trace.add("broken %s %s %v", e.local, e.far, err)
	e.err = err
	e.gone()
}

// blockedNow tells whether nothing this end sends is taken.
func (e *endpoint) blockedNow() bool {
	return e.n.link(e.host.name, e.remote).cut || !e.n.host(e.remote).up
}

// keepalive begins the wait after which a kernel gives up a connection whose
// other end says nothing.
func (e *endpoint) keepalive() {
	e.blocked++
	mark := e.blocked
	wait := keepaliveTime
	if len(e.queue) > 0 {
		wait = userTimeout
	}
	e.n.after(wait, func() {
		if e.blocked != mark {
			return
		}
		e.fail(syscall.ETIMEDOUT)
		if e.peer != nil && e.n.link(e.host.name, e.remote).cut {
			e.peer.fail(syscall.ETIMEDOUT)
		}
	})
}

// resume sends again what was held back.
func (e *endpoint) resume() {
	if e.blockedNow() {
		return
	}
	e.blocked++
	for _, s := range e.queue {
		s.armed = false
	}
	e.last = time.Now().Add(time.Duration(e.n.rng.Int64N(int64(retransmitMax))))
	for _, s := range e.queue {
		s.at = e.last
	}
	e.arm()
}

// send puts a segment on its way.
func (e *endpoint) send(s *segment) {
	l := e.n.link(e.host.name, e.remote)
	at := time.Now().Add(e.n.delay(l) + time.Duration(len(s.data))*time.Second/bandwidth)
	if at.Before(e.last) {
		at = e.last
	}
	s.at, e.last = at, at
	e.queue = append(e.queue, s)
	e.flying += len(s.data)
	if e.blockedNow() {
		if len(e.queue) == 1 {
			e.keepalive()
		}
		return
	}
	e.arm()
}

// arm sets the timer of the first segment.
func (e *endpoint) arm() {
	if len(e.queue) == 0 || e.queue[0].armed {
		return
	}
	s := e.queue[0]
	s.armed = true
	e.n.after(time.Until(s.at), func() {
		if len(e.queue) > 0 && e.queue[0] == s && s.armed {
			e.arrive(s)
		}
	})
}

// arrive delivers the first segment.
func (e *endpoint) arrive(s *segment) {
	if e.blockedNow() {
		s.armed = false
		e.keepalive()
		return
	}
	e.queue = e.queue[1:]
	p := e.peer
	e.n.trace.add("packet %s %s %d %v %v", e.local, e.far, len(s.data), s.fin, s.reset)
	switch {
	case p.err != nil || p.closed: // the other kernel knows no such connection
		e.flying -= len(s.data)
		if !s.fin && !s.reset && !e.closed {
			e.n.after(e.n.delay(e.n.link(e.remote, e.host.name)), func() {
				if !e.n.link(e.remote, e.host.name).cut {
					e.fail(syscall.ECONNRESET)
				}
			})
		}
	case s.reset:
		p.fail(syscall.ECONNRESET)
	case s.fin:
		p.eof = true
		p.signal()
	default:
		p.buffer = append(p.buffer, s.data...)
		p.signal()
	}
	e.arm()
}

// closeLocked ends this end as its process does, or its kernel for it: what
// was sent still arrives; what was not read makes it a reset.
func (e *endpoint) closeLocked() {
	if e.closed {
		return
	}
	e.closed = true
	if e.err == nil && e.peer != nil {
		if e.held != nil {
			e.send(e.held)
			e.held = nil
		}
		e.send(&segment{fin: len(e.buffer) == 0, reset: len(e.buffer) > 0})
	}
	if i := slices.Index(e.host.ends, e); i >= 0 {
		e.host.ends = slices.Delete(e.host.ends, i, i+1)
	}
	if e.peer != nil {
		e.peer.flying = 0
		e.peer.signal()
	}
	e.buffer = nil
	e.signal()
}

func (e *endpoint) opError(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: address(e.local), Addr: address(e.far), Err: err}
}

// Read implements net.Conn.
func (e *endpoint) Read(p []byte) (int, error) {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, e.opError("read", net.ErrClosed)
		case e.readBy.over():
			return 0, e.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(e.buffer) > 0:
			n := copy(p, e.buffer)
			e.buffer = e.buffer[n:]
			if e.peer != nil {
				e.peer.flying -= n
				e.peer.signal()
			}
			return n, nil
		case e.err != nil:
			return 0, e.opError("read", e.err)
		case e.eof:
			return 0, io.EOF
		}
		e.wait(&e.readBy)
	}
}

// Write implements net.Conn.
func (e *endpoint) Write(p []byte) (int, error) {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, e.opError("write", net.ErrClosed)
		case e.err != nil:
			return 0, e.opError("write", e.err)
		case e.writeBy.over():
			return 0, e.opError("write", os.ErrDeadlineExceeded)
		case e.flying < windowBytes:
			e.packets(p)
			return len(p), nil
		}
		e.wait(&e.writeBy)
	}
}

// packets sends bytes, and does to consensus packets what a lossy link does.
func (e *endpoint) packets(p []byte) {
	e.frames.first = e.dialing
	for _, f := range e.frames.cut(p) {
		if !f.raft || !e.n.link(e.host.name, e.remote).lossy {
			e.flush(f.data)
			continue
		}
		switch e.n.rng.IntN(10) {
		case 0: // lost
		case 1: // twice
			e.flush(f.data)
			e.send(&segment{data: slices.Clone(f.data)})
		case 2: // overtaken by the next
			if e.held == nil {
				e.held = &segment{data: slices.Clone(f.data)}
				continue
			}
			e.flush(f.data)
		default:
			e.flush(f.data)
		}
	}
}

// flush sends bytes and what they overtook.
func (e *endpoint) flush(b []byte) {
	e.send(&segment{data: slices.Clone(b)})
	if e.held != nil && e.frames.whole() {
		e.send(e.held)
		e.held = nil
	}
}

// wait lets go of the lock until something changed or a deadline passed.
func (e *endpoint) wait(d *deadline) {
	wake := e.wake
	e.n.mu.Unlock()
	defer e.n.mu.Lock()
	if d.at.IsZero() {
		<-wake
		return
	}
	t := time.NewTimer(time.Until(d.at))
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	}
}

// Close implements net.Conn.
func (e *endpoint) Close() error {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	if e.closed {
		return e.opError("close", net.ErrClosed)
	}
	e.closeLocked()
	return nil
}

// CloseWrite ends what this end sends.
func (e *endpoint) CloseWrite() error {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	if e.closed || e.err != nil {
		return e.opError("close", net.ErrClosed)
	}
	e.send(&segment{fin: true})
	return nil
}

func (e *endpoint) LocalAddr() net.Addr  { return address(e.local) }
func (e *endpoint) RemoteAddr() net.Addr { return address(e.far) }

// deadline is a read or write deadline.
type deadline struct{ at time.Time }

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (e *endpoint) setDeadline(t time.Time, which ...*deadline) error {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	if e.closed {
		return e.opError("set", net.ErrClosed)
	}
	for _, d := range which {
		d.at = t
	}
	e.signal()
	return nil
}

// SetDeadline implements net.Conn.
func (e *endpoint) SetDeadline(t time.Time) error { return e.setDeadline(t, &e.readBy, &e.writeBy) }

// SetReadDeadline implements net.Conn.
func (e *endpoint) SetReadDeadline(t time.Time) error { return e.setDeadline(t, &e.readBy) }

// SetWriteDeadline implements net.Conn.
func (e *endpoint) SetWriteDeadline(t time.Time) error { return e.setDeadline(t, &e.writeBy) }
