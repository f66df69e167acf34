package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/kv/kvtest"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

func TestStoreOnTheRealDiskConforms(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) (vfs.FS, string) { return vfs.OS, t.TempDir() })
}

func TestStoreInMemoryConforms(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) (vfs.FS, string) {
		m := vfs.NewMem()
		ok(t, m.MkdirAll("/work"))
		ok(t, m.SyncDir("/"))
		return m, "/work"
	})
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fsys vfs.FS) *kv.Store {
	t.Helper()
	s, err := kv.Open(kv.Options{Dir: "/s", FS: fsys, CacheBytes: 1 << 20})
	ok(t, err)
	return s
}

// holdsPrefix checks that the store is the state as of its applied index: key
// i holds i for every i up to it, and there is nothing else.
func holdsPrefix(t *testing.T, s *kv.Store, atLeast uint64) {
	t.Helper()
	n := uint64(0)
	ok(t, s.Scan(nil, nil, false, func(k, v []byte) bool {
		n++
		return string(k) == fmt.Sprintf("%08d", n) && bytes.Equal(k, v)
	}))
	if n != s.Applied() || n < atLeast {
		t.Fatalf("%d keys, applied %d, flushed %d", n, s.Applied(), atLeast)
	}
}

func TestPowerLossLeavesAPrefixWithItsIndex(t *testing.T) {
	for seed := range uint64(20) {
		m := vfs.NewMem()
		rng := rand.New(rand.NewPCG(seed, 1))
		s := open(t, m)
		ok(t, m.SyncDir("/"))
		flushed := uint64(0)
		for i := uint64(1); i <= 60; i++ {
			k := fmt.Appendf(nil, "%08d", i)
			ok(t, s.Apply([]kv.Op{{Key: k, Value: k}}, i))
			if rng.IntN(10) == 0 {
				at, err := s.Flushed()
				ok(t, err)
				flushed = at
			}
		}
		crashed := open(t, m.CrashClone(rng))
		holdsPrefix(t, crashed, flushed)
		ok(t, crashed.Close())
		ok(t, s.Close())
	}
}

func TestPowerLossDuringRestoreLeavesOldOrNew(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(30) {
		m := vfs.NewMem()
		s := open(t, m)
		ok(t, m.SyncDir("/"))
		ok(t, s.Apply([]kv.Op{{Key: []byte("a"), Value: []byte("new")}}, 9))
		_, err := s.Checkpoint("/ck")
		ok(t, err)
		ok(t, s.Apply([]kv.Op{{Key: []byte("a"), Value: []byte("old")}}, 10))
		_, err = s.Flushed()
		ok(t, err)

		// Clones are taken while Restore runs, at whatever point it is.
		rng := rand.New(rand.NewPCG(seed, 2))
		clones := make(chan *vfs.Mem, 64)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case clones <- m.CrashClone(rng):
				default:
				}
			}
		})
		_, err = s.Restore("/ck")
		close(stop)
		wg.Wait()
		ok(t, err)
		ok(t, s.Close())
		close(clones)
		after := 0
		for c := range clones {
			if after++; after > 5 {
				break
			}
			crashed := open(t, c)
			v, _, err := crashed.Get([]byte("a"))
			ok(t, err)
			outcomes[string(v)] = true
			if string(v) == "new" && crashed.Applied() != 9 || string(v) == "old" && crashed.Applied() != 10 {
				t.Fatalf("%q with index %d", v, crashed.Applied())
			}
			ok(t, crashed.Close())
		}
		final := open(t, m.CrashClone(nil))
		if v, _, _ := final.Get([]byte("a")); string(v) != "new" {
			t.Fatalf("after Restore returned, power loss left %q", v)
		}
		ok(t, final.Close())
	}
	for v := range outcomes {
		if v != "old" && v != "new" {
			t.Fatalf("found %q", v)
		}
	}
}

func TestClosedStoreAnswersErrClosed(t *testing.T) {
	s := open(t, vfs.NewMem())
	ok(t, s.Close())
	if _, _, err := s.Get([]byte("a")); !errors.Is(err, kv.ErrClosed) {
		t.Fatal(err)
	}
	if err := s.Apply(nil, 1); !errors.Is(err, kv.ErrClosed) {
		t.Fatal(err)
	}
	if err := s.Close(); !errors.Is(err, kv.ErrClosed) {
		t.Fatal(err)
	}
}

func TestBatchReadsBack(t *testing.T) {
	var b kv.Batch
	b.Set([]byte("a"), []byte("1"))
	b.Delete([]byte("b"))
	b.Set([]byte("c"), nil)
	enc := kv.AppendOps([]byte("x"), b.Ops())[1:]
	ops, rest, err := kv.DecodeOps(append(enc, "rest"...))
	ok(t, err)
	if len(ops) != 3 || string(rest) != "rest" || string(ops[0].Value) != "1" || !ops[1].Delete || len(ops[2].Value) != 0 {
		t.Fatalf("%+v %q", ops, rest)
	}
	for n := range enc {
		if _, _, err := kv.DecodeOps(enc[:n]); !errors.Is(err, ashlar.Corrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(enc), err)
		}
	}
	b.Reset()
	if b.Len() != 0 || b.Bytes() != 0 {
		t.Fatal("reset left something")
	}
}

func FuzzDecodeOps(f *testing.F) {
	f.Add(kv.AppendOps(nil, []kv.Op{{Key: []byte("a"), Value: []byte("b")}, {Key: []byte("c"), Delete: true}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, rest, err := kv.DecodeOps(b)
		if err != nil {
			return
		}
		again, left, err := kv.DecodeOps(kv.AppendOps(nil, ops))
		if err != nil || len(left) != 0 || len(again) != len(ops) || len(rest) > len(b) {
			t.Fatalf("does not read back: %v", err)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := open(b, vfs.NewMem())
	defer s.Close()
	for i := uint64(1); i <= 10000; i++ {
		k := fmt.Appendf(nil, "%08d", i)
		ok(b, s.Apply([]kv.Op{{Key: k, Value: k}}, i))
	}
	_, err := s.Flushed()
	ok(b, err)
	for i := 0; b.Loop(); i++ {
		if _, _, err := s.Get(fmt.Appendf(nil, "%08d", i%10000+1)); err != nil {
			b.Fatal(err)
		}
	}
}
