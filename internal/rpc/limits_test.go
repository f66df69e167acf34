package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestACallEndsAtItsDeadlineAndTheServerKnows(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		err := f.cli.Call(ctx, f.addr, new(wire.Sync), nil)
		if !errors.Is(err, ashlar.Timeout) {
			t.Errorf("%v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if err := f.cli.Call(ctx, f.addr, new(wire.Sync), nil); !errors.Is(err, ashlar.Canceled) {
			t.Errorf("%v", err)
		}
		if err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{}, new(wire.Entry)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// stuck is a server that does the handshake and then reads when told to.
func stuck(t *testing.T) (addr string, conns <-chan net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan net.Conn, 8)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := accept(c, &testID, time.Second); err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			ch <- c
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String(), ch
}

func TestACanceledCallDoesNotReadItsPayloadAnyMore(t *testing.T) {
	addr, conns := stuck(t)
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	ctx, cancel := context.WithCancel(t.Context())
	const n = 40 // more than the socket takes
	var wg sync.WaitGroup
	var buf [n][]byte
	for i := range n {
		buf[i] = bytes.Repeat([]byte{byte(i + 1)}, 1<<20)
		wg.Go(func() {
			err := cli.Call(ctx, addr, &wire.Write{Len: 1 << 20, Data: buf[i]}, nil)
			if !errors.Is(err, ashlar.Canceled) {
				t.Error(err)
			}
			clear(buf[i]) // ours again: must not show on the wire
		})
	}
	c := <-conns
	time.AfterFunc(100*time.Millisecond, cancel)
	wg.Wait() // although nothing was read on the other side
	whole := 0
	for ; ; whole++ {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		body, err := readFrame(c)
		if err != nil {
			break
		}
		p := body[len(body)-1<<20:]
		if p[0] == 0 || !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
			t.Fatal("a payload changed after its call returned")
		}
	}
	if whole == 0 || whole == n {
		t.Errorf("%d of %d frames were sent", whole, n)
	}
}

// readFrame reads one frame and returns its body and payload.
func readFrame(c net.Conn) ([]byte, error) {
	var hb [wire.HeaderSize]byte
	if _, err := io.ReadFull(c, hb[:]); err != nil {
		return nil, err
	}
	var h header
	if err := h.parse(hb[:]); err != nil {
		return nil, err
	}
	body := make([]byte, h.body+h.payload)
	_, err := io.ReadFull(c, body)
	return body, err
}

func TestACanceledCallDoesNotTouchItsReplyAnyMore(t *testing.T) {
	addr, conns := stuck(t)
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	ctx, cancel := context.WithCancel(t.Context())
	mine := make([]byte, 1<<20)
	done := make(chan error, 1)
	go func() { done <- cli.Call(ctx, addr, &wire.Read{Len: 1 << 20}, &wire.ReadReply{Data: mine}) }()
	c := <-conns
	f, err := newFrame(header{flags: wire.FlagResponse, id: 1}, &wire.ReadReply{Data: bytes.Repeat([]byte{1}, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	half := len(f.payload) / 2
	if _, err := c.Write(append(f.head, f.payload[:half]...)); err != nil {
		t.Fatal(err)
	}
	conn := cli.targets[addr]
	waitFor(t, func() bool { // the reader is inside the payload
		cc := conn.live(classData)[0]
		cc.mu.Lock()
		defer cc.mu.Unlock()
		return len(cc.calls) == 0
	})
	cancel()
	if err := <-done; !errors.Is(err, ashlar.Canceled) {
		t.Error(err)
	}
	clear(mine)
	if _, err := c.Write(f.payload[half:]); err != nil {
		t.Fatal(err)
	}
	// The connection goes on behind the abandoned payload.
	go func() {
		_, _ = readFrame(c) // the canceled request
		_, _ = readFrame(c)
		e, _ := newFrame(header{flags: wire.FlagResponse, id: 2}, new(wire.Empty))
		_, _ = c.Write(e.head)
	}()
	if err := cli.Call(t.Context(), addr, new(wire.Sync), nil); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(mine, make([]byte, 1<<20)) {
		t.Error("the reply was written after the call returned")
	}
}

func TestCallsFailAtOnceWhenTheirServerDiesAndGoOnWhenItIsBack(t *testing.T) {
	f := newFixture(t, false)
	errs := make(chan error, 1)
	go func() { errs <- f.cli.Call(t.Context(), f.addr, new(wire.Sync), nil) }()
	waitFor(t, func() bool { return f.runs.Load() == 1 })
	f.srv.Close()
	if err := <-errs; !errors.Is(err, ashlar.Unreachable) && !errors.Is(err, ashlar.Canceled) || errors.Is(err, ErrNotSent) {
		t.Errorf("%v", err)
	}
	err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{}, nil)
	if !errors.Is(err, ashlar.Unreachable) || !errors.Is(err, ErrNotSent) {
		t.Errorf("%v", err)
	}
	addr := f.addr
	f.srv = NewServer(testID, ServerOptions{})
	f.handle()
	f.listen(t, addr)
	start := time.Now()
	waitFor(t, func() bool { return f.cli.Call(t.Context(), addr, &wire.GetAttr{}, nil) == nil })
	if d := time.Since(start); d > time.Second {
		t.Errorf("reconnected after %v", d)
	}
}

func TestARefusingAddressIsNotDialedByEveryCall(t *testing.T) {
	var dials atomic.Int64
	cli := NewClient(testID, ClientOptions{Dial: func(context.Context, string) (net.Conn, error) {
		dials.Add(1)
		return nil, errors.New("no")
	}})
	defer cli.Close()
	calls := 0
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); calls++ {
		_ = cli.Call(t.Context(), "x", &wire.GetAttr{}, nil)
	}
	if dials.Load() > 4 || calls > 50 {
		t.Errorf("%d dials, %d calls", dials.Load(), calls)
	}
}

func TestAConnectionThatFallsSilentIsClosed(t *testing.T) {
	addr, conns := stuck(t)
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	done := make(chan error, 1)
	go func() { done <- cli.Call(t.Context(), addr, &wire.GetAttr{}, nil) }()
	c := <-conns
	target := cli.targets[addr]
	waitFor(t, func() bool {
		l := target.live(classControl)
		return len(l) == 1 && l[0].waiting.Load() == 1
	})
	conn := target.live(classControl)[0]
	alive, _ := newFrame(header{kind: kindAlive, flags: wire.FlagResponse}, nil)
	if _, err := c.Write(alive.head); err != nil {
		t.Fatal(err)
	}
	waitFor(t, conn.heard.Load)
	for range silentMax/time.Second + 1 { // the first tick sees the sign of life
		select {
		case err := <-done:
			t.Fatalf("closed too early: %v", err)
		default:
		}
		conn.checkSilence(time.Second)
	}
	if err := <-done; !errors.Is(err, ashlar.Unreachable) {
		t.Errorf("%v", err)
	}
}

func TestAWorkingServerSaysThatItIsAlive(t *testing.T) {
	f := newFixture(t, false)
	done := make(chan error, 1)
	go func() { done <- f.cli.Call(t.Context(), f.addr, new(wire.Sync), nil) }()
	waitFor(t, func() bool { return f.runs.Load() == 1 })
	f.srv.mu.Lock()
	var sc *ServerConn
	for c := range f.srv.conns {
		sc = c
	}
	f.srv.mu.Unlock()
	cc := f.cli.targets[f.addr].live(classData)[0]
	cc.heard.Store(false)
	sc.alive()
	waitFor(t, cc.heard.Load)
	close(f.gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAServerStopsReadingAtItsLimits(t *testing.T) {
	sc := newServerConn(NewServer(testID, ServerOptions{}), &Peer{}, nil)
	defer sc.server.Close()
	for range PayloadBytesMax / wire.PayloadMax {
		sc.take(wire.PayloadMax)
	}
	taken := make(chan bool, 1)
	go func() { taken <- sc.take(1) }()
	select {
	case <-taken:
		t.Error("took more payload than the limit")
	case <-time.After(10 * time.Millisecond):
	}
	sc.give(wire.PayloadMax, 0)
	if !<-taken {
		t.Error("not taken")
	}
	for sc.inflight < InflightMax {
		sc.take(0)
	}
	go func() { taken <- sc.take(0) }()
	sc.close(errors.New("end"))
	if <-taken {
		t.Error("took a request after the end")
	}
}

func TestManyCallsWaitTheirTurn(t *testing.T) {
	f := newFixture(t, false)
	var wg sync.WaitGroup
	const n = 3 * InflightMax
	for range n {
		wg.Go(func() {
			if err := f.cli.Call(t.Context(), f.addr, new(wire.Sync), nil); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return f.runs.Load() >= InflightMax })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for range 2 { // on either connection of the class
		if err := f.cli.Call(ctx, f.addr, new(wire.Sync), nil); !errors.Is(err, ashlar.Timeout) {
			t.Errorf("%v", err)
		}
	}
	close(f.gate)
	wg.Wait()
}

// TestNoCallSeesAnothersMemory cancels calls at random moments, and checks
// every byte that arrives anywhere.
func TestNoCallSeesAnothersMemory(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		f.srv.handlers[kind[*wire.Write]()] = func(_ context.Context, r *Request) (wire.Message, error) {
			w := r.Msg.(*wire.Write)
			if want := byte(w.Off); len(w.Data) != int(w.Len) || !bytes.Equal(w.Data, bytes.Repeat([]byte{want}, len(w.Data))) {
				t.Errorf("a write of %d arrives damaged", w.Len)
			}
			b := r.Buffer(len(w.Data))
			copy(b, w.Data)
			return &wire.ReadReply{Sums: []uint32{w.Off}, Data: b}, nil
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(g)))
				out, in := make([]byte, 1<<20), make([]byte, 1<<20)
				for i := range 60 {
					n := 1 + r.IntN([]int{100, 10000, 1 << 20}[r.IntN(3)])
					mark := byte(g*60 + i + 1)
					fill(out[:n], mark)
					fill(in[:n], mark+1)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3000))*time.Microsecond)
					reply := wire.ReadReply{Data: in[:n:n]}
					err := f.cli.Call(ctx, f.addr, &wire.Write{Off: uint32(mark), Len: uint32(n), Data: out[:n]}, &reply)
					cancel()
					if err == nil && !bytes.Equal(in[:n], out[:n]) {
						t.Errorf("the answer of %d bytes differs", n)
					} else if k := ashlar.KindOf(err); err != nil && k != ashlar.Timeout {
						t.Errorf("%v", err)
					}
					fill(out[:n], 0)
					fill(in[:n], 0)
				}
			})
		}
		wg.Wait()
	})
}

func fill(b []byte, v byte) {
	b[0] = v
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

func TestSendIsNotAnswered(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		for _, n := range []int{10, 100 << 10} {
			if err := f.cli.Send(t.Context(), f.addr, &wire.Raft{Data: make([]byte, n)}); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, func() bool { return f.runs.Load() == 2 })
	})
}

func TestDataConnectionsShowTheirTicket(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		f.srv.handlers[kind[*wire.Attach]()] = func(_ context.Context, r *Request) (wire.Message, error) {
			v := string(r.Msg.(*wire.Attach).Ticket)
			if v == "bad" {
				return nil, ashlar.Auth
			}
			r.Conn.SetValue(v)
			return nil, nil
		}
		var seen atomic.Value
		f.srv.handlers[kind[*wire.Sync]()] = func(_ context.Context, r *Request) (wire.Message, error) {
			seen.Store(r.Conn.Value())
			return nil, nil
		}
		var ticket atomic.Value
		ticket.Store("one")
		f.cli.OnConnect(func(_ context.Context, _ string, call func(req, reply wire.Message) error) error {
			return call(&wire.Attach{Ticket: []byte(ticket.Load().(string))}, nil)
		})
		call := func() error { return f.cli.Call(t.Context(), f.addr, new(wire.Sync), nil) }
		if err := call(); err != nil || seen.Load() != "one" {
			t.Fatalf("%v %v", err, seen.Load())
		}
		ticket.Store("two")
		if err := f.cli.Reattach(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := call(); err != nil || seen.Load() != "two" {
			t.Errorf("%v %v", err, seen.Load())
		}
		ticket.Store("bad")
		if err := f.cli.Reattach(t.Context()); !errors.Is(err, ashlar.Auth) {
			t.Errorf("%v", err)
		}
		waitFor(t, func() bool { return errors.Is(call(), ashlar.Auth) })
		if err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{}, nil); err != nil {
			t.Errorf("a control call: %v", err)
		}
	})
}

func TestALocalCallSharesNoMemory(t *testing.T) {
	f := newFixture(t, true)
	kept := make(chan []byte, 1)
	hold := make(chan struct{})
	f.srv.handlers[kind[*wire.Copy]()] = func(_ context.Context, r *Request) (wire.Message, error) {
		m := r.Msg.(*wire.Copy)
		<-hold
		kept <- bytes.Clone(m.Data)
		return nil, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &wire.Copy{Data: bytes.Repeat([]byte{5}, 5000)}
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := f.cli.Call(ctx, f.addr, m, nil); !errors.Is(err, ashlar.Canceled) {
		t.Errorf("%v", err)
	}
	clear(m.Data)
	close(hold)
	if got := <-kept; !bytes.Equal(got, bytes.Repeat([]byte{5}, 5000)) {
		t.Error("the handler saw the caller's memory change")
	}
}

func TestEveryPooledPayloadKindTakesItsBuffer(t *testing.T) {
	pooled := 0
	for _, k := range wire.Kinds() {
		m := wire.New(k)
		p, ok := m.(wire.Payloader)
		if !ok {
			continue
		}
		b := GetBuffer(5000)
		if !presetPayload(m, b) {
			continue
		}
		pooled++
		if got := p.PayloadBuffer(5000); &got[0] != &b[0] {
			t.Errorf("%T does not receive into the buffer it was given", m)
		}
	}
	if pooled != 4 {
		t.Errorf("%d kinds", pooled)
	}
	for _, n := range []int{1, 4095, 4096, 4097, 1 << 20} {
		b := GetBuffer(n)
		if len(b) != n || cap(b)&(cap(b)-1) != 0 {
			t.Errorf("%d: length %d capacity %d", n, len(b), cap(b))
		}
		PutBuffer(b)
	}
}

func TestAFrameThatIsTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		err := f.cli.Call(t.Context(), f.addr, &wire.Write{Data: make([]byte, wire.PayloadMax+1)}, nil)
		if err == nil {
			t.Error("sent")
		}
		if err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{}, nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
