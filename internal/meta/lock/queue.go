package lock

import (
	"cmp"
	"errors"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// doneMax is how many answered or withdrawn requests of a session are
// remembered one by one.
const doneMax = 2048

// WaitID names a waiting request.
type WaitID struct {
	Session ashlar.SessionID
	ID      uint64
}

// Waiter is a request that waits.
type Waiter struct {
	WaitID
	Lock  *wire.Lock    // of a file,
	Name  *wire.SetName // or of a name
	Since int64         // operation time since when
}

// owner is who may be in a deadlock: owners of POSIX locks.
type owner struct {
	session ashlar.SessionID
	owner   uint64
}

// Outcome is what became of a waiter.
type Outcome struct {
	Waiter    *Waiter
	Reply     *wire.LockReply // of a file's lock that is granted,
	NameReply *wire.NameReply // or a named one
	Err       error           // if it is refused or withdrawn
}

// Notice tells a holder of a named lock that it keeps somebody waiting, or with
// Held NoLock that it holds it no more.
type Notice struct {
	Session ashlar.SessionID
	Name    string
	Holder  uint64
	Held    wire.LockMode
	Wanted  wire.LockMode
}

// Queue is who waits, in order of asking: the leader's memory, not in the
// state. An evaluation only notes what is to change; Settle carries it out and
// Discard forgets it. It must not be used by two at a time.
type Queue struct {
	all     map[WaitID]*Waiter
	inodes  map[ashlar.Inode][]*Waiter
	names   map[string][]*Waiter
	owners  map[owner][]*Waiter
	waiting map[ashlar.SessionID]int
	done    map[ashlar.SessionID]*done

	parked   *Waiter
	outcomes []Outcome
	finished []WaitID
	notices  []Notice

	left []string // names that somebody has ceased to wait for without an evaluation
}

// done is which requests of a session have been answered or withdrawn: a late
// copy of one of them is not taken (L-4).
type done struct {
	ids   map[uint64]bool
	order []uint64
	floor uint64 // the highest that was forgotten
}

// NewQueue returns a queue without waiters.
func NewQueue() *Queue {
	return &Queue{
		all: map[WaitID]*Waiter{}, inodes: map[ashlar.Inode][]*Waiter{}, owners: map[owner][]*Waiter{},
		names: map[string][]*Waiter{}, waiting: map[ashlar.SessionID]int{}, done: map[ashlar.SessionID]*done{},
	}
}

// Granted returns what the present evaluation grants or refuses to waiters. The
// caller may complete the replies before Settle.
func (q *Queue) Granted() []Outcome {
	if q == nil {
		return nil
	}
	return q.outcomes
}

// Settle carries out what the evaluation before it noted. It returns the
// waiter that was added, nil if none was, what became of others, and what
// holders of named locks are to be told.
func (q *Queue) Settle() (parked *Waiter, outcomes []Outcome, notices []Notice) {
	for i := range q.outcomes {
		q.remove(q.outcomes[i].Waiter.WaitID)
		q.finish(q.outcomes[i].Waiter.WaitID)
	}
	for _, id := range q.finished {
		q.remove(id)
		q.finish(id)
	}
	if parked, outcomes, notices = q.parked, q.outcomes, q.notices; parked != nil {
		q.add(parked)
	}
	q.Discard()
	return parked, outcomes, notices
}

// Discard forgets what the evaluation before it noted.
func (q *Queue) Discard() { q.parked, q.outcomes, q.finished, q.notices = nil, nil, nil, nil }

// Remove takes a waiter out: nobody waits for its answer any more. It may be
// asked again. Regrant follows, for those who waited behind it.
func (q *Queue) Remove(id WaitID) {
	if w := q.all[id]; w != nil && w.Name != nil {
		q.left = append(q.left, w.Name.Name)
	}
	q.remove(id)
}

func (q *Queue) remove(id WaitID) {
	w := q.all[id]
	if w == nil {
		return
	}
	delete(q.all, id)
	if q.waiting[id.Session]--; q.waiting[id.Session] == 0 {
		delete(q.waiting, id.Session)
	}
	if w.Name != nil {
		drop(q.names, w.Name.Name, w)
	}
	if w.Lock != nil {
		drop(q.inodes, w.Lock.Inode, w)
		if w.Lock.Class == wire.LockPOSIX {
			drop(q.owners, owner{id.Session, w.Lock.Owner}, w)
		}
	}
}

// Reopen takes back that a request was answered: the answer's batch was lost.
func (q *Queue) Reopen(id WaitID) {
	if d := q.done[id.Session]; d != nil {
		delete(d.ids, id.ID)
	}
}

// End removes all waiters of a session, and returns them. Regrant follows.
func (q *Queue) End(s ashlar.SessionID) []WaitID {
	var out []WaitID
	for id := range q.all {
		if id.Session == s {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b WaitID) int { return cmp.Compare(a.ID, b.ID) })
	for _, id := range out {
		q.Remove(id)
	}
	delete(q.done, s)
	return out
}

// Len returns how many wait.
func (q *Queue) Len() int { return len(q.all) }

// OfInode returns who waits for locks of an inode, in order.
func (q *Queue) OfInode(ino ashlar.Inode) []*Waiter {
	if q == nil {
		return nil
	}
	return q.inodes[ino]
}

// OfName returns who waits for a named lock, in order.
func (q *Queue) OfName(name string) []*Waiter {
	if q == nil {
		return nil
	}
	return q.names[name]
}

// add puts a waiter at the end, or in the place of the same request made
// before.
func (q *Queue) add(w *Waiter) {
	if old := q.all[w.WaitID]; old != nil {
		if old.same(w) {
			return
		}
		q.remove(w.WaitID)
	}
	q.all[w.WaitID] = w
	q.waiting[w.Session]++
	if w.Name != nil {
		q.names[w.Name.Name] = append(q.names[w.Name.Name], w)
		return
	}
	q.inodes[w.Lock.Inode] = append(q.inodes[w.Lock.Inode], w)
	if w.Lock.Class == wire.LockPOSIX {
		o := owner{w.Session, w.Lock.Owner}
		q.owners[o] = append(q.owners[o], w)
	}
}

// same tells whether two waiters want the same.
func (w *Waiter) same(x *Waiter) bool {
	if w.Lock != nil && x.Lock != nil {
		return *w.Lock == *x.Lock
	}
	return w.Name != nil && x.Name != nil && w.Name.Name == x.Name.Name && w.Name.Holder == x.Name.Holder && w.Name.Mode == x.Name.Mode
}

// room tells whether one more may wait.
func (q *Queue) room(s ashlar.SessionID, ino ashlar.Inode) bool {
	return q.waiting[s] < SessionWaitersMax && len(q.inodes[ino]) < WaitersMax
}

func (q *Queue) roomName(s ashlar.SessionID, name string) bool {
	return q.waiting[s] < SessionWaitersMax && len(q.names[name]) < WaitersMax
}

// withdraw notes that a request is not to be granted any more.
func (q *Queue) withdraw(id WaitID) {
	if w := q.all[id]; w != nil {
		q.outcomes = append(q.outcomes, Outcome{Waiter: w, Err: ashlar.E("lock", ashlar.Canceled, "", errors.New("the request was withdrawn"))})
		return
	}
	q.finished = append(q.finished, id)
}

// over refuses a request that was answered or withdrawn before. One so old that
// this is not known any more may be asked again under another number: its
// connection may have been lost while it waited for long.
func (q *Queue) over(id WaitID, of string) error {
	switch d := q.done[id.Session]; {
	case d == nil:
		return nil
	case d.ids[id.ID]:
		return ashlar.E("lock", ashlar.Canceled, of, errors.New("the request was withdrawn"))
	case id.ID <= d.floor && q.all[id] == nil:
		return ashlar.E("lock", ashlar.OutcomeUnknown, of, errors.New("it is not known any more whether the request was withdrawn"))
	}
	return nil
}

// ended tells whether an outcome of a waiter is noted already.
func (q *Queue) ended(w *Waiter) bool {
	for i := range q.outcomes {
		if q.outcomes[i].Waiter == w {
			return true
		}
	}
	return false
}

// end notes that a request is refused.
func (q *Queue) end(id WaitID) { q.parked, q.finished = nil, append(q.finished, id) }

func (q *Queue) finish(id WaitID) {
	d := q.done[id.Session]
	if d == nil {
		d = &done{ids: map[uint64]bool{}}
		q.done[id.Session] = d
	}
	if d.ids[id.ID] {
		return
	}
	d.ids[id.ID] = true
	if d.order = append(d.order, id.ID); len(d.order) > doneMax {
		delete(d.ids, d.order[0])
		d.floor = max(d.floor, d.order[0])
		d.order = d.order[1:]
	}
}

func drop[K comparable](m map[K][]*Waiter, k K, w *Waiter) {
	list := m[k]
	for i := range list {
		if list[i] == w {
			list = append(list[:i:i], list[i+1:]...) // others may be walking the old one
			break
		}
	}
	if len(list) == 0 {
		delete(m, k)
	} else {
		m[k] = list
	}
}
