package chunkstore_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
	"golang.org/x/sync/errgroup"
)

// TestARaceOfAReadWithAWriteIsNotDamage also keeps the table of handles too
// small, so that chunks are closed and opened all the time.
func TestARaceOfAReadWithAWriteIsNotDamage(t *testing.T) {
	p := chunkstoretest.Place{FS: vfs.OS, Dir: filepath.Join(t.TempDir(), "disk")}
	if err := chunkstore.Format(p.FS, p.Dir, chunkstoretest.Cluster); err != nil {
		t.Fatal(err)
	}
	c := p.Config()
	c.Handles = 3
	d := chunkstoretest.Open(t, c)
	key := func(i int) chunkstore.Key { return chunkstore.Key{Group: 1, Layer: ashlar.LayerID(i % 5)} }
	var writers, readers errgroup.Group
	var stop atomic.Bool
	for w := range 4 {
		writers.Go(func() error {
			mine := uint32(w) * 3 * block // one writer a range
			for i := range 200 {
				data := bytes.Repeat([]byte{byte(i)}, 2*block+100)
				if err := chunkstoretest.Write(d, key(i), mine+uint32(i%7), data, 1); err != nil {
					return err
				}
				if i%20 == 0 {
					if err := d.SyncLayer(1, key(i).Layer); err != nil {
						return err
					}
				}
				if i%37 == 0 {
					if err := chunkstoretest.WriteZero(d, key(i), mine, block, 1); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	for range 2 {
		readers.Go(func() error {
			for i := 0; !stop.Load(); i++ {
				if _, err := chunkstoretest.Read(d, key(i), 0, 12*block); err != nil {
					return err
				}
				if _, err := d.ChangedRegions(key(i), 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := writers.Wait(); err != nil {
		t.Error(err)
	}
	stop.Store(true)
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
	if d.Damaged() != 0 {
		t.Errorf("%d blocks counted as damaged", d.Damaged())
	}
}

func TestConcurrentSyncsShareTheWork(t *testing.T) {
	m := vfs.NewMem()
	var syncs atomic.Int64
	entered, release := make(chan struct{}, 100), make(chan struct{})
	var stall atomic.Bool
	p := chunkstoretest.Place{Dir: "/disk", FS: errfs.Wrap(m, func(op errfs.Op) error {
		if op.Kind == errfs.Sync && filepath.Dir(op.Path) == "/disk/chunks/00000001/00" {
			syncs.Add(1)
			if stall.Load() {
				entered <- struct{}{}
				<-release
			}
		}
		return nil
	})}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 1}
	if err := chunkstoretest.Write(d, k, 0, []byte("a"), 1); err != nil {
		t.Fatal(err)
	}
	stall.Store(true)
	var first, rest errgroup.Group
	first.Go(func() error { return d.SyncLayer(1, 1) })
	<-entered
	stall.Store(false)
	if err := chunkstoretest.Write(d, k, 0, []byte("b"), 1); err != nil { // while it is being synced
		t.Fatal(err)
	}
	var started sync.WaitGroup
	for range 20 {
		started.Add(1)
		rest.Go(func() error {
			started.Done()
			return d.SyncLayer(1, 1)
		})
	}
	started.Wait()
	close(release)
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := rest.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs of the file, want one and one for all that came later", n)
	}
	after := chunkstoretest.Open(t, powerLoss(m, 0))
	if got := chunkstoretest.MustRead(t, after, k, 0, block); got[0] != 'b' {
		t.Errorf("a write that returned before the sync began is not durable: %q", got[0])
	}
}

func TestGroupRecordsAreCommittedTogether(t *testing.T) {
	m := vfs.NewMem()
	var syncs atomic.Int64
	p := chunkstoretest.Place{Dir: "/disk", FS: errfs.Wrap(m, func(op errfs.Op) error {
		if op.Kind == errfs.Sync && op.Path == "/disk/groups.tmp" {
			syncs.Add(1)
		}
		return nil
	})}
	d := p.Format(t)
	var g errgroup.Group
	for i := range 100 {
		g.Go(func() error {
			return d.SetGroup(chunkstore.GroupRecord{Config: ashlar.Group{ID: ashlar.PGID(i + 1), Epoch: 2}})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(d.Groups()); n != 100 {
		t.Fatalf("%d groups", n)
	}
	if n := syncs.Load(); n > 101 {
		t.Errorf("%d syncs", n)
	}
	after := chunkstoretest.Open(t, powerLoss(m, 0))
	for i := range 100 {
		if r, ok := after.Group(ashlar.PGID(i + 1)); !ok || r.Config.Epoch != 2 {
			t.Fatal(fmt.Sprint("group ", i+1, " is gone"))
		}
	}
}

func TestManyRecordsRewriteTheirLog(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	d := p.Format(t)
	for e := range ashlar.Epoch(3000) {
		r := chunkstore.GroupRecord{Config: ashlar.Group{ID: 1, Epoch: e, Members: make([]ashlar.Member, 3)}}
		if err := d.SetGroup(r); err != nil {
			t.Fatal(err)
		}
	}
	st, err := m.Stat("/disk/groups")
	if err != nil || st.Size() > 1<<20 {
		t.Fatalf("%v %v", st.Size(), err)
	}
	after := chunkstoretest.Open(t, powerLoss(m, 3))
	if r, _ := after.Group(1); r.Config.Epoch != 2999 {
		t.Errorf("epoch %d", r.Config.Epoch)
	}
}
