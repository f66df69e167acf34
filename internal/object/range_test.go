package object

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
)

func TestDataAndHolesAreFoundAtAnyOffset(t *testing.T) {
	const size = 7 * testChunk
	for _, unit := range []uint32{testChunk, 64 << 10} {
		f := newFakes(t, 3, 3)
		s, o := f.store(t), ref(unit)
		model := make([]bool, size/ashlar.BlockSize)
		r := rand.New(rand.NewPCG(2, uint64(unit)))
		for range 12 {
			b := r.IntN(len(model) - 40)
			n := 1 + r.IntN(40)
			p := bytes.Repeat([]byte{1}, n*ashlar.BlockSize)
			if err := s.WriteAt(t.Context(), o, p, uint64(b)*ashlar.BlockSize, 0); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				model[b+i] = true
			}
		}
		for range 200 {
			off := uint64(r.IntN(size))
			for _, hole := range []bool{false, true} {
				want := off
				for want < size && model[want/ashlar.BlockSize] == hole {
					want = (want/ashlar.BlockSize + 1) * ashlar.BlockSize
				}
				got, err := s.Seek(t.Context(), o, off, size, hole)
				if err != nil || got != min(want, size) {
					t.Fatalf("unit %d: hole %v from %d on: %d, want %d, %v", unit, hole, off, got, want, err)
				}
			}
		}
	}
	f := newFakes(t, 1, 3)
	s, o := f.store(t), ref(testChunk)
	if at, err := s.Seek(t.Context(), o, 0, 1<<40, false); at != 1<<40 || err != nil {
		t.Errorf("data beyond the layout: %d, %v", at, err)
	}
	if at, err := s.Seek(t.Context(), o, 100, 1<<40, true); at != 100 || err != nil {
		t.Errorf("no hole in nothing: %d, %v", at, err)
	}
}

func TestARangeIsCopiedByTheServers(t *testing.T) {
	f := newFakes(t, 3, 3)
	s, from := f.store(t), ref(testChunk)
	data := noise(5 * testChunk)
	if err := s.WriteAt(t.Context(), from, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	// The same object: source and destination do not overlap.
	for _, x := range [][3]uint64{{0, 6 * testChunk, testChunk}, {100, 6*testChunk + 5, 70000}, {testChunk - 5, 6*testChunk + 9000, 10}} {
		if err := s.Copy(t.Context(), from, x[0], from, x[1], x[2]); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, x[2])
		if err := s.ReadAt(t.Context(), from, got, x[1]); err != nil || !bytes.Equal(got, data[x[0]:x[0]+x[2]]) {
			t.Fatalf("%v: other bytes, %v", x, err)
		}
	}
	for seq, n := range f.applied {
		if n != 1 {
			t.Errorf("sequence %d was applied %d times", seq, n)
		}
	}
	if err := s.Copy(t.Context(), from, 8*testChunk, from, 0, 10); !errors.Is(err, ashlar.Unsupported) || errors.Is(err, ashlar.ErrBeyondLayout) {
		t.Errorf("from beyond the layout: %v", err)
	}
	if err := s.Copy(t.Context(), from, 0, from, 8*testChunk, 10); !errors.Is(err, ashlar.ErrBeyondLayout) {
		t.Errorf("to beyond the layout: %v", err)
	}
}
