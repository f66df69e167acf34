package chunkserver

import (
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

func TestCopyingIsSlowedDownWhenClientsWaitLonger(t *testing.T) {
	const most = 200 << 20
	var p pace
	now := clock.Time(0)
	run := func(d time.Duration, wait func(rate uint64) time.Duration) (rate uint64) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Millisecond) {
			rate = p.limit(now, most)
			if wait != nil {
				p.waited(now, wait(rate))
			}
		}
		return rate
	}
	if got := run(2*time.Second, nil); got != most {
		t.Fatalf("without clients it copies at %d, want %d", got, most)
	}
	now = now.Add(5 * time.Second)
	for range 100 {
		now = now.Add(time.Millisecond)
		p.waited(now, time.Millisecond)
	}
	now = now.Add(time.Second)
	// Clients wait 1 ms, and as much again for each 40 MiB/s that are copied.
	got := run(10*time.Second, func(rate uint64) time.Duration {
		return time.Millisecond + time.Duration(float64(rate)/(40<<20)*float64(time.Millisecond))
	})
	if got < 10<<20 || got > 30<<20 {
		t.Errorf("it copies at %d, want about %d, at which they wait half as long again", got, 20<<20)
	}
	// Whatever it does, they wait long: it goes on.
	if got := run(10*time.Second, func(uint64) time.Duration { return time.Second }); got != paceLeast {
		t.Errorf("it copies at %d, want %d", got, paceLeast)
	}
	// They are gone.
	if got := run(3*time.Second, nil); got != most {
		t.Errorf("it copies at %d again, want %d", got, most)
	}
}
