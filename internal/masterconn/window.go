package masterconn

import (
	"context"
	"sync"

	"github.com/ashlarfs/ashlar"
)

// Window numbers the requests of a session, so that each takes effect once,
// and knows the lowest that is unanswered (I-3, I-7). At most Size numbers are
// unanswered at any time.
type Window struct {
	size uint64
	lost <-chan struct{}

	mu      sync.Mutex
	next    uint64          // to be given out
	lowest  uint64          // every one below is settled
	settled map[uint64]bool // those at or above lowest that are too
	room    chan struct{}   // closed when lowest rises
}

// NewWindow returns a window of a session whose loss closes lost.
func NewWindow(size uint64, lost <-chan struct{}) *Window {
	return &Window{size: size, lost: lost, next: 1, lowest: 1, settled: map[uint64]bool{}, room: make(chan struct{})}
}

// Begin gives out a number, waiting while too many are unanswered. It returns
// 0 and no error if the session is lost meanwhile.
func (w *Window) Begin(ctx context.Context) (uint64, error) {
	for {
		w.mu.Lock()
		if w.next-w.lowest < w.size {
			seq := w.next
			w.next++
			w.mu.Unlock()
			return seq, nil
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-w.lost:
			return 0, nil
		case <-ctx.Done():
			return 0, endOf(ctx, ashlar.E("session", ashlar.Overloaded, "", nil))
		}
	}
}

// Settle notes that a number is answered, or will not be asked for again.
// From then on servers may be told to refuse it for good.
func (w *Window) Settle(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled[seq] = true
	if seq != w.lowest {
		return
	}
	for w.settled[w.lowest] {
		delete(w.settled, w.lowest)
		w.lowest++
	}
	close(w.room)
	w.room = make(chan struct{})
}

// Lowest returns the lowest unanswered number.
func (w *Window) Lowest() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lowest
}
