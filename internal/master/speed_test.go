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
	want := func(what string, speed float64, settled bool) {
		t.Helper()
		if got := s.perSec(); got < speed*0.9 || got > speed*1.1 || s.settled() != settled {
			t.Errorf("%s: %.0f a second, settled %v, want about %.0f, %v", what, got, s.settled(), speed, settled)
		}
	}
	step(5, 0)
	want("nothing copied", 0, false)
	step(10, 100)
	want("copying begun", 200, false)
	step(30, 1000)
	want("faster now", 2000, true)
	step(2, 0)
	step(30, 1000)
	want("after a short pause", 2000, true)
	step(10, 0)
	want("over", 0, false)
	step(4, 300)
	want("begun again", 600, false)
	n = 0 // the process was started again
	step(1, 0)
	step(3, 50)
	want("from the beginning", 100, false)
}
