package master

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Pace and limits of proving deaths.
const (
	// proveFor is how long after the end of its witness connection a process
	// is asked for where it listened; a process that ends closes its
	// descriptors one after the other.
	proveFor = 2 * time.Second
	// proveAsk is how long one attempt may take, proveMin and proveMax bound
	// the pauses between them.
	proveAsk = time.Second
	proveMin = time.Millisecond
	proveMax = 50 * time.Millisecond
	// proveTogether is how long a proven death waits for others that are being
	// proven: processes that ended together are taken out together.
	proveTogether = 100 * time.Millisecond
	// witnessedMax is how many processes are remembered that have ended.
	witnessedMax = 1024
)

// witnesses is what this master has seen of the processes of the cluster, each
// of which keeps a connection to it for as long as it lives. It is kept while
// following too: a leader whose own node has just died leaves followers that
// know it. docs/protocol/cluster.md says why it proves what it proves.
type witnesses struct {
	m  *Master
	wg sync.WaitGroup

	mu     sync.Mutex
	closed bool
	by     map[ashlar.Incarnation]*process
	ended  []ashlar.Incarnation // oldest first
}

// process is one process of the cluster, from its first witness connection.
type process struct {
	id      ashlar.Incarnation
	name    string
	last    wire.Witness
	open    int  // witness connections that stand
	proving bool // they ended as they do with the process
	dead    bool // and where it listened nobody listens
}

func newWitnesses(m *Master) *witnesses {
	return &witnesses{m: m, by: map[ashlar.Incarnation]*process{}}
}

// witness takes a witness connection.
func (m *Master) witness(_ context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := *r.Msg.(*wire.Witness)
	if m.cfg.NoWitness || r.Peer.Local || r.Peer.Incarnation == 0 {
		return &wire.Empty{}, nil
	}
	if !sameAddr(q.From, r.Peer.Addr) {
		m.log.Info("something stands between this master and a node: its death can not be proven",
			"node", r.Peer.Name, "from", q.From, "seen", r.Peer.Addr)
		return &wire.Empty{}, nil
	}
	m.witnesses.take(r.Peer, &q, r.Conn)
	if n := m.node.Load(); n != nil && q.Member != 0 && q.Life > 1 {
		// Its log is locked: the lives before are over.
		n.LeaderIsDead(uint64(q.Member), q.Life-1)
	}
	return &wire.Empty{}, nil
}

// sameAddr tells whether two texts are one address.
func sameAddr(a, b string) bool {
	x, xerr := netip.ParseAddrPort(a)
	y, yerr := netip.ParseAddrPort(b)
	if xerr != nil || yerr != nil {
		return a == b // not of TCP
	}
	return x.Port() == y.Port() && x.Addr().Unmap().WithZone("") == y.Addr().Unmap().WithZone("")
}

func (w *witnesses) take(peer *rpc.Peer, q *wire.Witness, conn *rpc.ServerConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	p := w.by[peer.Incarnation]
	if p == nil {
		p = &process{id: peer.Incarnation, name: peer.Name}
		w.by[p.id] = p
	}
	p.last = *q
	p.open++
	w.wg.Go(func() {
		select {
		case <-conn.Closed():
			w.lost(p, conn.EndedCleanly())
		case <-w.m.ctx.Done():
		}
	})
}

// lost is called when a witness connection has ended. Only a clean end means
// something, and only if no other connection of the process stands.
func (w *witnesses) lost(p *process, clean bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.open--
	if p.open > 0 || p.dead || p.proving || w.closed {
		return
	}
	if !clean {
		w.forget(p)
		return
	}
	p.proving = true
	w.wg.Go(func() { w.prove(p) })
}

// forget bounds the memory of processes without a connection. mu must be held.
func (w *witnesses) forget(p *process) {
	w.ended = append(w.ended, p.id)
	for len(w.ended) > witnessedMax {
		if old := w.by[w.ended[0]]; old != nil && old.open == 0 && !old.proving {
			delete(w.by, old.id)
		}
		w.ended = w.ended[1:]
	}
}

// prove looks whether anybody listens where the process did.
func (w *witnesses) prove(p *process) {
	ctx, cancel := context.WithTimeout(w.m.ctx, proveFor)
	defer cancel()
	refused := false
	for pause := proveMin; ctx.Err() == nil; pause = min(2*pause, proveMax) {
		if refused = w.refused(ctx, p.last.Addr); refused {
			break
		}
		t := timeout(w.m.clk, pause)
		select {
		case <-t.c:
		case <-ctx.Done():
			t.stop()
		}
	}
	w.mu.Lock()
	p.proving = false
	p.dead = refused && p.open == 0
	dead := p.dead
	w.forget(p)
	w.mu.Unlock()
	if !dead {
		return
	}
	w.m.log.Warn("a process of the cluster has ended", "node", p.name, "addr", p.last.Addr, "process", p.id)
	if n := w.m.node.Load(); n != nil && p.last.Member != 0 {
		n.LeaderIsDead(uint64(p.last.Member), p.last.Life)
	}
	if l := w.m.lead.Load(); l != nil {
		l.deathProven()
	}
}

func (w *witnesses) refused(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, proveAsk)
	defer cancel()
	return w.m.cfg.RPC.Refused(ctx, addr)
}

// isDead tells whether a process is proven dead.
func (w *witnesses) isDead(id ashlar.Incarnation) bool {
	if id == 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.by[id]
	return p != nil && p.dead
}

// undecided tells whether a process may be proven dead any moment.
func (w *witnesses) undecided() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.by {
		if p.proving {
			return true
		}
	}
	return false
}

// close ends it; the master's context is over.
func (w *witnesses) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wg.Wait()
}

// deathProven makes the lookout look now.
func (l *lead) deathProven() {
	select {
	case l.proof <- struct{}{}:
	default:
	}
}

// awaitOthers waits, briefly, while other deaths are being proven.
func (l *lead) awaitOthers() {
	end := l.m.clk.Now().Add(proveTogether)
	for l.m.witnesses.undecided() && l.m.clk.Now().Before(end) && l.ctx.Err() == nil {
		t := timeout(l.m.clk, proveMin)
		select {
		case <-t.c:
		case <-l.ctx.Done():
			t.stop()
		}
	}
}
