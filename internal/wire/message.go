// Package wire holds every message of Ashlar's own protocol and its encoding,
// a file per conversation: hello.go (handshake), session.go (clients and
// servers with the masters), operation.go (changes and reads of the
// namespace), lock.go and lockname.go (locks), data.go (clients with chunkservers), replica.go (chunkservers
// among themselves), cluster.go (chunkservers with masters and back),
// admin.go (status and administration), raft.go (masters among themselves).
// It checks bounds and does nothing else: what a message means is documented
// at its type and in docs/protocol.
//
// A message is a struct with a Fields method that walks its fields with a
// Codec. The same encoding serves records in the masters' store.
//
// # Frames
//
// Both directions of a connection carry frames, all integers little-endian:
//
//	 0        4          8     10      12           20            24
//	+--------+----------+-----+-------+------------+-------------+------+---------+
//	| body   | payload  | kind| flags | request id | deadline_ms | body | payload |
//	| u32    | u32      | u16 | u16   | u64        | u32         |      |         |
//	+--------+----------+-----+-------+------------+-------------+------+---------+
//
// body and payload are lengths in bytes, at most BodyMax and PayloadMax. The
// payload is bulk data that is neither parsed nor copied. A response carries
// the id of its request and FlagResponse; one that carries FlagError has an
// ErrorMessage as its body. deadline_ms is how long the caller will wait, 0
// for no limit; a server drops work whose deadline has passed. Requests may
// be answered in any order.
package wire

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
)

// Protocol versions this binary speaks; the handshake settles on the highest
// that both sides have.
const (
	VersionMin = 1
	VersionMax = 1
)

// Sizes of frames, in bytes.
const (
	HeaderSize = 24
	BodyMax    = 4 << 20
	PayloadMax = ashlar.IOMax
)

// Flags of a frame.
const (
	FlagResponse = 1 << 0
	FlagError    = 1 << 1
)

// Kind numbers a message. Kinds are part of the protocol and never reused.
type Kind uint16

// Message is anything that travels in a frame or in a record.
type Message interface {
	Kind() Kind
	Fields(c *Codec)
}

// Payloader is a Message with bulk data after its body. Payload returns what
// to send. PayloadBuffer returns the buffer to receive n bytes into; it is
// called after the body was decoded and may return nil to refuse.
type Payloader interface {
	Message
	Payload() []byte
	PayloadBuffer(n int) []byte
}

// Encode appends the body of m to b.
func Encode(b []byte, m Message) ([]byte, error) {
	c := Codec{b: b}
	m.Fields(&c)
	return c.b, c.err
}

// Decode reads a body into m; all of b must be used.
func Decode(b []byte, m Message) error {
	c := Codec{b: b, reading: true}
	m.Fields(&c)
	return c.Finish()
}

var factories = map[Kind]func() Message{}

// register makes a kind decodable by New. It is called from the variable
// block of each file with the request and its response.
func register[T any, P interface {
	*T
	Message
}]() bool {
	k := P(new(T)).Kind()
	if factories[k] != nil {
		panic(fmt.Sprintf("wire: kind %d registered twice", k))
	}
	factories[k] = func() Message { return P(new(T)) }
	return true
}

// New returns an empty message of a kind, nil if there is none.
func New(k Kind) Message {
	if f := factories[k]; f != nil {
		return f()
	}
	return nil
}

// Kinds returns every kind that New knows, in no order; for tests.
func Kinds() []Kind {
	out := make([]Kind, 0, len(factories))
	for k := range factories {
		out = append(out, k)
	}
	return out
}

// Any codes a message of any registered kind: its kind, then its fields.
func Any(c *Codec, m *Message) {
	var k Kind
	if !c.reading {
		if *m == nil {
			c.Fail("no message")
			return
		}
		k = (*m).Kind()
	}
	U16(c, &k)
	if c.reading {
		if c.err != nil {
			return
		}
		if k == kindOperation { // it holds an Any itself: no recursion
			c.Fail("operation within a message")
			return
		}
		if *m = New(k); *m == nil {
			c.Fail("unknown message kind %d", k)
			return
		}
	}
	(*m).Fields(c)
}

// ErrorMessage is the body of a response with FlagError.
type ErrorMessage struct {
	What    ashlar.Kind
	Op      string
	Subject string
	Detail  string
	// Leader is, for ashlar.NotLeader, the address of the leader if known.
	Leader string
}

const kindError Kind = 1

var _ = register[ErrorMessage]()

// textMax bounds the strings of an ErrorMessage and free text elsewhere.
const textMax = 4096

// Kind implements Message.
func (*ErrorMessage) Kind() Kind { return kindError }

// Fields implements Message.
func (m *ErrorMessage) Fields(c *Codec) {
	U16(c, &m.What)
	Text(c, &m.Op, textMax)
	Text(c, &m.Subject, textMax+ashlar.PathMax)
	Text(c, &m.Detail, 4*textMax)
	Text(c, &m.Leader, textMax)
}
