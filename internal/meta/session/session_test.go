package session_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func open(t *testing.T, tx key.Tx, r session.Request) *session.Session {
	t.Helper()
	s, _, err := session.Make(tx, 5, &r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func state(t *testing.T, tx key.Tx, id ashlar.SessionID) string {
	t.Helper()
	s, err := session.Get(tx, id)
	if err != nil {
		t.Fatal(err)
	}
	if s == nil {
		return "gone"
	}
	return s.State.String()
}

func TestARetriedOpenReturnsTheSameSession(t *testing.T) {
	var m metatest.Mem
	r := session.Request{Name: "host:/mnt", Incarnation: 7, Nonce: 1}
	a := open(t, &m, r)
	b, existed, err := session.Make(&m, 6, &r)
	if err != nil || !existed || *a != *b {
		t.Errorf("%+v, then %+v, %v", a, b, err)
	}
	r.Nonce = 2
	if c := open(t, &m, r); c.ID == a.ID {
		t.Error("another open got the same session")
	}
	r.Nonce, r.Incarnation = 1, 8
	if c := open(t, &m, r); c.ID == a.ID {
		t.Error("another incarnation got the same session")
	}
	r.Nonce, r.Node = 0, 4
	if c, d := open(t, &m, r), open(t, &m, r); c.ID == d.ID || c.Node != 4 {
		t.Error("opens without a nonce got one session")
	}
}

func TestARetriedOpenOfALostSessionMakesANewOne(t *testing.T) {
	var m metatest.Mem
	r := session.Request{Name: "x", Incarnation: 7, Nonce: 1}
	a := open(t, &m, r)
	if _, err := session.Lose(&m, a.ID, 10); err != nil {
		t.Fatal(err)
	}
	b := open(t, &m, r)
	if b.ID == a.ID {
		t.Fatal("a lost session came back")
	}
	_ = session.FenceDone(&m, a.ID)
	if _, err := session.Sweep(&m, 10, 100); err != nil {
		t.Fatal(err)
	}
	if c := open(t, &m, r); c.ID != b.ID {
		t.Error("sweeping the old session took the new one's nonce")
	}
}

func TestMalformedOpensAreRefused(t *testing.T) {
	var m metatest.Mem
	for _, r := range []session.Request{{Name: "x"}, {Name: string(make([]byte, 5000)), Incarnation: 1}} {
		if _, _, err := session.Make(&m, 1, &r); !errors.Is(err, ashlar.Invalid) {
			t.Errorf("%v", err)
		}
	}
}

// I-7: a fence is dropped only after the last ticket's expiry.
func TestAFenceStaysUntilAcknowledgedAndTheLastTicketIsOver(t *testing.T) {
	var m metatest.Mem
	a := open(t, &m, session.Request{Name: "a", Incarnation: 1, Nonce: 1})
	b := open(t, &m, session.Request{Name: "b", Incarnation: 2})
	rev, err := session.Lose(&m, a.ID, 100)
	if err != nil || rev != 1 {
		t.Fatal(rev, err)
	}
	if again, _ := session.Lose(&m, a.ID, 900); again != rev {
		t.Errorf("lost twice: fences %d and %d", rev, again)
	}
	if rev, _ := session.Lose(&m, b.ID, 50); rev != 2 {
		t.Errorf("second fence has revision %d", rev)
	}
	check := func(now int64, wantA, wantB, fences, unfenced string) {
		t.Helper()
		if _, err := session.Sweep(&m, now, 100); err != nil {
			t.Fatal(err)
		}
		all, _ := session.Fences(&m)
		not, _ := session.Unfenced(&m)
		got := fmt.Sprint(state(t, &m, a.ID), " ", state(t, &m, b.ID), " ", all, " ", not)
		if want := wantA + " " + wantB + " " + fences + " " + unfenced; got != want {
			t.Errorf("at %d: %s, want %s", now, got, want)
		}
	}
	check(1000, "lost", "lost", "[{1 1} {2 2}]", "[{1 1} {2 2}]")
	if err := session.FenceDone(&m, a.ID); err != nil {
		t.Fatal(err)
	}
	check(99, "fenced", "lost", "[{1 1} {2 2}]", "[{2 2}]")
	check(100, "gone", "lost", "[{2 2}]", "[{2 2}]")
	_ = session.FenceDone(&m, b.ID)
	check(100, "gone", "gone", "[]", "[]")
	if rev, err := session.Lose(&m, a.ID, 1); rev != 0 || err != nil {
		t.Errorf("losing what is gone: %d, %v", rev, err)
	}
	if err := session.Close(&m, a.ID); err != nil {
		t.Errorf("closing what is gone: %v", err)
	}
}

func TestAClosedSessionIsSweptInBoundedBatches(t *testing.T) {
	var m metatest.Mem
	s := open(t, &m, session.Request{Name: "a", Incarnation: 1, Nonce: 3})
	for seq := uint64(1); seq <= 100; seq++ {
		session.Keep(&m, s, seq, 1, &wire.Empty{}, nil)
	}
	if err := session.Close(&m, s.ID); err != nil {
		t.Fatal(err)
	}
	m.Commit()
	batches := 0
	for more := true; more; batches++ {
		var err error
		if more, err = session.Sweep(&m, 0, 30); err != nil {
			t.Fatal(err)
		}
		if n := len(m.Batch()); n > 34 {
			t.Errorf("a batch of %d keys", n)
		}
		m.Commit()
	}
	if batches != 4 {
		t.Errorf("%d batches", batches)
	}
	m.Scan(nil, []byte{0xff}, func(k, _ []byte) bool {
		if key.Kind(k[2]) != key.KindCounter {
			t.Errorf("left over: %s", key.String(k))
		}
		return true
	})
}

func TestOnlyOpenSessionsAreLive(t *testing.T) {
	var m metatest.Mem
	s := open(t, &m, session.Request{Name: "a", Incarnation: 1})
	if _, err := session.Live(&m, s.ID); err != nil {
		t.Error(err)
	}
	if _, err := session.Live(&m, s.ID+1); !errors.Is(err, ashlar.NoSession) {
		t.Errorf("unknown: %v", err)
	}
	_ = session.Close(&m, s.ID)
	if _, err := session.Live(&m, s.ID); !errors.Is(err, ashlar.NoSession) {
		t.Errorf("closed: %v", err)
	}
	if all, err := session.List(&m); err != nil || len(all) != 1 || all[0].ID != s.ID || all[0].State != session.Closed {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestWhatIsAResult(t *testing.T) {
	for k, want := range map[ashlar.Kind]bool{
		ashlar.Exist: true, ashlar.NotExist: true, ashlar.NoSpace: true, ashlar.WrongGeneration: true, ashlar.Stale: true,
		ashlar.NotReady: false, ashlar.NotLeader: false, ashlar.Overloaded: false, ashlar.Corrupt: false,
		ashlar.NoSession: false, ashlar.OutcomeUnknown: false, ashlar.Other: false,
	} {
		if got := session.IsResult(ashlar.E("x", k, "", nil)); got != want {
			t.Errorf("%v: %v", k, got)
		}
	}
}

func TestAFloorNeverGoesBack(t *testing.T) {
	var m metatest.Mem
	s := open(t, &m, session.Request{Name: "a", Incarnation: 1})
	session.Keep(&m, s, 500, 500, &wire.Empty{}, nil)
	session.Keep(&m, s, 501, 2, &wire.Empty{}, nil) // an older request arriving late
	s, err := session.Get(&m, s.ID)
	if err != nil || s.Floor != 500 {
		t.Errorf("floor %d, %v", s.Floor, err)
	}
}
