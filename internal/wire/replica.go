package wire

import "github.com/ashlarfs/ashlar"

const (
	kindReplicate     Kind = 96
	kindReplicaSync   Kind = 97
	kindAdopt         Kind = 98
	kindHandover      Kind = 99
	kindCatchup       Kind = 100
	kindCatchupReply  Kind = 101
	kindChunkList     Kind = 102
	kindChunkListRep  Kind = 103
	kindCopy          Kind = 104
	kindCatchupEnd    Kind = 105
	kindReplicaCommit Kind = 106
	kindFetch         Kind = 107
	kindFetchReply    Kind = 108
	kindChunkSums     Kind = 109
	kindChunkSumsRep  Kind = 110
)

var (
	_ = register[Replicate]()
	_ = register[ReplicaSync]()
	_ = register[Adopt]()
	_ = register[Handover]()
	_ = register[Catchup]()
	_ = register[CatchupReply]()
	_ = register[ChunkList]()
	_ = register[ChunkListReply]()
	_ = register[Copy]()
	_ = register[CatchupEnd]()
	_ = register[ReplicaCommit]()
	_ = register[Fetch]()
	_ = register[FetchReply]()
	_ = register[ChunkSums]()
	_ = register[ChunkSumsReply]()
)

// Limits of lists in this conversation.
const (
	// InflightMax is the most writes of one disk between the first member that
	// applied them and the last, and the most kept results of writes.
	InflightMax  = 8192
	ChunkListMax = 65536
	GensMax      = 65536
	RegionsMax   = ashlar.ChunkSizeMax / ashlar.RegionSize
)

// Replicate is a client's write on its way from the primary to a member. Op
// numbers the writes of an epoch in the order that the primary gave them;
// every Op up to Committed has been applied by all members, so what was noted
// of them as in flight may be forgotten. Answer: Empty once applied.
type Replicate struct {
	Disk      ashlar.DiskID // the member addressed
	Op        uint64
	Committed uint64
	Write     Write
}

// Kind implements Message.
func (*Replicate) Kind() Kind { return kindReplicate }

// Fields implements Message.
func (m *Replicate) Fields(c *Codec) {
	U32(c, &m.Disk)
	U64(c, &m.Op)
	U64(c, &m.Committed)
	m.Write.Fields(c)
}

// Payload implements Payloader.
func (m *Replicate) Payload() []byte { return m.Write.Data }

// PayloadBuffer implements Payloader.
func (m *Replicate) PayloadBuffer(n int) []byte { return m.Write.PayloadBuffer(n) }

// ReplicaSync asks a member to make an object's data durable. Answer: Empty.
type ReplicaSync struct {
	Disk ashlar.DiskID
	Address
}

// Kind implements Message.
func (*ReplicaSync) Kind() Kind { return kindReplicaSync }

// Fields implements Message.
func (m *ReplicaSync) Fields(c *Codec) {
	U32(c, &m.Disk)
	m.Address.fields(c)
}

// ReplicaCommit tells members how far an epoch is committed when no write
// carries it. Answer: Empty.
type ReplicaCommit struct {
	Disk      ashlar.DiskID
	Group     ashlar.PGID
	Epoch     ashlar.Epoch
	Committed uint64
}

// Kind implements Message.
func (*ReplicaCommit) Kind() Kind { return kindReplicaCommit }

// Fields implements Message.
func (m *ReplicaCommit) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Committed)
}

// Adopt is sent by the primary of a new epoch to every member: the member
// records the epoch durably, refuses lower ones from then on, and hands over
// what it has in flight (I-4). Answer: Handover.
type Adopt struct {
	Disk  ashlar.DiskID
	Group ashlar.Group
}

// Kind implements Message.
func (*Adopt) Kind() Kind { return kindAdopt }

// Fields implements Message.
func (m *Adopt) Fields(c *Codec) {
	U32(c, &m.Disk)
	CodeGroup(c, &m.Group)
}

// Inflight is one write that a member has noted: not known to be on every
// member (Done false), or known to be and kept for its session's retries.
type Inflight struct {
	Session ashlar.SessionID
	Seq     uint64
	Layer   ashlar.LayerID
	Gen     ashlar.Generation
	Chunk   uint32
	Off     uint32
	Len     uint32
	Applied bool // the member finished writing it
	Done    bool
}

// CodeInflight codes one record.
func CodeInflight(c *Codec, f *Inflight) {
	U64(c, &f.Session)
	U64(c, &f.Seq)
	U64(c, &f.Layer)
	U64(c, &f.Gen)
	U32(c, &f.Chunk)
	U32(c, &f.Off)
	U32(c, &f.Len)
	Bool(c, &f.Applied)
	Bool(c, &f.Done)
}

// Horizon says that a member has forgotten results of a session's writes at
// or below Seq: a retry of one of them can not be judged any more (I-7).
type Horizon struct {
	Session ashlar.SessionID
	Seq     uint64
}

// Handover is what a member had noted when it adopted an epoch.
type Handover struct {
	Inflight []Inflight
	Horizons []Horizon
}

// Kind implements Message.
func (*Handover) Kind() Kind { return kindHandover }

// Fields implements Message.
func (m *Handover) Fields(c *Codec) {
	List(c, &m.Inflight, InflightMax, CodeInflight)
	List(c, &m.Horizons, InflightMax, func(c *Codec, h *Horizon) {
		U64(c, &h.Session)
		U64(c, &h.Seq)
	})
}

// ChunkKey names one chunk of a group.
type ChunkKey struct {
	Layer ashlar.LayerID
	Index uint32
}

func chunkKey(c *Codec, k *ChunkKey) {
	U64(c, &k.Layer)
	U32(c, &k.Index)
}

// ObjectGen is the generation recorded of an object.
type ObjectGen struct {
	Layer ashlar.LayerID
	Gen   ashlar.Generation
}

func objectGen(c *Codec, g *ObjectGen) {
	U64(c, &g.Layer)
	U64(c, &g.Gen)
}

// Catchup begins bringing a syncing member up to date. Gens are the raised
// generations of the group's objects. Answer: CatchupReply.
type Catchup struct {
	Disk     ashlar.DiskID
	Group    ashlar.PGID
	Epoch    ashlar.Epoch
	Pass     uint64 // numbers the attempts in an epoch; 0 for results alone
	Gens     []ObjectGen
	Horizons []Horizon
	Inflight []Inflight // kept results, for retries
}

// Kind implements Message.
func (*Catchup) Kind() Kind { return kindCatchup }

// Fields implements Message.
func (m *Catchup) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Pass)
	List(c, &m.Gens, GensMax, objectGen)
	List(c, &m.Horizons, InflightMax, func(c *Codec, h *Horizon) {
		U64(c, &h.Session)
		U64(c, &h.Seq)
	})
	List(c, &m.Inflight, InflightMax, CodeInflight)
}

// CatchupReply tells what a member needs beyond chunks changed after Since,
// the last epoch in which it was in-sync (0: everything): ranges it had in
// flight itself, whole chunks that may be torn because power was lost, and
// objects whose generation is lower there.
//
// Mark tells how far a catch-up came that did not end: up to there the member
// needs only what changed in the epoch of the mark or later, and those ranges;
// whole chunks only of the objects in Layers that are not in Known.
type CatchupReply struct {
	Since  ashlar.Epoch
	Ranges []Inflight
	Whole  []ChunkKey
	Layers []ashlar.LayerID
	Mark   CatchupMark
	Known  []ashlar.LayerID // in Layers, and had that generation at the mark
}

// CatchupMark says that a member has all chunks before At, and of At the part
// before Off, as its group had them in Epoch; 0 for no mark.
type CatchupMark struct {
	Epoch ashlar.Epoch
	At    ChunkKey
	Off   uint32
}

// Kind implements Message.
func (*CatchupReply) Kind() Kind { return kindCatchupReply }

// Fields implements Message.
func (m *CatchupReply) Fields(c *Codec) {
	U64(c, &m.Since)
	List(c, &m.Ranges, InflightMax, CodeInflight)
	List(c, &m.Whole, ChunkListMax, chunkKey)
	List(c, &m.Layers, GensMax, U64[ashlar.LayerID])
	U64(c, &m.Mark.Epoch)
	chunkKey(c, &m.Mark.At)
	U32(c, &m.Mark.Off)
	List(c, &m.Known, GensMax, U64[ashlar.LayerID])
}

// ChunkList names every chunk that the primary has between From (inclusive)
// and To (exclusive; layer 0 for the end), in order of layer and index. The
// member deletes those it has and the list has not. Answer: ChunkListReply.
type ChunkList struct {
	Disk   ashlar.DiskID
	Group  ashlar.PGID
	Epoch  ashlar.Epoch
	Pass   uint64
	From   ChunkKey
	To     ChunkKey
	Chunks []ChunkKey
}

// Kind implements Message.
func (*ChunkList) Kind() Kind { return kindChunkList }

// Fields implements Message.
func (m *ChunkList) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Pass)
	chunkKey(c, &m.From)
	chunkKey(c, &m.To)
	List(c, &m.Chunks, ChunkListMax, chunkKey)
}

// ChunkListReply names the listed chunks that the member does not have.
type ChunkListReply struct {
	Missing []ChunkKey
}

// Kind implements Message.
func (*ChunkListReply) Kind() Kind { return kindChunkListRep }

// Fields implements Message.
func (m *ChunkListReply) Fields(c *Codec) { List(c, &m.Missing, ChunkListMax, chunkKey) }

// Copy overwrites whole blocks of a chunk on a member with the primary's:
// catch-up, reconciliation and repair. States is the presence of each block
// from Off on (chunkstore's encoding, one byte a block); Sums and Data cover
// the blocks whose state is data, in order. Replace first empties the chunk.
// A member refuses a Pass older than that of the last Catchup, so that a copy
// which was given up comes to nothing when it arrives late; 0 is no pass. In a
// pass, the chunks before this one are done, and with it what of this one is
// before Done: what CatchupMark tells of later. One without States and Replace has
// the member note what Origin says of the chunk's file. Answer: Empty.
type Copy struct {
	Disk      ashlar.DiskID
	Group     ashlar.PGID
	Epoch     ashlar.Epoch
	Pass      uint64
	Layer     ashlar.LayerID
	Chunk     uint32
	ChunkSize uint32
	Origin
	Replace bool
	Done    uint32
	Off     uint32
	// End is where in the chunk the last byte that was written of the range
	// is; 0 if that is not known more closely than by blocks.
	End    uint32
	States []byte
	Sums   []uint32
	Data   []byte // payload
}

// Kind implements Message.
func (*Copy) Kind() Kind { return kindCopy }

// Fields implements Message.
func (m *Copy) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Pass)
	U64(c, &m.Layer)
	U32(c, &m.Chunk)
	U32(c, &m.ChunkSize)
	m.Origin.fields(c)
	Bool(c, &m.Replace)
	U32(c, &m.Done)
	U32(c, &m.Off)
	U32(c, &m.End)
	Blob(c, &m.States, SumsMax)
	U32s(c, &m.Sums, SumsMax)
}

// Payload implements Payloader.
func (m *Copy) Payload() []byte { return m.Data }

// PayloadBuffer implements Payloader.
func (m *Copy) PayloadBuffer(n int) []byte { return grow(&m.Data, n) }

// CatchupEnd asks a member to make everything it received durable. Answer:
// Empty; after it the primary proposes that the member be in-sync.
type CatchupEnd struct {
	Disk  ashlar.DiskID
	Group ashlar.PGID
	Epoch ashlar.Epoch
	Pass  uint64
}

// Kind implements Message.
func (*CatchupEnd) Kind() Kind { return kindCatchupEnd }

// Fields implements Message.
func (m *CatchupEnd) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Pass)
}

// Fetch asks a member for blocks of a chunk, for the primary's repair of its
// own. Off and Len are multiples of the block size. Answer: FetchReply.
type Fetch struct {
	Disk  ashlar.DiskID
	Group ashlar.PGID
	Epoch ashlar.Epoch
	Layer ashlar.LayerID
	Chunk uint32
	Off   uint32
	Len   uint32
}

// Kind implements Message.
func (*Fetch) Kind() Kind { return kindFetch }

// Fields implements Message.
func (m *Fetch) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Layer)
	U32(c, &m.Chunk)
	U32(c, &m.Off)
	U32(c, &m.Len)
}

// FetchReply carries blocks as Copy does, and what the header of their chunk
// says. A ChunkSize of 0 says that there is no such chunk.
type FetchReply struct {
	ChunkSize uint32
	Origin
	End    uint32 // as in Copy
	States []byte
	Sums   []uint32
	Data   []byte // payload
}

// Kind implements Message.
func (*FetchReply) Kind() Kind { return kindFetchReply }

// Fields implements Message.
func (m *FetchReply) Fields(c *Codec) {
	U32(c, &m.ChunkSize)
	m.Origin.fields(c)
	U32(c, &m.End)
	Blob(c, &m.States, SumsMax)
	U32s(c, &m.Sums, SumsMax)
}

// Payload implements Payloader.
func (m *FetchReply) Payload() []byte { return m.Data }

// PayloadBuffer implements Payloader.
func (m *FetchReply) PayloadBuffer(n int) []byte { return grow(&m.Data, n) }

// ChunkSums asks a member for the stored state and checksum of every block of
// a chunk, for scrubbing. Answer: ChunkSumsReply.
type ChunkSums struct {
	Disk  ashlar.DiskID
	Group ashlar.PGID
	Epoch ashlar.Epoch
	Layer ashlar.LayerID
	Chunk uint32
}

// Kind implements Message.
func (*ChunkSums) Kind() Kind { return kindChunkSums }

// Fields implements Message.
func (m *ChunkSums) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Layer)
	U32(c, &m.Chunk)
}

// ChunkSumsReply has one state and one checksum a block, up to the last block
// that is not absent.
//
// Origin is what the chunk notes of its file there. With Header the header of the
// chunk is damaged there and nothing else known.
type ChunkSumsReply struct {
	Header bool
	Origin
	States []byte
	Sums   []uint32
}

const chunkBlocksMax = ashlar.ChunkSizeMax / ashlar.BlockSize

// Kind implements Message.
func (*ChunkSumsReply) Kind() Kind { return kindChunkSumsRep }

// Fields implements Message.
func (m *ChunkSumsReply) Fields(c *Codec) {
	Bool(c, &m.Header)
	m.Origin.fields(c)
	Blob(c, &m.States, chunkBlocksMax)
	U32s(c, &m.Sums, chunkBlocksMax)
}
