package master

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits of the transport.
const (
	// peerQueueMax is the most packets that wait for one member; beyond it
	// they are dropped, and raft sends them again.
	peerQueueMax = 512
	// sendWait is how long a packet may wait for a connection.
	sendWait = time.Second
	// pieceMax is the size of a checkpoint's pieces, in bytes.
	pieceMax = 1 << 20
	// pieceWait is how long one piece may take.
	pieceWait = 30 * time.Second
)

// transport carries consensus over rpc: packets one-way, a checkpoint as a
// stream of pieces, each of which is answered.
type transport struct {
	m      *Master
	stream atomic.Uint64

	mu    sync.Mutex
	addrs map[uint64]string
	peers map[uint64]*peer
	in    map[uint64]*incoming // checkpoints being received, by stream
	wg    sync.WaitGroup
}

type peer struct {
	id    uint64
	queue chan []byte
	busy  atomic.Bool // its goroutine is sending
}

// incoming is a checkpoint that is being received.
type incoming struct {
	from uint64
	w    *io.PipeWriter
	off  uint64
	done chan error
}

var _ consensus.Transport = (*transport)(nil)

func newTransport(m *Master) *transport {
	t := &transport{m: m, addrs: map[uint64]string{}, peers: map[uint64]*peer{}, in: map[uint64]*incoming{}}
	t.stream.Store(uint64(m.clk.Wall()))
	return t
}

func (t *transport) setMembers(members []consensus.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, mem := range members {
		t.addrs[mem.ID] = mem.Addr
		for _, p := range t.m.cfg.Masters {
			// Where a first member is now the configuration knows better; one
			// that took a first member's name was added with its own address.
			if p.Name == mem.Name && p.Addr != "" && mem.ID == memberID(t.m.cfg.Cluster, p.Name, 0) {
				t.addrs[mem.ID] = p.Addr
			}
		}
	}
}

func (t *transport) addr(id uint64) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addrs[id]
}

// Send implements consensus.Transport.
func (t *transport) Send(to uint64, packet []byte) {
	t.mu.Lock()
	p := t.peers[to]
	if p == nil && t.m.ctx.Err() == nil {
		p = &peer{id: to, queue: make(chan []byte, peerQueueMax)}
		t.peers[to] = p
		t.wg.Go(func() { t.run(p) })
	}
	addr := t.addrs[to]
	t.mu.Unlock()
	if p == nil {
		return
	}
	if len(p.queue) == 0 && !p.busy.Load() && addr != "" && len(packet) <= wire.PayloadMax &&
		t.m.cfg.RPC.TrySend(addr, &wire.Raft{From: t.m.id.Load(), To: to, Data: packet}) {
		return // without a change of goroutines
	}
	select {
	case p.queue <- packet:
	default:
	}
}

func (t *transport) run(p *peer) {
	for {
		select {
		case <-t.m.ctx.Done():
			return
		case b := <-p.queue:
			p.busy.Store(true)
			t.send(p.id, b)
			p.busy.Store(false)
		}
	}
}

func (t *transport) send(to uint64, b []byte) {
	if len(b) > wire.PayloadMax {
		t.m.log.Error("a consensus packet is too large to be sent", "bytes", len(b))
		return
	}
	addr := t.addr(to)
	if addr == "" {
		t.ask()
		if addr = t.addr(to); addr == "" {
			return
		}
	}
	ctx, cancel := context.WithTimeout(t.m.ctx, sendWait)
	defer cancel()
	if err := t.m.cfg.RPC.Send(ctx, addr, &wire.Raft{From: t.m.id.Load(), To: to, Data: b}); err != nil {
		t.m.log.Debug("sending to a master", "to", addr, "err", err)
		if n := t.m.node.Load(); n != nil {
			n.Unreachable(to)
		}
	}
}

// ask learns addresses from the configured masters: a member that has just
// joined has no membership yet to find them in.
func (t *transport) ask() {
	for _, p := range t.m.cfg.Masters {
		if p.Name == t.m.cfg.Name {
			continue
		}
		r, err := t.m.askLeader(p.Addr)
		if err != nil {
			continue
		}
		t.mu.Lock()
		for _, a := range r.Masters {
			if t.addrs[uint64(a.ID)] == "" {
				t.addrs[uint64(a.ID)] = a.Addr
			}
		}
		t.mu.Unlock()
		return
	}
}

// SendCheckpoint implements consensus.Transport.
func (t *transport) SendCheckpoint(ctx context.Context, to uint64, r io.Reader) error {
	addr := t.addr(to)
	if addr == "" {
		return ashlar.E("send checkpoint", ashlar.Unreachable, "", errors.New("no address is known"))
	}
	call := func(m wire.Message) error {
		ctx, cancel := context.WithTimeout(ctx, pieceWait)
		defer cancel()
		return t.m.cfg.RPC.Call(ctx, addr, m, &wire.Empty{})
	}
	id := t.stream.Add(1)
	if err := call(&wire.SnapshotBegin{From: t.m.id.Load(), To: to, Stream: id}); err != nil {
		return err
	}
	buf := make([]byte, pieceMax)
	for off := uint64(0); ; {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := call(&wire.SnapshotData{Stream: id, Off: off, Data: buf[:n]}); err != nil {
				return err
			}
			off += uint64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return call(&wire.SnapshotEnd{Stream: id})
		case err != nil:
			return err
		}
	}
}

// raft receives a packet.
func (m *Master) raft(_ context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.Raft)
	if n := m.node.Load(); n != nil && q.To == m.id.Load() {
		if err := n.Receive(q.From, q.Data); err != nil {
			m.log.Debug("receiving from a master", "from", r.Peer.Name, "err", err)
		}
	}
	return &wire.Empty{}, nil
}

func (m *Master) snapshotBegin(_ context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.SnapshotBegin)
	n := m.node.Load()
	if n == nil || q.To != m.id.Load() {
		return nil, ashlar.E("receive checkpoint", ashlar.NotReady, "", nil)
	}
	t := m.trans
	pr, pw := io.Pipe()
	in := &incoming{from: q.From, w: pw, done: make(chan error, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, old := range t.in { // one at a time; an older one was given up
		old.w.CloseWithError(errors.New("another checkpoint has begun"))
		delete(t.in, id)
	}
	if m.ctx.Err() != nil {
		return nil, ashlar.E("receive checkpoint", ashlar.NotReady, "", nil)
	}
	t.in[q.Stream] = in
	t.wg.Go(func() {
		err := n.ReceiveCheckpoint(m.ctx, in.from, pr)
		pr.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		in.done <- err
	})
	return &wire.Empty{}, nil
}

func (t *transport) incoming(stream uint64) (*incoming, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in := t.in[stream]; in != nil {
		return in, nil
	}
	return nil, ashlar.E("receive checkpoint", ashlar.NotExist, "", errors.New("this transfer was given up"))
}

func (m *Master) snapshotData(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.SnapshotData)
	in, err := m.trans.incoming(q.Stream)
	if err != nil {
		return nil, err
	}
	if q.Off != in.off {
		return nil, ashlar.E("receive checkpoint", ashlar.Invalid, "", errors.New("a piece is missing"))
	}
	stop := context.AfterFunc(ctx, func() { in.w.CloseWithError(context.Cause(ctx)) })
	defer stop()
	if _, err := in.w.Write(q.Data); err != nil {
		return nil, err
	}
	in.off += uint64(len(q.Data))
	return &wire.Empty{}, nil
}

func (m *Master) snapshotEnd(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.SnapshotEnd)
	in, err := m.trans.incoming(q.Stream)
	if err != nil {
		return nil, err
	}
	defer func() {
		m.trans.mu.Lock()
		delete(m.trans.in, q.Stream)
		m.trans.mu.Unlock()
	}()
	if err := in.w.Close(); err != nil {
		return nil, err
	}
	select {
	case err := <-in.done:
		return &wire.Empty{}, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// close ends all transfers; the master's context is over.
func (t *transport) close() {
	t.mu.Lock()
	for _, in := range t.in {
		in.w.CloseWithError(context.Canceled)
	}
	t.mu.Unlock()
	t.wg.Wait()
}
