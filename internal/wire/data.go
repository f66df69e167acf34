package wire

import "github.com/ashlarfs/ashlar"

const (
	kindAttach    Kind = 80
	kindWrite     Kind = 81
	kindRead      Kind = 82
	kindReadReply Kind = 83
	kindSync      Kind = 84
	kindRuns      Kind = 85
	kindRunsReply Kind = 86
	kindCopyRange Kind = 87
)

var (
	_ = register[Attach]()
	_ = register[Write]()
	_ = register[Read]()
	_ = register[ReadReply]()
	_ = register[Sync]()
	_ = register[Runs]()
	_ = register[RunsReply]()
	_ = register[CopyRange]()
)

// SumsMax is the most checksums in one data message: the blocks of a payload
// that is not aligned.
const SumsMax = ashlar.IOMax/ashlar.BlockSize + 1

// Attach shows a chunkserver the ticket of the session whose requests this
// connection will carry; sent first on a connection, and again when the
// ticket was renewed. Answer: Empty, or Auth.
type Attach struct {
	Ticket []byte
}

// Kind implements Message.
func (*Attach) Kind() Kind { return kindAttach }

// Fields implements Message.
func (m *Attach) Fields(c *Codec) { Blob(c, &m.Ticket, ticketMax) }

// Address names data of one chunk in the terms that every data request is
// admitted by: the placement group and its epoch (I-4), the session, the
// object and its generation (I-10).
type Address struct {
	Group   ashlar.PGID
	Epoch   ashlar.Epoch
	Session ashlar.SessionID
	Layer   ashlar.LayerID
	Gen     ashlar.Generation
	Chunk   uint32
}

func (a *Address) fields(c *Codec) {
	U32(c, &a.Group)
	U64(c, &a.Epoch)
	U64(c, &a.Session)
	U64(c, &a.Layer)
	U64(c, &a.Gen)
	U32(c, &a.Chunk)
}

// Flags of Write.
const (
	// WriteSync asks that the data be on stable storage on every in-sync
	// member before the answer (O_SYNC, FUA).
	WriteSync = 1 << 0
	// WriteRetry says that this request was sent before, perhaps to another
	// primary (I-7).
	WriteRetry = 1 << 1
	// WriteZero says that [Off, Off+Len) becomes zeros; there is no payload.
	WriteZero = 1 << 2
)

// Write stores the payload at Off of a chunk; it is answered with Empty when
// every in-sync member has applied it. Seq numbers the session's data writes
// and stays the same in retries; Lowest is the lowest unanswered one (I-7).
// Sums are CRC-32C, one for each piece of the payload that lies in one
// 4 KiB block of the chunk; they are verified before anything is stored.
// Origin goes into the header of a chunk made by this write, so that names
// can be found from disks alone.
type Write struct {
	Address
	Origin
	Seq       uint64
	Lowest    uint64
	Flags     uint32
	Off       uint32
	Len       uint32
	ChunkSize uint32
	Sums      []uint32
	Data      []byte // payload; Len bytes unless WriteZero
}

// Kind implements Message.
func (*Write) Kind() Kind { return kindWrite }

// Fields implements Message.
func (m *Write) Fields(c *Codec) {
	m.Address.fields(c)
	U64(c, &m.Seq)
	U64(c, &m.Lowest)
	U32(c, &m.Flags)
	U32(c, &m.Off)
	U32(c, &m.Len)
	U32(c, &m.ChunkSize)
	m.Origin.fields(c)
	U32s(c, &m.Sums, SumsMax)
}

// Payload implements Payloader.
func (m *Write) Payload() []byte { return m.Data }

// PayloadBuffer implements Payloader.
func (m *Write) PayloadBuffer(n int) []byte { return grow(&m.Data, n) }

// Read asks for [Off, Off+Len) of a chunk; both are multiples of the block
// size. Only the primary answers, with a ReadReply.
type Read struct {
	Address
	Off uint32
	Len uint32
}

// Kind implements Message.
func (*Read) Kind() Kind { return kindRead }

// Fields implements Message.
func (m *Read) Fields(c *Codec) {
	m.Address.fields(c)
	U32(c, &m.Off)
	U32(c, &m.Len)
}

// ReadReply carries the blocks asked for and their checksums, which the
// reader verifies. Zero says that all of it is zeros and there is no payload.
// A reader may set Data beforehand: the payload is received into it if it is
// large enough.
type ReadReply struct {
	Zero bool
	Sums []uint32
	Data []byte // payload
}

// Kind implements Message.
func (*ReadReply) Kind() Kind { return kindReadReply }

// Fields implements Message.
func (m *ReadReply) Fields(c *Codec) {
	Bool(c, &m.Zero)
	U32s(c, &m.Sums, SumsMax)
}

// Payload implements Payloader.
func (m *ReadReply) Payload() []byte { return m.Data }

// PayloadBuffer implements Payloader.
func (m *ReadReply) PayloadBuffer(n int) []byte { return grow(&m.Data, n) }

func grow(b *[]byte, n int) []byte {
	if n < 0 || n > PayloadMax {
		return nil
	}
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return *b
}

// Sync asks that every acknowledged write of an object in a group, by
// whomever, be on stable storage on all in-sync members (Address.Chunk is not
// used). Answer: Empty.
type Sync struct {
	Address
}

// Kind implements Message.
func (*Sync) Kind() Kind { return kindSync }

// Fields implements Message.
func (m *Sync) Fields(c *Codec) { m.Address.fields(c) }
