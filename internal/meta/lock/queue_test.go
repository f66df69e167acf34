package lock

import (
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A request that has waited for so long that thousands of others of its session
// were granted meanwhile, and whose connection is lost then, is not taken for
// one that was withdrawn: it may be asked again under a new number.
func TestALongWaitIsNotTakenForWithdrawn(t *testing.T) {
	whole := func(ino ashlar.Inode, owner uint64) wire.Lock {
		return wire.Lock{Inode: ino, Class: wire.LockOFD, Type: wire.Exclusive, Owner: owner, End: wire.LockEnd}
	}
	w := newWorld()
	name := func(holder uint64) wire.SetName { return wire.SetName{Name: "n", Holder: holder, Mode: wire.EX} }
	long := whole(1, 2)
	for what, x := range map[string]struct{ hold, wait wire.Message }{
		"file": {&wire.SetLock{Lock: whole(1, 1)}, &wire.WaitLock{ID: 1, Lock: long}},
		"name": {&wire.SetName{Name: "n", Holder: 1, Mode: wire.EX}, &wire.WaitName{ID: 2, Want: name(2)}},
	} {
		if got := w.do(1, x.hold); got != "granted\n" && got != "granted EX\n" {
			t.Fatalf("%s: %s", what, got)
		}
		if got := w.do(2, x.wait); !strings.HasPrefix(got, "waits as ") {
			t.Fatalf("%s: %s", what, got)
		}
	}
	for id := uint64(10); id < 10+doneMax+2; id++ {
		if got := w.do(2, &wire.WaitLock{ID: id, Lock: whole(2, 3)}); got != "granted\n" {
			t.Fatal(got)
		}
	}
	for _, id := range []uint64{1, 2} {
		w.queue.Remove(WaitID{2, id})
	}
	for what, x := range map[string]struct {
		old, again wire.Message
		waits      string
	}{
		"file": {&wire.WaitLock{ID: 1, Lock: long}, &wire.WaitLock{ID: 9000, Lock: long}, "waits as 9000\n"},
		"name": {&wire.WaitName{ID: 2, Want: name(2)}, &wire.WaitName{ID: 9001, Want: name(2)}, "waits as 9001\n"},
	} {
		_, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 2, Body: x.old})
		w.settle(nil, err)
		if ashlar.KindOf(err) != ashlar.OutcomeUnknown {
			t.Errorf("%s, asked again: %v", what, err)
		}
		if got := w.do(2, x.again); !strings.HasPrefix(got, x.waits) {
			t.Errorf("%s, under a new number: %s", what, got)
		}
	}
	// What was withdrawn lately is known.
	w.do(2, &wire.WaitLock{ID: 9000, Cancel: true, Lock: long})
	if _, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 2, Body: &wire.WaitLock{ID: 9000, Lock: long}}); ashlar.KindOf(err) != ashlar.Canceled {
		t.Errorf("a late copy: %v", err)
	}
}
