package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
)

// spoilHeaders restarts a node with the headers of its chunks damaged: by a
// flipped bit, or with the whole first page zeroed.
func (n *node) spoilHeaders(t *testing.T, zeroed bool) {
	t.Helper()
	n.stop()
	for _, p := range chunkFiles(t, n.fs, "disk/chunks") {
		f, err := n.fs.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		b := []byte{0xee}
		at := int64(81)
		if zeroed {
			b, at = make([]byte, 4096), 0
		}
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	n.start()
	// Until it has registered it counts as what it was before.
	n.c.eventually("in-sync again", func() bool { return n.cs.life.Load() != nil && n.c.inSync(1) == len(n.c.nodes) })
}

// lead makes a node's member the primary.
func (c *testbed) lead(i int) {
	c.change(1, func(g *ashlar.Group) {
		for range g.Members {
			if g.Members[0].Disk == c.leader.byName[c.nodes[i].name].disks[0] {
				break
			}
			g.Members = append(g.Members[1:], g.Members[0])
		}
	})
}

func TestADamagedHeaderOfAChunkIsMended(t *testing.T) {
	for name, zeroed := range map[string]bool{"bit": false, "page": true} {
		t.Run(name, func(t *testing.T) {
			c := newTestbed(t, 3)
			c.makeGroup(1, 0, 1, 2)
			want := pattern(64<<10, 1)
			for i := range uint32(3) {
				c.mustWrite(1, 5, i, 64<<10, want)
			}
			c.nodes[0].spoilHeaders(t, zeroed)
			c.lead(0)
			// On the primary: read, written in part, and scrubbed.
			c.mustRead(1, 5, 0, 64<<10, want)
			c.mustRead(1, 5, 0, 0, make([]byte, 4096))
			c.mustWrite(1, 5, 1, 64<<10+100, pattern(50, 2))
			if d, r := c.scrub(t); d == 0 || d != r {
				t.Fatalf("%d damaged, %d repaired", d, r)
			}
			if d, _ := c.scrub(t); d != 0 {
				t.Fatalf("%d damaged after the repair", d)
			}
			// On another member: written and scrubbed.
			c.nodes[2].spoilHeaders(t, zeroed)
			c.lead(0)
			c.mustWrite(1, 5, 1, 64<<10+200, pattern(50, 3))
			if c.inSync(1) != 3 {
				t.Fatal("a member was thrown out")
			}
			if d, r := c.scrub(t); d == 0 || d != r {
				t.Fatalf("%d damaged, %d repaired", d, r)
			}
			if d, _ := c.scrub(t); d != 0 {
				t.Fatalf("%d damaged after the repair", d)
			}
			// On one that is away while its chunk changes.
			c.nodes[1].kill()
			c.dead(1)
			c.mustWrite(1, 5, 1, 64<<10+300, pattern(50, 4))
			c.nodes[1].start()
			c.nodes[1].spoilHeaders(t, zeroed)
			copy(want[100:], pattern(50, 2))
			copy(want[200:], pattern(50, 3))
			copy(want[300:], pattern(50, 4))
			c.lead(1)
			c.mustRead(1, 5, 1, 64<<10, want)
			c.mustRead(1, 5, 1, 0, make([]byte, 64<<10))
		})
	}
}
