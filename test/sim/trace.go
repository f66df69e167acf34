package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// Trace is what happened, as a hash: every delivery, every change of a disk,
// every fault, every answer to a client, each with its time. Two runs with one
// hash were one run.
type Trace struct {
	start time.Time

	mu     sync.Mutex
	sum    uint64
	events int
	out    io.Writer // every event as a line, nil for none
}

func newTrace(out io.Writer) *Trace { return &Trace{start: time.Now(), out: out} }

// Now is the time since the run began.
func (t *Trace) Now() time.Duration { return time.Since(t.start) }

// add notes an event.
func (t *Trace) add(format string, args ...any) {
	line := fmt.Sprintf("%d ", t.Now()) + fmt.Sprintf(format, args...)
	h := fnv.New64a()
	_, _ = io.WriteString(h, line) // a hash takes everything
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum = t.sum*0x9E3779B97F4A7C15 + h.Sum64()
	t.events++
	if t.out != nil {
		fmt.Fprintln(t.out, line)
	}
}

// Sum returns the hash and the number of events.
func (t *Trace) Sum() (uint64, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum, t.events
}
