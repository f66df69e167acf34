package lease

import (
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	none      = ashlar.LeaseNone
	shared    = ashlar.LeaseShared
	exclusive = ashlar.LeaseExclusive
)

func ino(n ...ashlar.Inode) []ashlar.Inode { return n }

func keeps(i ashlar.Inode, m ashlar.LeaseMode) []wire.HeldLease {
	return []wire.HeldLease{{Inode: i, Mode: m}}
}

func (t *Table) wants(tb testing.TB, s ashlar.SessionID, i ashlar.Inode, m, want ashlar.LeaseMode) {
	tb.Helper()
	if got := t.Grant(s, i, m); got != want {
		tb.Errorf("session %d asks %v of inode %d and gets %v, want %v", s, m, i, got, want)
	}
}

func TestManyMayShareAndOneMayWrite(t *testing.T) {
	tb := New()
	tb.wants(t, 1, 7, shared, shared)
	tb.wants(t, 2, 7, shared, shared)
	tb.wants(t, 2, 7, exclusive, shared) // what can be had now
	tb.wants(t, 3, 8, exclusive, exclusive)
	tb.wants(t, 1, 8, shared, none)
	tb.wants(t, 3, 8, shared, exclusive)
}

func TestAChangeWaitsForWhatOthersHold(t *testing.T) {
	tb := New()
	tb.wants(t, 1, 7, shared, shared)
	tb.wants(t, 2, 7, shared, shared)
	if tb.Blocked(2, ino(8), none) || !tb.Blocked(2, ino(8, 7), none) || tb.Blocked(2, ino(7), shared) {
		t.Fatal("blocked by the wrong leases")
	}
	w := tb.Recall(2, ino(7), none)
	got, _ := tb.Recalls(1, 0)
	if len(got) != 1 || got[0] != (wire.Recall{Number: 1, Inode: 7, Keep: none}) {
		t.Fatalf("recalled: %v", got)
	}
	if more, _ := tb.Recalls(1, 1); len(more) != 0 {
		t.Errorf("told again: %v", more)
	}
	if own, _ := tb.Recalls(2, 0); len(own) != 0 {
		t.Errorf("who waits is asked too: %v", own)
	}
	tb.wants(t, 3, 7, shared, none)   // a change is waiting
	tb.wants(t, 1, 7, shared, none)   // it is recalled
	tb.wants(t, 2, 7, shared, shared) // it has that
	free, changed := w.Free()
	if free {
		t.Fatal("free before anything was returned")
	}
	tb.Return(1, keeps(7, none))
	<-changed
	if free, _ := w.Free(); !free {
		t.Fatal("not free when all was returned")
	}
	tb.wants(t, 3, 7, shared, none) // it has not been made yet
	tb.wants(t, 2, 7, exclusive, exclusive)
	w.End()
	tb.Return(2, keeps(7, none))
	tb.wants(t, 3, 7, shared, shared)
	tb.Return(3, keeps(7, none))
	if len(tb.inodes) != 0 || tb.total != 0 {
		t.Errorf("%d inodes and %d leases are left", len(tb.inodes), tb.total)
	}
}

func TestAReaderLeavesAWriterAShare(t *testing.T) {
	tb := New()
	tb.wants(t, 1, 7, exclusive, exclusive)
	if !tb.Blocked(2, ino(7), shared) {
		t.Fatal("an exclusive lease blocks no reader")
	}
	w := tb.Recall(2, ino(7), shared)
	again := tb.Recall(3, ino(7), none) // somebody who wants more
	if got, _ := tb.Recalls(1, 0); len(got) != 1 || got[0].Keep != none || got[0].Number != 2 {
		t.Fatalf("recalled: %v", got)
	}
	tb.Return(1, keeps(7, shared)) // the answer to the first
	if free, _ := w.Free(); !free {
		t.Error("the reader waits for what it does not need")
	}
	if free, _ := again.Free(); free {
		t.Error("the writer does not wait for the share")
	}
	if got, _ := tb.Recalls(1, 0); len(got) != 1 {
		t.Errorf("the second is forgotten: %v", got)
	}
	tb.Return(1, keeps(7, none))
	if free, _ := again.Free(); !free {
		t.Error("not free")
	}
	w.End()
	again.End()
}

func TestALostSessionHoldsNothing(t *testing.T) {
	tb := New()
	tb.wants(t, 1, 7, exclusive, exclusive)
	w := tb.Recall(2, ino(7), none)
	_, changed := w.Free()
	_, news := tb.Recalls(1, 5)
	tb.End(1)
	<-changed
	<-news
	if free, _ := w.Free(); !free {
		t.Error("not free")
	}
	w.End()
}

func TestNothingIsDoneBeforeEverySessionHasSaidWhatItHolds(t *testing.T) {
	tb := New()
	tb.Await(1)
	tb.Await(2)
	tb.wants(t, 3, 7, shared, none)
	if !tb.Blocked(3, ino(7), shared) || tb.Blocked(3, nil, none) {
		t.Error("blocked by the wrong thing")
	}
	w := tb.Recall(3, ino(7), none)
	tb.Told(1, []wire.HeldLease{{Inode: 7, Mode: shared}, {Inode: 9, Mode: none}})
	if !tb.Blocked(3, ino(9), none) || tb.Blocked(2, ino(9), none) {
		t.Error("of one that is awaited only its own changes go on")
	}
	tb.Told(2, nil)
	if tb.Blocked(3, ino(9), none) || !tb.Blocked(3, ino(7), none) {
		t.Error("what was told is not what stands against changes")
	}
	w.Free()
	if got, _ := tb.Recalls(1, 0); len(got) != 1 { // it was told of after the recall
		t.Errorf("recalled: %v", got)
	}
	tb.Told(1, []wire.HeldLease{{Inode: 11, Mode: exclusive}}) // a second hello adds nothing
	if tb.Blocked(3, ino(11), none) {
		t.Error("a second hello is believed")
	}
	w.End()
}

func TestASessionHasALimit(t *testing.T) {
	tb := New()
	tb.perMax = 2
	tb.wants(t, 1, 7, shared, shared)
	tb.wants(t, 1, 8, shared, shared)
	tb.wants(t, 1, 9, shared, none)
	tb.wants(t, 1, 8, exclusive, exclusive)
	tb.wants(t, 2, 9, shared, shared)
}

// When there is no more room whoever has most is asked for some, again and again
// if need be, and nobody for all.
func TestWhoHasMostMakesRoom(t *testing.T) {
	tb := New()
	tb.max = 64
	for i := range ashlar.Inode(52) {
		tb.wants(t, 1, 100+i, shared, shared)
	}
	for i := range ashlar.Inode(8) {
		tb.wants(t, 2, 200+i, exclusive, exclusive)
	}
	if got, _ := tb.Recalls(1, 0); len(got) > 0 {
		t.Fatal("leases are recalled although there is room")
	}
	for i := ashlar.Inode(300); i < 380; i++ {
		for tries := 0; tb.Grant(3, i, shared) == none; tries++ {
			all, gave := 0, false
			for s := range ashlar.SessionID(4) {
				got, _ := tb.Recalls(s, 0)
				for _, r := range got {
					tb.Return(s, keeps(r.Inode, none))
				}
				all += len(got)
				gave = gave || len(got) > 0
			}
			if !gave || all > 52/givePart+1 || tries > 3 {
				t.Fatalf("inode %d: no room, and %d leases are recalled", i, all)
			}
		}
		if tb.total > tb.max {
			t.Fatalf("%d leases", tb.total)
		}
	}
	if n := tb.Count(2); n != 8 {
		t.Errorf("who had few has %d left", n)
	}
}

// Whatever happens, nobody has a lease beside somebody's exclusive one, and the
// table's counts are what it holds.
func TestExclusiveMeansAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tb := New()
	var waits []*Wait
	for range 20_000 {
		s, i, m := ashlar.SessionID(1+rng.IntN(4)), ashlar.Inode(1+rng.IntN(3)), ashlar.LeaseMode(rng.IntN(3))
		switch rng.IntN(6) {
		case 0, 1:
			tb.Grant(s, i, m)
		case 2:
			tb.Return(s, keeps(i, m))
		case 3:
			waits = append(waits, tb.Recall(s, ino(i), ashlar.LeaseMode(rng.IntN(2))))
		case 4:
			if len(waits) > 0 {
				waits[0].End()
				waits = waits[1:]
			}
		case 5:
			if rng.IntN(10) == 0 {
				tb.End(s)
			}
		}
		n := 0
		for i, x := range tb.inodes {
			n += len(x.held)
			for k := range x.held {
				if x.held[k].mode == exclusive && len(x.held) > 1 {
					t.Fatalf("inode %d: %+v", i, x.held)
				}
				if h := tb.sessions[x.held[k].session]; x.held[k].recall != 0 && h.recalls[x.held[k].recall] != i {
					t.Fatalf("inode %d: recall %d is not listed", i, x.held[k].recall)
				}
			}
		}
		if n != tb.total {
			t.Fatalf("%d leases, counted %d", n, tb.total)
		}
	}
}
