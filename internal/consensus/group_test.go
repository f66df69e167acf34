package consensus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

var testCluster = ashlar.ClusterID{0xC1}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until cond holds; the deadline is for broken code only.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// network is a transport in memory, with links that can be cut.
type network struct {
	mu    sync.Mutex
	nodes map[uint64]*Node
	cut   map[[2]uint64]bool
	links map[[2]uint64]chan []byte
	ctx   context.Context
}

func newNetwork(t testing.TB) *network {
	return &network{nodes: map[uint64]*Node{}, cut: map[[2]uint64]bool{}, links: map[[2]uint64]chan []byte{}, ctx: t.Context()}
}

func (w *network) node(from, to uint64) *Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut[[2]uint64{from, to}] {
		return nil
	}
	return w.nodes[to]
}

func (w *network) link(from, to uint64) chan []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := [2]uint64{from, to}
	l := w.links[key]
	if l == nil {
		l = make(chan []byte, 4096)
		w.links[key] = l
		go func() {
			for {
				select {
				case <-w.ctx.Done():
					return
				case p := <-l:
					if n := w.node(from, to); n != nil {
						_ = n.Receive(from, p) // loss is legal
					}
				}
			}
		}()
	}
	return l
}

// isolate cuts or mends every link of a member.
func (w *network) isolate(id uint64, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for other := uint64(1); other < 10; other++ {
		w.cut[[2]uint64{id, other}], w.cut[[2]uint64{other, id}] = cut, cut
	}
}

type port struct {
	w    *network
	from uint64
}

func (p port) Send(to uint64, packet []byte) {
	select {
	case p.w.link(p.from, to) <- packet:
	default:
	}
}

func (p port) SendCheckpoint(ctx context.Context, to uint64, r io.Reader) error {
	n := p.w.node(p.from, to)
	if n == nil {
		return ashlar.E("send", ashlar.Unreachable, "", nil)
	}
	return n.ReceiveCheckpoint(ctx, p.from, r)
}

// machine is a state machine that remembers everything applied to it, and on
// its disk what was flushed.
type machine struct {
	t    testing.TB
	fs   vfs.FS
	dir  string
	keep bool // the entries too, not only their number

	mu      sync.Mutex
	index   uint64
	entries []Entry
	lead    Leadership
	events  []string
}

func newMachine(t testing.TB, fsys vfs.FS, dir string) *machine {
	m := &machine{t: t, fs: fsys, dir: dir, keep: true}
	ok(t, fsys.MkdirAll(dir))
	ok(t, fsys.SyncDir(path.Dir(dir)))
	if _, err := fsys.Stat(path.Join(dir, "state")); err == nil {
		ok(t, m.load(path.Join(dir, "state")))
	}
	return m
}

func (m *machine) encode() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := binary.AppendUvarint(nil, m.index)
	for _, e := range m.entries {
		b = binary.AppendUvarint(b, e.Index)
		b = binary.AppendUvarint(b, e.Term)
		b = binary.AppendUvarint(b, uint64(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b
}

func (m *machine) load(name string) error {
	f, err := m.fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return err
	}
	r := &reader{b: b}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.entries = r.uvarint(), nil
	for len(r.b) > 0 {
		e := Entry{Index: r.uvarint(), Term: r.uvarint()}
		e.Data = bytes.Clone(r.bytes(r.uvarint()))
		m.entries = append(m.entries, e)
	}
	return nil
}

func (m *machine) Apply(entries []Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		if e.Index != m.index+1 && m.index != 0 {
			return fmt.Errorf("applied %d after %d", e.Index, m.index)
		}
		m.index = e.Index
		if m.keep && e.Data != nil {
			m.entries = append(m.entries, e)
		}
	}
	return nil
}

func (m *machine) AppliedIndex() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index
}

func (m *machine) Flush() (uint64, error) {
	index := m.AppliedIndex()
	return index, writeFile(m.fs, m.dir, "state", m.encode())
}

func (m *machine) Checkpoint(dir string) (uint64, error) {
	b := m.encode()
	if err := m.fs.MkdirAll(dir); err != nil {
		return 0, err
	}
	index, _ := binary.Uvarint(b)
	return index, writeFile(m.fs, dir, "state", b)
}

func (m *machine) Restore(dir string) (uint64, error) {
	if err := m.load(path.Join(dir, "state")); err != nil {
		return 0, err
	}
	m.mu.Lock()
	m.events = append(m.events, fmt.Sprintf("restored %d", m.index))
	m.mu.Unlock()
	return m.Flush()
}

func (m *machine) LeaderChanged(l Leadership) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lead = l
}

func (m *machine) leads() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lead.Self
}

// data returns what was applied, as one string per entry.
func (m *machine) data() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, e := range m.entries {
		out = append(out, string(e.Data))
	}
	return out
}

func (m *machine) at(index uint64) (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.entries) - 1; i >= 0; i-- {
		if m.entries[i].Index == index {
			return m.entries[i], true
		}
	}
	return Entry{}, false
}

// group is a running group with a disk per member.
type group struct {
	t        testing.TB
	net      *network
	disks    map[uint64]*vfs.Mem
	nodes    map[uint64]*Node
	machines map[uint64]*machine
	adjust   func(*Config)

	adjustKill func(id uint64) // after a member is stopped
}

func newGroup(t testing.TB, size int, adjust func(*Config)) *group {
	g := &group{t: t, net: newNetwork(t), disks: map[uint64]*vfs.Mem{}, nodes: map[uint64]*Node{}, machines: map[uint64]*machine{}, adjust: adjust}
	var members []Member
	for id := uint64(1); id <= uint64(size); id++ {
		members = append(members, testMember(id))
	}
	for _, m := range members {
		g.start(m.ID, members)
	}
	t.Cleanup(func() {
		for id := range g.nodes {
			g.kill(id)
		}
	})
	return g
}

func testMember(id uint64) Member {
	return Member{ID: id, Name: fmt.Sprint("m", id), Addr: fmt.Sprint("10.0.0.", id)}
}

func (g *group) config(id uint64, bootstrap []Member) Config {
	c := Config{
		ID: id, Cluster: testCluster, Dir: "/raft", FS: g.disks[id], Bootstrap: bootstrap,
		TickInterval: 5 * time.Millisecond, ElectionTicks: 20, Transport: port{g.net, id},
		SegmentBytes: 64 << 10, Machine: g.machines[id],
	}
	if testing.Verbose() {
		c.Logger = slog.Default().With("member", id)
	}
	if g.adjust != nil {
		g.adjust(&c)
	}
	return c
}

func (g *group) start(id uint64, bootstrap []Member) {
	g.t.Helper()
	if g.disks[id] == nil {
		g.disks[id] = vfs.NewMem()
	}
	g.machines[id] = newMachine(g.t, g.disks[id], "/state")
	n, err := Start(g.config(id, bootstrap))
	ok(g.t, err)
	g.nodes[id] = n
	g.net.mu.Lock()
	g.net.nodes[id] = n
	g.net.mu.Unlock()
}

// kill stops a member as kill -9 does; its disk stays.
func (g *group) kill(id uint64) {
	g.t.Helper()
	g.net.mu.Lock()
	delete(g.net.nodes, id)
	g.net.mu.Unlock()
	if err := g.nodes[id].Kill(); err != nil {
		g.t.Errorf("member %d: %v", id, err)
	}
	delete(g.nodes, id)
	if g.adjustKill != nil {
		g.adjustKill(id)
	}
}

// leader waits for a member that leads and may evaluate, other than those
// named.
func (g *group) leader(except ...uint64) uint64 {
	g.t.Helper()
	var found uint64
	eventually(g.t, "a leader", func() bool {
		for id, n := range g.nodes {
			if _, _, ready := n.NextIndex(); ready && g.machines[id].leads() && !contains(except, id) {
				found = id
				return true
			}
		}
		return false
	})
	return found
}

func contains(ids []uint64, id uint64) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

// put proposes data at a member and waits until it is applied there in the
// place it was given.
func (g *group) put(id uint64, data string) error {
	n, m := g.nodes[id], g.machines[id]
	for {
		term, index, ready := n.NextIndex()
		if !ready {
			return ErrNotLeader
		}
		err := n.Propose(term, index, []byte(data))
		if errors.Is(err, ErrMoved) {
			continue
		}
		if err != nil {
			return err
		}
		lost := false
		eventually(g.t, "applied "+data, func() bool {
			e, there := m.at(index)
			lost = there && e.Term != term || n.Err() != nil
			return there || lost
		})
		if lost {
			return ErrDropped
		}
		return nil
	}
}

// agree waits until the members have applied the same.
func (g *group) agree(want int, ids ...uint64) {
	g.t.Helper()
	for _, id := range ids {
		eventually(g.t, fmt.Sprintf("member %d has %d entries", id, want), func() bool { return len(g.machines[id].data()) >= want })
	}
	first := fmt.Sprint(g.machines[ids[0]].data())
	for _, id := range ids[1:] {
		if got := fmt.Sprint(g.machines[id].data()); got != first {
			g.t.Fatalf("member %d holds %s, member %d %s", id, got, ids[0], first)
		}
	}
}
