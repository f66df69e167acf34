package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testID = Identity{
	Cluster: ashlar.ClusterID{1, 2, 3}, History: 1, Role: wire.RoleNode, Name: "n", Incarnation: 9,
	Secret: []byte("secret"), Features: 7,
}

func kind[P wire.Message]() wire.Kind { var p P; return p.Kind() }

// fixture is a server with an echo of every kind that the tests use.
type fixture struct {
	srv  *Server
	addr string
	cli  *Client
	gate chan struct{} // Sync waits for it
	runs atomic.Int64
}

func newFixture(t testing.TB, local bool) *fixture {
	f := &fixture{gate: make(chan struct{})}
	var l *Local
	if local {
		l = NewLocal()
	}
	f.srv = NewServer(testID, ServerOptions{Local: l})
	f.handle()
	f.listen(t, "127.0.0.1:0")
	f.cli = NewClient(testID, ClientOptions{Local: l})
	t.Cleanup(func() { f.cli.Close(); f.srv.Close() })
	if local {
		waitFor(t, func() bool { return l.find(f.addr) != nil })
	}
	return f
}

func (f *fixture) handle() {
	f.srv.Handle(kind[*wire.GetAttr](), func(_ context.Context, r *Request) (wire.Message, error) {
		f.runs.Add(1)
		return &wire.Entry{Attr: ashlar.Attr{Inode: r.Msg.(*wire.GetAttr).Inode, Type: ashlar.TypeFile}}, nil
	})
	f.srv.Handle(kind[*wire.Write](), func(_ context.Context, r *Request) (wire.Message, error) {
		f.runs.Add(1)
		w := r.Msg.(*wire.Write)
		if len(w.Data) != int(w.Len) {
			return nil, ashlar.E("write", ashlar.Invalid, "", errors.New("wrong length"))
		}
		return nil, nil
	})
	f.srv.Handle(kind[*wire.Read](), func(_ context.Context, r *Request) (wire.Message, error) {
		m := r.Msg.(*wire.Read)
		b := r.Buffer(int(m.Len))
		for i := range b {
			b[i] = byte(m.Off) + byte(i)
		}
		return &wire.ReadReply{Sums: []uint32{m.Off}, Data: b}, nil
	})
	f.srv.Handle(kind[*wire.Sync](), func(ctx context.Context, _ *Request) (wire.Message, error) {
		f.runs.Add(1)
		select {
		case <-f.gate:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	f.srv.Handle(kind[*wire.Lookup](), func(_ context.Context, r *Request) (wire.Message, error) {
		switch r.Msg.(*wire.Lookup).Name {
		case "leader":
			return nil, &NotLeaderError{Leader: "there:1"}
		case "wrapped":
			return nil, fmt.Errorf("outer: %w", ashlar.E("lookup", ashlar.NotDir, "x", nil))
		}
		return nil, ashlar.E("lookup", ashlar.NotExist, "the name", errors.New("why"))
	})
	f.srv.Handle(kind[*wire.Fetch](), func(_ context.Context, r *Request) (wire.Message, error) {
		return &wire.FetchReply{Data: r.Buffer(int(r.Msg.(*wire.Fetch).Len))}, nil
	})
	f.srv.Handle(kind[*wire.Raft](), func(context.Context, *Request) (wire.Message, error) {
		f.runs.Add(1)
		return nil, nil
	})
}

func (f *fixture) listen(t testing.TB, addr string) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	go func() { _ = f.srv.Serve(ln) }()
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatal("condition does not come true")
		}
		<-time.After(time.Millisecond)
	}
}

func both(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Run("tcp", func(t *testing.T) { test(t, newFixture(t, false)) })
	t.Run("local", func(t *testing.T) { test(t, newFixture(t, true)) })
}

func TestACallIsAnsweredWithBodyAndPayload(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		var e wire.Entry
		if err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{Inode: 42}, &e); err != nil || e.Attr.Inode != 42 {
			t.Fatalf("%v %+v", err, e)
		}
		for _, n := range []int{1, 4096, 4097, 100 << 10, 1 << 20} {
			mine := make([]byte, n)
			reply := wire.ReadReply{Data: mine}
			if err := f.cli.Call(t.Context(), f.addr, &wire.Read{Off: 3, Len: uint32(n)}, &reply); err != nil {
				t.Fatal(err)
			}
			if &reply.Data[0] != &mine[0] {
				t.Fatal("the payload was not received into the caller's buffer")
			}
			for i, b := range mine {
				if b != 3+byte(i) {
					t.Fatalf("byte %d of %d is %d", i, n, b)
				}
			}
			w := &wire.Write{Len: uint32(n), Data: bytes.Repeat([]byte{7}, n)}
			if err := f.cli.Call(t.Context(), f.addr, w, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestErrorsKeepTheirKind(t *testing.T) {
	both(t, func(t *testing.T, f *fixture) {
		call := func(name string) error {
			return f.cli.Call(t.Context(), f.addr, &wire.Lookup{Name: name}, new(wire.Entry))
		}
		if err := call("x"); err == nil || err.Error() != "lookup the name: does not exist: why" || !errors.Is(err, ashlar.NotExist) {
			t.Errorf("%v", err)
		}
		var nl *NotLeaderError
		if err := call("leader"); !errors.Is(err, ashlar.NotLeader) || !errors.As(err, &nl) || nl.Leader != "there:1" {
			t.Errorf("%v", err)
		}
		if err := call("wrapped"); !errors.Is(err, ashlar.NotDir) {
			t.Errorf("%v", err)
		}
		if err := f.cli.Call(t.Context(), f.addr, new(wire.StatFS), nil); !errors.Is(err, ashlar.Unsupported) {
			t.Errorf("%v", err)
		}
		if err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{}, new(wire.ReadReply)); !errors.Is(err, ashlar.Corrupt) {
			t.Errorf("%v", err)
		}
	})
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	f := newFixture(t, false)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := f.cli.Call(t.Context(), f.addr, new(wire.Sync), nil); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return f.runs.Load() == 100 })
	for i := range 1000 { // these pass the hundred
		var e wire.Entry
		if err := f.cli.Call(t.Context(), f.addr, &wire.GetAttr{Inode: ashlar.Inode(i)}, &e); err != nil || e.Attr.Inode != ashlar.Inode(i) {
			t.Fatal(err)
		}
		if err := f.cli.Call(t.Context(), f.addr, &wire.Write{Len: 1, Data: []byte{1}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(f.gate)
	wg.Wait()
}

func BenchmarkCall(b *testing.B) {
	run := func(name string, local bool, parallel int, bytes int64, call func(f *fixture, buf []byte) error) {
		b.Run(name, func(b *testing.B) {
			f := newFixture(b, local)
			b.ReportAllocs()
			b.SetBytes(bytes)
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range parallel {
				wg.Go(func() {
					buf := make([]byte, 1<<20)
					for left.Add(-1) >= 0 {
						if err := call(f, buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
	ctx := context.Background()
	small := func(f *fixture, _ []byte) error {
		var e wire.Entry
		return f.cli.Call(ctx, f.addr, &wire.GetAttr{Inode: 1}, &e)
	}
	write := func(n int) func(*fixture, []byte) error {
		return func(f *fixture, buf []byte) error {
			return f.cli.Call(ctx, f.addr, &wire.Write{Len: uint32(n), Data: buf[:n]}, nil)
		}
	}
	read := func(f *fixture, buf []byte) error {
		return f.cli.Call(ctx, f.addr, &wire.Fetch{Len: 1 << 20}, &wire.FetchReply{Data: buf})
	}
	run("small/1", false, 1, 0, small)
	run("small/64", false, 64, 0, small)
	run("local/1", true, 1, 0, small)
	run("write4k/1", false, 1, 4096, write(4096))
	run("write4k/32", false, 32, 4096, write(4096))
	run("write1m/1", false, 1, 1<<20, write(1<<20))
	run("write1m/4", false, 4, 1<<20, write(1<<20))
	run("read1m/1", false, 1, 1<<20, read)
	run("read1m/4", false, 4, 1<<20, read)
}
