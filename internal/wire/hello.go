package wire

import "github.com/ashlarfs/ashlar"

// Preface is what a connecting side sends before its Hello, so that anything
// that is not Ashlar is told apart by its first bytes.
const Preface = "ASHLAR1\n"

// NonceSize and ProofSize are the sizes of handshake randoms and of the
// HMAC-SHA256 that proves the cluster secret, in bytes.
const (
	NonceSize = 32
	ProofSize = 32
)

// Role is what a connecting process is.
type Role uint8

// The roles.
const (
	RoleClient Role = 1 // a mount, an SDK user, a command
	RoleNode   Role = 2 // a master, a chunkserver, or both in one process
)

const (
	kindHello      Kind = 2
	kindHelloReply Kind = 3
	kindHelloProof Kind = 4
	kindEmpty      Kind = 5
)

var (
	_ = register[Hello]()
	_ = register[HelloReply]()
	_ = register[HelloProof]()
	_ = register[Empty]()
)

// Hello opens a connection. The handshake is
//
//	connecting            accepting
//	Preface, Hello  --->
//	                <---  HelloReply with Proof of the secret over both
//	HelloProof      --->
//
// after which each side knows that the other has the cluster secret. A zero
// Cluster (a client that was given only addresses) matches any; the proof
// still covers what the other side answered.
type Hello struct {
	Cluster     ashlar.ClusterID
	History     ashlar.History
	VersionMin  uint16
	VersionMax  uint16
	Features    uint64
	Role        Role
	Node        ashlar.NodeID
	Name        string
	Incarnation ashlar.Incarnation
	Nonce       [NonceSize]byte
}

// Kind implements Message.
func (*Hello) Kind() Kind { return kindHello }

// Fields implements Message.
func (m *Hello) Fields(c *Codec) {
	Fixed(c, m.Cluster[:])
	U32(c, &m.History)
	U16(c, &m.VersionMin)
	U16(c, &m.VersionMax)
	U64(c, &m.Features)
	U8(c, &m.Role)
	U32(c, &m.Node)
	Text(c, &m.Name, ashlar.NameMax)
	U64(c, &m.Incarnation)
	Fixed(c, m.Nonce[:])
}

// HelloReply answers a Hello. Version is the one both will speak.
type HelloReply struct {
	Cluster     ashlar.ClusterID
	History     ashlar.History
	Version     uint16
	Features    uint64
	Node        ashlar.NodeID
	Name        string
	Incarnation ashlar.Incarnation
	Nonce       [NonceSize]byte
	Proof       [ProofSize]byte
}

// Kind implements Message.
func (*HelloReply) Kind() Kind { return kindHelloReply }

// Fields implements Message.
func (m *HelloReply) Fields(c *Codec) {
	Fixed(c, m.Cluster[:])
	U32(c, &m.History)
	U16(c, &m.Version)
	U64(c, &m.Features)
	U32(c, &m.Node)
	Text(c, &m.Name, ashlar.NameMax)
	U64(c, &m.Incarnation)
	Fixed(c, m.Nonce[:])
	Fixed(c, m.Proof[:])
}

// HelloProof ends the handshake.
type HelloProof struct {
	Proof [ProofSize]byte
}

// Kind implements Message.
func (*HelloProof) Kind() Kind { return kindHelloProof }

// Fields implements Message.
func (m *HelloProof) Fields(c *Codec) { Fixed(c, m.Proof[:]) }

// Empty is the answer that says only that it was done.
type Empty struct{}

// Kind implements Message.
func (*Empty) Kind() Kind { return kindEmpty }

// Fields implements Message.
func (*Empty) Fields(*Codec) {}
