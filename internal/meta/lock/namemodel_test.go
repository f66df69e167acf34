package lock

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A named lock is held, converted, waited for, withdrawn and lost at random: no
// two hold it who may not, nobody waits who need not, and no two wait for each
// other to convert.
func TestRandomNamedLocksAreFairAndCompatible(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWorld()
		waiting := map[WaitID]wire.SetName{}
		for step := range 120 {
			s := ashlar.SessionID(1 + r.IntN(4))
			want := wire.SetName{Name: "n", Holder: 1 + r.Uint64N(2), Mode: wire.LockMode(r.IntN(7))}
			id := WaitID{s, uint64(step + 1)}
			var body wire.Message = &want
			switch k := r.IntN(4); {
			case k < 2 && want.Mode != wire.NoLock:
				body = &wire.WaitName{ID: id.ID, Want: want}
			case k == 2 && len(waiting) > 0:
				id = w.queue.sorted()[r.IntN(len(waiting))].WaitID
				body, s = &wire.WaitName{ID: id.ID, Cancel: true, Want: waiting[id]}, id.Session
			case k == 3 && r.IntN(4) == 0:
				for _, x := range w.queue.End(s) {
					delete(waiting, x)
				}
				if _, _, err := Release(&w.mem, w.env(), s, 100); err != nil {
					t.Fatal(err)
				}
				w.mem.Commit()
				_, outcomes, _ := w.queue.Settle()
				for _, o := range outcomes {
					delete(waiting, o.Waiter.WaitID)
				}
				if _, err := Regrant(&w.mem, w.env()); err != nil {
					t.Fatal(err)
				}
				body = nil
			}
			if body != nil {
				reply, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: s, Body: body})
				if err != nil && ashlar.KindOf(err) != ashlar.Deadlock {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				if reply == nil && err == nil {
					waiting[id] = want
				}
			}
			w.mem.Commit()
			_, outcomes, _ := w.queue.Settle()
			for _, o := range outcomes {
				delete(waiting, o.Waiter.WaitID)
			}
			if what := checkNames(&w.mem); len(what) > 0 {
				t.Fatalf("seed %d step %d: %s", seed, step, strings.Join(what, "\n"))
			}
			if w.queue.Len() != len(waiting) {
				t.Fatalf("seed %d step %d: %d wait, want %d", seed, step, w.queue.Len(), len(waiting))
			}
			o := &op{tx: &w.mem, env: w.env()}
			n, err := o.loadName("n")
			if err != nil {
				t.Fatal(err)
			}
			first := true
			for _, x := range w.queue.OfName("n") {
				converts := n.of(x.Session, x.Name.Holder) != nil
				if (converts || first) && o.free(n, x.Session, x.Name, nil) && (converts || !converting(n, w.queue)) {
					t.Fatalf("seed %d step %d: %+v waits for nothing\n%s", seed, step, x.WaitID, w.nameState("n"))
				}
				first = first && converts
			}
		}
	}
}

func converting(n *name, q *Queue) bool {
	for _, x := range q.OfName(n.name) {
		if n.of(x.Session, x.Name.Holder) != nil {
			return true
		}
	}
	return false
}

func TestModesExcludeEachOtherAsTheTableSays(t *testing.T) {
	table := []string{"++++++", "+++++-", "+++---", "++-+--", "++----", "+-----"}
	for a := wire.NL; a <= wire.EX; a++ {
		for b := wire.NL; b <= wire.EX; b++ {
			if got, want := compatible(a, b), table[a-1][b-1] == '+'; got != want {
				t.Errorf("%v beside %v: %v", a, b, got)
			}
		}
	}
	if !within(wire.PR, wire.EX) || !within(wire.CW, wire.PW) || within(wire.CW, wire.PR) || within(wire.PW, wire.PR) {
		t.Error("within")
	}
}

func TestANameIsText(t *testing.T) {
	w := newWorld()
	for name, good := range map[string]bool{"a": true, "dir/ü b": true, "": false, "a\nb": false, "\xff": false, strings.Repeat("x", 255): true} {
		_, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 1, Body: &wire.SetName{Name: name, Mode: wire.EX}})
		if (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzNameRecord feeds arbitrary values to the record of a name.
func FuzzNameRecord(f *testing.F) {
	f.Add(key.Encode(&resource{Valid: true, Value: []byte("v"), Namers: []namer{{1, 2, wire.CW, 3}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(resource)
		if key.Decode(b, r) == nil && string(key.Encode(r)) != string(b) {
			t.Errorf("read %x, wrote %x", b, key.Encode(r))
		}
	})
}

// FuzzList asks for pages that begin anywhere.
func FuzzList(f *testing.F) {
	w := newWorld()
	w.do(1, &wire.SetName{Name: "n", Mode: wire.CR})
	w.do(2, &wire.SetName{Name: "n", Mode: wire.CR})
	w.do(3, &wire.WaitName{ID: 1, Want: wire.SetName{Name: "n", Mode: wire.EX}})
	for o := range uint64(3) {
		w.do(1, &wire.SetLock{Lock: wire.Lock{Inode: inode(1), Class: wire.LockPOSIX, Type: wire.Shared, Owner: o, End: 9}})
	}
	m := &wire.ListLocks{Limit: 1}
	for {
		reply, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 1, Body: m})
		if err != nil {
			f.Fatal(err)
		}
		if m.After = reply.(*wire.ListLocksReply).Next; m.After == nil {
			break
		}
		f.Add(m.After)
	}
	f.Fuzz(func(t *testing.T, after []byte) {
		_, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 1, Body: &wire.ListLocks{After: after, Limit: 2}})
		if err != nil && ashlar.KindOf(err) != ashlar.Invalid {
			t.Error(err)
		}
	})
}
