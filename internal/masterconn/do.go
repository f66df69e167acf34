package masterconn

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// operation is one call of Do.
type operation struct {
	c       *Conn
	s       *session // it is numbered under, nil while it is not
	seq     uint64
	maybe   bool // it may have been evaluated under s
	changes bool
}

// Do does one operation for cred and decodes its answer into reply. A change
// takes effect once (I-3), however often it has to be sent; reads are simply
// repeated. What the masters cannot do now is tried until ctx ends. Errors
// are the operation's own result, or Timeout or Canceled when ctx ended, in
// which case a change may or may not have taken effect, or OutcomeUnknown
// when the session was lost while it was under way.
func (c *Conn) Do(ctx context.Context, cred ashlar.Cred, body, reply wire.Message) error {
	return c.doIn(ctx, 0, cred, body, reply)
}

// DoIn is Do for what makes sense in one session only, such as changing what
// that holds: when it is over the error is NoSession, and no other session has
// sent anything.
func (c *Conn) DoIn(ctx context.Context, in ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error {
	if in == 0 {
		return ashlar.E("session", ashlar.NoSession, "", nil)
	}
	return c.doIn(ctx, in, cred, body, reply)
}

func (c *Conn) doIn(ctx context.Context, in ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error {
	o := operation{c: c, changes: wire.Changes(body)}
	defer o.settle()
	m := &wire.Operation{Cred: cred, Leases: c.cfg.Leases != nil, Body: body}
	var b backoff
	for {
		s, v, err := c.ready(ctx)
		if err != nil {
			return err
		}
		if in != 0 && s.id != in {
			return ashlar.E("session", ashlar.NoSession, fmt.Sprint(uint64(in)), nil)
		}
		if ok, err := o.number(ctx, s); err != nil {
			return err
		} else if !ok {
			continue
		}
		c.mu.Lock()
		m.Session, m.Generation, m.Lowest, m.Seq = s.id, s.generation, s.operations.Lowest(), o.seq
		c.mu.Unlock()
		err = c.leader.attempt(ctx, v, m, reply)
		if err == nil {
			return nil
		}
		if !o.again(ctx, s, m.Generation, v, err) {
			return endOf(ctx, err)
		}
		if !b.wait(ctx, c.clock, c.leader.after(v)) {
			return endOf(ctx, err)
		}
	}
}

// ready returns the session and the leader that it said hello to.
func (c *Conn) ready(ctx context.Context) (*session, *view, error) {
	for {
		c.mu.Lock()
		v := c.leader.view()
		s, closed, changed := c.now, c.closed, c.changed
		said := s != nil && v != nil && s.helloAt == v.number && !s.needHello
		c.mu.Unlock()
		switch {
		case closed:
			return nil, nil, errClosed
		case said:
			return s, v, nil
		}
		c.kick()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, endOf(ctx, errNoSession)
		}
	}
}

// number gives a change its sequence under s. False says to try again.
func (o *operation) number(ctx context.Context, s *session) (bool, error) {
	if !o.changes || o.s == s {
		return true, nil
	}
	if o.s != nil {
		if o.maybe {
			return false, ashlar.E("operation", ashlar.OutcomeUnknown, fmt.Sprintf("session %d", o.s.id),
				errors.New("the session was lost while it was under way"))
		}
		o.settle()
	}
	seq, err := s.operations.Begin(ctx)
	if err != nil || seq == 0 {
		return false, err
	}
	o.s, o.seq = s, seq
	return true, nil
}

// settle ends the sequence that o has.
func (o *operation) settle() {
	if o.s != nil {
		o.s.operations.Settle(o.seq)
		o.s, o.seq = nil, 0
	}
}

// again tells whether an attempt is to be repeated.
func (o *operation) again(ctx context.Context, s *session, generation uint64, v *view, err error) bool {
	c := o.c
	switch {
	case errors.Is(err, ashlar.NoSession):
		// Refused without being looked at. Whether the session is lost or only
		// this generation of the connection is too old, a hello tells.
		c.mu.Lock()
		s.needHello = s.needHello || s.generation == generation
		c.mu.Unlock()
		c.kick()
		return ctx.Err() == nil
	case errors.Is(err, ashlar.NotReady): // the leader may want a hello
		c.mu.Lock()
		now := c.clock.Now()
		ask := now.Sub(s.asked) >= askEvery
		if ask {
			s.doubted, s.asked = true, now
		}
		c.mu.Unlock()
		if ask {
			c.kick()
		}
	}
	if !errors.Is(err, rpc.ErrNotSent) {
		o.maybe = true
	}
	return c.leader.again(ctx, v, err)
}
