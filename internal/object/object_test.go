package object

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = r.Read(b)
	return b
}

func TestWhatIsWrittenIsReadAtAnyAlignment(t *testing.T) {
	for _, unit := range []uint32{testChunk, 64 << 10} {
		f := newFakes(t, 3, 3)
		s, o := f.store(t), ref(unit)
		const size = 5 * testChunk
		model := make([]byte, size)
		r := rand.New(rand.NewPCG(1, uint64(unit)))
		for range 60 {
			off, n := r.IntN(size), 1+r.IntN([]int{1 << 10, 1 << 16, 3 << 20}[r.IntN(3)])
			n = min(n, size-off)
			if r.IntN(4) == 0 {
				if err := s.Zero(t.Context(), o, uint64(off), uint64(n)); err != nil {
					t.Fatal(err)
				}
				clear(model[off : off+n])
			} else {
				p := noise(n)
				if err := s.WriteAt(t.Context(), o, p, uint64(off), 0); err != nil {
					t.Fatal(err)
				}
				copy(model[off:], p)
			}
			off, n = r.IntN(size), 1+r.IntN(2<<20)
			n = min(n, size-off)
			got := noise(n)
			if err := s.ReadAt(t.Context(), o, got, uint64(off)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, model[off:off+n]) {
				t.Fatalf("unit %d: %d bytes at %d differ", unit, n, off)
			}
		}
		f.get(func() {
			if w := s.writes.window.Lowest(); f.lowest == 0 || int(w) != len(f.applied)+1 {
				t.Errorf("lowest %d after %d writes", w, len(f.applied))
			}
		})
	}
}

func TestBeyondTheLayoutIsSaid(t *testing.T) {
	f := newFakes(t, 1, 3)
	s := f.store(t)
	err := s.WriteAt(t.Context(), ref(testChunk), make([]byte, 10), 8*testChunk-5, 0)
	if !errors.Is(err, ashlar.ErrBeyondLayout) {
		t.Errorf("%v", err)
	}
}

func TestSyncAsksEveryGroupInUse(t *testing.T) {
	f := newFakes(t, 3, 3)
	s, o := f.store(t), ref(64<<10)
	for size, want := range map[uint64]int{0: 0, 1: 1, testChunk: 1, testChunk + 1: 3, 6 * testChunk: 3} {
		f.get(func() { clear(f.syncs) })
		if err := s.Sync(t.Context(), o, size); err != nil {
			t.Fatal(err)
		}
		f.get(func() {
			if len(f.syncs) != want {
				t.Errorf("size %d: synced %v", size, f.syncs)
			}
		})
	}
	if g := groups(&ref(testChunk).Layout, testChunk+1); len(g) != 2 {
		t.Errorf("not striped: %v", g)
	}
}

// TestAWriteOutlivesItsPrimary: in every way of losing a primary a write takes
// effect once, under one sequence (I-7).
func TestAWriteOutlivesItsPrimary(t *testing.T) {
	later := func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	for name, lose := range map[string]func(f *fakes, n *fakeNode){
		"it dies": func(f *fakes, n *fakeNode) {
			n.srv.Close()
			later(100*time.Millisecond, func() { f.move(1, 1) })
		},
		"it dies after applying": func(f *fakes, n *fakeNode) {
			n.mute.Store(true)
			later(50*time.Millisecond, n.srv.Close)
			later(100*time.Millisecond, func() { f.move(1, 1) })
		},
		"it is stopped": func(f *fakes, n *fakeNode) {
			n.silent.Store(true)
			later(100*time.Millisecond, func() { f.move(1, 1) })
		},
		"it applies and is stopped": func(f *fakes, n *fakeNode) {
			n.mute.Store(true)
			later(100*time.Millisecond, func() { f.move(1, 1) })
		},
		"the epoch has moved on": func(f *fakes, _ *fakeNode) { f.move(1, 2) },
		"it is not ready": func(f *fakes, n *fakeNode) {
			no := func(wire.Message) error { return ashlar.NotReady }
			n.fail.Store(&no)
			later(50*time.Millisecond, func() { n.fail.Store(nil) })
		},
		"it restarts where it was": func(f *fakes, n *fakeNode) {
			addr := n.addr
			n.srv.Close()
			later(50*time.Millisecond, func() { n.start(f.t, addr) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakes(t, 3, 3)
			s, o := f.store(t), ref(testChunk)
			if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
				t.Fatal(err)
			}
			lose(f, f.nodes[0])
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			var wg sync.WaitGroup
			want := noise(3 << 20)
			for i := range 3 {
				wg.Go(func() {
					if err := s.WriteAt(ctx, o, want[i<<20:(i+1)<<20], uint64(i)<<20, 0); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			got := make([]byte, len(want))
			if err := s.ReadAt(ctx, o, got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read back: %v", err)
			}
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("took %v", d)
			}
			f.get(func() {
				for seq, n := range f.applied {
					if n != 1 {
						t.Errorf("sequence %d took effect %d times", seq, n)
					}
				}
				if len(f.applied) != 4 {
					t.Errorf("%d sequences for 4 writes", len(f.applied))
				}
			})
		})
	}
}

func TestASlowPrimaryIsWaitedFor(t *testing.T) {
	f := newFakes(t, 2, 1)
	s, o := f.store(t), ref(testChunk)
	slow := func(wire.Message) error {
		<-time.After(1500 * time.Millisecond)
		return nil
	}
	f.nodes[0].fail.Store(&slow)
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
		t.Fatal(err)
	}
	if n := f.nodes[0].calls.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestDamagedDataIsReadAgainAndThenRefused(t *testing.T) {
	f := newFakes(t, 1, 1)
	s, o := f.store(t), ref(testChunk)
	want := noise(20000)
	if err := s.WriteAt(t.Context(), o, want, 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*wire.ReadReply){
		"a bit flips":     func(r *wire.ReadReply) { r.Data[5000] ^= 4 },
		"a sum is gone":   func(r *wire.ReadReply) { r.Sums = r.Sums[:1] },
		"no sums":         func(r *wire.ReadReply) { r.Sums = nil },
		"it is short":     func(r *wire.ReadReply) { r.Data = r.Data[:4096] },
		"nothing is sent": func(r *wire.ReadReply) { r.Data = nil },
	} {
		var left atomic.Int64
		once := func(r *wire.ReadReply) {
			if left.Add(-1) >= 0 {
				spoil(r)
			}
		}
		f.nodes[0].spoil.Store(&once)
		left.Store(1)
		got := make([]byte, len(want))
		if err := s.ReadAt(t.Context(), o, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s once: %v", name, err)
		}
		left.Store(100)
		if err := s.ReadAt(t.Context(), o, got, 0); !errors.Is(err, ashlar.Corrupt) {
			t.Errorf("%s always: %v", name, err)
		}
	}
}

func TestFinalErrorsAreNotRetried(t *testing.T) {
	f := newFakes(t, 1, 1)
	s, o := f.store(t), ref(testChunk)
	for _, k := range []ashlar.Kind{ashlar.NoSpace, ashlar.WrongGeneration, ashlar.OutcomeUnknown, ashlar.Invalid} {
		no := func(wire.Message) error { return ashlar.E("write", k, "", nil) }
		f.nodes[0].fail.Store(&no)
		before := f.nodes[0].calls.Load()
		err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0)
		if !errors.Is(err, k) || f.nodes[0].calls.Load() != before+1 {
			t.Errorf("%v: %v after %d calls", k, err, f.nodes[0].calls.Load()-before)
		}
	}
	f.nodes[0].fail.Store(nil)
	f.get(func() { f.gen = 2 })
	if err := s.ReadAt(t.Context(), o, make([]byte, 10), 0); !errors.Is(err, ashlar.WrongGeneration) {
		t.Errorf("%v", err)
	}
}

func TestTheTicketIsShownAgainWhenRenewedOrRefused(t *testing.T) {
	f := newFakes(t, 1, 1)
	s, o := f.store(t), ref(testChunk)
	write := func() {
		t.Helper()
		if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	write()
	f.get(func() { f.ticket = "t2" }) // the store is not told: refusals make it ask
	write()
	f.get(func() { f.ticket = "t3" })
	for _, fn := range f.onTicket {
		fn([]byte("t3"))
	}
	write()
}

func TestAfterALostSessionOnlyUnsentWritesGoOn(t *testing.T) { // I-7
	f := newFakes(t, 1, 1)
	s, o := f.store(t), ref(testChunk)
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
		t.Fatal(err)
	}
	var first atomic.Bool
	lose := func(wire.Message) error {
		if first.CompareAndSwap(false, true) {
			f.newSession()
			return ashlar.NotReady
		}
		return nil
	}
	f.nodes[0].fail.Store(&lose)
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); !errors.Is(err, ashlar.OutcomeUnknown) {
		t.Errorf("sent: %v", err)
	}
	f.get(func() { clear(f.applied) })
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
		t.Errorf("next: %v", err)
	}
	f.get(func() {
		if f.applied[1] != 1 {
			t.Errorf("sequences of a new session do not start at 1: %v", f.applied)
		}
		clear(f.applied)
		f.lowest = 0
	})
	// Refused for its session and nothing else: certainly without effect.
	first.Store(false)
	refuse := func(wire.Message) error {
		if first.CompareAndSwap(false, true) {
			f.newSession()
			return ashlar.NoSession
		}
		return nil
	}
	f.nodes[0].fail.Store(&refuse)
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
		t.Errorf("unsent: %v", err)
	}
}

func TestARequestEndsWithItsContext(t *testing.T) {
	f := newFakes(t, 1, 1)
	s, o := f.store(t), ref(testChunk)
	if err := s.WriteAt(t.Context(), o, make([]byte, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	f.nodes[0].silent.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p := make([]byte, 1<<20)
	if err := s.ReadAt(ctx, o, p, 0); !errors.Is(err, ashlar.Timeout) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := s.WriteAt(ctx, o, p, 0, 0); !errors.Is(err, ashlar.Canceled) {
		t.Errorf("%v", err)
	}
	f.nodes[0].silent.Store(false)
	if err := s.WriteAt(t.Context(), o, p, 0, 0); err != nil {
		t.Fatal(err)
	}
	f.get(func() {
		if f.lowest != 3 {
			t.Errorf("the write given up is not refused for good: lowest %d", f.lowest)
		}
	})
}

// I-7
func TestAWriteGivenUpIsNotSentAnyMore(t *testing.T) {
	f := newFakes(t, 1, 1)
	s, o := f.store(t), ref(testChunk)
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := s.WriteAt(ctx, o, make([]byte, 10), 0, 0); !errors.Is(err, ashlar.Canceled) {
			t.Fatal(err)
		}
	}
	if err := s.WriteAt(t.Context(), o, make([]byte, 10), 0, 0); err != nil {
		t.Fatal(err)
	}
	f.get(func() {
		if len(f.applied) != 2 {
			t.Errorf("%d writes arrived, want 2", len(f.applied))
		}
	})
}

func TestAnUnknownGroupIsAnError(t *testing.T) {
	f := newFakes(t, 1, 1)
	s := f.store(t)
	o := ref(testChunk)
	o.Layout.Segments[0].Groups = []ashlar.PGID{99}
	if err := s.ReadAt(t.Context(), o, make([]byte, 1), 0); !errors.Is(err, ashlar.IO) {
		t.Errorf("%v", err)
	}
}

func BenchmarkStore(b *testing.B) {
	f := newFakes(b, 1, 1)
	s, o := f.store(b), ref(testChunk)
	for _, bench := range []struct {
		name string
		n    int
		do   func(p []byte) error
	}{
		{"write/4k", 4 << 10, func(p []byte) error { return s.WriteAt(context.Background(), o, p, 0, 0) }},
		{"write/1m", 1 << 20, func(p []byte) error { return s.WriteAt(context.Background(), o, p, 0, 0) }},
		{"read/4k", 4 << 10, func(p []byte) error { return s.ReadAt(context.Background(), o, p, 0) }},
		{"read/1m", 1 << 20, func(p []byte) error { return s.ReadAt(context.Background(), o, p, 0) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := make([]byte, bench.n)
			b.SetBytes(int64(bench.n))
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.do(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
