package chunkserver

import (
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// lease is the right of one incarnation to answer clients (I-6), and what it
// knows of the masters' time. It counts from when a renewal was sent.
type lease struct {
	clk   clock.Clock
	until atomic.Int64 // clock.Time
	// ahead is the masters' time less ours, never less than it really is, so
	// that a ticket is never taken after its end.
	ahead atomic.Int64
}

func (l *lease) renew(sent clock.Time, d time.Duration, mastersTime int64) {
	for {
		old := l.until.Load()
		next := int64(sent.Add(d))
		if next <= old || l.until.CompareAndSwap(old, next) {
			break
		}
	}
	l.ahead.Store(mastersTime - int64(sent))
}

// valid tells whether the lease holds now.
func (l *lease) valid() bool { return int64(l.clk.Now()) < l.until.Load() }

// mastersTime is the masters' clock, in nanoseconds since 1970, or a little
// later.
func (l *lease) mastersTime() int64 { return int64(l.clk.Now()) + l.ahead.Load() }
