package masterconn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// witnessEvery is how often it is looked which masters have no witness
// connection, and witnessDial how long opening one may take.
const (
	witnessEvery = 200 * time.Millisecond
	witnessDial  = time.Second
)

// WitnessConfig says for what process witness connections are kept.
type WitnessConfig struct {
	RPC    *rpc.Client
	Leader *Leader // knows the masters
	Addr   string  // where the process listens until it ends
	// Member returns which member of the consensus group the process is, and
	// how often that was started; nil for none, and zeros while it is none.
	Member func() (ashlar.MemberID, uint64)
	Clock  clock.Clock
	Logger *slog.Logger
}

// Witnesses keeps a witness connection to every master, by whose end they
// know that this process is over.
type Witnesses struct {
	cfg   WitnessConfig
	ctx   context.Context
	end   context.CancelFunc
	tasks sync.WaitGroup
	first chan struct{} // closed when every master was tried once

	mu     sync.Mutex
	closed bool
	to     map[string]*witness // by address
}

// witness is what is kept to one master.
type witness struct {
	dialing bool
	local   bool            // it is this process
	said    wire.Witness    // on the newest connection
	conns   []*rpc.Standing // that stand; more than one once the process became a member
}

// KeepWitnesses begins to keep them.
func KeepWitnesses(cfg WitnessConfig) *Witnesses {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Witnesses{cfg: cfg, first: make(chan struct{}), to: map[string]*witness{}}
	w.ctx, w.end = context.WithCancel(context.Background())
	var tried sync.WaitGroup
	w.open(&tried)
	w.tasks.Go(func() {
		tried.Wait()
		close(w.first)
	})
	w.tasks.Go(w.keep)
	return w
}

// Tried is closed when it was tried once to reach every master that was known
// at the beginning. A process waits for it before it takes its first lease.
func (w *Witnesses) Tried() <-chan struct{} { return w.first }

// Close closes the connections. It is for tests, and for processes that end
// at once: masters take it for the end of the process.
func (w *Witnesses) Close() {
	w.end()
	w.mu.Lock()
	w.closed = true
	var conns []*rpc.Standing
	for _, t := range w.to {
		conns = append(conns, t.conns...)
	}
	w.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	w.tasks.Wait()
}

func (w *Witnesses) keep() {
	tick := w.cfg.Clock.NewTicker(witnessEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C():
		}
		w.open(nil)
	}
}

// open dials every master that has no connection, or none that says what there
// is to say now.
func (w *Witnesses) open(tried *sync.WaitGroup) {
	m := w.message("")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, addr := range w.cfg.Leader.Masters() {
		t := w.to[addr]
		if t == nil {
			t = &witness{}
			w.to[addr] = t
		}
		said := t.said
		said.From = ""
		if w.closed || t.dialing || t.local || len(t.conns) > 0 && said == *m {
			continue
		}
		t.dialing = true
		if tried != nil {
			tried.Add(1)
		}
		w.tasks.Go(func() {
			w.dial(addr, t)
			if tried != nil {
				tried.Done()
			}
		})
	}
}

func (w *Witnesses) message(from string) *wire.Witness {
	m := &wire.Witness{Addr: w.cfg.Addr, From: from}
	if w.cfg.Member != nil {
		m.Member, m.Life = w.cfg.Member()
	}
	return m
}

func (w *Witnesses) dial(addr string, t *witness) {
	ctx, cancel := context.WithTimeout(w.ctx, witnessDial)
	defer cancel()
	var said wire.Witness
	c, err := w.cfg.RPC.Stand(ctx, addr, func(local net.Addr) wire.Message {
		said = *w.message(local.String())
		return &said
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	t.dialing = false
	if err != nil {
		t.local = errors.Is(err, rpc.ErrLocal)
		w.cfg.Logger.Debug("no witness connection", "to", addr, "err", err)
		return
	}
	if w.closed {
		go c.Close()
		return
	}
	t.said = said
	t.conns = append(t.conns, c)
	w.tasks.Go(func() {
		<-c.Ended()
		w.mu.Lock()
		defer w.mu.Unlock()
		for i := range t.conns {
			if t.conns[i] == c {
				t.conns = append(t.conns[:i:i], t.conns[i+1:]...)
				break
			}
		}
	})
}
