package master

import (
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// speedOver is how much of the past a speed is of.
const speedOver = 5 * time.Second

// speed measures how fast a counter grows: the mean of the last few seconds in
// which it grew.
type speed struct {
	known  bool
	last   clock.Time
	value  uint64
	perSec float64
}

// at notes the counter's value. A lower one than before begins anew.
func (s *speed) at(now clock.Time, value uint64) {
	d := now.Sub(s.last).Seconds()
	switch {
	case !s.known || value < s.value:
		*s = speed{known: true, last: now, value: value}
		return
	case d <= 0:
		return
	}
	rate := float64(value-s.value) / d
	if s.perSec == 0 || rate == 0 {
		s.perSec = rate
	} else {
		s.perSec += min(1, d/speedOver.Seconds()) * (rate - s.perSec)
	}
	s.last, s.value = now, value
}
