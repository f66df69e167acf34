// Package session decides what the masters know of sessions: who there is,
// which operations of each have been answered and how (I-3), and which are
// lost and fenced (I-7). It is pure, like all of meta: heartbeats, dead
// thresholds and acknowledgements of fences are the leader's, who calls these
// functions when it has seen them.
//
// A session's life:
//
//	Open --Close--> ended, swept at once
//	Open --Lose---> Lost: a fence entry every chunkserver has to acknowledge
//	Lost --FenceDone--> Fenced: nothing of it can be applied any more
//	Fenced --Sweep, after its last ticket's expiry--> gone, with its fence
//
// Everything here is in the log and survives a crash.
package session

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// State is where a session is in its life.
type State uint8

// The states. They are in the store: do not renumber.
const (
	Open   State = 1
	Closed State = 2
	Lost   State = 3
	Fenced State = 4
)

// String returns the state in words.
func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case Closed:
		return "closed"
	case Lost:
		return "lost"
	case Fenced:
		return "fenced"
	}
	return "unknown"
}

// Session is the record of a session.
type Session struct {
	ID          ashlar.SessionID // the key
	Name        string
	Incarnation ashlar.Incarnation
	Nonce       uint64
	Node        ashlar.NodeID // of a chunkserver's session, else 0
	State       State
	Opened      int64
	// Floor: results below it are dropped and requests below it refused.
	Floor  uint64
	Fence  uint64 // revision of its fence, once lost
	Leases bool   // it may hold leases
}

// nameMax is the longest name of a session, in bytes.
const nameMax = 4096

// Fields implements key.Record.
func (s *Session) Fields(c *wire.Codec) {
	key.Version(c, 2)
	wire.Text(c, &s.Name, nameMax)
	wire.U64(c, &s.Incarnation)
	wire.U64(c, &s.Nonce)
	wire.U32(c, &s.Node)
	wire.U8(c, &s.State)
	wire.I64(c, &s.Opened)
	wire.U64(c, &s.Floor)
	wire.U64(c, &s.Fence)
	wire.Bool(c, &s.Leases)
	if c.Reading() && c.Err() == nil && (s.State < Open || s.State > Fenced) {
		c.Fail("session state %d", s.State)
	}
}

// fenceRecord is the record of a fence.
type fenceRecord struct {
	Session ashlar.SessionID
	DropAt  int64 // expiry of the session's last ticket
	Done    bool
}

// Fields implements key.Record.
func (f *fenceRecord) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.U64(c, &f.Session)
	wire.I64(c, &f.DropAt)
	wire.Bool(c, &f.Done)
}

// end is the record of a session to be swept away.
type end struct {
	NotBefore int64
}

// Fields implements key.Record.
func (e *end) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.I64(c, &e.NotBefore)
}

// Request is what a new session is made from.
type Request struct {
	Name        string
	Incarnation ashlar.Incarnation
	Nonce       uint64        // the same in a retry; 0 for an open that is not retried
	Node        ashlar.NodeID // for a chunkserver's session
	Leases      bool          // it may hold leases
}

// Make makes a session. A retry, told by incarnation and nonce, returns the
// session that the first try made as long as it is open.
func Make(tx key.Tx, now int64, r *Request) (s *Session, existed bool, err error) {
	if len(r.Name) > nameMax || r.Incarnation == 0 {
		return nil, false, ashlar.E("open session", ashlar.Invalid, "", nil)
	}
	if r.Nonce != 0 {
		id, ok, err := key.LoadNumber(tx, key.SessionNonce(r.Incarnation, r.Nonce))
		if err != nil {
			return nil, false, err
		}
		if ok {
			s, err := Get(tx, ashlar.SessionID(id))
			if err != nil {
				return nil, false, err
			}
			if s != nil && s.State == Open {
				return s, true, nil
			}
		}
	}
	n, err := key.Next(tx, 0, key.CounterSession)
	if err != nil {
		return nil, false, err
	}
	s = &Session{
		ID: ashlar.InPartition[ashlar.SessionID](0, n), Name: r.Name, Incarnation: r.Incarnation,
		Nonce: r.Nonce, Node: r.Node, State: Open, Opened: now, Floor: 1, Leases: r.Leases,
	}
	key.Store(tx, key.Session(s.ID), s)
	if r.Nonce != 0 {
		key.StoreNumber(tx, key.SessionNonce(r.Incarnation, r.Nonce), s.ID)
	}
	return s, false, nil
}

// Get returns a session, nil if there is none.
func Get(tx key.Tx, id ashlar.SessionID) (*Session, error) {
	s := new(Session)
	ok, err := key.Load(tx, key.Session(id), s)
	if err != nil || !ok {
		return nil, err
	}
	s.ID = id
	return s, nil
}

// Live returns a session that is open; any other is ashlar.NoSession.
func Live(tx key.Tx, id ashlar.SessionID) (*Session, error) {
	s, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	if s == nil || s.State != Open {
		return nil, ashlar.E("session", ashlar.NoSession, key.String(key.Session(id)), nil)
	}
	return s, nil
}

// List returns all sessions in order of id, ended ones not yet swept
// included.
func List(tx key.Tx) ([]Session, error) {
	var out []Session
	var failed error
	lo, hi := key.Range(0, key.KindSession)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		s := Session{ID: ashlar.SessionID(key.Tail64(k, 0))}
		failed = key.Decode(v, &s)
		out = append(out, s)
		return failed == nil
	})
	return out, failed
}

// Close ends a session in order: it has been answered everything it asked and
// sends no more. It does nothing to one that is not open.
func Close(tx key.Tx, id ashlar.SessionID) error {
	s, err := Get(tx, id)
	if err != nil || s == nil || s.State != Open {
		return err
	}
	s.State = Closed
	key.Store(tx, key.Session(id), s)
	key.Store(tx, key.SessionEnd(id), &end{})
	return nil
}

// Lose declares a session lost and fences it (I-7). dropAt is the expiry of
// the last ticket it was given, in operation time. The revision is that of
// the fence; a session lost before keeps the one it has. 0 means that there
// was nothing to fence.
func Lose(tx key.Tx, id ashlar.SessionID, dropAt int64) (revision uint64, err error) {
	s, err := Get(tx, id)
	if err != nil || s == nil || s.State != Open {
		if s != nil {
			revision = s.Fence
		}
		return revision, err
	}
	if s.Fence, err = key.Next(tx, 0, key.CounterFence); err != nil {
		return 0, err
	}
	s.State = Lost
	key.Store(tx, key.Session(id), s)
	key.Store(tx, key.Fence(s.Fence), &fenceRecord{Session: id, DropAt: dropAt})
	return s.Fence, nil
}

// FenceDone notes that every chunkserver has acknowledged a session's fence
// or was outlived: what the session held may be released. The fence stays in
// the list until its last ticket has expired.
func FenceDone(tx key.Tx, id ashlar.SessionID) error {
	s, err := Get(tx, id)
	if err != nil || s == nil || s.State != Lost {
		return err
	}
	var f fenceRecord
	ok, err := key.Load(tx, key.Fence(s.Fence), &f)
	if err != nil {
		return err
	}
	if !ok {
		return ashlar.E("fence done", ashlar.Corrupt, key.String(key.Fence(s.Fence)), nil)
	}
	s.State, f.Done = Fenced, true
	key.Store(tx, key.Session(id), s)
	key.Store(tx, key.Fence(s.Fence), &f)
	key.Store(tx, key.SessionEnd(id), &end{NotBefore: f.DropAt})
	return nil
}

// Fences returns the fence list in order of revision: what chunkservers hold.
func Fences(tx key.Tx) ([]wire.Fence, error) { return fences(tx, false) }

// Unfenced returns the fences that are not done.
func Unfenced(tx key.Tx) ([]wire.Fence, error) { return fences(tx, true) }

func fences(tx key.Tx, openOnly bool) ([]wire.Fence, error) {
	var out []wire.Fence
	var failed error
	lo, hi := key.Range(0, key.KindFence)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		var f fenceRecord
		failed = key.Decode(v, &f)
		if !openOnly || !f.Done {
			out = append(out, wire.Fence{Session: f.Session, Revision: key.Tail64(k, 0)})
		}
		return failed == nil
	})
	return out, failed
}

// Sweep removes sessions that have ended, their results first, deleting up to
// about limit keys; more tells whether something is left that could be
// removed now.
func Sweep(tx key.Tx, now int64, limit int) (more bool, err error) {
	var due []ashlar.SessionID
	lo, hi := key.Range(0, key.KindSessionEnd)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		var e end
		if err = key.Decode(v, &e); err == nil && e.NotBefore <= now {
			due = append(due, ashlar.SessionID(key.Tail64(k, 0)))
		}
		return err == nil && len(due) <= limit
	})
	if err != nil {
		return false, err
	}
	for n, id := range due {
		if limit <= 0 {
			return true, nil
		}
		deleted, done := deleteResults(tx, id, limit)
		limit -= deleted + 1
		if !done {
			return true, nil
		}
		if err := forget(tx, due[n]); err != nil {
			return false, err
		}
	}
	return false, nil
}

func deleteResults(tx key.Tx, id ashlar.SessionID, limit int) (n int, done bool) {
	var gone [][]byte
	done = true
	lo, hi := key.Range64(key.KindResult, id)
	tx.Scan(lo, hi, func(k, _ []byte) bool {
		if len(gone) == limit {
			done = false
			return false
		}
		gone = append(gone, append([]byte(nil), k...))
		return true
	})
	for _, k := range gone {
		tx.Delete(k)
	}
	return len(gone), done
}

func forget(tx key.Tx, id ashlar.SessionID) error {
	s, err := Get(tx, id)
	if err != nil {
		return err
	}
	tx.Delete(key.SessionEnd(id))
	if s == nil {
		return nil
	}
	tx.Delete(key.Session(id))
	if s.Fence != 0 {
		tx.Delete(key.Fence(s.Fence))
	}
	if s.Nonce == 0 {
		return nil
	}
	k := key.SessionNonce(s.Incarnation, s.Nonce)
	if n, ok, err := key.LoadNumber(tx, k); err != nil {
		return err
	} else if ok && ashlar.SessionID(n) == id {
		tx.Delete(k)
	}
	return nil
}
