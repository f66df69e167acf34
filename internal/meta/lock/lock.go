// Package lock is the masters' lock manager: who has locked what, who waits,
// and who is next. Locks that are held are in the state, so they survive every
// master, and belong to a session. Who waits is in a Queue, which the leader
// keeps in memory and gives to every evaluation; after a change of leader
// clients ask again.
//
// It is pure, like all of meta: an evaluation reads the state and the queue,
// writes keys, and notes in the queue what is to become of waiters once the
// writes are sure to be proposed (Queue.Settle) or are taken back
// (Queue.Discard).
//
// Locks of files are of three classes, with the rules of Linux: POSIX locks and
// those of open file descriptions meet each other, flock only its own; an owner
// never meets itself; what an owner sets replaces what it had of the range.
//
// Named locks stand for whatever their users agree on, and have the modes of
// the classic distributed lock managers, conversion, a value block, and word to
// the holder that somebody waits.
//
// Local invariants:
//
//	L-1  Of any two locks of an inode that overlap, of different owners and not
//	     one of them flock and the other not, both are shared.
//	L-2  The ranges of one owner do not overlap, are in order, and two that
//	     touch differ in type or process.
//	L-3  A session holds a lock of an inode exactly if its Locker key is there.
//	L-4  A waiter is granted its lock only while its session is open and its
//	     request has neither been withdrawn nor answered.
//	L-5  Any two modes in which a name is held by different holders are
//	     compatible; a session holds a name exactly if its Namer key is there.
package lock

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits.
const (
	// RangesMax is the most ranges that one owner holds of an inode.
	RangesMax = 4096
	// HoldersMax is the most owners that hold locks of one inode.
	HoldersMax = 16384
	// WaitersMax is the most waiters for one inode or name.
	WaitersMax = 4096
	// SessionWaitersMax is the most waiters of one session: each occupies a
	// place of its connection.
	SessionWaitersMax = 512
	// visitsMax is how many owners a search for a deadlock looks at.
	visitsMax = 1024
)

// Env is what an evaluation knows beyond the state.
type Env struct {
	Now int64 // operation time
	// Queue is who waits; nil for a read, which then sees nobody wait.
	Queue *Queue
	// Live tells whether a session is open.
	Live func(ashlar.SessionID) bool
}

// Call is one operation to evaluate.
type Call struct {
	Session ashlar.SessionID
	Body    wire.Message
}

type op struct {
	tx     key.Tx
	env    *Env
	note   string
	writes int // changes of locks so far
}

// Evaluate evaluates a call. handled is false, and nothing was done, for a body
// that is not the lock manager's. A reply of nil without an error says that the
// caller waits: see Queue.Settle. note is empty when nothing was changed.
//
// A reply that grants a lock lacks the file's entry, as do those of
// Queue.Granted: the caller knows it.
func Evaluate(tx key.Tx, env *Env, call *Call) (reply wire.Message, note string, handled bool, err error) {
	o := &op{tx: tx, env: env}
	switch m := call.Body.(type) {
	case *wire.SetLock:
		reply, err = o.set(call.Session, &m.Lock)
	case *wire.WaitLock:
		if reply, err = o.wait(call.Session, m); err != nil {
			env.Queue.end(WaitID{call.Session, m.ID})
		}
	case *wire.TestLock:
		reply, err = o.test(call.Session, &m.Lock)
	case *wire.SetName:
		reply, err = o.setName(call.Session, m)
	case *wire.WaitName:
		if reply, err = o.waitName(call.Session, m); err != nil {
			env.Queue.end(WaitID{call.Session, m.ID})
		}
	case *wire.WatchName:
		reply, err = o.watchName(call.Session, m)
	case *wire.ListLocks:
		reply, err = o.list(m)
	default:
		return nil, "", false, nil
	}
	if err != nil {
		return nil, "", true, err
	}
	return reply, o.note, true, nil
}

func (o *op) say(format string, args ...any) {
	if o.note != "" {
		o.note += "; "
	}
	o.note += fmt.Sprintf(format, args...)
}

// describe writes a lock for the change log.
func describe(s ashlar.SessionID, l *wire.Lock) string {
	what := fmt.Sprintf("%v %v inode %d", l.Class, l.Type, uint64(l.Inode)&(1<<(64-ashlar.PartitionBits)-1))
	if l.Class != wire.LockFlock {
		what += fmt.Sprintf(" %d-%d", l.Start, l.End)
	}
	return fmt.Sprintf("%s of session %d owner %x", what, uint64(s), l.Owner)
}
