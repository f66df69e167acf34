package rpc

import (
	"context"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestBeginNeedsAConnection(t *testing.T) {
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	if p := cli.Begin("127.0.0.1:1", &wire.Read{}, nil); p != nil {
		t.Fatal("a call was begun without a connection")
	}
}

func TestACallThatWasBegunIsLostWithItsConnection(t *testing.T) {
	addr, conns := stuck(t)
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	first := make(chan error, 1)
	go func() { first <- cli.Call(t.Context(), addr, &wire.Read{}, new(wire.ReadReply)) }()
	c := <-conns
	w := &wire.Write{Len: 1 << 20, Data: make([]byte, 1<<20)}
	p := cli.Begin(addr, w, nil)
	if p == nil {
		t.Fatal("not begun")
	}
	if p.Answered() {
		t.Error("answered by nobody")
	}
	<-conns // one more, because this one is busy
	_ = c.Close()
	for _, err := range []error{p.Wait(t.Context()), <-first} {
		if ashlar.KindOf(err) != ashlar.Unreachable {
			t.Errorf("%v", err)
		}
	}
}

func TestWaitingForACallThatWasBegunCanBeGivenUp(t *testing.T) {
	addr, conns := stuck(t)
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	go func() { _ = cli.Call(t.Context(), addr, &wire.Read{}, new(wire.ReadReply)) }()
	<-conns
	p := cli.Begin(addr, &wire.Read{}, new(wire.ReadReply))
	if p == nil {
		t.Fatal("not begun")
	}
	<-conns
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); ashlar.KindOf(err) != ashlar.Timeout {
		t.Errorf("%v", err)
	}
}
