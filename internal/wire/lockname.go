package wire

import "github.com/ashlarfs/ashlar"

// Limits of named locks.
const (
	// LockNameMax is the longest name of a lock, in bytes.
	LockNameMax = 255
	// LockValueMax is the largest value block, in bytes.
	LockValueMax = 64
	// locksMax bounds an answer to ListLocks: a page, the ranges of the holder
	// that ends it, and who waits there.
	locksMax = 16384
)

// LockMode is a mode of a named lock: what its holder may do with what the name
// stands for, and what others may meanwhile. Numbers are in the masters' store.
type LockMode uint8

// The modes.
const (
	NoLock LockMode = 0 // not held
	NL     LockMode = 1 // null: interest only
	CR     LockMode = 2 // concurrent read
	CW     LockMode = 3 // concurrent write
	PR     LockMode = 4 // protected read
	PW     LockMode = 5 // protected write
	EX     LockMode = 6 // exclusive
)

var modeNames = [...]string{"none", "NL", "CR", "CW", "PR", "PW", "EX"}

// String returns the mode's name.
func (m LockMode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "unknown"
}

// ParseLockMode returns the mode of a name, and whether there is one.
func ParseLockMode(s string) (LockMode, bool) {
	for m := NL; m <= EX; m++ {
		if modeNames[m] == s {
			return m, true
		}
	}
	return NoLock, false
}

// SetName acquires a named lock, converts it to another mode or, with NoLock,
// gives it up, at once or not at all. Answer: NameReply.
//
//	+------+--------+------+-----------+-------+
//	| name | holder | mode | set value | value |
//	| text | u64    | u8   | u8        | blob  |
//	+------+--------+------+-----------+-------+
//
// Holder tells the holders of one session apart. SetValue writes the value
// block; only who holds the lock in PW or EX and asks for no more may.
type SetName struct {
	Name     string
	Holder   uint64
	Mode     LockMode
	SetValue bool
	Value    []byte
}

// Kind implements Message.
func (*SetName) Kind() Kind { return kindSetName }

// Fields implements Message.
func (m *SetName) Fields(c *Codec) {
	Text(c, &m.Name, LockNameMax)
	U64(c, &m.Holder)
	codeMode(c, &m.Mode)
	Bool(c, &m.SetValue)
	Blob(c, &m.Value, LockValueMax)
}

func codeMode(c *Codec, m *LockMode) {
	U8(c, m)
	if c.reading && c.err == nil && *m > EX {
		c.Fail("lock mode %d", *m)
	}
}

// NameReply is the mode that the holder has now, which without Granted is the
// one it had before, and the value block. The value is not valid if somebody
// was lost who held the lock in PW or EX and may have been about to write it.
type NameReply struct {
	Granted bool
	Mode    LockMode
	Valid   bool
	Value   []byte
}

// Kind implements Message.
func (*NameReply) Kind() Kind { return kindNameReply }

// Fields implements Message.
func (m *NameReply) Fields(c *Codec) {
	Bool(c, &m.Granted)
	codeMode(c, &m.Mode)
	Bool(c, &m.Valid)
	Blob(c, &m.Value, LockValueMax)
}

// WaitName is SetName that waits, as WaitLock is for SetLock.
type WaitName struct {
	ID     uint64
	Cancel bool
	Want   SetName
}

// Kind implements Message.
func (*WaitName) Kind() Kind { return kindWaitName }

// Fields implements Message.
func (m *WaitName) Fields(c *Codec) {
	U64(c, &m.ID)
	Bool(c, &m.Cancel)
	m.Want.Fields(c)
}

// WatchName is answered when the holder's lock keeps somebody waiting, or is
// held no more. Answer: WatchNameReply.
type WatchName struct {
	Name   string
	Holder uint64
}

// Kind implements Message.
func (*WatchName) Kind() Kind { return kindWatchName }

// Fields implements Message.
func (m *WatchName) Fields(c *Codec) {
	Text(c, &m.Name, LockNameMax)
	U64(c, &m.Holder)
}

// WatchNameReply is the mode that the lock is held in, and the one that
// somebody waits for.
type WatchNameReply struct {
	Held   LockMode
	Wanted LockMode
}

// Kind implements Message.
func (*WatchNameReply) Kind() Kind { return kindWatchNameRep }

// Fields implements Message.
func (m *WatchNameReply) Fields(c *Codec) {
	codeMode(c, &m.Held)
	codeMode(c, &m.Wanted)
}

// ListLocks asks for locks, named ones first, and who waits for each. After is
// the Next of the page before. Answer: ListLocksReply.
type ListLocks struct {
	After []byte
	Limit uint32
}

// Kind implements Message.
func (*ListLocks) Kind() Kind { return kindListLocks }

// Fields implements Message.
func (m *ListLocks) Fields(c *Codec) {
	Blob(c, &m.After, textMax)
	U32(c, &m.Limit)
}

// LockStatus is a lock that is held, or with Waiting one that is waited for.
type LockStatus struct {
	// Name and Mode are a named lock's, with its value block; the fields from
	// Path to End a file's.
	Name    string   `json:",omitempty"`
	Mode    LockMode `json:",omitempty"`
	Value   []byte   `json:",omitempty"`
	Valid   bool     `json:",omitempty"`
	Path    string   `json:",omitempty"` // "volume:/path"; empty if the file has no name any more
	Lock    Lock
	Waiting bool
	Session ashlar.SessionID
	Client  string // the session's name: host and mount point, or host and process
	Holder  uint64 `json:",omitempty"`
	Since   int64  // masters' time, nanoseconds since 1970
}

func codeLockStatus(c *Codec, s *LockStatus) {
	Text(c, &s.Name, LockNameMax)
	codeMode(c, &s.Mode)
	Blob(c, &s.Value, LockValueMax)
	Bool(c, &s.Valid)
	Text(c, &s.Path, HintMax)
	U64(c, &s.Lock.Inode)
	U8(c, &s.Lock.Class)
	U8(c, &s.Lock.Type)
	U64(c, &s.Lock.Owner)
	U64(c, &s.Lock.Start)
	U64(c, &s.Lock.End)
	U32(c, &s.Lock.PID)
	Bool(c, &s.Waiting)
	U64(c, &s.Session)
	Text(c, &s.Client, textMax)
	U64(c, &s.Holder)
	I64(c, &s.Since)
}

// ListLocksReply is a page of locks; Next is nil on the last.
type ListLocksReply struct {
	Locks []LockStatus
	Next  []byte
}

// Kind implements Message.
func (*ListLocksReply) Kind() Kind { return kindListLocksRep }

// Fields implements Message.
func (m *ListLocksReply) Fields(c *Codec) {
	List(c, &m.Locks, locksMax, codeLockStatus)
	Blob(c, &m.Next, textMax)
}
