package rpc

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
)

// target is one address with the connections to it.
type target struct {
	client *Client
	addr   string

	mu      sync.Mutex
	conns   [classes][2]*clientConn
	dials   [classes][2]*dialing
	trouble [classes]trouble
}

// trouble is the backoff of a class: the ticket of data connections may be
// refused where others are let in.
type trouble struct {
	err    error // of the last attempt, nil after a success
	length time.Duration
	until  clock.Time
}

// dialing is a connection attempt that any number of callers wait for.
type dialing struct {
	done chan struct{}
	conn *clientConn
	err  error
}

// live returns the connections of a class.
func (t *target) live(k class) []*clientConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*clientConn
	for _, c := range t.conns[k] {
		if c != nil {
			out = append(out, c)
		}
	}
	return out
}

// first returns a connection of a class if there is one.
func (t *target) first(k class) *clientConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns[k] {
		if c != nil {
			return c
		}
	}
	return nil
}

// get returns a connection of a class, made if there is none. While all there
// are have work, one more is made in the background.
func (t *target) get(ctx context.Context, k class) (*clientConn, error) {
	t.mu.Lock()
	best, empty := t.pick(k)
	if best != nil {
		t.mu.Unlock()
		return best, nil
	}
	if left := t.trouble[k].until.Sub(t.client.o.Clock.Now()); t.trouble[k].err != nil && left > 0 {
		err := t.trouble[k].err
		t.mu.Unlock()
		wait(ctx, t.client.o.Clock, min(left, backoffPause))
		return nil, err
	}
	d := t.dial(k, empty)
	t.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		err := contextError(ctx, t.addr)
		return nil, ashlar.E("call", ashlar.KindOf(err), t.addr, &unsent{errors.New("still connecting")})
	}
}

// dial starts an attempt for a slot unless one is under way. mu must be held.
func (t *target) dial(k class, slot int) *dialing {
	if d := t.dials[k][slot]; d != nil {
		return d
	}
	d := &dialing{done: make(chan struct{})}
	c := t.client
	if !c.begin() {
		d.err = ErrClosed
		close(d.done)
		return d
	}
	t.dials[k][slot] = d
	go func() {
		defer c.tasks.Done()
		conn, err := t.connect(k)
		t.mu.Lock()
		t.dials[k][slot] = nil
		if err != nil {
			d.err = t.failed(k, err)
		} else {
			t.trouble[k] = trouble{}
			t.conns[k][slot] = conn
			d.conn = conn
		}
		t.mu.Unlock()
		close(d.done)
		if conn != nil {
			conn.start(func() { t.remove(k, slot, conn) })
			if c.ctx.Err() != nil { // Close may have missed it
				conn.close(ErrClosed)
			}
		}
	}()
	return d
}

// failed notes a failure and begins or lengthens the backoff. mu must be held.
func (t *target) failed(k class, err error) error {
	limit := backoffSilent
	if errors.Is(err, syscall.ECONNREFUSED) {
		limit = backoffRefused
	}
	tr := &t.trouble[k]
	tr.length = min(max(2*tr.length, backoffMin), limit)
	tr.until = t.client.o.Clock.Now().Add(tr.length)
	kind := kindOf(err)
	switch kind {
	case ashlar.Auth, ashlar.Version, ashlar.WrongCluster, ashlar.NotReady, ashlar.Fenced, ashlar.NoSession:
	default:
		kind = ashlar.Unreachable
	}
	tr.err = ashlar.E("connect", kind, t.addr, &unsent{err})
	return tr.err
}

func (t *target) remove(k class, slot int, conn *clientConn) {
	t.mu.Lock()
	if t.conns[k][slot] == conn {
		t.conns[k][slot] = nil
	}
	t.mu.Unlock()
}

// connect makes one connection and runs the hooks on it.
func (t *target) connect(k class) (*clientConn, error) {
	c := t.client
	ctx, cancel := context.WithTimeout(c.ctx, DialTimeout)
	defer cancel()
	nc, err := c.o.Dial(ctx, t.addr)
	if err != nil {
		return nil, err
	}
	tune(nc)
	stop := context.AfterFunc(c.ctx, func() { _ = nc.Close() })
	peer, err := connect(nc, c.id.Load(), HandshakeTimeout)
	if err != nil || !stop() {
		_ = nc.Close()
		if k := kindOf(err); err != nil && k != ashlar.Other {
			c.log.warn("connection refused", "addr", t.addr, "err", err)
		}
		return nil, errors.Join(err, c.ctx.Err())
	}
	conn := newClientConn(c, t.addr, peer, nc)
	c.tasks.Go(conn.w.run)
	c.tasks.Go(conn.readLoop)
	if k != classData {
		return conn, nil
	}
	c.mu.Lock()
	hooks := c.hooks
	c.mu.Unlock()
	if err := conn.attach(c.ctx, hooks); err != nil {
		conn.close(err)
		return nil, err
	}
	return conn, nil
}
