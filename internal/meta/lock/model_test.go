package lock

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// model is what locks mean: for every byte, owner and class, a type.
type model map[modelKey]wire.LockType

type modelKey struct {
	session ashlar.SessionID
	owner   uint64
	class   wire.LockClass
	at      uint64
}

const modelBytes = 12

func (m model) free(s ashlar.SessionID, l *wire.Lock) bool {
	if l.Type == wire.Unlocked {
		return true
	}
	for k, t := range m {
		mine := k.session == s && k.owner == l.Owner && k.class == l.Class
		apart := (k.class == wire.LockFlock) != (l.Class == wire.LockFlock)
		if t != 0 && !mine && !apart && k.at >= l.Start && k.at <= l.End && (t == wire.Exclusive || l.Type == wire.Exclusive) {
			return false
		}
	}
	return true
}

func (m model) set(s ashlar.SessionID, l *wire.Lock) {
	for at := uint64(0); at < modelBytes; at++ {
		if at >= l.Start && at <= l.End {
			m[modelKey{s, l.Owner, l.Class, at}] = l.Type
		}
	}
}

// compare says where the state differs from the model.
func (m model) compare(w *world, ino ashlar.Inode) string {
	t, err := (&op{tx: &w.mem}).load(ino)
	if err != nil {
		return err.Error()
	}
	got := model{}
	for _, h := range t.holders {
		for _, r := range h.list {
			got.set(h.session, &wire.Lock{Owner: h.owner, Class: h.class, Type: r.Type, Start: r.Start, End: r.End})
		}
	}
	for k, v := range m {
		if got[k] != v {
			return fmt.Sprintf("%+v: %v, want %v", k, got[k], v)
		}
	}
	for k, v := range got {
		if m[k] != v {
			return fmt.Sprintf("%+v: %v, want %v", k, v, m[k])
		}
	}
	return ""
}

// Locks are set, cleared, waited for and withdrawn at random by owners of three
// sessions: what is held is what a table of bytes says, nobody waits who need
// not, and nobody is left in a ring.
func TestRandomLocksAgreeWithATableOfBytes(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		w, m, ino := newWorld(), model{}, inode(1)
		waiting := map[WaitID]*wire.Lock{}
		for step := range 150 {
			s := ashlar.SessionID(1 + r.IntN(3))
			l := wire.Lock{Inode: ino, Class: wire.LockClass(1 + r.IntN(3)), Owner: 1 + r.Uint64N(2), Type: wire.LockType(r.IntN(3)), PID: uint32(s)}
			l.Start = r.Uint64N(modelBytes)
			l.End = l.Start + r.Uint64N(modelBytes-l.Start)
			if l.Class == wire.LockFlock {
				l.Start, l.End = 0, wire.LockEnd
			}
			var body wire.Message = &wire.SetLock{Lock: l}
			id := WaitID{s, uint64(step + 1)}
			switch k := r.IntN(4); {
			case k == 0 && l.Type != wire.Unlocked:
				body = &wire.WaitLock{ID: id.ID, Lock: l}
			case k == 1 && len(waiting) > 0:
				for id = range waiting { // any
					body, s = &wire.WaitLock{ID: id.ID, Cancel: true, Lock: *waiting[id]}, id.Session
					break
				}
			}
			free := m.free(s, &l)
			reply, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: s, Body: body})
			w.mem.Commit()
			_, outcomes, _ := w.queue.Settle()
			own, was := reply.(*wire.LockReply)
			switch b := body.(type) {
			case *wire.SetLock:
				if err != nil || own.Granted != free {
					t.Fatalf("seed %d step %d: %+v: %v, %v; free is %v", seed, step, l, own, err, free)
				}
				if !free && l.Class == wire.LockFlock && m[modelKey{s, l.Owner, l.Class, 0}] != l.Type {
					m.set(s, &wire.Lock{Owner: l.Owner, Class: l.Class, End: wire.LockEnd})
				}
			case *wire.WaitLock:
				if b.Cancel {
					own, was = nil, false
					break
				}
				if ashlar.KindOf(err) == ashlar.Deadlock && !free {
					break
				}
				if err != nil || was != free {
					t.Fatalf("seed %d step %d: %+v: %v, %v; free is %v", seed, step, l, own, err, free)
				}
				if !free {
					waiting[id] = &l
					if l.Class == wire.LockFlock && m[modelKey{s, l.Owner, l.Class, 0}] != l.Type {
						m.set(s, &wire.Lock{Owner: l.Owner, Class: l.Class, End: wire.LockEnd})
					}
				}
			}
			if was && own.Granted {
				m.set(s, &l)
			}
			for _, o := range outcomes {
				if waiting[o.Waiter.WaitID] == nil {
					t.Fatalf("seed %d step %d: an outcome for %+v, who does not wait", seed, step, o.Waiter)
				}
				delete(waiting, o.Waiter.WaitID)
				if ashlar.KindOf(o.Err) == ashlar.Canceled {
					continue
				}
				if o.Err == nil {
					if !m.free(o.Waiter.Session, o.Waiter.Lock) {
						t.Fatalf("seed %d step %d: granted to %+v what is not free", seed, step, o.Waiter)
					}
					m.set(o.Waiter.Session, o.Waiter.Lock)
				}
			}
			if what := m.compare(w, ino); what != "" {
				t.Fatalf("seed %d step %d: %s", seed, step, what)
			}
			if what := check(&w.mem); what != "" {
				t.Fatalf("seed %d step %d: %s", seed, step, what)
			}
			if w.queue.Len() != len(waiting) {
				t.Fatalf("seed %d step %d: %d wait, want %d", seed, step, w.queue.Len(), len(waiting))
			}
			for id, l := range waiting {
				if m.free(id.Session, l) {
					t.Fatalf("seed %d step %d: %+v waits for nothing", seed, step, id)
				}
			}
			o := &op{tx: &w.mem, env: w.env()}
			tab, _ := o.load(ino)
			for id, l := range waiting {
				if in, _ := tab.conflicts(id.Session, l); l.Class == wire.LockPOSIX && o.deadlock(owner{id.Session, l.Owner}, in) {
					t.Fatalf("seed %d step %d: %+v is in a ring", seed, step, id)
				}
			}
		}
		for s := range ashlar.SessionID(4) {
			w.ended[s] = true
			w.queue.End(s)
			for more := true; more; {
				var err error
				if more, _, err = Release(&w.mem, w.env(), s, 1); err != nil {
					t.Fatal(err)
				}
				w.mem.Commit()
				w.queue.Settle()
			}
		}
		left := 0
		for _, k := range []key.Kind{key.KindLock, key.KindLocker} {
			lo, hi := key.Range(key.VolumePartition, k)
			w.mem.Scan(lo, hi, func(_, _ []byte) bool { left++; return true })
		}
		if left > 0 {
			t.Fatalf("seed %d: %d keys are left when all sessions have ended", seed, left)
		}
	}
}

func TestLimitsOfWaitersAndRanges(t *testing.T) {
	w := newWorld()
	full := &ranges{}
	for k := range uint64(RangesMax) {
		full.List = append(full.List, Range{Start: 2 * k, End: 2 * k, Type: wire.Exclusive})
	}
	key.Store(&w.mem, key.Lock(inode(1), uint8(wire.LockPOSIX), 1, 1), full)
	key.StoreMark(&w.mem, key.Locker(1, inode(1)))
	l := wire.Lock{Inode: inode(1), Class: wire.LockPOSIX, Owner: 1, Type: wire.Exclusive, Start: 2 * RangesMax, End: 2 * RangesMax}
	if _, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 1, Body: &wire.SetLock{Lock: l}}); ashlar.KindOf(err) != ashlar.NoLocks {
		t.Errorf("one range too many: %v", err)
	}
	for k := range SessionWaitersMax + 1 {
		l := wire.Lock{Inode: inode(1), Class: wire.LockOFD, Owner: uint64(k), Type: wire.Shared, End: 0}
		reply, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 2, Body: &wire.WaitLock{ID: uint64(k + 1), Lock: l}})
		w.mem.Commit()
		w.queue.Settle()
		if reply != nil || (k < SessionWaitersMax) != (err == nil) || err != nil && ashlar.KindOf(err) != ashlar.NoLocks {
			t.Fatalf("waiter %d: %v, %v", k, reply, err)
		}
	}
}

// FuzzRecord feeds arbitrary values to the record: one that is accepted encodes
// to what was read.
func FuzzRecord(f *testing.F) {
	f.Add(key.Encode(&ranges{[]Range{{Start: 1, End: 2, Type: wire.Shared}, {Start: 3, End: 3, Type: wire.Exclusive, PID: 4, Since: 5}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(ranges)
		if key.Decode(b, r) == nil && string(key.Encode(r)) != string(b) {
			t.Errorf("read %x, wrote %x", b, key.Encode(r))
		}
	})
}
