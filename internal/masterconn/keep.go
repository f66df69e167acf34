package masterconn

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/rpc"
)

// keep renews the session, says hello to every new leader, and opens another
// session when this one is lost.
func (c *Conn) keep(ctx context.Context) {
	defer close(c.ended)
	c.mu.Lock()
	every := c.every
	c.mu.Unlock()
	ticker := c.clock.NewTicker(every)
	defer ticker.Stop()
	due := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			due = true
		case <-c.kicked:
		}
		var b backoff
		for {
			v, err := c.step(ctx, due)
			if err == nil {
				due = false
				break
			}
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, rpc.ErrClosed) {
				break // Close follows
			}
			c.log.Debug("session not renewed", "err", err)
			if !b.wait(ctx, c.clock, c.leader.after(v)) {
				return
			}
		}
	}
}

// step does what is to be done for the session now: one thing after the
// other until nothing is left.
func (c *Conn) step(ctx context.Context, renew bool) (*view, error) {
	v, err := c.leader.find(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.now
	closed := c.closed
	hello := s != nil && (s.needHello || s.helloAt != v.number)
	doubted := s != nil && s.doubted
	c.mu.Unlock()
	switch {
	case closed:
		return v, nil
	case s == nil:
		return v, c.open(ctx)
	case hello:
		err = c.hello(ctx, v, s)
	case renew || doubted:
		err = c.renew(ctx, v, s)
	default:
		return v, nil
	}
	switch {
	case err == nil:
		c.mu.Lock()
		s.doubted = false
		again := s.needHello
		c.change()
		c.mu.Unlock()
		if again {
			return v, c.hello(ctx, v, s)
		}
		return v, nil
	case errors.Is(err, ashlar.NoSession):
		c.lose(s)
		return v, c.open(ctx)
	default:
		c.leader.again(ctx, v, err)
		return v, err
	}
}
