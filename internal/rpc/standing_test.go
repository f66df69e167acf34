package rpc

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// standing is a server that takes standing connections, and one of them.
func standing(t *testing.T, o ClientOptions) (*Client, *Standing, *ServerConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(testID, ServerOptions{})
	conns := make(chan *ServerConn, 1)
	srv.Handle((*wire.Witness)(nil).Kind(), func(_ context.Context, r *Request) (wire.Message, error) {
		if got := r.Msg.(*wire.Witness).From; got != r.Peer.Addr {
			t.Errorf("the connection comes from %s and says %s", r.Peer.Addr, got)
		}
		conns <- r.Conn
		return nil, nil
	})
	go func() { _ = srv.Serve(ln) }()
	cli := NewClient(testID, o)
	t.Cleanup(func() { cli.Close(); srv.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := cli.Stand(ctx, ln.Addr().String(), func(local net.Addr) wire.Message { return &wire.Witness{From: local.String()} })
	if err != nil {
		t.Fatal(err)
	}
	return cli, s, <-conns
}

func closed(t *testing.T, c *ServerConn) {
	t.Helper()
	select {
	case <-c.Closed():
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not see the end")
	}
}

func TestTheEndOfAStandingConnectionIsSeenAsClean(t *testing.T) {
	cli, s, c := standing(t, ClientOptions{})
	cli.Close() // leaves it
	if c.EndedCleanly() {
		t.Fatal("ended before its end")
	}
	s.Close()
	closed(t, c)
	if !c.EndedCleanly() {
		t.Fatal("a clean end is not seen as one")
	}
}

// A process that gives a standing connection up because of what comes over it
// must not look as if it had ended.
func TestAStandingConnectionThatFailsIsReset(t *testing.T) {
	_, s, c := standing(t, ClientOptions{})
	if _, err := c.conn.Write([]byte("this is no frame, and longer than a header")); err != nil {
		t.Fatal(err)
	}
	closed(t, c)
	if c.EndedCleanly() {
		t.Fatal("it looks as if the process had ended")
	}
	<-s.Ended()
}

func TestNobodyStandsWithinAProcess(t *testing.T) {
	local := NewLocal()
	srv := NewServer(testID, ServerOptions{})
	defer srv.Close()
	local.add(srv, []string{"here:1"})
	cli := NewClient(testID, ClientOptions{Local: local})
	defer cli.Close()
	if _, err := cli.Stand(t.Context(), "here:1", nil); !errors.Is(err, ErrLocal) {
		t.Fatal(err)
	}
}
