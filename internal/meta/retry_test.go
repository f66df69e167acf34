package meta_test

import (
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/google/go-cmp/cmp"
)

func (w *world) change(seq, lowest uint64, body wire.Message) (wire.Message, error) {
	return w.evaluate(&wire.Operation{Session: w.session, Seq: seq, Lowest: lowest, Cred: w.cred, Body: body})
}

func (w *world) file(name string) *wire.Make {
	return &wire.Make{Parent: w.root, Name: name, Type: ashlar.TypeFile, Mode: 0o644, Exclusive: true}
}

// I-3: a retried operation takes effect once.
func TestRetriedOperationIsAnsweredAgainAndDoneOnce(t *testing.T) {
	w := newWorld(t)
	first, err := w.change(2, 2, w.file("a"))
	if err != nil {
		t.Fatal(err)
	}
	keys := w.mem.Len()
	again, err := w.change(2, 2, w.file("a"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, again); d != "" {
		t.Errorf("the retry is answered otherwise:\n%s", d)
	}
	if w.mem.Len() != keys || w.note != "" {
		t.Errorf("the retry changed something: %q", w.note)
	}
}

// I-3: refusals are results too.
func TestRetriedRefusalStaysARefusal(t *testing.T) {
	w := newWorld(t)
	_, _ = w.change(2, 2, w.file("a"))
	_, first := w.change(3, 2, w.file("a"))
	if !errors.Is(first, ashlar.Exist) {
		t.Fatal(first)
	}
	if _, err := w.change(4, 2, &wire.Remove{Parent: w.root, Name: "a"}); err != nil {
		t.Fatal(err)
	}
	_, again := w.change(3, 2, w.file("a"))
	if !errors.Is(again, ashlar.Exist) || again.Error() != first.Error() {
		t.Errorf("first %v, then %v", first, again)
	}
}

func TestARefusalToBeRetriedIsNotKept(t *testing.T) {
	w := newWorld(t)
	r, err := w.change(2, 2, w.file("a"))
	if err != nil {
		t.Fatal(err)
	}
	ino := r.(*wire.Entry).Attr.Inode
	o := r.(*wire.Entry).Object
	commit := &wire.Commit{Inode: ino, Layer: o.Layer, Gen: o.Gen, Size: 100}
	if _, err := w.change(3, 3, commit); err != nil {
		t.Fatal(err)
	}
	_, err = w.change(4, 4, &wire.SetAttr{Inode: ino, Valid: wire.SetSize, Size: 10})
	n := meta.AsNeedCut(err)
	if n == nil {
		t.Fatalf("want a NeedCut, got %v", err)
	}
	if !errors.Is(err, ashlar.NotReady) {
		t.Errorf("a client would not retry %v", err)
	}
	if len(w.mem.Batch()) != 0 {
		t.Error("a NeedCut wrote something")
	}
	w.cut = true
	_, err = w.change(4, 4, &wire.SetAttr{Inode: ino, Valid: wire.SetSize, Size: 10})
	if meta.AsNeedCut(err) == nil {
		t.Fatalf("a cut that was not begun counts as done: %v", err)
	}
}

func TestResultsBelowTheLowestAreDroppedAndRefused(t *testing.T) {
	w := newWorld(t)
	results := func() (n int) {
		lo, hi := key.Range64(key.KindResult, w.session)
		w.mem.Scan(lo, hi, func(_, _ []byte) bool { n++; return true })
		return n
	}
	for seq := uint64(2); seq < 500; seq++ {
		if _, err := w.change(seq, seq, &wire.SetAttr{Inode: w.root, Valid: wire.SetMtimeNow}); err != nil {
			t.Fatal(err)
		}
		if n := results(); n > session.FloorStep {
			t.Fatalf("%d results kept of a session that waits for one", n)
		}
	}
	for _, c := range []struct{ seq, lowest uint64 }{{3, 499}, {3, 3}, {3, 1}} {
		if _, err := w.change(c.seq, c.lowest, w.file("late")); !errors.Is(err, ashlar.OutcomeUnknown) {
			t.Errorf("seq %d, lowest %d: %v", c.seq, c.lowest, err)
		}
	}
	if w.at("/late") != w.at("/nothing") {
		t.Error("a late request was applied")
	}
}

func TestUnansweredOperationsOfASessionAreBounded(t *testing.T) {
	w := newWorld(t)
	last := uint64(1 + ashlar.SessionWindow)
	if _, err := w.change(last, 2, w.file("last")); err != nil {
		t.Errorf("the last of the window: %v", err)
	}
	if _, err := w.change(last+1, 2, w.file("beyond")); !errors.Is(err, ashlar.Overloaded) {
		t.Errorf("beyond the window: %v", err)
	}
	if _, err := w.change(2+ashlar.SessionWindow, 0, w.file("beyond")); !errors.Is(err, ashlar.Overloaded) {
		t.Errorf("beyond the window, lowest not told: %v", err)
	}
	if _, err := w.change(0, 0, w.file("none")); !errors.Is(err, ashlar.Invalid) {
		t.Errorf("no sequence: %v", err)
	}
}

func TestOperationsGivenUpDoNotFillTheWindow(t *testing.T) {
	w := newWorld(t)
	if _, err := w.change(5000, 5000, w.file("a")); err != nil {
		t.Error(err)
	}
	if n := len(w.state("result")); n == 0 {
		t.Error("the result was not kept")
	}
	if _, err := w.change(1, 1, w.file("b")); !errors.Is(err, ashlar.OutcomeUnknown) {
		t.Errorf("an older one: %v", err)
	}
}

// I-7: a session that is lost changes and reads nothing more.
func TestLostSessionCannotOperate(t *testing.T) {
	for name, end := range map[string]func(w *world) error{
		"lost":   func(w *world) error { _, err := session.Lose(&w.mem, w.session, 0); return err },
		"closed": func(w *world) error { return session.Close(&w.mem, w.session) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := end(w); err != nil {
				t.Fatal(err)
			}
			w.mem.Commit()
			if _, err := w.do(w.file("a")); !errors.Is(err, ashlar.NoSession) {
				t.Errorf("change: %v", err)
			}
			if _, err := w.do(&wire.GetAttr{Inode: w.root}); !errors.Is(err, ashlar.NoSession) {
				t.Errorf("read: %v", err)
			}
			if _, err := w.change(1, 1, &wire.SetVolume{Name: "main"}); !errors.Is(err, ashlar.NoSession) {
				t.Errorf("retry: %v", err)
			}
		})
	}
}

func TestOtherOperationsAreTheClustersAndExactlyOnceToo(t *testing.T) {
	w := newWorld(t)
	calls := 0
	w.env.Cluster = func(tx meta.Tx, now int64, body wire.Message) (wire.Message, string, error) {
		calls++
		if _, ok := body.(*wire.DeletePool); ok {
			return nil, "", ashlar.E("delete pool", ashlar.Busy, "", errors.New("in use"))
		}
		key.StoreMark(tx, key.Placement(1))
		return &wire.Empty{}, "set pool", nil
	}
	for range 2 {
		if _, err := w.change(2, 2, &wire.SetPool{Name: "p"}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.change(3, 2, &wire.DeletePool{Name: "p"}); !errors.Is(err, ashlar.Busy) || err.Error() != "delete pool: busy: in use" {
			t.Fatal(err)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls for two operations", calls)
	}
	w.env.Cluster = nil
	if _, err := w.do(&wire.GetGroups{}); !errors.Is(err, ashlar.Unsupported) {
		t.Errorf("with nobody to ask: %v", err)
	}
}

func TestDamagedRecordIsAnErrorThatNamesItsKey(t *testing.T) {
	w := newWorld(t)
	w.mem.Set(key.Inode(w.root), []byte{99})
	w.mem.Commit()
	_, err := w.do(&wire.GetAttr{Inode: w.root})
	if !errors.Is(err, ashlar.Corrupt) || err.Error() != "read metadata 1/inode/1: corrupt: decode: corrupt: record version 99, know 1 to 2" {
		t.Error(err)
	}
}

func TestClusterIsInitialisedOnce(t *testing.T) {
	var m metatest.Mem
	if c, err := meta.LoadCluster(&m); c != nil || err != nil {
		t.Fatalf("an empty store has %v, %v", c, err)
	}
	want := &meta.Cluster{ID: ashlar.ClusterID{7}, History: 3, Created: 12}
	meta.InitCluster(&m, want)
	meta.InitCluster(&m, &meta.Cluster{History: 9})
	got, err := meta.LoadCluster(&m)
	if err != nil || *got != *want {
		t.Errorf("%+v, %v", got, err)
	}
	if now, err := meta.Time(&m); now != 12 || err != nil {
		t.Errorf("time %d, %v", now, err)
	}
}

func FuzzCluster(f *testing.F) {
	f.Add(key.Encode(&meta.Cluster{History: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c meta.Cluster
		if key.Decode(b, &c) == nil && string(key.Encode(&c)) != string(b) {
			t.Errorf("%x reads otherwise than it writes", b)
		}
	})
}
