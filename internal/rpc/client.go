package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// ClientOptions are a Client's options; the zero value is good.
type ClientOptions struct {
	Local  *Local // servers of this process are called directly
	Clock  clock.Clock
	Logger *slog.Logger
	Dial   func(ctx context.Context, addr string) (net.Conn, error) // nil for TCP
}

// Client calls servers. It keeps a few connections to every address it was
// asked to call, made when first needed: control traffic apart from data.
type Client struct {
	id     atomic.Pointer[Identity]
	o      ClientOptions
	log    limitedLog
	ctx    context.Context
	cancel context.CancelFunc

	life  sync.Mutex // a leaf: guards ended, and tasks against being added to at the end
	ended bool
	tasks sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	targets map[string]*target
	locals  map[localKey]*ServerConn
	hooks   []Hook
}

// Hook is run on every new connection of the data conversation before it is
// used, and again by Reattach. call makes a call on that connection. An error
// makes the connection fail.
type Hook func(ctx context.Context, addr string, call func(req, reply wire.Message) error) error

// NewClient returns a client without connections.
func NewClient(id Identity, o ClientOptions) *Client {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	c := &Client{o: o, targets: map[string]*target{}, locals: map[localKey]*ServerConn{}}
	c.log = limitedLog{log: o.Logger, clock: o.Clock}
	c.id.Store(&id)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.tasks.Go(c.watch)
	return c
}

// SetIdentity changes what the client says of itself in later handshakes.
func (c *Client) SetIdentity(id Identity) { c.id.Store(&id) }

// OnConnect adds a hook for data connections made from now on.
func (c *Client) OnConnect(h Hook) {
	c.mu.Lock()
	c.hooks = append(c.hooks, h)
	c.mu.Unlock()
}

// Call sends req to addr and waits for the answer, which is decoded into
// reply; a nil reply is for requests answered with Empty. Neither may be
// touched before Call returns; neither is touched afterwards. Errors are
// *ashlar.Error: with the server's kind, or Unreachable (errors.Is ErrNotSent
// if it certainly did not arrive), Timeout or Canceled when ctx ended, Auth,
// Version or WrongCluster when the handshake was refused.
func (c *Client) Call(ctx context.Context, addr string, req, reply wire.Message) error {
	if s := c.o.Local.find(addr); s != nil {
		return c.callLocal(ctx, addr, s, req, reply)
	}
	t, err := c.target(addr)
	if err != nil {
		return err
	}
	for {
		conn, err := t.get(ctx, classOf(req.Kind()))
		if err != nil {
			return err
		}
		if err = conn.call(ctx, req, reply); !errors.Is(err, errStale) {
			return err
		}
	}
}

// Send sends msg to addr without waiting for anything but a connection. It is
// not answered and may be lost. msg must not change any more, ever.
func (c *Client) Send(ctx context.Context, addr string, msg wire.Message) error {
	if s := c.o.Local.find(addr); s != nil {
		return c.sendLocal(ctx, addr, s, msg)
	}
	t, err := c.target(addr)
	if err != nil {
		return err
	}
	conn, err := t.get(ctx, classOf(msg.Kind()))
	if err != nil {
		return err
	}
	f, err := newFrame(header{}, msg)
	if err != nil {
		return err
	}
	switch err := conn.w.send(f, true, SendQueueMax); {
	case err == nil:
		return nil
	case errors.Is(err, errQueueFull):
		return ashlar.E("send", ashlar.Overloaded, addr, err)
	default:
		return notSent(addr, err)
	}
}

// TrySend is Send if a connection is there; otherwise, or when too much is
// queued on it, it returns false. It does not block.
func (c *Client) TrySend(addr string, msg wire.Message) bool {
	if c.o.Local.find(addr) != nil {
		return false
	}
	c.mu.Lock()
	t := c.targets[addr]
	c.mu.Unlock()
	if t == nil {
		return false
	}
	conn := t.first(classOf(msg.Kind()))
	if conn == nil {
		return false
	}
	f, err := newFrame(header{}, msg)
	return err == nil && conn.w.send(f, true, SendQueueMax) == nil
}

// Reattach runs the hooks again on every data connection there is, after what
// they present was renewed. Connections on which they fail are closed.
func (c *Client) Reattach(ctx context.Context) error {
	c.mu.Lock()
	var conns []*clientConn
	for _, t := range c.targets {
		conns = append(conns, t.live(classData)...)
	}
	hooks := c.hooks
	locals := make(map[localKey]*ServerConn, len(c.locals))
	for k, sc := range c.locals {
		if k.class == classData {
			locals[k] = sc
		}
	}
	c.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, len(conns))
	for i, conn := range conns {
		wg.Go(func() {
			if errs[i] = conn.attach(ctx, hooks); errs[i] != nil {
				conn.close(errs[i])
			}
		})
	}
	wg.Wait()
	for k, sc := range locals {
		if err := c.attachLocal(ctx, k, sc, hooks); err != nil {
			c.dropLocal(k, sc)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close closes every connection; calls waiting fail, and so do later ones.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	targets, locals := c.targets, c.locals
	c.targets, c.locals = map[string]*target{}, map[localKey]*ServerConn{}
	c.mu.Unlock()
	c.life.Lock()
	c.ended = true
	c.life.Unlock()
	c.cancel()
	for _, t := range targets {
		for k := range classes {
			for _, conn := range t.live(k) {
				conn.close(ErrClosed)
			}
		}
	}
	for _, sc := range locals {
		sc.close(ErrClosed)
	}
	c.tasks.Wait()
}

// begin counts a task, unless the client is closed.
func (c *Client) begin() bool {
	c.life.Lock()
	defer c.life.Unlock()
	if !c.ended {
		c.tasks.Add(1)
	}
	return !c.ended
}

// ErrClosed is returned by a Client after Close. Its kind is Canceled.
var ErrClosed = ashlar.E("call", ashlar.Canceled, "", errors.New("client is closed"))

func (c *Client) target(addr string) (*target, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	t := c.targets[addr]
	if t == nil {
		t = &target{client: c, addr: addr}
		c.targets[addr] = t
	}
	return t, nil
}

// watch closes connections that say nothing although calls wait.
func (c *Client) watch() {
	const every = time.Second
	t := c.o.Clock.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C():
		}
		c.mu.Lock()
		var conns []*clientConn
		for _, t := range c.targets {
			for k := range classes {
				conns = append(conns, t.live(k)...)
			}
		}
		c.mu.Unlock()
		for _, conn := range conns {
			conn.checkSilence(every)
		}
	}
}
