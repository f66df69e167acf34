package kv_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
)

// TestWhatIsFoundAfterAKillSurvivesPowerLoss kills the process before every
// step of a store, opens it again and then cuts the power, at once and after
// more was flushed. What Open finds counts as flushed: the log is cut by it.
func TestWhatIsFoundAfterAKillSurvivesPowerLoss(t *testing.T) {
	for seed := range crashtest.Seeds(t, 1) {
		m := vfs.NewMem()
		rng, dice := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		flushed := uint64(0)
		powerLoss := func(t *testing.T, left *vfs.Mem, atLeast uint64) {
			for _, keep := range []*rand.Rand{nil, dice} {
				s, err := kv.Open(kv.Options{Dir: "/s", FS: left.CrashClone(keep), CacheBytes: 1 << 20})
				ok(t, err)
				holdsPrefix(t, s, atLeast)
				ok(t, s.Close())
			}
		}
		fs := crashtest.NewKill(m, seed, func(left *vfs.Mem, at string) {
			if t.Failed() {
				return
			}
			t.Run(at, func(t *testing.T) {
				s, err := kv.Open(kv.Options{Dir: "/s", FS: left, CacheBytes: 1 << 20})
				ok(t, err)
				holdsPrefix(t, s, flushed)
				found, err := s.Flushed()
				ok(t, err)
				powerLoss(t, left, found)
				apply(t, s, s.Applied()+1, s.Applied()+5)
				found, err = s.Flushed()
				ok(t, err)
				powerLoss(t, left, found)
				ok(t, s.Close())
			})
		})
		s := open(t, fs)
		at := uint64(0)
		for i := range 4 {
			n := uint64(1 + rng.IntN(20))
			apply(t, s, at+1, at+n)
			at += n
			if i%2 == 0 {
				got, err := s.Flushed()
				ok(t, err)
				fs.Do(func() { flushed = got })
				continue
			}
			dir := fmt.Sprintf("/s/ck-%d", i)
			got, err := s.Checkpoint(dir)
			ok(t, err)
			fs.Do(func() { flushed = max(flushed, got) })
			ok(t, m.RemoveAll(dir))
		}
		ok(t, s.Close())
		if n, _ := fs.Steps(); n < 20 {
			t.Fatalf("%d steps", n)
		}
	}
}
