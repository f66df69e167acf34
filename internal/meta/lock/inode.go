package lock

import (
	"errors"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// holder is what one owner has locked of an inode.
type holder struct {
	class   wire.LockClass
	session ashlar.SessionID
	owner   uint64
	list    []Range
}

// table is all locks of an inode, in order of the keys.
type table struct {
	ino     ashlar.Inode
	holders []*holder
}

func (o *op) load(ino ashlar.Inode) (*table, error) {
	t := &table{ino: ino}
	var failed error
	lo, hi := key.Range64(key.KindLock, ino)
	o.tx.Scan(lo, hi, func(k, v []byte) bool {
		var r ranges
		if failed = key.Decode(v, &r); failed != nil {
			failed = ashlar.E("lock", ashlar.Corrupt, key.String(k), failed)
			return false
		}
		class, s, own := key.LockParts(k)
		t.holders = append(t.holders, &holder{wire.LockClass(class), s, own, r.List})
		return true
	})
	return t, failed
}

// of returns an owner's locks, nil if it has none.
func (t *table) of(s ashlar.SessionID, l *wire.Lock) *holder {
	for _, h := range t.holders {
		if h.session == s && h.class == l.Class && h.owner == l.Owner {
			return h
		}
	}
	return nil
}

// holds tells whether a session holds any lock.
func (t *table) holds(s ashlar.SessionID) bool {
	return slices.ContainsFunc(t.holders, func(h *holder) bool { return h.session == s })
}

// meet tells whether locks of two classes can be in each other's way.
func meet(a, b wire.LockClass) bool { return (a == wire.LockFlock) == (b == wire.LockFlock) }

// conflicts returns who keeps a session from getting a lock, and of each the
// first range that does.
func (t *table) conflicts(s ashlar.SessionID, l *wire.Lock) (who []*holder, what []Range) {
	if l.Type == wire.Unlocked {
		return nil, nil
	}
	for _, h := range t.holders {
		if !meet(h.class, l.Class) || h.session == s && h.class == l.Class && h.owner == l.Owner {
			continue
		}
		if r, ok := meets(h.list, l.Start, l.End, l.Type); ok {
			who, what = append(who, h), append(what, r)
		}
	}
	return who, what
}

// put lays a lock over what its owner has, and writes it.
func (o *op) put(t *table, s ashlar.SessionID, l *wire.Lock) error {
	h := t.of(s, l)
	had := t.holds(s)
	if h == nil {
		if l.Type == wire.Unlocked {
			return nil
		}
		if len(t.holders) >= HoldersMax {
			return ashlar.E("lock", ashlar.NoLocks, "", errors.New("too many owners have locked parts of the file"))
		}
		h = &holder{class: l.Class, session: s, owner: l.Owner}
		t.holders = append(t.holders, h)
	}
	list := lay(h.list, Range{Start: l.Start, End: l.End, Type: l.Type, PID: l.PID, Since: o.env.Now})
	if slices.Equal(list, h.list) {
		return nil
	}
	if len(list) > RangesMax {
		return ashlar.E("lock", ashlar.NoLocks, "", errors.New("too many ranges of one file"))
	}
	h.list = list
	o.write(t, h)
	o.writes++
	if !had && len(list) > 0 {
		key.StoreMark(o.tx, key.Locker(s, t.ino))
	}
	if l.Type == wire.Unlocked {
		o.say("unlocked %s", describe(s, l))
	} else {
		o.say("locked %s", describe(s, l))
	}
	return nil
}

// write writes an owner's record, or removes it if it is empty (L-3).
func (o *op) write(t *table, h *holder) {
	k := key.Lock(t.ino, uint8(h.class), h.session, h.owner)
	if len(h.list) > 0 {
		o.tx.Set(k, key.EncodeSize(&ranges{h.list}, 8+29*len(h.list)))
		return
	}
	o.tx.Delete(k)
	t.holders = slices.DeleteFunc(t.holders, func(x *holder) bool { return x == h })
	if !t.holds(h.session) {
		o.tx.Delete(key.Locker(h.session, t.ino))
	}
}

// try sets a lock if nothing is in the way, otherwise it returns who is. A
// flock of another type is given up first, as flock(2) has it: two that hold it
// shared and both want it exclusive would wait for each other for ever.
func (o *op) try(t *table, s ashlar.SessionID, l *wire.Lock) (in []*holder, err error) {
	before, weaker := o.writes, l.Type != wire.Exclusive
	in, _ = t.conflicts(s, l)
	if h := t.of(s, l); len(in) > 0 && l.Class == wire.LockFlock && h != nil && h.list[0].Type != l.Type {
		away := *l
		away.Type, weaker = wire.Unlocked, true
		if err := o.put(t, s, &away); err != nil {
			return nil, err
		}
	}
	if len(in) == 0 {
		if err := o.put(t, s, l); err != nil {
			return nil, err
		}
	}
	switch {
	case o.writes == before:
		return in, nil
	case weaker:
		return in, o.regrant(t)
	}
	o.breakCycles(t)
	return in, nil
}

// whole makes a flock cover the file: it has no range.
func whole(l *wire.Lock) *wire.Lock {
	if l.Class != wire.LockFlock {
		return l
	}
	w := *l
	w.Start, w.End = 0, wire.LockEnd
	return &w
}

// set evaluates wire.SetLock.
func (o *op) set(s ashlar.SessionID, l *wire.Lock) (wire.Message, error) {
	l = whole(l)
	t, err := o.load(l.Inode)
	if err != nil {
		return nil, err
	}
	in, err := o.try(t, s, l)
	if err != nil {
		return nil, err
	}
	return &wire.LockReply{Granted: len(in) == 0}, nil
}

// wait evaluates wire.WaitLock. A reply of nil: it waits.
func (o *op) wait(s ashlar.SessionID, m *wire.WaitLock) (wire.Message, error) {
	q, id, l := o.env.Queue, WaitID{s, m.ID}, whole(&m.Lock)
	if l.Type == wire.Unlocked {
		return nil, ashlar.E("lock", ashlar.Invalid, "", errors.New("nobody waits to unlock"))
	}
	t, err := o.load(l.Inode)
	if err != nil {
		return nil, err
	}
	h := t.of(s, l)
	held := h != nil && covers(h.list, l.Start, l.End, l.Type)
	if m.Cancel {
		q.withdraw(id)
		return &wire.LockReply{Granted: held}, nil
	}
	if err := q.over(id, ""); err != nil && !held {
		return nil, err
	}
	if in, _ := t.conflicts(s, l); len(in) > 0 {
		if l.Class == wire.LockPOSIX && o.deadlock(owner{s, l.Owner}, in) {
			return nil, ashlar.E("lock", ashlar.Deadlock, "", nil)
		}
		if q.all[id] == nil && !q.room(s, l.Inode) {
			return nil, ashlar.E("lock", ashlar.NoLocks, "", errors.New("too many wait"))
		}
		q.parked = &Waiter{WaitID: id, Lock: l, Since: o.env.Now}
	}
	if _, err = o.try(t, s, l); err != nil || q.parked != nil {
		return nil, err
	}
	q.finished = append(q.finished, id)
	return &wire.LockReply{Granted: true}, nil
}

// regrant gives waiters, in order, what nothing keeps from them any more. One
// that has to wait on holds up nobody else, as on Linux.
func (o *op) regrant(t *table) error {
	q := o.env.Queue
	for again := true; again; {
		again = false
		for _, w := range q.OfInode(t.ino) {
			if q.ended(w) {
				continue
			}
			if !o.env.Live(w.Session) { // L-4
				q.outcomes = append(q.outcomes, Outcome{Waiter: w, Err: ashlar.E("lock", ashlar.NoSession, "", nil)})
				continue
			}
			if in, _ := t.conflicts(w.Session, w.Lock); len(in) > 0 {
				continue
			}
			if err := o.put(t, w.Session, w.Lock); err != nil {
				if ashlar.KindOf(err) != ashlar.NoLocks {
					return err
				}
				q.outcomes = append(q.outcomes, Outcome{Waiter: w, Err: err})
				continue
			}
			q.outcomes = append(q.outcomes, Outcome{Waiter: w, Reply: &wire.LockReply{Granted: true}})
			again = again || w.Lock.Type == wire.Shared // it may have been exclusive before
		}
	}
	o.breakCycles(t)
	return nil
}

// test evaluates wire.TestLock.
func (o *op) test(s ashlar.SessionID, l *wire.Lock) (wire.Message, error) {
	l = whole(l)
	t, err := o.load(l.Inode)
	if err != nil {
		return nil, err
	}
	who, what := t.conflicts(s, l)
	r := &wire.TestLockReply{}
	for i, h := range who {
		if w := what[i]; !r.Found || w.Start < r.Lock.Start {
			r.Found, r.Session = true, h.session
			r.Lock = wire.Lock{Inode: t.ino, Class: h.class, Type: w.Type, Owner: h.owner, Start: w.Start, End: w.End, PID: w.PID}
		}
	}
	return r, nil
}
