package chunkstore

import "testing"

func TestADamagedBlockCountsOnceUntilItIsFoundGood(t *testing.T) {
	var r rot
	k, other := Key{Layer: 1, Index: 2}, Key{Layer: 1, Index: 3}
	at := func(b, n uint32) []Region { return []Region{{b * block, n * block}} }
	if n := r.found(k, at(4, 2)); n != 2 {
		t.Errorf("two new blocks counted %d", n)
	}
	if n := r.found(k, at(5, 2)); n != 1 {
		t.Errorf("one known and one new block counted %d", n)
	}
	if n := r.found(other, at(4, 1)); n != 1 {
		t.Errorf("a block of another chunk counted %d", n)
	}
	r.sound(other, 0, 4) // not that one
	if n := r.sound(k, 4, 5); n != 1 {
		t.Errorf("one was mended, counted %d", n)
	}
	if n := r.found(k, at(4, 3)); n != 1 {
		t.Errorf("of three, the one that was mended and rotted again counted %d", n)
	}
	if n := r.gone(k); n != 3 {
		t.Errorf("three damaged blocks went with their chunk, counted %d", n)
	}
	r.sound(other, 0, 100)
	if r.known.Load() != 0 || len(r.at) != 0 {
		t.Errorf("all is good, and %d blocks are remembered", r.known.Load())
	}
	if n := r.found(k, at(0, rotMax+10)); n != rotMax+10 || r.known.Load() != rotMax {
		t.Errorf("%d counted, %d remembered", n, r.known.Load())
	}
}
