package rpc

import (
	"context"
	"net"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestACallIsBegunAndAwaitedApart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	srv := NewServer(testID, ServerOptions{})
	gate := make(chan struct{})
	srv.Handle((*wire.Sync)(nil).Kind(), func(context.Context, *Request) (wire.Message, error) { return nil, nil })
	srv.Handle((*wire.Write)(nil).Kind(), func(ctx context.Context, r *Request) (wire.Message, error) {
		select {
		case <-gate:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	go func() { _ = srv.Serve(ln) }()
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	msg := func() *wire.Write { return &wire.Write{Len: 1 << 20, Data: make([]byte, 1<<20)} }
	if p := cli.Begin(addr, msg(), nil); p != nil {
		t.Fatal("begun without a connection")
	}
	if err := cli.Call(t.Context(), addr, &wire.Sync{}, nil); err != nil {
		t.Fatal(err)
	}
	var p [3]*Pending
	for i := range p {
		if p[i] = cli.Begin(addr, msg(), nil); p[i] == nil || p[i].Answered() {
			t.Fatal("not begun, or answered by nobody")
		}
	}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p[0].Wait(given); ashlar.KindOf(err) != ashlar.Canceled {
		t.Errorf("given up: %v", err)
	}
	gate <- struct{}{}
	gate <- struct{}{} // one of them for the call given up, perhaps
	waitFor(t, func() bool { return p[1].Answered() || p[2].Answered() })
	srv.Close()
	for _, p := range p[1:] {
		_ = p.Wait(t.Context()) // answered or lost: it returns
	}
	waitFor(t, func() bool { return cli.Begin(addr, msg(), nil) == nil })
}
