// Package lease is the leader's table of leases on inodes: who may answer from
// its cache and buffer writes (I-6), and what has to be recalled before an
// inode is changed or read.
//
// Leases are not in the log. A new leader learns them from the sessions'
// hellos; as long as one is awaited, nothing that an unknown lease might stand
// against is done.
//
//	holder                     table                    another session
//	  |  an answer with a lease  |                            |
//	  |<-------------------------|   change of the inode      |
//	  |  recall (WatchLeases)    |<---------------------------|
//	  |<-------------------------|   waits                    |
//	  |  drops caches, writes    |                            |
//	  |  ReturnLeases            |                            |
//	  |------------------------->|   evaluated again          |
//	  |                          |--------------------------->|
//
// The evaluator asks Blocked after an evaluation and before its writes stand,
// and Grant right after, so that no change comes between what was read and the
// lease on it. While a recall of an inode is under way, or a change waits for
// one, no lease on it is granted.
//
// It knows nothing of names and attributes, and has no clock. Table.mu is a
// leaf.
package lease

import (
	"slices"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	// TotalMax bounds the leases of all sessions, some 150 bytes each. When but a
	// part of spare is left, the session that has most is asked for some.
	TotalMax = 2 << 20
	spare    = 16
	// giveMax is how many it is asked for at a time, and at most the part
	// givePart of what it has.
	giveMax  = 1024
	givePart = 4
)

// Table is the leases of all sessions.
type Table struct {
	mu       sync.Mutex
	inodes   map[ashlar.Inode]*inode
	sessions map[ashlar.SessionID]*holder
	awaited  map[ashlar.SessionID]bool
	total    int
	changed  chan struct{} // closed and replaced when somebody waiting may go on
	perMax   int
	max      int              // TotalMax
	asked    ashlar.SessionID // who was asked last for some, to make room
}

// inode is the leases on one inode.
type inode struct {
	held    []hold
	waiting []ashlar.SessionID // of those who wait for leases on it
}

type hold struct {
	session ashlar.SessionID
	mode    ashlar.LeaseMode
	keep    ashlar.LeaseMode // while recalled
	recall  uint64           // number, 0 for none
}

// holder is what is known of one session.
type holder struct {
	inodes  map[ashlar.Inode]struct{}
	number  uint64                  // of the last recall
	recalls map[uint64]ashlar.Inode // not answered yet, by number
	news    chan struct{}           // closed and replaced at a recall
}

// New returns an empty table.
func New() *Table {
	return &Table{
		inodes: map[ashlar.Inode]*inode{}, sessions: map[ashlar.SessionID]*holder{}, awaited: map[ashlar.SessionID]bool{},
		changed: make(chan struct{}), perMax: wire.LeasesMax, max: TotalMax,
	}
}

// wake lets those look again who wait. t.mu must be held.
func (t *Table) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Await notes that a session may hold leases and has not said which.
func (t *Table) Await(s ashlar.SessionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.awaited[s] = true
}

// Told is a session's hello: it holds these leases and, beside those granted
// since, no others.
func (t *Table) Told(s ashlar.SessionID, leases []wire.HeldLease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.awaited[s] { // said before: what it names is known
		return
	}
	delete(t.awaited, s)
	for _, l := range leases {
		if l.Mode != ashlar.LeaseNone {
			t.hold(s, l.Inode, l.Mode)
		}
	}
	t.wake()
}

// End forgets a session: it has returned everything, or is fenced.
func (t *Table) End(s ashlar.SessionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.awaited, s)
	if h := t.sessions[s]; h != nil {
		for ino := range h.inodes {
			t.drop(s, ino)
		}
		close(h.news)
		delete(t.sessions, s)
	}
	t.wake()
}

// of returns a session's entry, made if needed. t.mu must be held.
func (t *Table) of(s ashlar.SessionID) *holder {
	h := t.sessions[s]
	if h == nil {
		h = &holder{inodes: map[ashlar.Inode]struct{}{}, recalls: map[uint64]ashlar.Inode{}, news: make(chan struct{})}
		t.sessions[s] = h
	}
	return h
}

// hold records a lease. t.mu must be held.
func (t *Table) hold(s ashlar.SessionID, ino ashlar.Inode, m ashlar.LeaseMode) {
	i := t.inodes[ino]
	if i == nil {
		i = &inode{}
		t.inodes[ino] = i
	}
	for k := range i.held {
		if i.held[k].session == s {
			i.held[k].mode = max(i.held[k].mode, m)
			return
		}
	}
	i.held = append(i.held, hold{session: s, mode: m})
	t.of(s).inodes[ino] = struct{}{}
	t.total++
}

// drop removes a lease. t.mu must be held.
func (t *Table) drop(s ashlar.SessionID, ino ashlar.Inode) {
	i := t.inodes[ino]
	if i == nil {
		return
	}
	h := t.sessions[s]
	for k := range i.held {
		if i.held[k].session == s {
			delete(h.recalls, i.held[k].recall)
			i.held = append(i.held[:k], i.held[k+1:]...)
			t.total--
			break
		}
	}
	if h != nil {
		delete(h.inodes, ino)
	}
	t.tidy(ino, i)
}

// wanted tells whether another session waits for leases on it.
func (i *inode) wanted(s ashlar.SessionID) bool {
	return slices.ContainsFunc(i.waiting, func(w ashlar.SessionID) bool { return w != s })
}

func (t *Table) tidy(ino ashlar.Inode, i *inode) {
	if len(i.held) == 0 && len(i.waiting) == 0 {
		delete(t.inodes, ino)
	}
}

// Blocked tells whether a session has to wait for others' leases before it
// does something that leaves them at most keep on these inodes.
func (t *Table) Blocked(s ashlar.SessionID, inos []ashlar.Inode, keep ashlar.LeaseMode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blocked(s, inos, keep)
}

func (t *Table) blocked(s ashlar.SessionID, inos []ashlar.Inode, keep ashlar.LeaseMode) bool {
	if len(inos) == 0 {
		return false
	}
	if n := len(t.awaited); n > 1 || n == 1 && !t.awaited[s] {
		return true
	}
	for _, ino := range inos {
		i := t.inodes[ino]
		if i == nil {
			continue
		}
		for k := range i.held {
			if i.held[k].session != s && i.held[k].mode > keep {
				return true
			}
		}
	}
	return false
}

// Wait is somebody who waits for leases.
type Wait struct {
	t    *Table
	s    ashlar.SessionID
	inos []ashlar.Inode
	keep ashlar.LeaseMode
}

// Recall asks for the leases that Blocked tells of. Until End no lease is
// granted on these inodes that would stand in the way again.
func (t *Table) Recall(s ashlar.SessionID, inos []ashlar.Inode, keep ashlar.LeaseMode) *Wait {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := &Wait{t: t, s: s, inos: append([]ashlar.Inode(nil), inos...), keep: keep}
	for _, ino := range w.inos {
		i := t.inodes[ino]
		if i == nil {
			i = &inode{}
			t.inodes[ino] = i
		}
		i.waiting = append(i.waiting, s)
		t.recall(w, ino, i)
	}
	return w
}

// recall numbers the recalls of one inode. t.mu must be held.
func (t *Table) recall(w *Wait, ino ashlar.Inode, i *inode) {
	for k := range i.held {
		h := &i.held[k]
		if h.session == w.s || h.mode <= w.keep || h.recall != 0 && h.keep <= w.keep {
			continue
		}
		t.ask(h, ino, w.keep)
	}
}

// ask numbers one recall. t.mu must be held.
func (t *Table) ask(h *hold, ino ashlar.Inode, keep ashlar.LeaseMode) {
	o := t.of(h.session)
	delete(o.recalls, h.recall)
	o.number++
	h.recall, h.keep = o.number, keep
	o.recalls[o.number] = ino
	close(o.news)
	o.news = make(chan struct{})
}

// room tells whether a session may have one more lease, and sees to it that
// there is room for the next. t.mu must be held.
func (t *Table) room(s ashlar.SessionID) bool {
	if t.total >= t.max-t.max/spare {
		t.makeRoom()
	}
	return t.total < t.max && len(t.of(s).inodes) < t.perMax
}

// makeRoom asks the session that has most leases for some of them, unless one
// that was asked has not given most of them yet. t.mu must be held.
func (t *Table) makeRoom() {
	if h := t.sessions[t.asked]; h != nil && len(h.recalls) >= min(giveMax, len(h.inodes)/givePart)/2+1 {
		return
	}
	var most *holder
	for s, h := range t.sessions {
		if most == nil || len(h.inodes) > len(most.inodes) {
			most, t.asked = h, s
		}
	}
	if most == nil {
		return
	}
	n := min(giveMax, len(most.inodes)/givePart) + 1
	for ino := range most.inodes { // any: it asks for what it needs again
		if len(most.recalls) >= n {
			return
		}
		i := t.inodes[ino]
		for k := range i.held {
			if h := &i.held[k]; h.session == t.asked && h.recall == 0 {
				t.ask(h, ino, ashlar.LeaseNone)
			}
		}
	}
}

// Free tells whether nothing is waited for any more, and returns a channel
// that is closed when that may have changed.
func (w *Wait) Free() (bool, <-chan struct{}) {
	t := w.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.blocked(w.s, w.inos, w.keep) {
		return true, nil
	}
	for _, ino := range w.inos { // told of by a hello since, perhaps
		if i := t.inodes[ino]; i != nil {
			t.recall(w, ino, i)
		}
	}
	return false, t.changed
}

// End ends the wait.
func (w *Wait) End() {
	t := w.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ino := range w.inos {
		if i := t.inodes[ino]; i != nil {
			k := slices.Index(i.waiting, w.s)
			i.waiting = slices.Delete(i.waiting, k, k+1)
			t.tidy(ino, i)
		}
	}
	t.wake()
}

// Grant gives a session a lease if it can be had now, and returns what it has:
// perhaps less than is asked for.
func (t *Table) Grant(s ashlar.SessionID, ino ashlar.Inode, m ashlar.LeaseMode) ashlar.LeaseMode {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.awaited[s] {
		return ashlar.LeaseNone
	}
	have := ashlar.LeaseNone
	if i := t.inodes[ino]; i != nil {
		for k := range i.held {
			h := &i.held[k]
			switch {
			case h.session == s && h.recall != 0:
				return ashlar.LeaseNone
			case h.session == s:
				have = h.mode
			case h.mode == ashlar.LeaseExclusive:
				return ashlar.LeaseNone
			default:
				m = min(m, ashlar.LeaseShared)
			}
		}
		if i.wanted(s) {
			return have
		}
	}
	if m <= have {
		return have
	}
	if have == ashlar.LeaseNone && !t.room(s) {
		return ashlar.LeaseNone
	}
	if len(t.awaited) > 0 { // somebody may hold it
		return have
	}
	t.hold(s, ino, m)
	return m
}

// Busy tells whether Grant says no because a change is under way, and returns a
// channel that is closed when that may be over.
func (t *Table) Busy(s ashlar.SessionID, ino ashlar.Inode) (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	busy := len(t.awaited) > 0
	if i := t.inodes[ino]; i != nil {
		busy = busy || i.wanted(s)
		for k := range i.held {
			busy = busy || i.held[k].session == s && i.held[k].recall != 0
		}
	}
	return busy, t.changed
}

// Return records what a session keeps of leases.
func (t *Table) Return(s ashlar.SessionID, leases []wire.HeldLease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range leases {
		i := t.inodes[l.Inode]
		if i == nil {
			continue
		}
		if l.Mode == ashlar.LeaseNone {
			t.drop(s, l.Inode)
			continue
		}
		for k := range i.held {
			h := &i.held[k]
			if h.session != s {
				continue
			}
			h.mode = min(h.mode, l.Mode)
			if h.recall != 0 && h.mode <= h.keep {
				delete(t.of(s).recalls, h.recall)
				h.recall = 0
			}
		}
	}
	t.wake()
}

// Holds tells whether any session has a lease on an inode, and so perhaps has
// it open.
func (t *Table) Holds(ino ashlar.Inode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.inodes[ino]
	return len(t.awaited) > 0 || i != nil && len(i.held) > 0
}

// HeldElsewhere is Holds for sessions other than by.
func (t *Table) HeldElsewhere(ino ashlar.Inode, by ashlar.SessionID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.awaited) > 0 {
		return true
	}
	if i := t.inodes[ino]; i != nil {
		for k := range i.held {
			if i.held[k].session != by {
				return true
			}
		}
	}
	return false
}

// Count is how many leases a session has.
func (t *Table) Count(s ashlar.SessionID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.sessions[s]; h != nil {
		return len(h.inodes)
	}
	return 0
}

// Recalls returns the recalls of a session numbered above after, and a channel
// that is closed when there are more.
func (t *Table) Recalls(s ashlar.SessionID, after uint64) ([]wire.Recall, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.of(s)
	var numbers []uint64
	for n := range h.recalls {
		if n > after {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	numbers = numbers[:min(len(numbers), wire.RecallsMax)]
	out := make([]wire.Recall, 0, len(numbers))
	for _, n := range numbers {
		ino := h.recalls[n]
		for _, x := range t.inodes[ino].held {
			if x.session == s {
				out = append(out, wire.Recall{Number: n, Inode: ino, Keep: x.keep})
			}
		}
	}
	return out, h.news
}
