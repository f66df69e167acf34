// Package clock gives time and timers from outside, so that a whole cluster
// can run under simulated time. Real is the machine's; its Now keeps running
// while the machine is suspended (CLOCK_BOOTTIME), because leases must.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Time is an instant on a clock that never goes back: nanoseconds since an
// arbitrary start. It is comparable only with instants of the same clock.
type Time int64

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Before tells whether t is earlier than u.
func (t Time) Before(u Time) bool { return t < u }

// Clock is a source of time.
type Clock interface {
	// Now is the lease clock: it never goes back and counts suspension.
	Now() Time
	// Wall is the time of day, in nanoseconds since 1970; it may jump.
	Wall() int64
	// AfterFunc calls f in its own goroutine after d and returns a function
	// that stops it, telling whether it did.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
	// NewTicker delivers a tick every d until stopped; ticks are dropped for
	// a slow reader.
	NewTicker(d time.Duration) Ticker
}

// Ticker delivers ticks on C until Stop.
type Ticker interface {
	// C is the channel that ticks arrive on.
	C() <-chan time.Time
	// Stop ends the ticks; it does not close C.
	Stop()
}

// Real is the machine's clock.
var Real Clock = realClock{}

type realClock struct{}

func (realClock) Now() Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: CLOCK_BOOTTIME: " + err.Error()) // every supported kernel has it
	}
	return Time(ts.Nano())
}

func (realClock) Wall() int64 { return time.Now().UnixNano() }

func (realClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

func (realClock) NewTicker(d time.Duration) Ticker { return realTicker{time.NewTicker(d)} }

type realTicker struct{ t *time.Ticker }

func (t realTicker) C() <-chan time.Time { return t.t.C }
func (t realTicker) Stop()               { t.t.Stop() }
