package meta

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/lock"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// ReleaseLocks gives up what a session that has ended held, of at most limit
// files; more tells whether something is left.
func ReleaseLocks(tx Tx, env *Env, s ashlar.SessionID, limit int) (more bool, note string, err error) {
	le := lockEnv(tx, env)
	more, note, err = lock.Release(tx, le, s, limit)
	if err == nil {
		_, err = lock.Regrant(tx, le)
	}
	if err == nil {
		err = addEntries(tx, env)
	}
	return more, note, err
}

// ListLocks lists locks and who waits for them, for whoever may ask without a
// session.
func ListLocks(tx Tx, env *Env, m *wire.ListLocks) (wire.Message, error) {
	reply, _, _, err := evaluateLock(tx, env, &wire.Operation{Body: m})
	return reply, err
}

// RegrantLocks grants what can be since somebody has ceased to wait.
func RegrantLocks(tx Tx, env *Env) (note string, err error) {
	return lock.Regrant(tx, lockEnv(tx, env))
}

func lockEnv(tx Tx, env *Env) *lock.Env {
	return &lock.Env{Now: env.Now, Queue: env.Locks, Live: func(s ashlar.SessionID) bool {
		_, err := session.Live(tx, s)
		return err == nil
	}}
}

// evaluateLock evaluates an operation of the lock manager. A file that is
// locked must be there, and whoever gets a lock is told its present state.
func evaluateLock(tx Tx, env *Env, o *wire.Operation) (reply wire.Message, note string, handled bool, err error) {
	var l *wire.Lock
	withdraws := false
	switch m := o.Body.(type) {
	case *wire.SetLock:
		l = &m.Lock
	case *wire.WaitLock:
		l, withdraws = &m.Lock, m.Cancel
	}
	if waits(o.Body) && env.Locks == nil {
		return nil, "", true, ashlar.E("lock", ashlar.NotReady, "", nil)
	}
	var entry *wire.Entry
	if l != nil && l.Type != wire.Unlocked {
		if entry, err = entryOf(tx, env, l.Inode); err != nil && !withdraws {
			return nil, "", true, err
		}
	}
	reply, note, handled, err = lock.Evaluate(tx, lockEnv(tx, env), &lock.Call{Session: o.Session, Body: o.Body})
	if !handled || err != nil {
		return nil, "", handled, err
	}
	if r, ok := reply.(*wire.LockReply); ok && r.Granted && entry != nil {
		r.Entries = []wire.Entry{*entry}
	}
	switch r := reply.(type) {
	case *wire.TestLockReply:
		r.Client = clientOf(tx, r.Session)
	case *wire.ListLocksReply:
		describeLocks(tx, r)
	}
	return reply, note, true, addEntries(tx, env)
}

// waits tells whether an operation needs the queue.
func waits(body wire.Message) bool {
	switch body.(type) {
	case *wire.WaitLock, *wire.WaitName, *wire.WatchName, *wire.ListLocks:
		return true
	}
	return false
}

// clientShown is how much of a session's name is shown, in bytes.
const clientShown = 256

// clientOf returns the name that a session gave itself.
func clientOf(tx Tx, id ashlar.SessionID) string {
	s, err := session.Get(tx, id)
	if err != nil || s == nil {
		return ""
	}
	return s.Name[:min(len(s.Name), clientShown)]
}

// describeLocks adds paths and clients to a list.
func describeLocks(tx Tx, r *wire.ListLocksReply) {
	clients, paths := map[ashlar.SessionID]string{}, map[ashlar.Inode]string{}
	for i := range r.Locks {
		s := &r.Locks[i]
		if _, ok := clients[s.Session]; !ok {
			clients[s.Session] = clientOf(tx, s.Session)
		}
		s.Client = clients[s.Session]
		if s.Name != "" {
			continue
		}
		if _, ok := paths[s.Lock.Inode]; !ok {
			paths[s.Lock.Inode] = namespace.FullPath(tx, s.Lock.Inode)
		}
		s.Path = paths[s.Lock.Inode]
	}
}

// addEntries completes the answers of waiters that were granted their lock. A
// file that is gone meanwhile has no entry, and its lock no meaning.
func addEntries(tx Tx, env *Env) error {
	for _, g := range env.Locks.Granted() {
		if g.Reply == nil {
			continue
		}
		e, err := entryOf(tx, env, g.Waiter.Lock.Inode)
		switch {
		case err == nil:
			g.Reply.Entries = []wire.Entry{*e}
		case ashlar.KindOf(err) != ashlar.Stale:
			return err
		}
	}
	return nil
}

func entryOf(tx Tx, env *Env, ino ashlar.Inode) (*wire.Entry, error) {
	ns := namespace.Env{Now: env.Now, Opens: env.Opens, Placer: env.Placer, Space: env.Space}
	call := namespace.Call{Cred: &ashlar.Cred{Checked: true}, Body: &wire.GetAttr{Inode: ino}}
	reply, _, _, err := namespace.Evaluate(tx, &ns, &call)
	if err != nil {
		return nil, err
	}
	return reply.(*wire.Entry), nil
}
