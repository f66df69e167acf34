package sim

import (
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// hostClock is the clock of one machine. It is virtual time at a rate of its
// own (leases trust rates within 10 percent), from a start of its own, and a
// time of day that can be set.
type hostClock struct {
	start time.Time
	boot  int64   // of Now at start
	rate  float64 // seconds of this clock in a second
	wall  atomic.Int64
}

func newHostClock(boot time.Duration, rate float64) *hostClock {
	return &hostClock{start: time.Now(), boot: int64(boot), rate: rate}
}

func (c *hostClock) Now() clock.Time {
	return clock.Time(c.boot + int64(float64(time.Since(c.start))*c.rate))
}

func (c *hostClock) Wall() int64 { return time.Now().UnixNano() + c.wall.Load() }

// real returns how long d of this clock takes, rounded up: a timer is never
// early.
func (c *hostClock) real(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	return time.Duration(float64(d)/c.rate) + 2
}

func (c *hostClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(c.real(d), f).Stop
}

func (c *hostClock) NewTicker(d time.Duration) clock.Ticker {
	return hostTicker{time.NewTicker(max(1, c.real(d)))}
}

type hostTicker struct{ t *time.Ticker }

func (t hostTicker) C() <-chan time.Time { return t.t.C }
func (t hostTicker) Stop()               { t.t.Stop() }
