package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A scrub has the chunks on every member note what their files are called now.
func TestAScrubRefreshesTheNamesOnAllMembers(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1, 2)
	origin := wire.Origin{Owner: 77, Hint: "main:/old"}
	for i := range uint32(3) {
		g := c.groupNow(1)
		w := c.makeWrite(&g, 5, i, 0, pattern(5000, byte(i)), c.nextSeq())
		w.Origin = origin
		if i == 2 {
			w.Owner = 78 // whose name the masters do not know
		}
		if err := c.client.Call(t.Context(), g.Members[0].Addr, w, nil); err != nil {
			t.Fatal(err)
		}
	}
	now := wire.Origin{Owner: 77, UID: 4, GID: 5, Mode: 0o604, Hint: "main:/dir/new", Mtime: 1234567}
	c.leader.mu.Lock()
	c.leader.origins = map[ashlar.Inode]wire.Origin{77: now}
	c.leader.mu.Unlock()
	// One member knows already.
	if err := c.nodes[1].cs.disks[0].store.SetOrigin(chunkstore.Key{Group: 1, Layer: 5}, &now); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if damaged, _ := c.scrub(t); damaged != 0 {
			t.Errorf("%d damaged blocks", damaged)
		}
		for _, n := range c.nodes {
			for i := range uint32(3) {
				want := now
				if i == 2 {
					want = wire.Origin{Owner: 78, Hint: "main:/old"}
				}
				info, ok, err := n.cs.disks[0].store.Info(chunkstore.Key{Group: 1, Layer: 5, Index: i})
				if err != nil || !ok || info.Origin != want {
					t.Errorf("%s: chunk %d notes %+v (%v), want %+v", n.name, i, info.Origin, err, want)
				}
			}
		}
	}
	for i := range uint32(3) {
		c.mustRead(1, 5, i, 0, pattern(5000, byte(i))[:4096])
	}
}
