package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Handler answers one request in its own goroutine. ctx ends at the caller's
// deadline and when the connection is lost; work that must be finished once
// begun detaches from it (context.WithoutCancel). A nil message without an
// error is answered with Empty. An error is sent as its ashlar.Kind with its
// text.
type Handler func(ctx context.Context, r *Request) (wire.Message, error)

// Quick may answer a request at once, in the goroutine that reads the
// connection: it must not block, and alone tells whether nothing else waits to
// be read there, so that work which takes a while delays nobody. A request
// that it declines goes to the Handler of its kind; one that it takes for
// Later is answered by Request.Answer.
type Quick func(r *Request, alone bool) (m wire.Message, err error, what Outcome)

// Outcome is what a Quick did with a request.
type Outcome uint8

// The outcomes.
const (
	Declined Outcome = iota
	Answered
	Later
)

// ServerOptions are a Server's options; the zero value is good.
type ServerOptions struct {
	Local  *Local   // makes the server callable within the process
	Addrs  []string // further addresses to be known by in Local
	Clock  clock.Clock
	Logger *slog.Logger
	// OnGarbage is told of every connection that was refused or broken off
	// because of what it sent; nil for the rate-limited log.
	OnGarbage func(addr string, err error)
}

// Server answers requests.
type Server struct {
	id       atomic.Pointer[Identity]
	o        ServerOptions
	log      limitedLog
	handlers map[wire.Kind]Handler
	quick    map[wire.Kind]Quick
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	work     chan *Request // to workers that wait
	idle     atomic.Int32  // how many of them there are

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]string
	conns     map[*ServerConn]bool
	shaking   map[net.Conn]bool
}

// NewServer returns a server without handlers.
func NewServer(id Identity, o ServerOptions) *Server {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		o: o, handlers: map[wire.Kind]Handler{}, quick: map[wire.Kind]Quick{}, listeners: map[net.Listener]string{},
		conns: map[*ServerConn]bool{}, shaking: map[net.Conn]bool{}, work: make(chan *Request),
	}
	s.log = limitedLog{log: o.Logger, clock: o.Clock}
	s.id.Store(&id)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.watch)
	return s
}

// SetIdentity changes what the server says of itself in later handshakes,
// once it knows its node number or the cluster's history.
func (s *Server) SetIdentity(id Identity) { s.id.Store(&id) }

// Handle sets the handler for requests of a kind: (*wire.Read)(nil).Kind().
// It must not be called once Serve was.
func (s *Server) Handle(k wire.Kind, h Handler) {
	if s.handlers[k] != nil {
		panic(fmt.Sprintf("rpc: two handlers for kind %d", k))
	}
	s.handlers[k] = h
}

// HandleQuick sets what tries requests of a kind before their Handler. It is
// not asked for requests with a payload of their own memory, nor for those of
// the same process. It must not be called once Serve was.
func (s *Server) HandleQuick(k wire.Kind, q Quick) { s.quick[k] = q }

// Serve accepts connections until Close, or until the listener fails.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(errServerClosed, ln.Close())
	}
	s.listeners[ln] = ln.Addr().String()
	s.mu.Unlock()
	s.o.Local.add(s, slices.Concat(s.o.Addrs, []string{ln.Addr().String()}))
	for {
		c, err := ln.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return nil
			}
			if temporary(err) { // out of descriptors: wait for some to be closed
				s.log.warn("accept failed", "err", err)
				if !s.pause(backoffMin) {
					return nil
				}
				continue
			}
			return err
		}
		s.mu.Lock()
		full := len(s.conns)+len(s.shaking) >= ConnectionsMax
		if s.closed || full {
			s.mu.Unlock()
			if full {
				s.log.warn("connection refused: too many", "limit", ConnectionsMax, "addr", c.RemoteAddr())
			}
			_ = c.Close()
			continue
		}
		s.shaking[c] = true
		s.running.Add(1)
		s.mu.Unlock()
		go func() {
			defer s.running.Done()
			s.serveConn(c)
		}()
	}
}

var errServerClosed = ashlar.E("serve", ashlar.Canceled, "", errors.New("server is closed"))

func (s *Server) serveConn(c net.Conn) {
	tune(c)
	id := s.id.Load()
	peer, err := accept(c, id, HandshakeTimeout)
	s.mu.Lock()
	delete(s.shaking, c)
	if err != nil || s.closed {
		s.mu.Unlock()
		_ = c.Close()
		if err != nil {
			s.garbage(c.RemoteAddr().String(), "connection refused", err)
		}
		return
	}
	sc := newServerConn(s, peer, c)
	s.conns[sc] = true
	s.mu.Unlock()
	s.running.Go(sc.w.run)
	sc.readLoop()
	s.mu.Lock()
	delete(s.conns, sc)
	s.mu.Unlock()
}

func (s *Server) garbage(addr, what string, err error) {
	if s.o.OnGarbage != nil {
		s.o.OnGarbage(addr, err)
		return
	}
	s.log.warn(what, "addr", addr, "err", err)
}

// watch tells clients that the server is alive while it works for them, and
// closes connections whose peer takes nothing.
func (s *Server) watch() {
	t := s.o.Clock.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C():
		}
		s.mu.Lock()
		conns := make([]*ServerConn, 0, len(s.conns))
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		for _, c := range conns {
			c.alive()
		}
	}
}

// idleWorkers is how many goroutines wait for the next request instead of
// ending: their stacks have grown to what handlers need.
const idleWorkers = 16

// run serves a request in a goroutine that is waiting for one, or in a new one.
func (s *Server) run(r *Request) {
	s.running.Add(1)
	select {
	case s.work <- r:
	default:
		go s.worker(r)
	}
}

func (s *Server) worker(r *Request) {
	for {
		r.serve()
		r = nil
		if s.idle.Add(1) > idleWorkers {
			s.idle.Add(-1)
			return
		}
		select {
		case r = <-s.work:
			s.idle.Add(-1)
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) handler(k wire.Kind) Handler { return s.handlers[k] }

// Close stops accepting, closes every connection and waits until all handlers
// have returned.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	var conns []*ServerConn
	for c := range s.conns {
		conns = append(conns, c)
	}
	for c := range s.shaking {
		_ = c.Close()
	}
	s.cancel()
	for ln := range s.listeners {
		_ = ln.Close()
	}
	s.mu.Unlock()
	s.o.Local.remove(s)
	for _, c := range conns {
		c.close(errServerClosed)
	}
	s.running.Wait()
}
