package chunkstore_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A cut that one member missed is made again in the next epoch. The member
// was in-sync in the first one, so what changed since has to tell of it. I-5.
func TestACutMadeAgainIsAChangeOfItsEpoch(t *testing.T) {
	p := chunkstoretest.Place{FS: vfs.NewMem(), Dir: "/disk"}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 2, Index: 3}
	if err := chunkstoretest.Write(d, k, 0, bytes.Repeat([]byte{1}, 256<<10), 4); err != nil {
		t.Fatal(err)
	}
	for _, e := range []ashlar.Epoch{5, 6} {
		if err := d.Cut(1, 2, 4, []wire.ChunkCut{{Chunk: 3, Len: 100}}, e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.ChangedRegions(k, 5)
	if err != nil {
		t.Fatal(err)
	}
	if want := "[{0 262144}]"; fmt.Sprint(got) != want {
		t.Fatalf("changed since the first cut: %v, want %s", got, want)
	}
}
