package object

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var id = rpc.Identity{Cluster: ashlar.ClusterID{1}, History: 1, Role: wire.RoleNode, Name: "n", Secret: []byte("s"), Incarnation: 1}

func kind[P wire.Message]() wire.Kind { var p P; return p.Kind() }

type chunkID struct {
	group ashlar.PGID
	chunk uint32
}

// fakes are masters and chunkservers that share their state by magic: a
// chunkserver has whatever any other has.
type fakes struct {
	t testing.TB

	mu       sync.Mutex
	nodes    []*fakeNode
	groups   map[ashlar.PGID]*ashlar.Group
	changed  chan struct{}
	session  ashlar.SessionID
	lost     chan struct{}
	onTicket []func([]byte)
	ticket   string
	asked    int // GetGroups

	chunks  map[chunkID][]byte
	applied map[uint64]int // by sequence
	retried map[uint64]bool
	lowest  uint64
	syncs   map[ashlar.PGID]int
	gen     ashlar.Generation
}

type fakeNode struct {
	f      *fakes
	addr   string
	srv    *rpc.Server
	silent atomic.Bool // receives and does not answer
	mute   atomic.Bool // does and does not answer
	// spoil is called on every answer to a read.
	spoil atomic.Pointer[func(*wire.ReadReply)]
	fail  atomic.Pointer[func(wire.Message) error]
	calls atomic.Int64
}

const testChunk = 4 << 20

func newFakes(t testing.TB, nodes, groups int) *fakes {
	f := &fakes{
		t: t, groups: map[ashlar.PGID]*ashlar.Group{}, changed: make(chan struct{}), session: 7, lost: make(chan struct{}), ticket: "t1",
		chunks: map[chunkID][]byte{}, applied: map[uint64]int{}, retried: map[uint64]bool{}, syncs: map[ashlar.PGID]int{}, gen: 1,
	}
	for range nodes {
		n := &fakeNode{f: f}
		n.start(t, "127.0.0.1:0")
		f.nodes = append(f.nodes, n)
	}
	for g := range groups {
		f.groups[ashlar.PGID(g+1)] = &ashlar.Group{ID: ashlar.PGID(g + 1), Epoch: 1, Members: f.members(g % nodes)}
	}
	t.Cleanup(func() {
		for _, n := range f.nodes {
			n.srv.Close()
		}
	})
	return f
}

func (f *fakes) members(primary int) (out []ashlar.Member) {
	for i := range f.nodes {
		k := (primary + i) % len(f.nodes)
		out = append(out, ashlar.Member{Disk: ashlar.DiskID(k + 1), Node: ashlar.NodeID(k + 1), State: ashlar.InSync, Addr: f.nodes[k].addr, Incarnation: 1})
	}
	return out
}

// move makes a node the primary of a group in a new epoch.
func (f *fakes) move(g ashlar.PGID, node int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[g] = &ashlar.Group{ID: g, Epoch: f.groups[g].Epoch + 1, Members: f.members(node)}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakes) get(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// Do implements Masters.
func (f *fakes) Do(ctx context.Context, _ ashlar.Cred, body, reply wire.Message) error {
	m := body.(*wire.GetGroups)
	end := time.NewTimer(500 * time.Millisecond)
	defer end.Stop()
	for {
		f.mu.Lock()
		f.asked++
		g, changed := f.groups[m.Groups[0]], f.changed
		f.mu.Unlock()
		if g == nil {
			return nil
		}
		if g.Epoch > m.After {
			reply.(*wire.GroupsReply).Groups = []ashlar.Group{*g}
			return nil
		}
		select {
		case <-changed:
		case <-end.C:
			reply.(*wire.GroupsReply).Groups = []ashlar.Group{*g}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// WaitSession implements Masters.
func (f *fakes) WaitSession(context.Context) (ashlar.SessionID, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.session, f.lost, nil
}

// Ticket implements Masters.
func (f *fakes) Ticket() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []byte(f.ticket)
}

// NotifyTicket implements Masters.
func (f *fakes) NotifyTicket(fn func([]byte)) { f.onTicket = append(f.onTicket, fn) }

// newSession replaces the session as Conn does.
func (f *fakes) newSession() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.lost)
	f.lost = make(chan struct{})
	f.session++
}

func (n *fakeNode) start(t testing.TB, addr string) {
	n.srv = rpc.NewServer(id, rpc.ServerOptions{})
	n.srv.Handle(kind[*wire.Attach](), func(_ context.Context, r *rpc.Request) (wire.Message, error) {
		r.Conn.SetValue(string(r.Msg.(*wire.Attach).Ticket))
		return nil, nil
	})
	n.handle(kind[*wire.Read](), n.read)
	n.handle(kind[*wire.Write](), n.write)
	n.handle(kind[*wire.Sync](), n.sync)
	n.handle(kind[*wire.Runs](), n.runs)
	n.handle(kind[*wire.CopyRange](), n.copyRange)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	srv := n.srv
	go func() { _ = srv.Serve(ln) }()
}

func (n *fakeNode) handle(k wire.Kind, h func(r *rpc.Request) (wire.Message, error)) {
	n.srv.Handle(k, func(ctx context.Context, r *rpc.Request) (wire.Message, error) {
		n.calls.Add(1)
		if n.silent.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if fail := n.fail.Load(); fail != nil {
			if err := (*fail)(r.Msg); err != nil {
				return nil, err
			}
		}
		n.f.mu.Lock()
		reply, err := h(r)
		n.f.mu.Unlock()
		if n.mute.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return reply, err
	})
}

// admit does what a chunkserver checks of every request. f.mu must be held.
func (n *fakeNode) admit(r *rpc.Request, a *wire.Address) error {
	f := n.f
	g := f.groups[a.Group]
	switch {
	case r.Conn.Value() != f.ticket:
		return ashlar.E("data", ashlar.Auth, "", nil)
	case a.Session != f.session:
		return ashlar.NoSession
	case a.Epoch != g.Epoch || g.Members[g.Primary()].Addr != n.addr:
		return ashlar.WrongEpoch
	case a.Gen < f.gen:
		return ashlar.WrongGeneration
	}
	return nil
}

func (f *fakes) chunk(g ashlar.PGID, i uint32) []byte {
	k := chunkID{g, i}
	if f.chunks[k] == nil {
		f.chunks[k] = make([]byte, testChunk)
	}
	return f.chunks[k]
}

func (n *fakeNode) read(r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Read)
	if err := n.admit(r, &m.Address); err != nil {
		return nil, err
	}
	if m.Off%ashlar.BlockSize != 0 || m.Len%ashlar.BlockSize != 0 || m.Len > ashlar.IOMax || m.Len == 0 {
		n.f.t.Errorf("read of %d bytes at %d", m.Len, m.Off)
	}
	k := chunkID{m.Group, m.Chunk}
	if n.f.chunks[k] == nil {
		return &wire.ReadReply{Zero: true}, nil
	}
	reply := &wire.ReadReply{Data: append([]byte(nil), n.f.chunk(m.Group, m.Chunk)[m.Off:m.Off+m.Len]...)}
	reply.Sums = checksum.Append(nil, uint64(m.Off), reply.Data)
	if spoil := n.spoil.Load(); spoil != nil {
		(*spoil)(reply)
	}
	return reply, nil
}

// runs tells blocks that are not zeros.
func (n *fakeNode) runs(r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Runs)
	if err := n.admit(r, &m.Address); err != nil {
		return nil, err
	}
	rep := &wire.RunsReply{Next: ^uint32(0)}
	b, ok := n.f.chunks[chunkID{m.Group, m.Chunk}]
	for at := m.Off / ashlar.BlockSize * ashlar.BlockSize; ok && at < m.Off+m.Len; at += ashlar.BlockSize {
		switch last := len(rep.Ends) - 1; {
		case len(bytes.Trim(b[at:at+ashlar.BlockSize], "\x00")) == 0:
		case last >= 0 && rep.Ends[last] == at:
			rep.Ends[last] += ashlar.BlockSize
		default:
			rep.Starts, rep.Ends = append(rep.Starts, at), append(rep.Ends, at+ashlar.BlockSize)
		}
	}
	for k := range n.f.chunks {
		if len(rep.Starts) == 0 && k.group == m.Group && k.chunk > m.Chunk {
			rep.Next = min(rep.Next, k.chunk)
		}
	}
	return rep, nil
}

// copyRange has the source by magic, unless its address is wrong.
func (n *fakeNode) copyRange(r *rpc.Request) (wire.Message, error) {
	f, m := n.f, r.Msg.(*wire.CopyRange)
	if err := n.admit(r, &m.Address); err != nil {
		return nil, err
	}
	src := f.groups[m.Source.Group]
	if src.Members[src.Primary()].Addr != m.SourceAddr || m.Source.Epoch != src.Epoch {
		return nil, ashlar.E("copy", ashlar.Unsupported, "", nil)
	}
	if m.Seq == 0 || m.Lowest > m.Seq || m.Len > ashlar.IOMax || m.ChunkSize != testChunk || m.Owner != 42 {
		f.t.Errorf("copy %+v", m)
	}
	if f.applied[m.Seq]++; f.applied[m.Seq] > 1 {
		return nil, nil
	}
	copy(f.chunk(m.Group, m.Chunk)[m.Off:m.Off+m.Len], f.chunk(m.Source.Group, m.Source.Chunk)[m.SourceOff:])
	return nil, nil
}

func (n *fakeNode) write(r *rpc.Request) (wire.Message, error) {
	f, m := n.f, r.Msg.(*wire.Write)
	if err := n.admit(r, &m.Address); err != nil {
		return nil, err
	}
	if m.Seq == 0 || m.Lowest > m.Seq || len(m.Data) > ashlar.IOMax || m.ChunkSize != testChunk || m.Owner != 42 {
		f.t.Errorf("write %+v", m)
	}
	f.lowest = max(f.lowest, m.Lowest)
	if f.applied[m.Seq] > 0 {
		if m.Flags&wire.WriteRetry == 0 {
			f.t.Errorf("sequence %d is repeated without saying so", m.Seq)
		}
		f.retried[m.Seq] = true
		return nil, nil
	}
	f.applied[m.Seq]++
	dst := f.chunk(m.Group, m.Chunk)[m.Off : m.Off+m.Len]
	if m.Flags&wire.WriteZero != 0 {
		clear(dst)
		return nil, nil
	}
	if checksum.Verify(m.Sums, uint64(m.Off), m.Data) >= 0 {
		return nil, ashlar.Corrupt
	}
	copy(dst, m.Data)
	return nil, nil
}

func (n *fakeNode) sync(r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Sync)
	if err := n.admit(r, &m.Address); err != nil {
		return nil, err
	}
	n.f.syncs[m.Group]++
	return nil, nil
}

func (f *fakes) store(t testing.TB) *Store {
	cli := rpc.NewClient(rpc.Identity{Role: wire.RoleClient, Name: "c", Secret: []byte("s"), Incarnation: 2}, rpc.ClientOptions{})
	s := New(f, cli, Options{})
	t.Cleanup(func() { s.Close(); cli.Close() })
	return s
}

// ref is an object of one group for its first chunk and then two abreast,
// striped if unit is less than a chunk.
func ref(unit uint32) *Ref {
	return &Ref{Owner: 42, Object: wire.Object{Layer: 9, Gen: 1, Layout: ashlar.Layout{
		ChunkSize: testChunk, Limit: 8,
		Segments: []ashlar.Segment{{First: 0, StripeUnit: testChunk, Groups: []ashlar.PGID{1}}, {First: 1, StripeUnit: unit, Groups: []ashlar.PGID{2, 3}}},
	}}}
}
