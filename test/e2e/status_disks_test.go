package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// rotMax is how many chunks rot: fewer than what makes a disk be drained.
const rotMax = 5

// rot flips a bit in the last block of some chunks on a node's disk: of as
// many as most, if so many are there.
func (c *cluster) rot(node string, most int) (flipped int) {
	c.t.Helper()
	err := filepath.WalkDir(filepath.Join(c.dir, node, "disk", "chunks"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || info.Size() < 16<<10 || flipped == most {
			return err
		}
		var b [1]byte
		at := info.Size() - 4096
		if _, err := f.ReadAt(b[:], at); err != nil {
			return err
		}
		b[0] ^= 1
		_, err = f.WriteAt(b[:], at)
		flipped++
		return err
	})
	if err != nil || flipped == 0 {
		c.t.Fatalf("%d bits flipped on %s: %v", flipped, node, err)
	}
	return flipped
}

func TestStatusTellsTheTruthOfDisksAndPools(t *testing.T) {
	c, fault := startFaulty(t)
	for _, f := range []string{"readonly", "any error"} {
		step(t, "a disk fails: "+f, func() {
			victim, disk, path := c.holder()
			fault("disk " + path + " " + f)
			for i := range 32 { // so that it is noticed: in several groups
				c.write(fmt.Sprint("other", i))
			}
			// Its copies are made elsewhere at once, so for how long one is left is
			// nobody's promise.
			c.says(anyStatus, "disk "+disk+" ("+path+" on "+victim+") failed: ", "ashlar disk remove "+disk)
			c.why("failed and is not used any more", "disk", disk)
			fault()
			c.dev("kill", victim)
			c.dev("start", victim)
			c.well()
		})
	}
	step(t, "writes take two copies, and there is one", func() {
		victim, disk, _ := c.holder()
		c.ashlar("pool", "set", "default", "--write-min", "2")
		c.dev("kill", victim)
		c.says(5, "health: unavailable", "take no writes: they have fewer copies than their pool's write-min", " read-only", "--write-min 1")
		c.why("fewer than write-min 2: reads are served, writes wait", "disk", disk)
		c.dev("start", victim)
		c.well()
		c.ashlar("pool", "set", "default", "--write-min", "1")
	})
	step(t, "repair is paused while a node returns", func() {
		victim, _, _ := c.holder()
		c.ashlar("repair", "pause", "default")
		c.dev("kill", victim)
		c.says(5, "its data is not copied elsewhere, because repair of pool default is paused", "node "+victim+" is down")
		c.write("third")
		c.dev("start", victim)
		c.says(5, "repair of pool default is paused", "repair is paused: ashlar repair resume")
		c.why("waiting (paused)", "node", victim)
		c.ashlar("repair", "resume", "default")
		c.well()
	})
	step(t, "bits rot", func() {
		victim, disk, _ := c.holder()
		c.write("rotten")
		c.rot(victim, rotMax)
		c.told("disk", "scrub", "--wait")
		c.poll("the damage is counted, and mended", func() bool {
			st, _ := c.status()
			for _, d := range st.Disks {
				if d.Node == victim {
					return d.Damaged > 0 && d.Repaired == d.Damaged
				}
			}
			return false
		})
		c.why("of them mended", "disk", disk)
		c.well()
	})
	step(t, "a disk is drained", func() {
		victim, disk, path := c.holder()
		c.ashlar("disk", "drain", disk)
		c.says(0, "disk "+disk+" ("+path+" on "+victim+") is empty", "drained", "ashlar disk remove "+disk)
		c.ashlar("disk", "undrain", disk)
		c.well()
	})
}
