// Package meta is what the leader of the masters decides: given the state, an
// operation and the time it makes a batch of key writes, a reply and a line
// for the change log. Followers apply the batches and never run any of this.
//
// It is pure: no clock, disk, network, goroutine, randomness or order of a map
// decides anything, so the same state, environment and operation always give
// the same batch. It caches nothing; all state is in the Tx.
//
// meta itself holds the entry point for clients' operations, exactly-once
// (I-3) around them, and the identity of the cluster. The parts are packages:
//
//	meta/key        the key layout and how records are read and written
//	meta/namespace  volumes, inodes, names, attributes, layouts of files
//	meta/session    sessions, kept results, fences
//	meta/lock       locks of files: who holds, who waits
//	meta/placement  pools, disks, placement groups
//
// A Tx belongs to one evaluation at a time; there are no locks.
package meta

import (
	"errors"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/lock"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The words of the parts that a caller of Evaluate needs.
type (
	// Tx is what an evaluation reads and writes.
	Tx = key.Tx
	// OpenTable tells who has a file open.
	OpenTable = namespace.OpenTable
	// Placer chooses groups for new data.
	Placer = namespace.Placer
	// Space tells a pool's space.
	Space = namespace.Space
	// NeedCut is the error of an operation that waits for a cut (I-10).
	NeedCut = namespace.NeedCut
)

// Env is what an evaluation knows beyond the state.
type Env struct {
	Now    int64 // operation time, nanoseconds since 1970; never goes back
	Opens  OpenTable
	Placer Placer
	Space  Space
	// CutDone tells whether every group of a layer has recorded a generation
	// and cut; nil for no.
	CutDone func(ashlar.LayerID, ashlar.Generation) bool
	// Locks is who waits for locks; nil for a read, which sees nobody wait.
	Locks *lock.Queue
	// Cluster evaluates what is not the namespace's: pools, disks, nodes,
	// groups. Like Evaluate it writes nothing when it fails.
	Cluster func(tx Tx, now int64, body wire.Message) (reply wire.Message, note string, err error)
}

// Evaluate evaluates an operation of a client. A change that was answered
// before is answered the same again and changes nothing (I-3). note is one
// line for the change log, empty if nothing changed.
//
// When err is not nil, tx holds no write but the kept result of a change whose
// refusal is a result (EEXIST); the caller proposes tx's writes either way. Of
// an error of kind ashlar.Corrupt it discards them: a record is damaged. A
// *NeedCut asks for a cut; see there.
func Evaluate(tx Tx, env *Env, o *wire.Operation) (reply wire.Message, note string, err error) {
	s, err := session.Live(tx, o.Session)
	if err != nil {
		return nil, "", err
	}
	if !wire.Changes(o.Body) {
		reply, note, err = evaluate(tx, env, o) // a lock that is waited for is written without a sequence
		if note != "" {
			note = fmt.Sprintf("session %d: %s", uint64(o.Session), note)
		}
		return reply, note, err
	}
	reply, failure, done, err := session.Begin(tx, s, o.Seq, o.Lowest)
	if err != nil {
		return nil, "", err
	}
	if done {
		return reply, "", failure
	}
	reply, note, err = evaluate(tx, env, o)
	if err == nil || session.IsResult(err) {
		session.Keep(tx, s, o.Seq, o.Lowest, reply, err)
	}
	if err != nil {
		return nil, "", err
	}
	if note != "" {
		note = fmt.Sprintf("session %d op %d: %s", uint64(o.Session), o.Seq, note)
	}
	return reply, note, nil
}

func evaluate(tx Tx, env *Env, o *wire.Operation) (wire.Message, string, error) {
	ns := namespace.Env{Now: env.Now, Opens: env.Opens, Placer: env.Placer, Space: env.Space, CutDone: env.CutDone}
	call := namespace.Call{Session: o.Session, Cred: &o.Cred, Body: o.Body}
	reply, note, handled, err := namespace.Evaluate(tx, &ns, &call)
	if handled {
		return reply, note, err
	}
	if reply, note, handled, err = evaluateLock(tx, env, o); handled {
		return reply, note, err
	}
	if env.Cluster == nil {
		return nil, "", ashlar.E("evaluate", ashlar.Unsupported, fmt.Sprintf("%T", o.Body), nil)
	}
	return env.Cluster(tx, env.Now, o.Body)
}

// AsNeedCut returns the NeedCut in an error's chain, nil if there is none.
func AsNeedCut(err error) *NeedCut {
	var n *NeedCut
	errors.As(err, &n)
	return n
}
