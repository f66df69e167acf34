package rpc

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestAQuickAnswersDeclinesOrAnswersLater(t *testing.T) {
	f := &fixture{gate: make(chan struct{})}
	f.srv = NewServer(testID, ServerOptions{})
	f.handle()
	later := make(chan *Request, 1)
	f.srv.HandleQuick(kind[*wire.GetAttr](), func(r *Request, _ bool) (wire.Message, error, Outcome) {
		switch ino := r.Msg.(*wire.GetAttr).Inode; ino {
		case 1:
			return &wire.Entry{Attr: ashlar.Attr{Inode: 100, Type: ashlar.TypeFile}}, nil, Answered
		case 2:
			return nil, ashlar.E("stat", ashlar.NotExist, "", nil), Answered
		case 3:
			later <- r
			return nil, nil, Later
		}
		return nil, nil, Declined
	})
	f.listen(t, "127.0.0.1:0")
	f.cli = NewClient(testID, ClientOptions{})
	t.Cleanup(func() { f.cli.Close(); f.srv.Close() })
	get := func(ino ashlar.Inode) (ashlar.Inode, error) {
		var e wire.Entry
		err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{Inode: ino}, &e)
		return e.Attr.Inode, err
	}
	if got, err := get(1); err != nil || got != 100 {
		t.Fatalf("answered at once: %d, %v", got, err)
	}
	if _, err := get(2); ashlar.KindOf(err) != ashlar.NotExist {
		t.Fatalf("refused at once: %v", err)
	}
	if got, err := get(9); err != nil || got != 9 || f.runs.Load() != 1 {
		t.Fatalf("declined: %d, %v after %d handlers", got, err, f.runs.Load())
	}
	answered := make(chan error, 1)
	go func() {
		_, err := get(3)
		answered <- err
	}()
	r := <-later
	if _, err := get(1); err != nil { // the connection is read on meanwhile
		t.Fatal(err)
	}
	r.Answer(&wire.Entry{Attr: ashlar.Attr{Inode: 3}}, nil)
	if err := <-answered; err != nil {
		t.Fatalf("answered later: %v", err)
	}
}

func TestARequestAnsweredAfterItsConnectionIsGoneIsDropped(t *testing.T) {
	f := &fixture{gate: make(chan struct{})}
	f.srv = NewServer(testID, ServerOptions{})
	f.handle()
	later := make(chan *Request, 1)
	f.srv.HandleQuick(kind[*wire.GetAttr](), func(r *Request, _ bool) (wire.Message, error, Outcome) {
		later <- r
		return nil, nil, Later
	})
	f.listen(t, "127.0.0.1:0")
	f.cli = NewClient(testID, ClientOptions{})
	answered := make(chan error, 1)
	go func() {
		answered <- f.cli.Call(t.Context(), f.addr, &wire.GetAttr{Inode: 1}, new(wire.Entry))
	}()
	r := <-later
	f.cli.Close()
	f.srv.Close() // does not wait for it
	if err := <-answered; err == nil {
		t.Fatal("answered by nobody")
	}
	r.Answer(nil, nil)
}

func TestTrySendSendsOnlyOnAConnectionThatIsThere(t *testing.T) {
	f := newFixture(t, false)
	m := &wire.Raft{From: 1, To: 2, Data: []byte("x")}
	if f.cli.TrySend(f.addr, m) {
		t.Fatal("sent without a connection")
	}
	if err := f.cli.Send(t.Context(), f.addr, m); err != nil {
		t.Fatal(err)
	}
	if !f.cli.TrySend(f.addr, m) {
		t.Fatal("not sent on a connection that is idle")
	}
	waitFor(t, func() bool { return f.runs.Load() == 2 })
}
