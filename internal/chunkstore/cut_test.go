package chunkstore_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
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

func TestADirectoryDeletedDuringItsSyncIsNoErrorOfTheDisk(t *testing.T) {
	m := vfs.NewMem()
	var d *chunkstore.Disk
	deleted := false
	fsys := errfs.Wrap(m, func(op errfs.Op) error {
		// The names of a chunk are synced: its own directory, then those above.
		if d != nil && !deleted && op.Kind == errfs.SyncDir && op.Path == "/disk/chunks/00000001" {
			deleted = true
			if err := d.DeleteGroup(1); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	p := chunkstoretest.Place{FS: fsys, Dir: "/disk"}
	opened := p.Format(t)
	if err := chunkstoretest.Write(opened, chunkstore.Key{Group: 1, Layer: 2}, 0, make([]byte, 4096), 1); err != nil {
		t.Fatal(err)
	}
	d = opened
	if err := d.SyncGroup(1); err != nil {
		t.Error(err)
	}
	if !deleted {
		t.Fatal("the directory above was not synced")
	}
	if err := d.Failed(); err != nil {
		t.Errorf("the disk was given up: %v", err)
	}
}
