package wal

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// TestPowerMayFailBeforeEveryStep cuts the power before every write, sync,
// rename, removal and directory sync of a log that is appended to, rotated, cut
// and opened again: what is found is what Append returned for, with or without
// the batch that was under way. I-1.
func TestPowerMayFailBeforeEveryStep(t *testing.T) {
	for seed := range crashtest.Seeds(t, 3) {
		rng := rand.New(rand.NewPCG(seed, 9))
		disk := newDisk(t)
		acked, begun := &model{}, &model{}
		fs := crashtest.New(disk, seed, func(clone *vfs.Mem, at string) {
			if t.Failed() {
				return
			}
			l, st, err := Open(Options{Dir: "/log", FS: clone, Cluster: cluster, SegmentBytes: 8 << 10})
			if err != nil {
				t.Errorf("%s: %v", at, err)
				return
			}
			if err := acked.check(st); err != nil && begun.check(st) != nil {
				t.Errorf("%s: %v, nor is it the next batch: %v", at, err, begun.check(st))
			}
			ok(t, l.Close())
		})
		l, _, err := Open(Options{Dir: "/log", FS: fs, Cluster: cluster, SegmentBytes: 8 << 10})
		ok(t, err)
		for i := range 40 {
			b := step(rng, acked)
			if i == 0 {
				b.Hard = &Hard{Term: 1, Vote: 1}
			}
			fs.Do(func() {
				c := *acked
				c.entries = slices.Clone(acked.entries)
				c.append(b)
				begun = &c
			})
			ok(t, l.Append(b))
			fs.Do(func() { acked = begun })
			if b.Mark != nil {
				ok(t, l.Truncate())
			}
			if rng.IntN(10) == 0 { // and opened again
				ok(t, l.Close())
				var st *State
				l, st, err = Open(Options{Dir: "/log", FS: fs, Cluster: cluster, SegmentBytes: 8 << 10})
				ok(t, err)
				ok(t, acked.check(st))
			}
			if t.Failed() {
				break
			}
		}
		ok(t, l.Close())
		if n, kinds := fs.Steps(); n < 80 || kinds&(errfs.Rename|errfs.Remove) == 0 {
			t.Fatalf("%d steps of kinds %b", n, kinds)
		}
	}
}
