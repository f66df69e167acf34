package chunkserver

import (
	"context"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// pausedLook is how often a copy that is paused looks whether it still is.
const pausedLook = 200 * time.Millisecond

// A copy waits for a moment in which no client is served here, looking each
// clientsLook, but for clientsFirst at most: catch-ups go on under any load,
// with copyUnit for each of them in that time.
const (
	clientsLook  = time.Millisecond
	clientsFirst = 20 * time.Millisecond
)

// budget spreads the bytes that a server sends for repair over time, at the
// rate of the pool they are for.
type budget struct {
	clk  clock.Clock
	rate uint64 // bytes a second, of pools that set none
	pace pace

	mu    sync.Mutex
	rules map[uint32]wire.PoolRule
	next  clock.Time // when what was taken so far is paid for
}

func newBudget(clk clock.Clock, rate uint64) *budget { return &budget{clk: clk, rate: rate} }

// set takes the rules of the pools.
func (b *budget) set(rules map[uint32]wire.PoolRule) {
	b.mu.Lock()
	b.rules = rules
	b.mu.Unlock()
}

// take returns how long to wait before sending n more bytes for a pool, and
// whether it is paused, in which case nothing was taken.
func (b *budget) take(pool uint32, n int) (wait time.Duration, paused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rule := b.rules[pool]
	if rule.Paused {
		return pausedLook, true
	}
	rate := b.rate
	if rule.RepairBytes > 0 {
		rate = rule.RepairBytes
	}
	now := b.clk.Now()
	rate = b.pace.limit(now, rate)
	if b.next.Before(now) {
		b.next = now
	}
	wait = b.next.Sub(now)
	b.next = b.next.Add(time.Duration(uint64(n) * uint64(time.Second) / rate))
	return wait, false
}

// letClients waits until no client is being served here, or for as long as
// copying may be held up by clients.
func (s *Server) letClients(ctx context.Context) {
	for waited := time.Duration(0); waited < clientsFirst && s.serving.Load() > 0 && ctx.Err() == nil; waited += clientsLook {
		s.sleep(ctx, clientsLook)
	}
}

// serve notes that a client is being served, until the function it returns is
// called.
func (s *Server) serve() (done func()) {
	began := s.clk.Now()
	s.serving.Add(1)
	return func() {
		s.serving.Add(-1)
		now := s.clk.Now()
		s.budget.pace.waited(now, now.Sub(began))
	}
}

// spend waits until n bytes may be sent for a pool. It is called with no range
// locked, so that no client waits with it.
func (s *Server) spend(ctx context.Context, pool uint32, n int) error {
	for {
		wait, paused := s.budget.take(pool, n)
		if wait > 0 {
			s.sleep(ctx, wait)
		}
		s.letClients(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if !paused {
			return nil
		}
	}
}
