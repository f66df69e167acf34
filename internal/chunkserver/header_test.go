package chunkserver

import (
	"errors"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
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

// Power fails, and the header of a chunk that was being written can not be read
// afterwards, by a fault of the disk that goes away: on the last member, what it
// holds was perhaps synced, and there is no other copy.
func TestAChunkWhoseHeaderCanNotBeReadForAWhileIsKept(t *testing.T) {
	c := newTestbed(t, 1)
	c.makeGroup(1, 0)
	n := c.nodes[0]
	synced := pattern(64<<10, 1)
	for i := range uint32(2) {
		c.mustWrite(1, 5, i, 0, synced)
	}
	g := c.groupNow(1)
	if err := c.once(1, &wire.Sync{Address: c.address(&g, 5, 0)}, nil); err != nil {
		t.Fatal(err)
	}
	c.mustWrite(1, 5, 0, 128<<10, pattern(4096, 2)) // its mark is durable, this is not
	n.kill()
	n.fs, n.boot = n.fs.CrashClone(nil), "boot 2"
	flip := func() {
		f, err := n.fs.Open(chunkFiles(t, n.fs, "disk/chunks")[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 81); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b, 81); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	n.start()
	c.mustRead(1, 5, 1, 0, synced) // the other chunk is served
	if _, err := c.read(1, 5, 0, 0, 4096); !errors.Is(err, ashlar.Corrupt) {
		t.Fatalf("a chunk without a readable header is read: %v", err)
	}
	n.kill()
	flip()
	n.start()
	c.mustRead(1, 5, 0, 0, synced)
}

// A disk whose identity can not be read at the start is left out; the node
// registers without it, and with it once it can be.
func TestADiskThatDoesNotOpenIsLeftOutAndTriedAgain(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	want := pattern(64<<10, 1)
	c.mustWrite(1, 5, 0, 0, want)
	n := c.nodes[1]
	n.kill()
	flip := func() {
		f, err := n.fs.Open("disk/disk")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	n.start()
	c.eventually("registered without its disk", func() bool {
		l := n.cs.life.Load()
		return l != nil && len(l.present) == 0
	})
	c.dead(1)
	// Unmounted meanwhile it is not taken for a new disk.
	if err := n.fs.Rename("disk/disk", "away"); err != nil {
		t.Fatal(err)
	}
	c.eventually("tried again", func() bool {
		s := n.cs
		s.openMu.Lock()
		defer s.openMu.Unlock()
		return strings.Contains(s.disks[0].broken.Error(), "nothing is mounted there")
	})
	if _, err := n.fs.Open("disk/disk"); err == nil {
		t.Fatal("a disk was made where none is mounted")
	}
	if err := n.fs.Rename("away", "disk/disk"); err != nil {
		t.Fatal(err)
	}
	flip()
	c.eventually("in-sync again", func() bool {
		l := n.cs.life.Load()
		return l != nil && len(l.present) == 1 && c.inSync(1) == 2
	})
	if d, _ := c.scrub(t); d != 0 {
		t.Errorf("%d blocks differ", d)
	}
}
