package wire

const (
	kindRaft          Kind = 160
	kindSnapshotBegin Kind = 161
	kindSnapshotData  Kind = 162
	kindSnapshotEnd   Kind = 163
)

var (
	_ = register[Raft]()
	_ = register[SnapshotBegin]()
	_ = register[SnapshotData]()
	_ = register[SnapshotEnd]()
)

// SnapshotFilesMax is the most files in a checkpoint.
const SnapshotFilesMax = 65536

// Raft carries consensus messages from one master to another, in the encoding
// of package consensus. It is not answered: consensus repeats what is lost.
type Raft struct {
	From uint64
	To   uint64
	Data []byte // payload
}

// Kind implements Message.
func (*Raft) Kind() Kind { return kindRaft }

// Fields implements Message.
func (m *Raft) Fields(c *Codec) {
	U64(c, &m.From)
	U64(c, &m.To)
}

// Payload implements Payloader.
func (m *Raft) Payload() []byte { return m.Data }

// PayloadBuffer implements Payloader.
func (m *Raft) PayloadBuffer(n int) []byte { return grow(&m.Data, n) }

// SnapshotFile is one file of a checkpoint.
type SnapshotFile struct {
	Name string // base name
	Size uint64
	Sum  uint32 // CRC-32C of the whole file
}

// SnapshotBegin announces a checkpoint for a follower that fell behind the
// log. Meta is package consensus's description of it. Stream identifies the
// transfer. Answer: Empty.
type SnapshotBegin struct {
	From   uint64
	To     uint64
	Stream uint64
	Meta   []byte
	Files  []SnapshotFile
}

// Kind implements Message.
func (*SnapshotBegin) Kind() Kind { return kindSnapshotBegin }

// Fields implements Message.
func (m *SnapshotBegin) Fields(c *Codec) {
	U64(c, &m.From)
	U64(c, &m.To)
	U64(c, &m.Stream)
	Blob(c, &m.Meta, 1<<20)
	List(c, &m.Files, SnapshotFilesMax, func(c *Codec, f *SnapshotFile) {
		Text(c, &f.Name, 255)
		U64(c, &f.Size)
		U32(c, &f.Sum)
	})
}

// SnapshotData is a piece of a checkpoint's file number File. Answer: Empty.
type SnapshotData struct {
	Stream uint64
	File   uint32
	Off    uint64
	Data   []byte // payload
}

// Kind implements Message.
func (*SnapshotData) Kind() Kind { return kindSnapshotData }

// Fields implements Message.
func (m *SnapshotData) Fields(c *Codec) {
	U64(c, &m.Stream)
	U32(c, &m.File)
	U64(c, &m.Off)
}

// Payload implements Payloader.
func (m *SnapshotData) Payload() []byte { return m.Data }

// PayloadBuffer implements Payloader.
func (m *SnapshotData) PayloadBuffer(n int) []byte { return grow(&m.Data, n) }

// SnapshotEnd says that all was sent; the receiver verifies, makes it durable
// and installs it before it answers Empty.
type SnapshotEnd struct {
	Stream uint64
}

// Kind implements Message.
func (*SnapshotEnd) Kind() Kind { return kindSnapshotEnd }

// Fields implements Message.
func (m *SnapshotEnd) Fields(c *Codec) { U64(c, &m.Stream) }
