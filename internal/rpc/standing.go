package rpc

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Standing is a connection that is kept for its own sake: one request is
// answered on it, and nothing else is ever sent either way. Neither its Client
// nor its Server closes it because of anything but its failure, so that on the
// other side a clean end of it says that the process at this one has ended.
type Standing struct {
	raw   net.Conn
	conn  *clientConn
	ended chan struct{}
}

// abortConn is a connection whose Close resets it. A process that gives up a
// standing connection, for whatever was wrong with it, must not look as if it
// had ended.
type abortConn struct{ net.Conn }

// Close implements net.Conn.
func (c abortConn) Close() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it may be closed already
	}
	return c.Conn.Close()
}

// ErrLocal is returned by Stand for a server of the same process. Its kind is
// Invalid.
var ErrLocal = ashlar.E("stand", ashlar.Invalid, "", errors.New("the server is in this process"))

// Stand opens a standing connection to addr. request makes the one request
// from the address that the connection has here; it is answered with Empty.
// Only Close ends the connection cleanly from this side: Client.Close leaves it,
// and one that fails is reset.
func (c *Client) Stand(ctx context.Context, addr string, request func(local net.Addr) wire.Message) (*Standing, error) {
	if c.o.Local.find(addr) != nil {
		return nil, ErrLocal
	}
	nc, err := c.o.Dial(ctx, addr)
	if err != nil {
		return nil, notSent(addr, err)
	}
	tune(nc)
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	peer, err := connect(nc, c.id.Load(), HandshakeTimeout)
	if err != nil || !stop() {
		_ = nc.Close()
		return nil, ashlar.E("stand", ashlar.KindOf(err), addr, errors.Join(err, ctx.Err()))
	}
	s := &Standing{raw: nc, conn: newClientConn(c, addr, peer, abortConn{nc}), ended: make(chan struct{})}
	go s.conn.w.run()
	go func() {
		defer close(s.ended)
		s.conn.readLoop()
	}()
	if err := s.conn.call(ctx, request(nc.LocalAddr()), nil); err != nil {
		s.conn.close(err)
		<-s.ended
		return nil, err
	}
	return s, nil
}

// Refused tells whether a connection to addr is refused: on the machine that
// answers for it, or by something that speaks in its name, nobody listens
// there.
func (c *Client) Refused(ctx context.Context, addr string) bool {
	nc, err := c.o.Dial(ctx, addr)
	if err == nil {
		_ = nc.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Ended is closed when the connection has failed or was closed.
func (s *Standing) Ended() <-chan struct{} { return s.ended }

// Close closes the connection. A process that must be known to live does not.
func (s *Standing) Close() {
	_ = s.raw.Close()
	s.conn.close(ErrClosed)
	<-s.ended
}

// EndedCleanly tells of a connection that is closed whether its peer had ended
// it, with nothing missing before the end: not that it was reset, timed out or
// closed here.
func (c *ServerConn) EndedCleanly() bool { return c.clean.Load() }
