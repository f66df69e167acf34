package chunkstoretest

import (
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// kill lets go of a disk as a killed process does.
func kill(t *testing.T, p Place, d *chunkstore.Disk) {
	t.Helper()
	must(t, d.Abandon())
	if m, ok := p.FS.(*vfs.Mem); ok {
		m.ReleaseLocks()
	}
}

func groups(t *testing.T, p Place) {
	d := p.Format(t)
	rec := chunkstore.GroupRecord{
		Config: ashlar.Group{ID: 7, Pool: 1, Epoch: 5, Members: []ashlar.Member{
			{Disk: 1, Node: 1, State: ashlar.InSync}, {Disk: 2, Node: 2, State: ashlar.Syncing},
		}},
		LastInSync: 4, Adopted: 5,
	}
	must(t, d.SetGroup(rec))
	must(t, d.SetGeneration(7, 100, 3))
	must(t, d.SetGeneration(7, 100, 2)) // I-10: never lower
	must(t, d.SetGeneration(7, 101, 1))
	kill(t, p, d)
	d = Open(t, p.Config())
	got, ok := d.Group(7)
	if !ok || got.Config.Epoch != 5 || len(got.Config.Members) != 2 || got.LastInSync != 4 || got.Adopted != 5 {
		t.Fatalf("%+v %v", got, ok)
	}
	rec.Config.Epoch = 4 // I-4: an epoch never goes back
	wantKind(t, d.SetGroup(rec), ashlar.WrongEpoch)
	if d.Generation(7, 100) != 3 || d.Generation(7, 101) != 1 || len(d.Generations(7)) != 1 {
		t.Fatalf("generations %v", d.Generations(7))
	}
}

func deleteGroup(t *testing.T, p Place) {
	d := p.Format(t)
	must(t, d.SetGroup(chunkstore.GroupRecord{Config: ashlar.Group{ID: 3, Epoch: 1}}))
	must(t, d.SetGeneration(3, 1, 2))
	must(t, Write(d, key, 0, []byte{1}, 1))
	must(t, Write(d, chunkstore.Key{Group: 4, Layer: 1}, 0, []byte{1}, 1))
	must(t, d.DeleteGroup(3))
	must(t, d.DeleteGroup(3))
	if _, ok := d.Group(3); ok || d.Generation(3, 1) != 1 {
		t.Error("the record is kept")
	}
	if n := d.Chunks(); n != 1 {
		t.Errorf("%d chunks, want 1", n)
	}
	must(t, Write(d, key, 0, []byte{2}, 2)) // and may come back
	must(t, d.SyncGroup(3))
}

func inflight(t *testing.T, p Place) {
	d := p.Format(t)
	f := d.Inflight()
	var slots []int
	for i := range uint64(5) {
		s, err := f.Begin(3, 2, i, &wire.Inflight{Session: 9, Seq: i, Layer: 1, Gen: 1, Off: uint32(i), Len: 10})
		must(t, err)
		slots = append(slots, s)
	}
	f.Applied(slots[1])
	f.Applied(slots[2])
	f.Done(slots[2])
	f.Free(slots[3])
	kill(t, p, d)
	d = Open(t, p.Config())
	got := d.Inflight().All()
	if len(got) != 4 {
		t.Fatalf("%d writes, want 4", len(got))
	}
	for i, want := range []struct {
		op            uint64
		applied, done bool
	}{{0, false, false}, {1, true, false}, {2, true, true}, {4, false, false}} {
		e := got[i]
		if e.Op != want.op || e.Applied != want.applied || e.Done != want.done || e.Group != 3 || e.Epoch != 2 || e.Session != 9 {
			t.Errorf("write %d: %+v", i, e)
		}
	}
}

func survives(t *testing.T, p Place) {
	d := p.Format(t)
	must(t, Write(d, key, 0, []byte("unsynced"), 1))
	owner := d.Owner()
	kill(t, p, d)
	d = Open(t, p.Config())
	if d.Owner() != owner+1 {
		t.Errorf("owner %d after %d", d.Owner(), owner)
	}
	if got := MustRead(t, d, key, 0, 4096); string(got[:8]) != "unsynced" {
		t.Error("a write that returned did not survive the process")
	}
	if s := d.Suspect(key.Group); len(s) != 0 || d.BootChanged() {
		t.Errorf("suspect after the death of the process alone: %v", s)
	}
}

func twice(t *testing.T, p Place) {
	p.Format(t)
	_, err := chunkstore.Open(p.Config())
	wantKind(t, err, ashlar.Busy)
	wantKind(t, chunkstore.Format(p.FS, p.Dir, Cluster), ashlar.Exist)
}

func foreign(t *testing.T, p Place) {
	_, err := chunkstore.Open(p.Config())
	wantKind(t, err, ashlar.NotExist)
	d := p.Format(t)
	must(t, d.SetHistory(3))
	must(t, d.Close())
	c := p.Config()
	c.Cluster = ashlar.ClusterID{9}
	_, err = chunkstore.Open(c)
	wantKind(t, err, ashlar.WrongCluster)
	if s := err.Error(); !strings.Contains(s, Cluster.String()) || !strings.Contains(s, c.Cluster.String()) {
		t.Errorf("the error does not name both clusters: %s", s)
	}
	c = p.Config()
	c.History = 2
	_, err = chunkstore.Open(c)
	wantKind(t, err, ashlar.WrongCluster)
	c.History = 4
	d, err = chunkstore.Open(c)
	must(t, err)
	must(t, d.Close())
}

func counted(t *testing.T, p Place) {
	d := p.Format(t)
	for i := range uint32(10) {
		must(t, Write(d, chunkstore.Key{Group: 1, Layer: ashlar.LayerID(i) << 8, Index: i}, 0, []byte{1}, 1))
	}
	if n := d.Chunks(); n != 10 {
		t.Fatalf("%d chunks, want 10", n)
	}
	must(t, d.Delete(chunkstore.Key{Group: 1}))
	must(t, Write(d, chunkstore.Key{Group: 1, Layer: 1 << 40}, 0, []byte{1}, 1))
	must(t, Write(d, chunkstore.Key{Group: 1, Layer: 1<<40 + 1}, 0, []byte{1}, 1))
	if n := d.Chunks(); n != 11 {
		t.Fatalf("%d chunks, want 11", n)
	}
	must(t, d.Close())
	d = Open(t, p.Config())
	if n := d.Chunks(); n != 11 {
		t.Fatalf("%d chunks after reopening, want 11", n)
	}
	total, free := d.Usage()
	if total == 0 || free == 0 || free > total {
		t.Errorf("usage %d of %d", free, total)
	}
}
