package wire

import "github.com/ashlarfs/ashlar"

const (
	kindFindLeader       Kind = 16
	kindFindLeaderReply  Kind = 17
	kindSessionOpen      Kind = 18
	kindSessionOpenReply Kind = 19
	kindSessionRenew     Kind = 20
	kindSessionRenewRep  Kind = 21
	kindSessionHello     Kind = 22
	kindSessionClose     Kind = 23
	kindTicket           Kind = 24
	kindWitness          Kind = 25
)

var (
	_ = register[FindLeader]()
	_ = register[FindLeaderReply]()
	_ = register[SessionOpen]()
	_ = register[SessionOpenReply]()
	_ = register[SessionRenew]()
	_ = register[SessionRenewReply]()
	_ = register[SessionHello]()
	_ = register[SessionClose]()
	_ = register[Ticket]()
	_ = register[Witness]()
)

// Limits of lists in this conversation.
const (
	MastersMax = 16
	opensMax   = 1 << 19 // fits BodyMax
	ticketMax  = 512
)

// FindLeader asks any node who leads. Answered without the log; a hint. With
// HoldMs the answer waits, up to so long, while the master knows of no leader
// or of none but Not, which did not answer.
type FindLeader struct {
	Not    string
	HoldMs uint32
}

// Kind implements Message.
func (*FindLeader) Kind() Kind { return kindFindLeader }

// Fields implements Message.
func (m *FindLeader) Fields(c *Codec) {
	Text(c, &m.Not, textMax)
	U32(c, &m.HoldMs)
}

// FindLeaderReply names the leader, "" if none is known, and all masters.
// Initialised tells whether the answering master holds a cluster's state or
// is waiting to be bootstrapped or added.
type FindLeaderReply struct {
	Leader      string
	Term        uint64
	Initialised bool
	Masters     []MasterAddr
}

// MasterAddr is one member of the consensus group. Started says that it has
// taken part: if its data is lost, it can not come back under this id.
type MasterAddr struct {
	ID      ashlar.MemberID
	Name    string
	Addr    string
	Learner bool
	Started bool
}

func masterAddr(c *Codec, m *MasterAddr) {
	U64(c, &m.ID)
	Text(c, &m.Name, ashlar.NameMax)
	Text(c, &m.Addr, textMax)
	Bool(c, &m.Learner)
	Bool(c, &m.Started)
}

// Kind implements Message.
func (*FindLeaderReply) Kind() Kind { return kindFindLeaderReply }

// Fields implements Message.
func (m *FindLeaderReply) Fields(c *Codec) {
	Text(c, &m.Leader, textMax)
	U64(c, &m.Term)
	Bool(c, &m.Initialised)
	List(c, &m.Masters, MastersMax, masterAddr)
}

// SessionOpen makes a session for a client (logged). Nonce makes a retry of
// the same open return the same session.
type SessionOpen struct {
	Name        string // what the user sees: host and mount point, or command
	Incarnation ashlar.Incarnation
	Nonce       uint64
	// Leases says that it watches for recalls and may hold leases.
	Leases bool
}

// Kind implements Message.
func (*SessionOpen) Kind() Kind { return kindSessionOpen }

// Fields implements Message.
func (m *SessionOpen) Fields(c *Codec) {
	Text(c, &m.Name, textMax)
	U64(c, &m.Incarnation)
	U64(c, &m.Nonce)
	Bool(c, &m.Leases)
}

// SessionOpenReply carries the session and the terms of its lease: it is
// valid LeaseMs after the renewal was sent, and lost DeadMs after the last
// one. Ticket is an encoded Ticket for chunkservers.
type SessionOpenReply struct {
	Session ashlar.SessionID
	LeaseMs uint32
	DeadMs  uint32
	RenewMs uint32
	Term    uint64
	Cluster ashlar.ClusterID
	History ashlar.History
	Ticket  []byte
}

// Kind implements Message.
func (*SessionOpenReply) Kind() Kind { return kindSessionOpenReply }

// Fields implements Message.
func (m *SessionOpenReply) Fields(c *Codec) {
	U64(c, &m.Session)
	U32(c, &m.LeaseMs)
	U32(c, &m.DeadMs)
	U32(c, &m.RenewMs)
	U64(c, &m.Term)
	Fixed(c, m.Cluster[:])
	U32(c, &m.History)
	Blob(c, &m.Ticket, ticketMax)
}

// SessionRenew is the heartbeat of a client session; not logged.
type SessionRenew struct {
	Session     ashlar.SessionID
	Incarnation ashlar.Incarnation
	Lowest      uint64 // lowest unanswered operation sequence (I-3)
}

// Kind implements Message.
func (*SessionRenew) Kind() Kind { return kindSessionRenew }

// Fields implements Message.
func (m *SessionRenew) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.Incarnation)
	U64(c, &m.Lowest)
}

// SessionRenewReply renews the lease. NeedHello asks for a SessionHello: the
// leader is new and does not know what the session holds.
type SessionRenewReply struct {
	LeaseMs   uint32
	Term      uint64
	NeedHello bool
	Ticket    []byte // a fresh one when the old one is half over
}

// Kind implements Message.
func (*SessionRenewReply) Kind() Kind { return kindSessionRenewRep }

// Fields implements Message.
func (m *SessionRenewReply) Fields(c *Codec) {
	U32(c, &m.LeaseMs)
	U64(c, &m.Term)
	Bool(c, &m.NeedHello)
	Blob(c, &m.Ticket, ticketMax)
}

// SessionHello tells a new leader what a session holds. The leader takes
// operations of a session only after it. Answered with SessionRenewReply.
type SessionHello struct {
	Session     ashlar.SessionID
	Incarnation ashlar.Incarnation
	Generation  uint64 // of the connection; only the newest is served
	Lowest      uint64
	Opens       []ashlar.Inode // open files; unlinked ones are kept for them
	Leases      []HeldLease    // those it goes on with; it has no others
}

// Kind implements Message.
func (*SessionHello) Kind() Kind { return kindSessionHello }

// Fields implements Message.
func (m *SessionHello) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.Incarnation)
	U64(c, &m.Generation)
	U64(c, &m.Lowest)
	U64s(c, &m.Opens, opensMax)
	List(c, &m.Leases, LeasesMax, heldLease)
}

// SessionClose ends a session in order (logged); what it held is released.
type SessionClose struct {
	Session ashlar.SessionID
}

// Kind implements Message.
func (*SessionClose) Kind() Kind { return kindSessionClose }

// Fields implements Message.
func (m *SessionClose) Fields(c *Codec) { U64(c, &m.Session) }

// Ticket proves to a chunkserver that the masters know a session. MAC is the
// HMAC-SHA256 of the encoded fields before it under the ticket key, which is
// derived from the cluster secret. Expires is in the masters' time, which
// chunkservers learn with every renewal.
type Ticket struct {
	Cluster     ashlar.ClusterID
	History     ashlar.History
	Session     ashlar.SessionID
	Incarnation ashlar.Incarnation
	Expires     int64 // masters' time, nanoseconds since 1970
	MAC         [ProofSize]byte
}

// Kind implements Message.
func (*Ticket) Kind() Kind { return kindTicket }

// Fields implements Message.
func (m *Ticket) Fields(c *Codec) {
	m.Signed(c)
	Fixed(c, m.MAC[:])
}

// Signed codes the fields that MAC covers.
func (m *Ticket) Signed(c *Codec) {
	Fixed(c, m.Cluster[:])
	U32(c, &m.History)
	U64(c, &m.Session)
	U64(c, &m.Incarnation)
	I64(c, &m.Expires)
}

// Witness is all that is ever sent on a connection which a process of the
// cluster keeps to a master for as long as it lives, by whose end the master
// knows that it is over. The process is the one of the handshake. Answer:
// Empty; nothing follows in either direction.
type Witness struct {
	// Addr is where the process listens until it ends.
	Addr string
	// From is the connection's address at the process. A master that sees
	// another has something between itself and the process, and learns nothing
	// from this connection.
	From string
	// Member and Life are which member of the consensus group the process is,
	// 0 for none, and how often that was started.
	Member ashlar.MemberID
	Life   uint64
}

// Kind implements Message.
func (*Witness) Kind() Kind { return kindWitness }

// Fields implements Message.
func (m *Witness) Fields(c *Codec) {
	Text(c, &m.Addr, textMax)
	Text(c, &m.From, textMax)
	U64(c, &m.Member)
	U64(c, &m.Life)
}
