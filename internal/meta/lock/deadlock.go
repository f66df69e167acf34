package lock

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// deadlock tells whether an owner that would wait for the given holders would,
// through whom they wait for in turn, wait for itself. As on Linux, only POSIX
// locks count: a description's locks belong to no process that could be stuck.
func (o *op) deadlock(who owner, in []*holder) bool {
	var next []owner
	seen := map[owner]bool{}
	add := func(list []*holder) {
		for _, h := range list {
			if x := (owner{h.session, h.owner}); h.class == wire.LockPOSIX && !seen[x] {
				seen[x] = true
				next = append(next, x)
			}
		}
	}
	add(in)
	for visits := 0; len(next) > 0 && visits < visitsMax; visits++ {
		x := next[0]
		next = next[1:]
		if x == who {
			return true
		}
		for _, w := range o.env.Queue.owners[x] {
			if o.env.Queue.ended(w) {
				continue
			}
			t, err := o.load(w.Lock.Inode)
			if err != nil {
				return false // it will be reported by whoever needs the record
			}
			blocking, _ := t.conflicts(w.Session, w.Lock)
			add(blocking)
		}
	}
	return false
}

// breakCycles refuses waiters of an inode that a lock just granted has put into
// a deadlock: a process of which one thread waits may be given a lock by
// another.
func (o *op) breakCycles(t *table) {
	q := o.env.Queue
	for _, w := range q.OfInode(t.ino) {
		if w.Lock.Class != wire.LockPOSIX || q.ended(w) {
			continue
		}
		in, _ := t.conflicts(w.Session, w.Lock)
		if o.deadlock(owner{w.Session, w.Lock.Owner}, in) {
			q.outcomes = append(q.outcomes, Outcome{Waiter: w, Err: ashlar.E("lock", ashlar.Deadlock, "", nil)})
		}
	}
}
