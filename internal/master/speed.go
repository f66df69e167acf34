package master

import (
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

const (
	// speedOver is how much of the past a speed is of, and how long a counter
	// must have grown before what it will do is foretold: copying begins into
	// empty caches, and is slowed down for clients only after they waited.
	speedOver = 10 * time.Second
	// speedIdle without growth a counter has stopped.
	speedIdle = 2 * time.Second
	// speedSamples is how many values are remembered.
	speedSamples = 64
)

// speed measures how fast a counter grows, over the last seconds in which it
// does.
type speed struct {
	samples []sample // oldest first
	grew    clock.Time
}

type sample struct {
	at    clock.Time
	value uint64
}

// at notes the counter's value. A lower one than before begins anew, and so
// does growth after a pause.
func (s *speed) at(now clock.Time, value uint64) {
	n := len(s.samples)
	switch {
	case n == 0 || value < s.samples[n-1].value || value == s.samples[n-1].value && now.Sub(s.grew) > speedIdle:
		s.samples = append(s.samples[:0], sample{now, value})
		return
	case now.Sub(s.samples[n-1].at) <= 0:
		return
	case value > s.samples[n-1].value:
		s.grew = now
	}
	s.samples = append(s.samples, sample{now, value})
	for len(s.samples) > speedSamples || len(s.samples) > 2 && now.Sub(s.samples[1].at) >= speedOver {
		s.samples = append(s.samples[:0], s.samples[1:]...)
	}
}

// perSec is the speed, 0 if the counter does not grow.
func (s *speed) perSec() float64 {
	if len(s.samples) < 2 {
		return 0
	}
	first, last := s.samples[0], s.samples[len(s.samples)-1]
	return float64(last.value-first.value) / last.at.Sub(first.at).Seconds()
}

// settled tells whether the counter has grown for so long that what is left
// can be foretold.
func (s *speed) settled() bool {
	n := len(s.samples)
	return n > 1 && s.samples[n-1].at.Sub(s.samples[0].at) >= speedOver
}
