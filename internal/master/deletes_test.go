package master

import (
	"errors"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestLayersOfAGroupThatIsAwayDoNotHoldUpTheDeletionOfOthers(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	away, here := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	var gone, live ashlar.PGID
	eventually(t, "groups on both", func() bool {
		away.snapshot(func() { gone = anyGroup(away) })
		here.snapshot(func() { live = anyGroup(here) })
		return gone != 0 && live != 0
	})
	away.stop()
	l := c.leader().master.lead.Load()
	eventually(t, "one is away", func() bool { _, addr, _ := l.primaryOf(gone); return addr == "" })
	const first, last = 1000, 1000 + deletesMax + 10
	layer := func(n uint64) ashlar.LayerID { return ashlar.InPartition[ashlar.LayerID](key.VolumePartition, n) }
	err := l.change(c.ctx(), func(tx meta.Tx, _ int64) (string, error) {
		for n := uint64(first); n <= last; n++ {
			d := &namespace.Deletion{Groups: []ashlar.PGID{gone}}
			if n == last {
				d.Groups[0] = live
			}
			key.Store(tx, key.Deletion(layer(n)), d)
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the layer of the group that is here is deleted", func() (ok bool) {
		here.snapshot(func() {
			ok = slices.ContainsFunc(here.deleted, func(d wire.DeleteLayers) bool { return slices.Contains(d.Layers, layer(last)) })
		})
		return ok
	})
}

func anyGroup(f *fakeServer) ashlar.PGID {
	for id := range f.groups {
		return id
	}
	return 0
}

// A change that reads what it wrote, and then fails, is answered although no
// batch comes of it.
func TestAChangeThatTakesItsWritesBackIsAnswered(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	l := c.leader().master.lead.Load()
	no := errors.New("no")
	err := l.change(c.ctx(), func(tx meta.Tx, _ int64) (string, error) {
		k := key.Deletion(ashlar.InPartition[ashlar.LayerID](key.VolumePartition, 7))
		tx.Set(k, []byte("value"))
		if v, ok := tx.Get(k); !ok || string(v) != "value" {
			t.Errorf("read %q, %v", v, ok)
		}
		return "", no
	})
	if !errors.Is(err, no) {
		t.Fatalf("answer %v, want %v", err, no)
	}
}

// I-10: a cut whose beginning came to be logged when its proposer did not know
// is driven although nobody asks for it any more.
func TestACutThatNobodyWaitsForIsMade(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	e := c.makeFile(conn, c.makeVolume(conn), "f")
	c.do(conn, &wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: 10000}, e)
	need := &meta.NeedCut{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen + 1, Size: 5000}
	err := c.leader().master.lead.Load().change(c.ctx(), func(tx meta.Tx, _ int64) (string, error) {
		return "", namespace.BeginCut(tx, need)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cut", func() bool {
		c.do(conn, &wire.GetAttr{Inode: e.Attr.Inode}, e)
		return e.Attr.Size == 5000 && e.Object.Gen == need.Gen
	})
}

// I-3: the operation that a cut was made for is done in the batch that ends
// the cut, not after it.
func TestATruncateIsDoneWithItsCut(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	e := c.makeFile(conn, c.makeVolume(conn), "f")
	c.do(conn, &wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: 10000}, e)
	l := c.leader().master.lead.Load()
	id := conn.Session()
	o := &wire.Operation{
		Session: id, Seq: 500, Lowest: 400, Cred: root,
		Body: &wire.SetAttr{Inode: e.Attr.Inode, Valid: wire.SetSize, Size: 5000},
	}
	tx := &plain{store: l.m.store}
	need := &meta.NeedCut{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen + 1, Size: 5000}
	l.makeCut(need, o)
	if _, kept := tx.Get(key.Result(id, o.Seq)); !kept {
		t.Fatal("the cut is done and its operation is not")
	}
	c.do(conn, &wire.GetAttr{Inode: e.Attr.Inode}, e)
	if e.Attr.Size != 5000 || e.Object.Gen != need.Gen {
		t.Fatalf("size %d, generation %d", e.Attr.Size, e.Object.Gen)
	}
}

// I-3: the leader is lost in the middle of a truncate. The next one ends the
// cut, and with it the truncate: were its client's retry the first to do so,
// others could have made the file longer, and it would be cut a second time.
func TestANewLeaderEndsTheTruncateWithItsCut(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	e := c.makeFile(conn, c.makeVolume(conn), "f")
	c.do(conn, &wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: 10000}, e)
	l := c.leader().master.lead.Load()
	o := &wire.Operation{
		Session: conn.Session(), Seq: 500, Lowest: 400, Cred: root,
		Body: &wire.SetAttr{Inode: e.Attr.Inode, Valid: wire.SetSize, Size: 5000},
	}
	need := &meta.NeedCut{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen + 1, Size: 5000, Op: o}
	err := l.change(c.ctx(), func(tx meta.Tx, _ int64) (string, error) { // by the leader before
		return "", namespace.BeginCut(tx, need)
	})
	if err != nil {
		t.Fatal(err)
	}
	tx := &plain{store: l.m.store}
	eventually(t, "the cut is over", func() bool { _, pending := tx.Get(key.Cut(e.Object.Layer)); return !pending })
	if _, kept := tx.Get(key.Result(o.Session, o.Seq)); !kept {
		t.Fatal("the cut is done and its operation is not: a retry would cut again")
	}
}

// I-3: a truncate whose session is lost while its cut is made is not refused
// as if nothing had been done: it would be done again under another session.
func TestATruncateWhoseSessionIsLostHasAnUnknownOutcome(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	server := c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	e := c.makeFile(conn, c.makeVolume(conn), "f")
	c.do(conn, &wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: 10000}, e)
	l := c.leader().master.lead.Load()
	answer := make(chan error, 1)
	server.snapshot(func() { // it does not answer meanwhile
		go func() {
			answer <- conn.Do(c.ctx(), root, &wire.SetAttr{Inode: e.Attr.Inode, Valid: wire.SetSize, Size: 5000}, &wire.Entry{})
		}()
		tx := &plain{store: l.m.store}
		eventually(t, "a cut", func() bool { _, ok := tx.Get(key.Cut(e.Object.Layer)); return ok })
		err := l.change(c.ctx(), func(tx meta.Tx, _ int64) (string, error) { return "", session.Close(tx, conn.Session()) })
		if err != nil {
			t.Error(err)
		}
	})
	if err := <-answer; ashlar.KindOf(err) != ashlar.OutcomeUnknown {
		t.Fatal(err)
	}
}
