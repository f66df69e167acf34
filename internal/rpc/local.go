package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Local knows which addresses are served in this process. Calls to them go to
// the handler without a socket or a handshake. The body still passes through
// the codec and the payload is copied, so that a local call behaves as a
// remote one does. A nil *Local knows none.
type Local struct {
	mu      sync.RWMutex
	servers map[string]*Server
}

// NewLocal returns a registry that knows no address.
func NewLocal() *Local { return &Local{servers: map[string]*Server{}} }

func (l *Local) find(addr string) *Server {
	if l == nil {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.servers[addr]
}

func (l *Local) add(s *Server, addrs []string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range addrs {
		l.servers[a] = s
	}
}

func (l *Local) remove(s *Server) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, t := range l.servers {
		if t == s {
			delete(l.servers, a)
		}
	}
}

type localKey struct {
	server *Server
	addr   string
	class  class
}

type localReply struct {
	msg     wire.Message
	err     error
	release func()
}

// local returns the stand-in for a connection, made and attached if needed.
func (c *Client) local(ctx context.Context, addr string, s *Server, k class) (*ServerConn, error) {
	key := localKey{s, addr, k}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	if sc := c.locals[key]; sc != nil && sc.ctx.Err() == nil {
		c.mu.Unlock()
		return sc, nil
	}
	hooks := c.hooks
	c.mu.Unlock()
	id := c.id.Load()
	sc := newServerConn(s, &Peer{
		Cluster: id.Cluster, History: id.History, Role: id.Role, Node: id.Node, Name: id.Name, Incarnation: id.Incarnation,
		Version: wire.VersionMax, Features: id.Features & s.id.Load().Features, Addr: "local", Local: true,
	}, nil)
	if k == classData {
		if err := c.attachLocal(ctx, key, sc, hooks); err != nil {
			sc.cancel()
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.locals[key]; have != nil && have.ctx.Err() == nil {
		sc.cancel()
		return have, nil
	}
	c.locals[key] = sc
	return sc, nil
}

func (c *Client) dropLocal(k localKey, sc *ServerConn) {
	c.mu.Lock()
	if c.locals[k] == sc {
		delete(c.locals, k)
	}
	c.mu.Unlock()
	sc.close(ErrClosed)
}

func (c *Client) attachLocal(ctx context.Context, k localKey, sc *ServerConn, hooks []Hook) error {
	for _, h := range hooks {
		err := h(ctx, k.addr, func(req, reply wire.Message) error { return sc.callLocal(ctx, k.addr, req, reply) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) callLocal(ctx context.Context, addr string, s *Server, req, reply wire.Message) error {
	if ctx.Err() != nil {
		return contextError(ctx, addr)
	}
	sc, err := c.local(ctx, addr, s, classOf(req.Kind()))
	if err != nil {
		return err
	}
	return sc.callLocal(ctx, addr, req, reply)
}

func (c *Client) sendLocal(ctx context.Context, addr string, s *Server, msg wire.Message) error {
	sc, err := c.local(ctx, addr, s, classOf(msg.Kind()))
	if err != nil {
		return err
	}
	r, err := sc.localRequest(msg)
	if err != nil {
		return err
	}
	return sc.begin(r, addr)
}

func (c *ServerConn) callLocal(ctx context.Context, addr string, req, reply wire.Message) error {
	r, err := c.localRequest(req)
	if err != nil {
		return err
	}
	r.deadline, _ = ctx.Deadline()
	r.local = make(chan localReply, 1)
	answer := r.local
	if err := c.begin(r, addr); err != nil {
		return err
	}
	select {
	case a := <-answer:
		defer a.release()
		if a.err != nil {
			return remoteError(errorMessage(a.err))
		}
		return copyReply(reply, a.msg)
	case <-ctx.Done():
		c.server.running.Add(1) // the handler is running still
		go func() {
			defer c.server.running.Done()
			(<-answer).release()
		}()
		return contextError(ctx, addr)
	}
}

// begin runs the handler in its own goroutine.
func (c *ServerConn) begin(r *Request, addr string) error {
	s := c.server
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		r.frameGoneUncounted()
		return notSent(addr, errServerClosed)
	}
	s.running.Add(1)
	s.mu.Unlock()
	if s.handler(r.Msg.Kind()) == nil {
		s.running.Done()
		r.frameGoneUncounted()
		return ashlar.E("request", ashlar.Unsupported, fmt.Sprintf("kind %d", r.Msg.Kind()), nil)
	}
	if !c.take(r.held) {
		s.running.Done()
		r.frameGoneUncounted()
		return notSent(addr, errServerClosed)
	}
	go r.serve()
	return nil
}

// localRequest makes a copy of req as a connection would.
func (c *ServerConn) localRequest(req wire.Message) (*Request, error) {
	r := &Request{Peer: c.peer, Conn: c, Msg: wire.New(req.Kind())}
	if r.Msg == nil {
		return nil, ashlar.E("request", ashlar.Unsupported, fmt.Sprintf("kind %d", req.Kind()), nil)
	}
	if err := recode(r.Msg, req); err != nil {
		return nil, err
	}
	if p, ok := req.(wire.Payloader); ok && len(p.Payload()) > 0 {
		src := p.Payload()
		r.held = len(src)
		dst := r.payloadBuffer(len(src))
		if len(dst) != len(src) {
			return nil, ashlar.E("request", ashlar.Invalid, "", fmt.Errorf("%T does not take a payload of %d bytes", req, len(src)))
		}
		copy(dst, src)
	}
	return r, nil
}

// frameGoneUncounted is frameGone for a request that was never counted.
func (r *Request) frameGoneUncounted() {
	if r.pooled != nil {
		PutBuffer(r.pooled)
		r.pooled = nil
	}
}

func (r *Request) answerLocal(m wire.Message, err error) {
	r.local <- localReply{msg: m, err: err, release: r.frameGone}
}

// recode copies a body through the codec.
func recode(dst, src wire.Message) error {
	f := framePool.Get().(*frame)
	defer func() { f.recycle() }()
	b, err := wire.Encode(f.head[:0], src)
	if err != nil {
		return err
	}
	f.head = b
	return wire.Decode(b, dst)
}

// copyReply copies an answer into the caller's reply.
func copyReply(reply, m wire.Message) error {
	if reply == nil {
		return nil
	}
	if m == nil {
		m = new(wire.Empty)
	}
	if m.Kind() != reply.Kind() {
		return ashlar.E("answer", ashlar.Corrupt, "", fmt.Errorf("%T where %T was expected", m, reply))
	}
	if err := recode(reply, m); err != nil {
		return err
	}
	src, ok := m.(wire.Payloader)
	if !ok {
		return nil
	}
	if len(src.Payload()) == 0 {
		return nil
	}
	dst := reply.(wire.Payloader).PayloadBuffer(len(src.Payload()))
	if len(dst) != len(src.Payload()) {
		return ashlar.E("answer", ashlar.Corrupt, "", errors.New("payload does not fit"))
	}
	copy(dst, src.Payload())
	return nil
}
