package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// refusals is a server that notes whom it refused.
func refusals(t testing.TB) (f *fixture, refused func() error) {
	var mu sync.Mutex
	var last error
	f = &fixture{gate: make(chan struct{})}
	f.srv = NewServer(testID, ServerOptions{OnGarbage: func(_ string, err error) {
		mu.Lock()
		last = err
		mu.Unlock()
	}})
	f.handle()
	f.listen(t, "127.0.0.1:0")
	t.Cleanup(f.srv.Close)
	return f, func() error {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

func TestAHandshakeIsRefusedWithAReasonOnBothSides(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Identity)
		want   ashlar.Kind
		says   string
	}{
		"secret":  {func(id *Identity) { id.Secret = []byte("wrong") }, ashlar.Auth, "secret"},
		"cluster": {func(id *Identity) { id.Cluster[0]++ }, ashlar.WrongCluster, "cluster 02"},
		"history": {func(id *Identity) { id.History = 2 }, ashlar.WrongCluster, "history"},
		"role":    {func(id *Identity) { id.Role = 9 }, ashlar.Invalid, "role 9"},
	} {
		t.Run(name, func(t *testing.T) {
			f, refused := refusals(t)
			id := testID
			c.change(&id)
			nc, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			if _, err := connect(nc, &id, time.Second); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("client: %v", err)
			}
			waitFor(t, func() bool { return refused() != nil })
			if err := refused(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("server: %v", err)
			}
		})
	}
}

func TestACallToARefusingServerSaysWhy(t *testing.T) {
	f, _ := refusals(t)
	id := testID
	id.Secret = []byte("wrong")
	cli := NewClient(id, ClientOptions{})
	defer cli.Close()
	err := cli.Call(t.Context(), f.addr, &wire.GetAttr{}, new(wire.Entry))
	if !errors.Is(err, ashlar.Auth) || !errors.Is(err, ErrNotSent) {
		t.Errorf("%v", err)
	}
}

func TestAClientThatKnowsNothingButTheSecretIsLetIn(t *testing.T) {
	f, refused := refusals(t)
	cli := NewClient(Identity{Role: wire.RoleClient, Secret: testID.Secret}, ClientOptions{})
	defer cli.Close()
	if err := cli.Call(t.Context(), f.addr, &wire.GetAttr{}, new(wire.Entry)); err != nil || refused() != nil {
		t.Errorf("%v %v", err, refused())
	}
}

func TestAVersionThatNobodySpeaksIsRefused(t *testing.T) {
	h := wire.Hello{VersionMin: wire.VersionMax + 1, VersionMax: wire.VersionMax + 3, Role: wire.RoleNode}
	if _, err := checkHello(&testID, &h); !errors.Is(err, ashlar.Version) {
		t.Errorf("%v", err)
	}
	h.VersionMin, h.VersionMax = wire.VersionMin, wire.VersionMax+3
	if v, err := checkHello(&testID, &h); err != nil || v != wire.VersionMax {
		t.Errorf("%d %v", v, err)
	}
	nothing := testID
	nothing.Secret = nil
	if _, err := checkHello(&nothing, &h); !errors.Is(err, ashlar.Auth) {
		t.Errorf("a server without a secret: %v", err)
	}
	if _, err := connect(nil, &nothing, time.Second); !errors.Is(err, ashlar.Auth) {
		t.Errorf("a client without a secret: %v", err)
	}
}

func TestEachSideProvesTheSecretOverEverythingSaid(t *testing.T) {
	a := transcript{hello: []byte("hello"), reply: []byte("reply")}
	p := a.proof([]byte("s"), labelAccepting)
	for name, q := range map[string][wire.ProofSize]byte{
		"other side":   a.proof([]byte("s"), labelDialing),
		"other secret": a.proof([]byte("t"), labelAccepting),
		"other hello":  (&transcript{[]byte("hellO"), a.reply}).proof([]byte("s"), labelAccepting),
		"other reply":  (&transcript{a.hello, []byte("replY")}).proof([]byte("s"), labelAccepting),
		"shifted":      (&transcript{[]byte("hellor"), []byte("eply")}).proof([]byte("s"), labelAccepting),
	} {
		if p == q {
			t.Errorf("%s: the same proof", name)
		}
	}
}

func TestAReplayedOrReflectedHandshakeIsRefused(t *testing.T) {
	f, refused := refusals(t)
	nc, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if err := sendHandshake(nc, []byte(wire.Preface), &wire.Hello{VersionMin: 1, VersionMax: 1, Role: wire.RoleClient}); err != nil {
		t.Fatal(err)
	}
	var reply wire.HelloReply
	if _, err := receiveHandshake(nc, &reply); err != nil {
		t.Fatal(err)
	}
	if err := sendHandshake(nc, nil, &wire.HelloProof{Proof: reply.Proof}); err != nil {
		t.Fatal(err)
	}
	var e *refusedError
	if _, err := receiveHandshake(nc, new(wire.Empty)); !errors.As(err, &e) || !errors.Is(err, ashlar.Auth) {
		t.Errorf("%v", err)
	}
	waitFor(t, func() bool { return errors.Is(refused(), ashlar.Auth) })
}

func TestGarbageIsRefusedAndDoesNoHarm(t *testing.T) {
	f, refused := refusals(t)
	for _, in := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		append([]byte(wire.Preface), bytes.Repeat([]byte{0xff}, 100)...),
		append([]byte(wire.Preface), make([]byte, 100)...),
		append([]byte("ASHLAR9\n"), make([]byte, 100)...),
	} {
		nc, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(in)
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		out, _ := io.ReadAll(nc) // a reset is fine too
		if len(out) > 0 && !bytes.Contains(out, []byte("Ashlar protocol")) && !bytes.Contains(out, []byte("limits")) {
			t.Errorf("%q is answered with %q", in, out)
		}
		_ = nc.Close()
	}
	if err := refused(); !errors.Is(err, ashlar.Version) {
		t.Errorf("%v", err)
	}
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	if err := cli.Call(t.Context(), f.addr, &wire.GetAttr{}, new(wire.Entry)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAServerOfSomethingElseIsNamedAsSuch(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.9 and then a line that is long enough\r\n"))
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	cli := NewClient(testID, ClientOptions{})
	defer cli.Close()
	if err := cli.Call(t.Context(), ln.Addr().String(), &wire.GetAttr{}, nil); !errors.Is(err, ashlar.Version) {
		t.Errorf("%v", err)
	}
}

func TestTicketsAreBoundToTheSecret(t *testing.T) {
	tk := &wire.Ticket{Cluster: testID.Cluster, History: 1, Session: 5, Incarnation: 6, Expires: 7}
	b := SignTicket([]byte("s"), tk)
	got, err := OpenTicket([]byte("s"), b)
	if err != nil || *got != *tk {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := OpenTicket([]byte("x"), b); !errors.Is(err, ashlar.Auth) {
		t.Errorf("%v", err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := OpenTicket([]byte("s"), bad); !errors.Is(err, ashlar.Auth) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := OpenTicket([]byte("s"), b[:i]); !errors.Is(err, ashlar.Auth) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// feed is a net.Conn that reads from memory and swallows what is written.
type feed struct {
	net.Conn
	r io.Reader
}

func (f feed) Read(p []byte) (int, error)       { return f.r.Read(p) }
func (f feed) Write(p []byte) (int, error)      { return len(p), nil }
func (f feed) Close() error                     { return nil }
func (f feed) SetDeadline(time.Time) error      { return nil }
func (f feed) SetReadDeadline(time.Time) error  { return nil }
func (f feed) SetWriteDeadline(time.Time) error { return nil }
func (f feed) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

func FuzzHandshake(f *testing.F) {
	hello, _ := newFrame(header{}, &wire.Hello{Role: wire.RoleClient, VersionMin: 1, VersionMax: 1})
	reply, _ := newFrame(header{}, &wire.HelloReply{Version: 1, Name: "x"})
	no, _ := newFrame(header{flags: wire.FlagError | wire.FlagResponse}, errorMessage(ashlar.Auth))
	f.Add(append([]byte(wire.Preface), hello.head...))
	f.Add(append([]byte(wire.Preface), no.head...))
	f.Add(reply.head)
	f.Add(no.head)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := accept(feed{r: bytes.NewReader(in)}, &testID, time.Second); err == nil {
			t.Error("let in without knowing the nonce")
		}
		if _, err := connect(feed{r: bytes.NewReader(in)}, &testID, time.Second); err == nil {
			t.Error("trusted without knowing the nonce")
		}
	})
}

func FuzzServerAndClientFrames(f *testing.F) {
	for _, m := range []wire.Message{&wire.GetAttr{Inode: 1}, &wire.Write{Len: 3, Data: []byte("abc")}, &wire.Raft{}, &wire.StatFS{}} {
		fr, _ := newFrame(header{id: 1}, m)
		f.Add(fr.head)
		fr, _ = newFrame(header{id: 1, flags: wire.FlagResponse}, m)
		f.Add(fr.head)
	}
	big := make([]byte, wire.HeaderSize)
	binary.LittleEndian.PutUint32(big, wire.BodyMax+1)
	f.Add(big)
	srv := NewServer(testID, ServerOptions{})
	fx := &fixture{srv: srv, gate: make(chan struct{})}
	close(fx.gate)
	fx.handle()
	f.Cleanup(srv.Close)
	cli := NewClient(testID, ClientOptions{})
	f.Cleanup(cli.Close)
	f.Fuzz(func(t *testing.T, in []byte) {
		sc := newServerConn(srv, &Peer{}, feed{r: bytes.NewReader(in)})
		var tasks sync.WaitGroup
		tasks.Go(sc.w.run)
		sc.readLoop()
		cc := newClientConn(cli, "x", &Peer{}, feed{r: bytes.NewReader(in)})
		k := &call{reply: new(wire.ReadReply), done: make(chan error, 1)}
		cc.calls[1] = k
		tasks.Go(cc.w.run)
		cc.readLoop()
		<-k.done
		tasks.Wait()
	})
}

func TestNothingWrittenIsNotALocalServer(t *testing.T) {
	var l *Local
	if l.find("x") != nil {
		t.Error("a nil registry knows an address")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := newFixture(t, true)
	if err := f.cli.Call(ctx, f.addr, &wire.GetAttr{}, nil); !errors.Is(err, ashlar.Canceled) {
		t.Errorf("%v", err)
	}
}
