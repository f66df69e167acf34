package master

import (
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

func TestSpeedFollowsACounter(t *testing.T) {
	var s speed
	now, n := clock.Time(0), uint64(0)
	step := func(times int, by uint64) {
		for range times {
			now, n = now.Add(500*time.Millisecond), n+by
			s.at(now, n)
		}
	}
	near := func(want float64) {
		t.Helper()
		if s.perSec < want*0.9 || s.perSec > want*1.1 {
			t.Errorf("%.0f a second, want about %.0f", s.perSec, want)
		}
	}
	step(10, 100)
	near(200)
	step(60, 1000)
	near(2000)
	step(1, 0)
	near(0)
	n = 0 // the process was started again
	step(1, 0)
	step(3, 50)
	near(100)
}
