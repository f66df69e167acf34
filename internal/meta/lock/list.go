package lock

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// PageMax is the most locks in one page of a list.
const PageMax = 1000

// A list is made in three parts: named locks, locks of files, who waits. Where
// the next page begins is the part, then what it is in order of:
//
//	1, index of the holder u32, name
//	2, index of the range u32, key
//	3, session u64, id u64
const (
	partNames   = 1
	partFiles   = 2
	partWaiters = 3
)

// list evaluates wire.ListLocks. Paths and clients are the caller's to add.
func (o *op) list(m *wire.ListLocks) (wire.Message, error) {
	p := &page{max: int(min(max(m.Limit, 1), PageMax)), r: &wire.ListLocksReply{}}
	part, after := byte(partNames), m.After
	if len(after) > 0 {
		part, after = after[0], after[1:]
	}
	if part < partNames || part > partWaiters || len(m.After) > 0 && len(after) < 4 {
		return nil, ashlar.E("list locks", ashlar.Invalid, "", errors.New("no such page"))
	}
	for _, f := range []func(*page, []byte) error{o.listNames, o.listFiles, o.listWaiters}[part-1:] {
		if err := f(p, after); err != nil {
			return nil, err
		}
		if p.r.Next != nil {
			break
		}
		after = nil
	}
	return p.r, nil
}

type page struct {
	max int
	r   *wire.ListLocksReply
}

// add adds a lock, or notes that it is the first of the next page.
func (p *page) add(s *wire.LockStatus, next func() []byte) (more bool) {
	if len(p.r.Locks) == p.max {
		p.r.Next = next()
		return false
	}
	p.r.Locks = append(p.r.Locks, *s)
	return true
}

// resume splits where a page begins into the index and the key there.
func resume(after []byte) (index int, from []byte) {
	if len(after) < 4 {
		return 0, nil
	}
	return int(binary.BigEndian.Uint32(after)), after[4:]
}

func next(part byte, index int, from []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{part}, uint32(index)), from...)
}

func (o *op) listNames(p *page, after []byte) error {
	first, from := resume(after)
	lo, hi := key.Range(0, key.KindName)
	if from != nil {
		lo = key.Name(string(from))
	}
	var failed error
	o.tx.Scan(lo, hi, func(k, v []byte) bool {
		var r resource
		if failed = key.Decode(v, &r); failed != nil {
			failed = ashlar.E("list locks", ashlar.Corrupt, key.String(k), failed)
			return false
		}
		of := string(key.Tail(k))
		for i, h := range r.Namers {
			if i < first && of == string(from) {
				continue
			}
			s := wire.LockStatus{Name: of, Mode: h.Mode, Value: r.Value, Valid: r.Valid, Session: h.Session, Holder: h.Holder, Since: h.Since}
			if !p.add(&s, func() []byte { return next(partNames, i, []byte(of)) }) {
				return false
			}
		}
		return true
	})
	return failed
}

func (o *op) listFiles(p *page, after []byte) error {
	first, from := resume(after)
	lo, hi := key.Range(key.VolumePartition, key.KindLock)
	if from != nil {
		if bytes.Compare(from, lo) < 0 || bytes.Compare(from, hi) >= 0 {
			return ashlar.E("list locks", ashlar.Invalid, "", errors.New("no such page"))
		}
		lo = from
	}
	var failed error
	o.tx.Scan(lo, hi, func(k, v []byte) bool {
		var r ranges
		if failed = key.Decode(v, &r); failed != nil {
			failed = ashlar.E("list locks", ashlar.Corrupt, key.String(k), failed)
			return false
		}
		ino := ashlar.Inode(key.Tail64(k, 0))
		class, s, own := key.LockParts(k)
		for i, e := range r.List {
			if i < first && bytes.Equal(k, from) {
				continue
			}
			st := wire.LockStatus{Session: s, Since: e.Since, Lock: wire.Lock{
				Inode: ino, Class: wire.LockClass(class), Type: e.Type, Owner: own, Start: e.Start, End: e.End, PID: e.PID,
			}}
			if !p.add(&st, func() []byte { return next(partFiles, i, k) }) {
				return false
			}
		}
		return true
	})
	return failed
}

func (o *op) listWaiters(p *page, after []byte) error {
	if o.env.Queue == nil {
		return nil
	}
	var from WaitID
	if len(after) >= 16 {
		from = WaitID{ashlar.SessionID(binary.BigEndian.Uint64(after)), binary.BigEndian.Uint64(after[8:])}
	}
	for _, w := range o.env.Queue.sorted() {
		if order(w.WaitID, from) < 0 {
			continue
		}
		s := wire.LockStatus{Waiting: true, Session: w.Session, Since: w.Since}
		if w.Name != nil {
			s.Name, s.Mode, s.Holder = w.Name.Name, w.Name.Mode, w.Name.Holder
		} else {
			s.Lock = *w.Lock
		}
		more := p.add(&s, func() []byte {
			b := binary.BigEndian.AppendUint64([]byte{partWaiters}, uint64(w.Session))
			return binary.BigEndian.AppendUint64(b, w.ID)
		})
		if !more {
			return nil
		}
	}
	return nil
}

func order(a, b WaitID) int {
	return cmp.Or(cmp.Compare(a.Session, b.Session), cmp.Compare(a.ID, b.ID))
}

// sorted returns all waiters in order of session and id.
func (q *Queue) sorted() []*Waiter {
	out := make([]*Waiter, 0, len(q.all))
	for _, w := range q.all {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *Waiter) int { return order(a.WaitID, b.WaitID) })
	return out
}
