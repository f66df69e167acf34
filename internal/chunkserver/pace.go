package chunkserver

import (
	"sync"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

const (
	// paceStart is the rate that copying begins with, bytes a second, and
	// paceLeast what clients can not press it below: repair goes on.
	paceStart = 8 << 20
	paceLeast = 4 << 20
	paceEvery = 100 * time.Millisecond
	// paceQuiet without copying, what clients wait is taken for what they wait
	// when nothing is copied.
	paceQuiet = time.Second
	// paceSlower is how many times that they may wait on average while something
	// is.
	paceSlower = 1.5
)

// pace slows copying down when clients wait longer for it than they would
// without, and lets it go faster when they do not. It knows what they wait from
// the reads and writes that this server answers.
//
// mu is a leaf.
type pace struct {
	mu     sync.Mutex
	quiet  float64 // average of what clients wait without copying, ns; 0 unknown
	busy   float64 // and now
	served int     // since the last look
	rate   float64 // bytes a second
	copied clock.Time
	looked clock.Time
}

// waited notes what a client has waited.
func (p *pace) waited(now clock.Time, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 || now.Sub(p.copied) > paceQuiet {
		if p.quiet == 0 {
			p.quiet = float64(took)
		}
		p.quiet += (float64(took) - p.quiet) / 256
		p.busy = p.quiet
		return
	}
	p.busy += (float64(took) - p.busy) / 16
	p.served++
}

// limit returns the rate to copy at now, of at most most bytes a second.
func (p *pace) limit(now clock.Time, most uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 || now.Sub(p.copied) > paceQuiet { // copying begins
		p.rate, p.looked, p.served, p.busy = paceStart, now, 0, p.quiet
	}
	p.copied = now
	if now.Sub(p.looked) >= paceEvery {
		switch {
		case p.served == 0 || p.quiet == 0:
			p.rate *= 1.5
		case p.busy > paceSlower*p.quiet:
			p.rate *= 0.7
		default:
			p.rate *= 1.1
		}
		p.looked, p.served = now, 0
	}
	p.rate = min(max(p.rate, paceLeast), float64(max(most, 1)))
	return uint64(p.rate)
}
