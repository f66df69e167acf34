package wire

import "github.com/ashlarfs/ashlar"

const (
	kindWatchLeases  Kind = 64
	kindLeaseRecalls Kind = 65
	kindReturnLeases Kind = 66
	kindAcquireLease Kind = 67
	kindCommits      Kind = 69
	kindCommitsReply Kind = 70
)

var (
	_ = register[WatchLeases]()
	_ = register[LeaseRecalls]()
	_ = register[ReturnLeases]()
	_ = register[AcquireLease]()
	_ = register[Commits]()
	_ = register[CommitsReply]()
)

// Limits of lists in this conversation.
const (
	RecallsMax = 4096
	ReturnsMax = 4096
	// LeasesMax is the most leases of one session.
	LeasesMax = 1 << 16
)

// HeldLease is a lease as its holder has it. Open tells that the file is open
// there, of which the leader may not know yet.
type HeldLease struct {
	Inode ashlar.Inode
	Mode  ashlar.LeaseMode
	Open  bool
}

func heldLease(c *Codec, h *HeldLease) {
	U64(c, &h.Inode)
	leaseMode(c, &h.Mode)
	Bool(c, &h.Open)
}

func leaseMode(c *Codec, m *ashlar.LeaseMode) {
	U8(c, m)
	if c.reading && *m > ashlar.LeaseExclusive {
		c.Fail("lease mode %d", uint8(*m))
	}
}

// Recall asks a session to give a lease back but for Keep. Number rises with
// every recall of a session by one leader.
type Recall struct {
	Number uint64
	Inode  ashlar.Inode
	Keep   ashlar.LeaseMode
}

// WatchLeases waits for recalls of a session's leases beyond number After, for
// about half a lease. Recalls are told again until they are answered with
// ReturnLeases. Answer: LeaseRecalls.
type WatchLeases struct {
	Session ashlar.SessionID
	After   uint64
}

// Kind implements Message.
func (*WatchLeases) Kind() Kind { return kindWatchLeases }

// Fields implements Message.
func (m *WatchLeases) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.After)
}

// LeaseRecalls answers WatchLeases. Term is the leader's: numbers begin anew
// with each.
type LeaseRecalls struct {
	Term    uint64
	Recalls []Recall
}

// Kind implements Message.
func (*LeaseRecalls) Kind() Kind { return kindLeaseRecalls }

// Fields implements Message.
func (m *LeaseRecalls) Fields(c *Codec) {
	U64(c, &m.Term)
	List(c, &m.Recalls, RecallsMax, func(c *Codec, r *Recall) {
		U64(c, &r.Number)
		U64(c, &r.Inode)
		leaseMode(c, &r.Keep)
	})
}

// ReturnLeases says what is left of leases that were recalled or are not
// needed any more. Whoever sends it makes no use of leases that an operation
// begun before its answer was given. Answer: Empty.
type ReturnLeases struct {
	Leases []HeldLease
}

// Kind implements Message.
func (*ReturnLeases) Kind() Kind { return kindReturnLeases }

// Fields implements Message.
func (m *ReturnLeases) Fields(c *Codec) { List(c, &m.Leases, ReturnsMax, heldLease) }

// AcquireLease waits until the session can have a lease of at least Mode on an
// inode, and returns the inode as of then. If it has too many leases, or a cut
// of the file is under way, the answer comes with less. Answer: Entry.
type AcquireLease struct {
	Inode ashlar.Inode
	Mode  ashlar.LeaseMode
}

// Kind implements Message.
func (*AcquireLease) Kind() Kind { return kindAcquireLease }

// Fields implements Message.
func (m *AcquireLease) Fields(c *Codec) {
	U64(c, &m.Inode)
	leaseMode(c, &m.Mode)
}
