package kv_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// TestPowerMayFailBeforeEveryStep cuts the power before every write, sync,
// rename, removal and directory sync of a store that is filled, flushed,
// checkpointed, restored and opened again: what is found is the state as of
// one index, and at least what was flushed.
func TestPowerMayFailBeforeEveryStep(t *testing.T) {
	for seed := range crashtest.Seeds(t, 2) {
		m := vfs.NewMem()
		rng := rand.New(rand.NewPCG(seed, 1))
		flushed := uint64(0)
		fs := crashtest.New(m, seed, func(clone *vfs.Mem, at string) {
			if t.Failed() {
				return
			}
			s, err := kv.Open(kv.Options{Dir: "/s", FS: clone, CacheBytes: 1 << 20})
			if err != nil {
				t.Errorf("%s: %v", at, err)
				return
			}
			if !t.Run(at, func(t *testing.T) { holdsPrefix(t, s, flushed) }) {
				t.Errorf("%s", at)
			}
			ok(t, s.Close())
		})
		// What is restored is made beside it, without cutting.
		const ahead = 400
		other, err := kv.Open(kv.Options{Dir: "/other", FS: m, CacheBytes: 1 << 20})
		ok(t, err)
		apply(t, other, 1, ahead)
		_, err = other.Checkpoint("/ck")
		ok(t, err)
		ok(t, other.Close())
		ok(t, m.SyncDir("/"))

		s := open(t, fs)
		ok(t, m.SyncDir("/"))
		at := uint64(0)
		for i := range 8 {
			n := uint64(1 + rng.IntN(20))
			apply(t, s, at+1, at+n)
			at += n
			switch i % 4 {
			case 0, 2:
				got, err := s.Flushed()
				ok(t, err)
				fs.Do(func() { flushed = got })
			case 1:
				dir := fmt.Sprintf("/s/ck-%d", i)
				got, err := s.Checkpoint(dir)
				ok(t, err)
				fs.Do(func() { flushed = max(flushed, got) })
				ok(t, m.RemoveAll(dir))
			case 3:
				ok(t, s.Close())
				s = open(t, fs)
				at = s.Applied()
			}
		}
		got, err := s.Restore("/ck")
		ok(t, err)
		fs.Do(func() { flushed = got })
		apply(t, s, ahead+1, ahead+10)
		ok(t, s.Close())
		if n, kinds := fs.Steps(); n < 40 || kinds&(errfs.Rename|errfs.SyncDir|errfs.Sync|errfs.Remove|errfs.Write) == 0 {
			t.Fatalf("%d steps of kinds %b", n, kinds)
		}
	}
}

func apply(t *testing.T, s *kv.Store, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		k := fmt.Appendf(nil, "%08d", i)
		ok(t, s.Apply([]kv.Op{{Key: k, Value: k}}, i))
	}
}
