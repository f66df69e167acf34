package masterconn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var id = rpc.Identity{Cluster: ashlar.ClusterID{1}, History: 1, Role: wire.RoleNode, Name: "m", Secret: []byte("s"), Incarnation: 1}

func kind[P wire.Message]() wire.Kind { var p P; return p.Kind() }

type opKey struct {
	session ashlar.SessionID
	seq     uint64
}

// fakeMasters are masters that share their state by magic.
type fakeMasters struct {
	t     testing.TB
	mu    sync.Mutex
	nodes []*fakeMaster
	lead  int // -1 for none
	term  uint64

	nextSession ashlar.SessionID
	sessions    map[ashlar.SessionID]uint64 // generation of the last hello, 0 for none
	helloTerm   map[ashlar.SessionID]uint64
	opens       []ashlar.Inode
	results     map[opKey]bool
	evaluated   int // changes that took effect
	lowest      uint64
	refuse      map[ashlar.SessionID]bool
}

type fakeMaster struct {
	all    *fakeMasters
	index  int
	addr   string
	srv    *rpc.Server
	silent atomic.Bool // receives everything and answers nothing
	mute   atomic.Bool // does operations and does not answer them
	quit   chan struct{}
	ops    atomic.Int64
}

func newFakes(t testing.TB, n int) *fakeMasters {
	f := &fakeMasters{
		t: t, term: 1, nextSession: 100, sessions: map[ashlar.SessionID]uint64{}, helloTerm: map[ashlar.SessionID]uint64{},
		results: map[opKey]bool{}, refuse: map[ashlar.SessionID]bool{},
	}
	for i := range n {
		m := &fakeMaster{all: f, index: i, quit: make(chan struct{})}
		f.nodes = append(f.nodes, m)
		m.start("127.0.0.1:0")
	}
	t.Cleanup(func() {
		for _, m := range f.nodes {
			m.stop()
		}
	})
	return f
}

func (m *fakeMaster) start(addr string) {
	m.srv = rpc.NewServer(id, rpc.ServerOptions{})
	m.handle(kind[*wire.FindLeader](), m.findLeader)
	m.handle(kind[*wire.SessionOpen](), m.open)
	m.handle(kind[*wire.SessionRenew](), m.renew)
	m.handle(kind[*wire.SessionHello](), m.hello)
	m.handle(kind[*wire.SessionClose](), m.closeSession)
	m.handle(kind[*wire.Operation](), m.operation)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		m.all.t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	srv := m.srv
	go func() { _ = srv.Serve(ln) }()
}

func (m *fakeMaster) stop() {
	select {
	case <-m.quit:
	default:
		close(m.quit)
	}
	m.srv.Close()
}

func (m *fakeMaster) handle(k wire.Kind, h func(wire.Message) (wire.Message, error)) {
	m.srv.Handle(k, func(ctx context.Context, r *rpc.Request) (wire.Message, error) {
		if m.silent.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		reply, err := h(r.Msg)
		if k == kind[*wire.Operation]() && m.mute.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return reply, err
	})
}

// leads returns an error unless m leads. all.mu must be held.
func (m *fakeMaster) leads() error {
	f := m.all
	if f.lead == m.index {
		return nil
	}
	if f.lead < 0 {
		return new(rpc.NotLeaderError)
	}
	return &rpc.NotLeaderError{Leader: f.nodes[f.lead].addr}
}

func (m *fakeMaster) findLeader(wire.Message) (wire.Message, error) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	r := &wire.FindLeaderReply{Initialised: true, Term: m.all.term}
	if m.all.lead >= 0 {
		r.Leader = m.all.nodes[m.all.lead].addr
	}
	return r, nil
}

func (m *fakeMaster) open(wire.Message) (wire.Message, error) {
	f := m.all
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := m.leads(); err != nil {
		return nil, err
	}
	f.nextSession++
	f.sessions[f.nextSession] = 0
	return &wire.SessionOpenReply{
		Session: f.nextSession, LeaseMs: 3000, DeadMs: 3500, RenewMs: 20, Term: f.term, Cluster: id.Cluster, History: 1, Ticket: []byte("t"),
	}, nil
}

func (m *fakeMaster) renew(msg wire.Message) (wire.Message, error) {
	f, r := m.all, msg.(*wire.SessionRenew)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := m.leads(); err != nil {
		return nil, err
	}
	if _, ok := f.sessions[r.Session]; !ok {
		return nil, ashlar.NoSession
	}
	f.lowest = max(f.lowest, r.Lowest)
	return &wire.SessionRenewReply{LeaseMs: 3000, Term: f.term, NeedHello: f.helloTerm[r.Session] != f.term}, nil
}

func (m *fakeMaster) hello(msg wire.Message) (wire.Message, error) {
	f, r := m.all, msg.(*wire.SessionHello)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := m.leads(); err != nil {
		return nil, err
	}
	if _, ok := f.sessions[r.Session]; !ok {
		return nil, ashlar.NoSession
	}
	if r.Generation <= f.sessions[r.Session] {
		f.t.Errorf("generation %d after %d", r.Generation, f.sessions[r.Session])
	}
	f.sessions[r.Session], f.helloTerm[r.Session], f.opens = r.Generation, f.term, r.Opens
	return &wire.SessionRenewReply{LeaseMs: 3000, Term: f.term}, nil
}

func (m *fakeMaster) closeSession(msg wire.Message) (wire.Message, error) {
	f := m.all
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := m.leads(); err != nil {
		return nil, err
	}
	delete(f.sessions, msg.(*wire.SessionClose).Session)
	return nil, nil
}

func (m *fakeMaster) operation(msg wire.Message) (wire.Message, error) {
	f, o := m.all, msg.(*wire.Operation)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := m.leads(); err != nil {
		return nil, err
	}
	m.ops.Add(1)
	gen, ok := f.sessions[o.Session]
	switch {
	case !ok:
		return nil, ashlar.NoSession
	case f.helloTerm[o.Session] != f.term || gen != o.Generation:
		return nil, ashlar.E("operation", ashlar.NotReady, "", nil)
	case o.Lowest > o.Seq && o.Seq != 0:
		f.t.Errorf("lowest %d above sequence %d", o.Lowest, o.Seq)
	}
	f.lowest = max(f.lowest, o.Lowest)
	switch b := o.Body.(type) {
	case *wire.Remove:
		if o.Seq == 0 {
			f.t.Error("a change without sequence")
		}
		if k := (opKey{o.Session, o.Seq}); !f.results[k] {
			f.results[k] = true
			f.evaluated++
		}
		return nil, nil
	case *wire.Lookup:
		return nil, ashlar.E("lookup", ashlar.NotExist, b.Name, nil)
	}
	return &wire.Entry{}, nil
}

func (f *fakeMasters) elect(i int) {
	f.mu.Lock()
	f.lead = i
	f.term++
	f.mu.Unlock()
}

func (f *fakeMasters) addrs() (out []string) {
	for _, m := range f.nodes {
		out = append(out, m.addr)
	}
	return out
}

func (f *fakeMasters) get(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// skewed is the real clock with an offset.
type skewed struct {
	clock.Clock
	off atomic.Int64
}

func (s *skewed) Now() clock.Time { return s.Clock.Now().Add(time.Duration(s.off.Load())) }

func (f *fakeMasters) dial(t testing.TB, change func(*Config)) *Conn {
	t.Helper()
	cli := rpc.NewClient(rpc.Identity{Role: wire.RoleClient, Name: "c", Secret: []byte("s"), Incarnation: 2}, rpc.ClientOptions{})
	cfg := Config{RPC: cli, Masters: f.addrs(), Name: "test"}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, cfg)
	if err != nil {
		cli.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_ = c.Close(ctx)
		cli.Close()
	})
	return c
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
