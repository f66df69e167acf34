package ashlar_test

import (
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"pgregory.net/rapid"
)

func groups(n int) []ashlar.PGID {
	out := make([]ashlar.PGID, n)
	for i := range out {
		out[i] = ashlar.PGID(i + 1)
	}
	return out
}

// genLayout draws layouts as the masters make them: a segment of one chunk,
// then striped ones whose length is a multiple of their width.
func genLayout(t *rapid.T) *ashlar.Layout {
	l := &ashlar.Layout{ChunkSize: 1 << rapid.IntRange(16, 18).Draw(t, "chunk bits")}
	first := uint32(0)
	for range rapid.IntRange(1, 3).Draw(t, "segments") {
		w := rapid.IntRange(1, 4).Draw(t, "width")
		unit := l.ChunkSize >> rapid.IntRange(0, 3).Draw(t, "unit shift")
		l.Segments = append(l.Segments, ashlar.Segment{First: first, StripeUnit: unit, Groups: groups(w)})
		first += uint32(w * rapid.IntRange(1, 3).Draw(t, "sets"))
	}
	if rapid.Bool().Draw(t, "limited") {
		l.Limit = first
	}
	return l
}

func TestLocateSendsEveryByteToItsOwnPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genLayout(t)
		type place struct {
			chunk, off uint32
		}
		end := uint64(12 * l.ChunkSize)
		seen := map[place]uint64{}
		for off := uint64(0); off < end; {
			e, err := l.Locate(off, end-off)
			if errors.Is(err, ashlar.ErrBeyondLayout) {
				if l.Limit == 0 || off < uint64(l.Limit)*uint64(l.ChunkSize) {
					t.Fatalf("offset %d is beyond a layout limited to %d chunks", off, l.Limit)
				}
				break
			}
			if e.Len == 0 || e.Object != off || e.Off+e.Len > l.ChunkSize {
				t.Fatalf("extent at %d: %+v", off, e)
			}
			if g, ok := l.Group(e.Chunk); !ok || g != e.Group {
				t.Fatalf("chunk %d is in group %d, Locate says %d", e.Chunk, g, e.Group)
			}
			for o := uint32(0); o < e.Len; o += 4096 {
				p := place{e.Chunk, e.Off + o}
				if was, dup := seen[p]; dup {
					t.Fatalf("bytes %d and %d share %+v", was, off+uint64(o), p)
				}
				seen[p] = off + uint64(o)
			}
			off += uint64(e.Len)
		}
	})
}

func TestChunkLenCountsWhatLocatePutsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genLayout(t)
		l.Limit = 0
		size := uint64(rapid.IntRange(0, 10*int(l.ChunkSize)).Draw(t, "size"))
		want := map[uint32]uint32{}
		for off := uint64(0); off < size; {
			e, err := l.Locate(off, size-off)
			if err != nil {
				t.Fatal(err)
			}
			want[e.Chunk] = max(want[e.Chunk], e.Off+e.Len)
			off += uint64(e.Len)
		}
		n := l.Chunks(size)
		for c := uint32(0); c < n+8; c++ {
			if got := l.ChunkLen(c, size); got != want[c] {
				t.Fatalf("size %d: chunk %d has %d bytes, ChunkLen says %d", size, c, want[c], got)
			}
			if c >= n && want[c] != 0 {
				t.Fatalf("size %d: chunk %d is used, Chunks says %d", size, c, n)
			}
		}
	})
}

func TestLocateFollowsThePicture(t *testing.T) {
	c := uint32(1 << 16)
	l := &ashlar.Layout{ChunkSize: c, Segments: []ashlar.Segment{{StripeUnit: c / 4, Groups: groups(2)}}}
	for _, tt := range []struct {
		unit  uint64
		chunk uint32
		at    uint32
	}{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {3, 1, 1}, {7, 1, 3}, {8, 2, 0}, {9, 3, 0}} {
		e, err := l.Locate(tt.unit*uint64(c/4), uint64(c))
		if err != nil || e.Chunk != tt.chunk || e.Off != tt.at*c/4 || e.Len != c/4 {
			t.Errorf("unit %d: %+v, %v; want chunk %d unit %d", tt.unit, e, err, tt.chunk, tt.at)
		}
	}
}

func TestAnEmptyLayoutHoldsNothing(t *testing.T) {
	l := &ashlar.Layout{ChunkSize: 1 << 16}
	if _, err := l.Locate(0, 1); !errors.Is(err, ashlar.ErrBeyondLayout) {
		t.Errorf("Locate: %v", err)
	}
	if n := l.Chunks(100); n != 0 {
		t.Errorf("Chunks: %d", n)
	}
	if _, ok := l.Group(0); ok {
		t.Error("Group found one")
	}
}
