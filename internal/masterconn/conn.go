package masterconn

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Config says how to keep a session. The callbacks may be nil, run on the
// session's own goroutine, and must neither block nor use the Conn.
type Config struct {
	RPC     *rpc.Client
	Masters []string // addresses; one that works is enough
	Name    string   // what users see: host and mount point, or command
	Clock   clock.Clock
	Logger  *slog.Logger
	// Opens returns the inodes that are held open, for a new leader.
	Opens func() []ashlar.Inode
	// Leases returns the leases that are held, for a new leader: no answer that
	// comes later to what was asked before may add any. If it is nil none are
	// asked for.
	Leases func() []wire.HeldLease
	// OnRecall is told of every lease that the leader wants back, perhaps more
	// than once, on a goroutine of its own.
	OnRecall func(wire.Recall)
	// OnTicket is told of every new ticket for chunkservers.
	OnTicket func([]byte)
	// OnLost is told that the session is lost, before another is opened.
	OnLost func()
}

// session is one session of a Conn. Its fields from generation on are guarded
// by Conn.mu.
type session struct {
	id          ashlar.SessionID
	incarnation ashlar.Incarnation
	lost        chan struct{} // closed when the masters know it no more
	operations  *Window

	generation uint64 // of the last hello
	helloAt    uint64 // number of the view it was said to, 0 for none
	needHello  bool
	doubted    bool       // renew now: an operation was refused
	asked      clock.Time // when it last was for that reason
}

func newSession(id ashlar.SessionID, inc ashlar.Incarnation) *session {
	lost := make(chan struct{})
	return &session{id: id, incarnation: inc, lost: lost, operations: NewWindow(ashlar.SessionWindow, lost)}
}

// Conn is a client session with the masters.
type Conn struct {
	cfg    Config
	clock  clock.Clock
	log    *slog.Logger
	leader *Leader
	kicked chan struct{} // buffered 1: keep looks now
	cancel context.CancelFunc
	ended  chan struct{} // closed when keep has returned

	watching sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	now      *session      // nil between a loss and the next session
	changed  chan struct{} // closed when something Do may wait for changed
	ticket   []byte
	lease    clock.Time // answers from caches may be given until then (I-6)
	every    time.Duration
	cluster  ashlar.ClusterID
	history  ashlar.History
	onTicket []func([]byte)
	onLost   []func()
}

// Dial opens a session and keeps it until Close.
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Conn{
		cfg: cfg, clock: cfg.Clock, log: cfg.Logger, leader: NewLeader(cfg.RPC, cfg.Masters, cfg.Clock, cfg.Logger),
		kicked: make(chan struct{}, 1), ended: make(chan struct{}), changed: make(chan struct{}), every: renewEvery,
	}
	if cfg.OnTicket != nil {
		c.onTicket = append(c.onTicket, cfg.OnTicket)
	}
	if cfg.OnLost != nil {
		c.onLost = append(c.onLost, cfg.OnLost)
	}
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	kctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.keep(kctx)
	if cfg.Leases != nil {
		c.watching.Go(func() { c.watchLeases(kctx) })
	}
	return c, nil
}

// Leader returns what follows the leader for this session.
func (c *Conn) Leader() *Leader { return c.leader }

// NotifyTicket makes fn be told of every new ticket, as Config.OnTicket is.
func (c *Conn) NotifyTicket(fn func([]byte)) {
	c.mu.Lock()
	c.onTicket = append(c.onTicket, fn)
	c.mu.Unlock()
}

// NotifyLost makes fn be told of every loss, as Config.OnLost is.
func (c *Conn) NotifyLost(fn func()) {
	c.mu.Lock()
	c.onLost = append(c.onLost, fn)
	c.mu.Unlock()
}

// Session returns the session's number, 0 while there is none.
func (c *Conn) Session() ashlar.SessionID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		return 0
	}
	return c.now.id
}

// WaitSession returns the session's number once there is one, and a channel
// that is closed when it is lost.
func (c *Conn) WaitSession(ctx context.Context) (ashlar.SessionID, <-chan struct{}, error) {
	for {
		c.mu.Lock()
		s, closed, changed := c.now, c.closed, c.changed
		c.mu.Unlock()
		switch {
		case closed:
			return 0, nil, errClosed
		case s != nil:
			return s.id, s.lost, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, nil, endOf(ctx, errNoSession)
		}
	}
}

// Ticket returns the newest ticket for chunkservers.
func (c *Conn) Ticket() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ticket
}

// Cluster returns what the masters said when the session was opened.
func (c *Conn) Cluster() (ashlar.ClusterID, ashlar.History) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cluster, c.history
}

// LeaseValid tells whether the session's lease is surely not over (I-6).
func (c *Conn) LeaseValid() bool { return c.LeaseLeft() > 0 }

// LeaseLeft returns for how long the session's lease surely holds if it is not
// renewed, 0 or less when it is over or there is no session.
func (c *Conn) LeaseLeft() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		return 0
	}
	return c.lease.Sub(c.clock.Now())
}

// Close ends the session. Operations under way fail with Canceled.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.change()
	c.mu.Unlock()
	c.cancel()
	<-c.ended
	c.watching.Wait()
	c.mu.Lock()
	s := c.now
	c.now = nil
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	close(s.lost)
	err := c.leader.Call(ctx, &wire.SessionClose{Session: s.id}, nil)
	if errors.Is(err, ashlar.NoSession) {
		return nil
	}
	return err
}

var (
	errClosed    = ashlar.E("session", ashlar.Canceled, "", errors.New("closed"))
	errNoSession = ashlar.E("session", ashlar.NotReady, "", errors.New("no leader has taken the session"))
)

// change wakes whoever waits for a change. mu must be held.
func (c *Conn) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Conn) kick() {
	select {
	case c.kicked <- struct{}{}:
	default:
	}
}

func random64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// open opens a session and says hello.
func (c *Conn) open(ctx context.Context) error {
	m := &wire.SessionOpen{Name: c.cfg.Name, Incarnation: ashlar.Incarnation(random64()), Nonce: random64(), Leases: c.cfg.Leases != nil}
	var b backoff
	for {
		v, err := c.leader.find(ctx)
		if err != nil {
			return err
		}
		var reply wire.SessionOpenReply
		sent := c.clock.Now()
		if err = c.try(ctx, v, openTimeout, m, &reply); err == nil {
			s := newSession(reply.Session, m.Incarnation)
			c.mu.Lock()
			c.cluster, c.history = reply.Cluster, reply.History
			if reply.RenewMs > 0 {
				c.every = time.Duration(reply.RenewMs) * time.Millisecond
			}
			c.mu.Unlock()
			c.renewed(nil, sent, reply.LeaseMs, reply.Ticket)
			if err = c.hello(ctx, v, s); err == nil {
				c.mu.Lock()
				c.now = s
				c.change()
				c.mu.Unlock()
				return nil
			}
		}
		if errors.Is(err, ashlar.NoSession) { // lost between the two
			m.Nonce = random64()
		} else if !c.leader.again(ctx, v, err) {
			return endOf(ctx, err)
		}
		if !b.wait(ctx, c.clock, c.leader.after(v)) {
			return endOf(ctx, err)
		}
	}
}

// try makes one attempt of bounded duration under a view.
func (c *Conn) try(ctx context.Context, v *view, d time.Duration, req, reply wire.Message) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return c.leader.attempt(ctx, v, req, reply)
}

// hello tells the leader of a view what s holds. It is called by one
// goroutine at a time.
func (c *Conn) hello(ctx context.Context, v *view, s *session) error {
	c.mu.Lock()
	s.generation++
	m := &wire.SessionHello{Session: s.id, Incarnation: s.incarnation, Generation: s.generation, Lowest: s.operations.Lowest()}
	c.mu.Unlock()
	if c.cfg.Opens != nil {
		m.Opens = c.cfg.Opens()
	}
	if c.cfg.Leases != nil {
		m.Leases = c.cfg.Leases()
		m.Leases = m.Leases[:min(len(m.Leases), wire.LeasesMax)]
	}
	var reply wire.SessionRenewReply
	sent := c.clock.Now()
	if err := c.try(ctx, v, openTimeout, m, &reply); err != nil {
		return err
	}
	c.mu.Lock()
	s.helloAt, s.needHello = v.number, false
	c.change()
	c.mu.Unlock()
	c.renewed(s, sent, reply.LeaseMs, reply.Ticket)
	return nil
}

// renew is one heartbeat.
func (c *Conn) renew(ctx context.Context, v *view, s *session) error {
	c.mu.Lock()
	m := &wire.SessionRenew{Session: s.id, Incarnation: s.incarnation, Lowest: s.operations.Lowest()}
	c.mu.Unlock()
	var reply wire.SessionRenewReply
	sent := c.clock.Now()
	if err := c.try(ctx, v, renewTimeout, m, &reply); err != nil {
		return err
	}
	if reply.NeedHello {
		c.mu.Lock()
		s.needHello = true
		c.mu.Unlock()
	}
	c.renewed(s, sent, reply.LeaseMs, reply.Ticket)
	return nil
}

// renewed counts the lease from the moment that the request was sent (I-6).
func (c *Conn) renewed(s *session, sent clock.Time, leaseMs uint32, ticket []byte) {
	c.mu.Lock()
	if s != nil && s != c.now && c.now != nil {
		c.mu.Unlock()
		return
	}
	until := sent.Add(time.Duration(leaseMs) * time.Millisecond)
	if s == nil || c.lease.Before(until) {
		c.lease = until
	}
	var told []func([]byte)
	if len(ticket) > 0 {
		c.ticket = ticket
		told = c.onTicket
	}
	c.mu.Unlock()
	for _, f := range told {
		f(ticket)
	}
}

// lose gives a session up, once.
func (c *Conn) lose(s *session) {
	c.mu.Lock()
	if c.now != s {
		c.mu.Unlock()
		return
	}
	c.now = nil
	c.lease = 0
	close(s.lost)
	c.change()
	told := c.onLost
	c.mu.Unlock()
	c.log.Warn("session lost", "session", fmt.Sprint(uint64(s.id)))
	for _, f := range told {
		f()
	}
}
