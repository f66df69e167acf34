package rpc

import (
	"context"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// Pending is a call that has been sent and whose answer is not awaited yet.
type Pending struct {
	conn *clientConn
	id   uint64
	call *call
	f    *frame
	lent bool
}

// Begin sends req on a connection there is, without blocking, and leaves
// waiting for the answer to Pending.Wait, which must follow: until it has
// returned neither req nor reply may be touched. It returns nil if Call must be
// used instead, because there is no connection yet or the server is in this
// process.
func (c *Client) Begin(addr string, req, reply wire.Message) *Pending {
	if c.o.Local.find(addr) != nil {
		return nil
	}
	c.mu.Lock()
	t := c.targets[addr]
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	conn := t.idlest(classOf(req.Kind()))
	if conn == nil {
		return nil
	}
	select {
	case conn.slots <- struct{}{}:
	default:
		return nil
	}
	p, err := conn.begin(header{}, req, reply)
	if err != nil {
		return nil
	}
	return &p
}

// idlest returns the connection of a class with the fewest calls waiting, nil
// if there is none. While it has some, one more is made in the background.
func (t *target) idlest(k class) *clientConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	best, _ := t.pick(k)
	return best
}

// pick is idlest, and tells of a free slot, -1 for none. mu must be held.
func (t *target) pick(k class) (best *clientConn, empty int) {
	empty = -1
	for i := range classWidth[k] {
		c := t.conns[k][i]
		if c == nil {
			empty = i
			continue
		}
		if best == nil || c.waiting.Load() < best.waiting.Load() {
			best = c
		}
	}
	if best != nil && empty >= 0 && best.waiting.Load() > 0 && !t.client.o.Clock.Now().Before(t.trouble[k].until) {
		t.dial(k, empty)
	}
	return best, empty
}

// Answered tells whether Wait would not block.
func (p *Pending) Answered() bool { return len(p.call.done) > 0 }

// Wait waits for the answer, as Call does.
func (p *Pending) Wait(ctx context.Context) error { return p.wait(ctx) }

// begin sends a request, for which the caller has taken a slot.
func (c *clientConn) begin(h header, req, reply wire.Message) (Pending, error) {
	k := callPool.Get().(*call)
	k.reply = reply
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		<-c.slots
		return Pending{}, errStale
	}
	c.nextID++
	h.id = c.nextID
	c.calls[h.id] = k
	alone := len(c.calls) == 1
	c.mu.Unlock()
	f, err := newFrame(h, req)
	if err != nil {
		if c.take(h.id) == nil {
			<-k.done
		}
		<-c.slots
		return Pending{}, err
	}
	c.waiting.Add(1)
	p := Pending{conn: c, id: h.id, call: k, f: f, lent: f.lent}
	_ = c.w.send(f, alone, 0) // if it fails, close fails the call
	return p, nil
}

func (p *Pending) wait(ctx context.Context) error {
	c, k := p.conn, p.call
	defer func() {
		c.waiting.Add(-1)
		<-c.slots
	}()
	select {
	case err := <-k.done:
		if p.lent {
			c.w.detach(p.f) // the answer may have come before all was sent
		}
		k.reply = nil
		k.abandoned.Store(false)
		callPool.Put(k)
		return err
	case <-ctx.Done():
		if p.lent {
			c.w.detach(p.f)
		}
		c.abandon(p.id, k)
		return contextError(ctx, c.addr)
	}
}
