package kv_test

import (
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
)

// TestAKillDuringRestoreThenPowerLossLeavesOldOrNew kills the process before
// every step of Restore and opens the store again, which removes what CURRENT
// does not name; then power fails.
func TestAKillDuringRestoreThenPowerLossLeavesOldOrNew(t *testing.T) {
	const before, after = 20, 400
	for seed := range crashtest.Seeds(t, 1) {
		m := vfs.NewMem()
		dice := rand.New(rand.NewPCG(seed, 2))
		other, err := kv.Open(kv.Options{Dir: "/other", FS: m, CacheBytes: 1 << 20})
		ok(t, err)
		apply(t, other, 1, after)
		_, err = other.Checkpoint("/ck")
		ok(t, err)
		ok(t, other.Close())
		ok(t, m.SyncDir("/"))
		fs := crashtest.NewKill(m, seed, func(left *vfs.Mem, at string) {
			if t.Failed() {
				return
			}
			t.Run(at, func(t *testing.T) {
				// Power may fail while the next process cleans up, too.
				again := crashtest.New(left, dice.Uint64(), func(clone *vfs.Mem, at string) {
					s, err := kv.Open(kv.Options{Dir: "/s", FS: clone, CacheBytes: 1 << 20})
					if err != nil {
						t.Errorf("%s: %v", at, err)
						return
					}
					holdsPrefix(t, s, before)
					ok(t, s.Close())
				})
				s, err := kv.Open(kv.Options{Dir: "/s", FS: again, CacheBytes: 1 << 20})
				ok(t, err)
				again.Pause(true)
				found := s.Applied()
				if found != before && found != after {
					t.Errorf("applied %d", found)
				}
				for range 4 {
					s, err := kv.Open(kv.Options{Dir: "/s", FS: left.CrashClone(dice), CacheBytes: 1 << 20})
					ok(t, err)
					holdsPrefix(t, s, found)
					ok(t, s.Close())
				}
				ok(t, s.Close())
			})
		})
		fs.Pause(true)
		s := open(t, fs)
		apply(t, s, 1, before)
		_, err = s.Flushed()
		ok(t, err)
		ok(t, m.SyncDir("/"))
		fs.Pause(false)
		_, err = s.Restore("/ck")
		ok(t, err)
		fs.Pause(true)
		ok(t, s.Close())
		if n, _ := fs.Steps(); n < 8 {
			t.Fatalf("%d steps", n)
		}
	}
}
