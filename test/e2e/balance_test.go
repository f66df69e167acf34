package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	// smallSize is the size of each disk, of which a local cluster keeps 64 MiB
	// free.
	smallSize = 224 << 20
	// levelFiles of levelBytes, twice, are put on three of them.
	levelFiles = 180
	levelBytes = 640 << 10
	// levelMost is by how much of their size disks may differ in use.
	levelMost = 0.05
	// damageMost is how many damaged blocks have a disk drained.
	damageMost = 32
)

// TestDisksAreLevelledAndABadOneIsEmptied: three nodes with data take a fourth
// in, and their disks differ by no more than 5 % in use soon after; then bits
// rot on one of them, a scrub finds it, and it is emptied by itself. Programs
// write and read back all the time.
func TestDisksAreLevelledAndABadOneIsEmptied(t *testing.T) {
	c := prepare(t)
	for _, n := range []string{"n1", "n2", "n3"} {
		c.smallDisk(n, smallSize)
	}
	c.run()
	c.well()
	sums := map[string][sha256.Size]byte{}
	step(t, "data is written", func() { c.fill(sums) })
	rounds, stop := c.work(4)
	defer stop()
	step(t, "a fourth node comes, and data moves to it", func() {
		c.smallDisk("n4", smallSize)
		c.dev("add")
		before := c.use()
		c.poll("use is level", func() bool {
			st, ok := c.status()
			return ok && len(st.Disks) == 4 && st.Redundant && c.spread() <= levelMost
		})
		c.poll("the masters say so too", func() bool {
			st, _ := c.status()
			return spreadOf(&st) <= levelMost
		})
		t.Logf("use was %.3f, is %.3f", before, c.use())
	})
	was := rounds.Load()
	step(t, "the disk of n4 rots, is scrubbed and emptied by itself", func() {
		disk := c.diskOf("n4")
		if n := c.rot("n4", 2*damageMost); n < damageMost+8 { // some are of files that are replaced before they are scrubbed
			t.Fatalf("only %d blocks to rot", n)
		}
		c.told("disk", "scrub", "--wait")
		c.says(anyStatus, "disk "+disk+" (", "damaged blocks were found on it", "ashlar disk undrain "+disk)
		c.why("it was drained by itself", "disk", disk)
		c.says(anyStatus, "is empty, because", "ashlar disk remove "+disk+", and replace it")
		c.why("is drained: it is empty and may be removed", "disk", disk)
	})
	stop()
	if rounds.Load() == was {
		t.Error("nobody worked meanwhile")
	}
	step(t, "data is what was written", func() {
		c.freshMount(func(dir string) { checkSums(t, dir, sums) })
		c.scrub()
		st, _ := c.status()
		for _, d := range st.Disks {
			if d.Damaged != d.Repaired {
				t.Errorf("disk %d: %d blocks damaged, %d mended", d.ID, d.Damaged, d.Repaired)
			}
		}
		c.ashlar("disk", "remove", c.diskOf("n4"))
		c.ashlar("status", "--wait", "--timeout", readyTimeout.String())
	})
}

// fill writes files of random bytes, and notes their sums.
func (c *cluster) fill(sums map[string][sha256.Size]byte) {
	c.t.Helper()
	rng := rand.NewChaCha8([32]byte{1})
	b := make([]byte, levelBytes)
	for i := range levelFiles {
		_, _ = rng.Read(b) // never fails
		name := fmt.Sprintf("file%d", i)
		if err := os.WriteFile(filepath.Join(c.mnt, name), b, 0o644); err != nil {
			c.t.Fatal(err)
		}
		sums[name] = sha256.Sum256(b)
	}
}

func checkSums(t *testing.T, dir string, sums map[string][sha256.Size]byte) {
	t.Helper()
	for name, sum := range sums {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || sha256.Sum256(b) != sum {
			t.Errorf("%s is not what was written (%v)", name, err)
		}
	}
}

// work has programs replace files and read them back, until it is stopped;
// one that fails fails the test.
func (c *cluster) work(programs int) (rounds *atomic.Int64, stop func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	rounds = new(atomic.Int64)
	var all sync.WaitGroup
	for i := range programs {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := writeAndRead(filepath.Join(c.mnt, fmt.Sprint("work", i)), n); err != nil {
					c.t.Error(err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	return rounds, func() { cancel(); all.Wait() }
}

// use is which part of each small disk is used, by its own word.
func (c *cluster) use() (out []float64) {
	c.t.Helper()
	for _, dir := range c.small {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			c.t.Fatal(err)
		}
		out = append(out, float64(st.Blocks-st.Bfree)/float64(st.Blocks))
	}
	return out
}

func (c *cluster) spread() float64 {
	most, least := 0.0, 1.0
	for _, u := range c.use() {
		most, least = max(most, u), min(least, u)
	}
	return most - least
}

// spreadOf is the same as the masters say.
func spreadOf(st *wire.Status) float64 {
	most, least := 0.0, 1.0
	for _, d := range st.Disks {
		u := float64(d.Total-d.Free) / float64(max(1, d.Total))
		most, least = max(most, u), min(least, u)
	}
	return most - least
}
