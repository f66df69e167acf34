package wire

import "github.com/ashlarfs/ashlar"

const (
	kindSetLock       Kind = 208
	kindLockReply     Kind = 209
	kindWaitLock      Kind = 210
	kindTestLock      Kind = 211
	kindTestLockReply Kind = 212
	kindSetName       Kind = 213
	kindNameReply     Kind = 214
	kindWaitName      Kind = 215
	kindWatchName     Kind = 216
	kindWatchNameRep  Kind = 217
	kindListLocks     Kind = 218
	kindListLocksRep  Kind = 219
)

var (
	_ = register[SetLock]()
	_ = register[LockReply]()
	_ = register[WaitLock]()
	_ = register[TestLock]()
	_ = register[TestLockReply]()
	_ = register[SetName]()
	_ = register[NameReply]()
	_ = register[WaitName]()
	_ = register[WatchName]()
	_ = register[WatchNameReply]()
	_ = register[ListLocks]()
	_ = register[ListLocksReply]()
)

// LockClass is which of the three sorts of file lock a lock is. Numbers are in
// the masters' store.
type LockClass uint8

// The classes. Locks of the first two meet each other; flock meets only its
// own, as on Linux.
const (
	LockPOSIX LockClass = 1 // fcntl(F_SETLK): of a process
	LockOFD   LockClass = 2 // fcntl(F_OFD_SETLK): of an open file description
	LockFlock LockClass = 3 // flock(2): of an open file description, the whole file
)

// String returns the class as a user knows it.
func (c LockClass) String() string {
	switch c {
	case LockPOSIX:
		return "posix"
	case LockOFD:
		return "ofd"
	case LockFlock:
		return "flock"
	}
	return "unknown"
}

// LockType is how a range is locked. Numbers are in the masters' store.
type LockType uint8

// The types.
const (
	Unlocked  LockType = 0
	Shared    LockType = 1
	Exclusive LockType = 2
)

// String returns the type in words.
func (t LockType) String() string {
	switch t {
	case Unlocked:
		return "unlocked"
	case Shared:
		return "shared"
	case Exclusive:
		return "exclusive"
	}
	return "unknown"
}

// LockEnd is the last byte that a lock can cover; a lock that reaches to it
// covers whatever a file grows to.
const LockEnd = 1<<63 - 1

// Lock is a lock of a range of an inode, wanted or held.
//
//	+-------+-------+------+-------+-------+-------+-------+
//	| inode | class | type | owner | start | end   | pid   |
//	| u64   | u8    | u8   | u64   | u64   | u64   | u32   |
//	+-------+-------+------+-------+-------+-------+-------+
//
// Start and End are its first and last byte. Owner tells owners of one session
// apart; a lock never conflicts with those of its own owner and class. PID is
// what F_GETLK tells others, and decides nothing.
type Lock struct {
	Inode ashlar.Inode
	Class LockClass
	Type  LockType
	Owner uint64
	Start uint64
	End   uint64
	PID   uint32
}

// codeLock codes a lock and checks it.
func codeLock(c *Codec, l *Lock) {
	U64(c, &l.Inode)
	U8(c, &l.Class)
	U8(c, &l.Type)
	U64(c, &l.Owner)
	U64(c, &l.Start)
	U64(c, &l.End)
	U32(c, &l.PID)
	if c.reading && c.err == nil {
		switch {
		case l.Class < LockPOSIX || l.Class > LockFlock:
			c.Fail("lock class %d", l.Class)
		case l.Type > Exclusive:
			c.Fail("lock type %d", l.Type)
		case l.Start > l.End || l.End > LockEnd:
			c.Fail("lock of bytes %d to %d", l.Start, l.End)
		}
	}
}

// SetLock sets, changes or, with type Unlocked, clears the lock of a range, at
// once or not at all. What the owner held of the range is replaced, and what
// it held beside it stays. Answer: LockReply.
type SetLock struct {
	Lock Lock
}

// Kind implements Message.
func (*SetLock) Kind() Kind { return kindSetLock }

// Fields implements Message.
func (m *SetLock) Fields(c *Codec) { codeLock(c, &m.Lock) }

// LockReply tells whether a lock was granted; if not, somebody else's is in
// the way. A grant comes with the file as it is then, as one entry: what others
// wrote before they let go of the lock is in its version.
type LockReply struct {
	Granted bool
	Entries []Entry
}

// Kind implements Message.
func (*LockReply) Kind() Kind { return kindLockReply }

// Fields implements Message.
func (m *LockReply) Fields(c *Codec) {
	Bool(c, &m.Granted)
	List(c, &m.Entries, 1, func(c *Codec, e *Entry) { e.Fields(c) })
}

// WaitLock is SetLock that waits: it is answered when the lock is granted, with
// LockReply. It carries no sequence: asked again under the same ID, as after a
// change of leader, it takes effect once, because an owner's lock can be set
// only once. With Cancel it ends the wait of that ID and says whether the lock
// was granted before; it is not granted afterwards.
//
//	+-----+--------+------+
//	| id  | cancel | lock |
//	| u64 | u8     |      |
//	+-----+--------+------+
//
// IDs of a session rise.
type WaitLock struct {
	ID     uint64
	Cancel bool
	Lock   Lock
}

// Kind implements Message.
func (*WaitLock) Kind() Kind { return kindWaitLock }

// Fields implements Message.
func (m *WaitLock) Fields(c *Codec) {
	U64(c, &m.ID)
	Bool(c, &m.Cancel)
	codeLock(c, &m.Lock)
}

// TestLock asks what keeps a lock from being granted. Answer: TestLockReply.
type TestLock struct {
	Lock Lock
}

// Kind implements Message.
func (*TestLock) Kind() Kind { return kindTestLock }

// Fields implements Message.
func (m *TestLock) Fields(c *Codec) { codeLock(c, &m.Lock) }

// TestLockReply is the first lock in the way, if any: whose it is by session,
// and by the name that the session gave itself.
type TestLockReply struct {
	Found   bool
	Lock    Lock
	Session ashlar.SessionID
	Client  string
}

// Kind implements Message.
func (*TestLockReply) Kind() Kind { return kindTestLockReply }

// Fields implements Message.
func (m *TestLockReply) Fields(c *Codec) {
	Bool(c, &m.Found)
	U64(c, &m.Lock.Inode)
	U8(c, &m.Lock.Class)
	U8(c, &m.Lock.Type)
	U64(c, &m.Lock.Owner)
	U64(c, &m.Lock.Start)
	U64(c, &m.Lock.End)
	U32(c, &m.Lock.PID)
	U64(c, &m.Session)
	Text(c, &m.Client, textMax)
}
