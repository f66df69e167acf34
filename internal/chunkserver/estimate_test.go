package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// left sums what is still to be copied.
func (e *estimates) left() (n uint64) {
	for _, p := range e.list() {
		n += p.Left
	}
	return n
}

func TestWhatWaitsIsEstimatedByWhatWasMeasured(t *testing.T) {
	var e estimates
	key := func(g int) seatKey { return seatKey{1, ashlar.PGID(g)} }
	for g := range 10 {
		e.waits(key(g), 0)
		e.holds(key(g), 1000)
	}
	if got := e.left(); got != 10_000 {
		t.Errorf("nothing measured: %d left, want all 10000", got)
	}
	e.measured(key(0), 100) // the member was away for a moment
	e.measured(key(1), 300)
	if got := e.left(); got != 100+300+8*200 {
		t.Errorf("%d left, want 400 and 8 times a fifth of 1000", got)
	}
	e.copied(key(0), 60)
	if got := e.left(); got != 40+300+8*200 {
		t.Errorf("%d left after 60 were copied", got)
	}
	for g := range 10 {
		e.over(key(g))
	}
	e.waits(key(3), 0)
	e.holds(key(3), 1000)
	if got := e.left(); got != 1000 {
		t.Errorf("a new wave: %d left, want 1000", got)
	}
}

func TestSizesAreToldInTurn(t *testing.T) {
	var s sizes
	for g := range ashlar.PGID(150) {
		s.set(g+1, uint64(g))
	}
	seen := map[ashlar.PGID]int{}
	for range 3 {
		for _, g := range s.next() {
			seen[g.Group]++
		}
	}
	if len(seen) != 150 {
		t.Errorf("%d of 150 told in three turns of %d", len(seen), wire.SizesMax)
	}
	s.keep(map[ashlar.PGID]bool{7: true})
	if got := s.next(); len(got) != 1 || got[0].Group != 7 {
		t.Errorf("after all but one left: %v", got)
	}
}
