package wal

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
)

func (m *model) clone() *model {
	c := *m
	c.entries = slices.Clone(m.entries)
	return &c
}

// TestWhatIsFoundAfterAKillSurvivesPowerLoss kills the process before every
// step of a log, opens it again, appends a little, and then cuts the power:
// once Open has returned, what it found counts as what Append returned for.
// I-1.
func TestWhatIsFoundAfterAKillSurvivesPowerLoss(t *testing.T) {
	for seed := range crashtest.Seeds(t, 2) {
		rng, dice := rand.New(rand.NewPCG(seed, 19)), rand.New(rand.NewPCG(seed, 20))
		disk := newDisk(t)
		acked, begun := &model{}, &model{}
		fs := crashtest.NewKill(disk, seed, func(left *vfs.Mem, at string) {
			if t.Failed() {
				return
			}
			l, st, err := Open(Options{Dir: "/log", FS: left, Cluster: cluster, SegmentBytes: 8 << 10})
			if err != nil {
				t.Errorf("%s: %v", at, err)
				return
			}
			found := begun.clone()
			if acked.check(st) == nil {
				found = acked.clone()
			} else if err := begun.check(st); err != nil {
				t.Errorf("%s: neither what was appended nor the next batch: %v", at, err)
			}
			powerLoss(t, left, dice, found, at+", then power lost at once")
			for range 2 {
				b := step(dice, found)
				ok(t, l.Append(b))
				found.append(b)
				powerLoss(t, left, dice, found, at+", then power lost after an append")
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
				begun = acked.clone()
				begun.append(b)
			})
			ok(t, l.Append(b))
			fs.Do(func() { acked = begun })
			if b.Mark != nil {
				ok(t, l.Truncate())
			}
			if t.Failed() {
				break
			}
		}
		ok(t, l.Close())
		if n, _ := fs.Steps(); n < 80 {
			t.Fatalf("%d steps", n)
		}
	}
}

// powerLoss checks that a power loss now leaves what is wanted.
func powerLoss(t *testing.T, disk *vfs.Mem, dice *rand.Rand, want *model, at string) {
	t.Helper()
	for _, rng := range []*rand.Rand{nil, dice} {
		l, st, err := Open(Options{Dir: "/log", FS: disk.CrashClone(rng), Cluster: cluster, SegmentBytes: 8 << 10})
		if err != nil {
			t.Errorf("%s: %v", at, err)
			return
		}
		if err := want.check(st); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		ok(t, l.Close())
	}
}
