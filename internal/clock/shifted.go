package clock

import (
	"sync/atomic"
	"time"
)

// Shifted is a clock whose time of day is wrong by an amount that may change.
// Its Now, on which leases and timers run, is that of the clock below.
type Shifted struct {
	Clock
	by atomic.Int64
}

// NewShifted returns inner, not yet wrong.
func NewShifted(inner Clock) *Shifted { return &Shifted{Clock: inner} }

// Shift makes the time of day wrong by d from now on, whatever it was before.
func (s *Shifted) Shift(d time.Duration) { s.by.Store(int64(d)) }

// Wall implements Clock.
func (s *Shifted) Wall() int64 { return s.Clock.Wall() + s.by.Load() }
