package wire

import "github.com/ashlarfs/ashlar"

const (
	kindRegister       Kind = 128
	kindRegisterReply  Kind = 129
	kindServerRenew    Kind = 130
	kindServerRenewRep Kind = 131
	kindWatch          Kind = 132
	kindWatchReply     Kind = 133
	kindFenced         Kind = 134
	kindReportMember   Kind = 135
	kindReportSynced   Kind = 136
	kindReportDisk     Kind = 137
	kindCut            Kind = 138
	kindDeleteLayers   Kind = 139
	kindYield          Kind = 140
	kindScrub          Kind = 141
	kindScrubReply     Kind = 142
	kindOrigins        Kind = 143
	kindOriginsReply   Kind = 144
)

var (
	_ = register[Register]()
	_ = register[RegisterReply]()
	_ = register[ServerRenew]()
	_ = register[ServerRenewReply]()
	_ = register[Watch]()
	_ = register[WatchReply]()
	_ = register[Fenced]()
	_ = register[ReportMember]()
	_ = register[ReportSynced]()
	_ = register[ReportDisk]()
	_ = register[Cut]()
	_ = register[DeleteLayers]()
	_ = register[Yield]()
	_ = register[Scrub]()
	_ = register[ScrubReply]()
	_ = register[Origins]()
	_ = register[OriginsReply]()
)

// Limits of lists in this conversation.
const (
	DisksMax     = 256 // of one chunkserver
	LabelsMax    = 32
	FencesMax    = 16384
	PoolsMax     = 1024
	LayersMax    = 4096 // in one DeleteLayers
	cutsMax      = 4 * ashlar.StripeWidthMax
	nodeGroups   = 8192 // of one chunkserver
	labelTextMax = 255
)

// UUID identifies a disk or a data directory for life.
type UUID = [16]byte

// DiskInfo is what a chunkserver tells of a disk. Owner counts the times the
// disk was opened; it exposes a disk that was copied or started twice.
type DiskInfo struct {
	UUID   UUID
	Path   string
	Total  uint64
	Free   uint64 // for new data, the reserve taken off
	Chunks uint64
	Owner  uint64
	Labels []string
	Error  string // why the disk is detached, "" if it serves
	// Damaged counts blocks found with a bad checksum, Repaired those mended.
	Damaged, Repaired uint64
}

func diskInfo(c *Codec, d *DiskInfo) {
	Fixed(c, d.UUID[:])
	Text(c, &d.Path, ashlar.PathMax)
	U64(c, &d.Total)
	U64(c, &d.Free)
	U64(c, &d.Chunks)
	U64(c, &d.Owner)
	List(c, &d.Labels, LabelsMax, func(c *Codec, s *string) { Text(c, s, labelTextMax) })
	Text(c, &d.Error, textMax)
	U64(c, &d.Damaged)
	U64(c, &d.Repaired)
}

// Register announces a new incarnation of a chunkserver (logged). UUID is
// that of its data directory: a second process under the same name with
// another UUID is refused while the first lives, and a newer incarnation of
// the same UUID proves the older one dead, because the directory is locked.
type Register struct {
	Name        string
	UUID        UUID
	Addr        string
	Rack        string
	Incarnation ashlar.Incarnation
	// Process is the incarnation that the process names in its handshakes,
	// witness connections included; 0 if there are none.
	Process ashlar.Incarnation
	Disks   []DiskInfo
}

// Kind implements Message.
func (*Register) Kind() Kind { return kindRegister }

// Fields implements Message.
func (m *Register) Fields(c *Codec) {
	Text(c, &m.Name, ashlar.NameMax)
	Fixed(c, m.UUID[:])
	Text(c, &m.Addr, textMax)
	Text(c, &m.Rack, labelTextMax)
	U64(c, &m.Incarnation)
	U64(c, &m.Process)
	List(c, &m.Disks, DisksMax, diskInfo)
}

// RegisterReply gives the chunkserver its node number, session and lease, and
// its disks their numbers, in the order of Register.Disks. The chunkserver
// holds the fence list in Fences before it serves anybody.
type RegisterReply struct {
	Node    ashlar.NodeID
	Session ashlar.SessionID
	LeaseMs uint32
	DeadMs  uint32
	RenewMs uint32
	Term    uint64
	Time    int64 // masters' time, nanoseconds since 1970
	History ashlar.History
	Disks   []ashlar.DiskID
	Fences  []Fence
	Watch   WatchReply // the groups it belongs to now
}

// Fence names a session that is lost: none of its requests may be applied.
type Fence struct {
	Session ashlar.SessionID
	// Revision orders fences; an acknowledgement covers all up to one.
	Revision uint64
}

func fence(c *Codec, f *Fence) {
	U64(c, &f.Session)
	U64(c, &f.Revision)
}

// Kind implements Message.
func (*RegisterReply) Kind() Kind { return kindRegisterReply }

// Fields implements Message.
func (m *RegisterReply) Fields(c *Codec) {
	U32(c, &m.Node)
	U64(c, &m.Session)
	U32(c, &m.LeaseMs)
	U32(c, &m.DeadMs)
	U32(c, &m.RenewMs)
	U64(c, &m.Term)
	I64(c, &m.Time)
	U32(c, &m.History)
	U32s(c, &m.Disks, DisksMax)
	List(c, &m.Fences, FencesMax, fence)
	m.Watch.Fields(c)
}

// SyncProgress tells how far the catch-up of one member is.
type SyncProgress struct {
	Group ashlar.PGID
	Disk  ashlar.DiskID
	Bytes uint64 // sent since the catch-up began
	Left  uint64 // estimate of bytes to go
}

// GroupSize is how many bytes the chunkserver has of a group, measured some
// time ago.
type GroupSize struct {
	Group ashlar.PGID
	Bytes uint64
}

// SizesMax is the most sizes in one ServerRenew; they take turns.
const SizesMax = 64

// ServerRenew is the heartbeat of a chunkserver; not logged. Synced is the
// total of bytes it has sent to syncing members since it started.
type ServerRenew struct {
	Session     ashlar.SessionID
	Incarnation ashlar.Incarnation
	Disks       []DiskInfo
	Progress    []SyncProgress
	Sizes       []GroupSize
	Synced      uint64
}

// Kind implements Message.
func (*ServerRenew) Kind() Kind { return kindServerRenew }

// Fields implements Message.
func (m *ServerRenew) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.Incarnation)
	List(c, &m.Disks, DisksMax, diskInfo)
	List(c, &m.Progress, nodeGroups, func(c *Codec, p *SyncProgress) {
		U32(c, &p.Group)
		U32(c, &p.Disk)
		U64(c, &p.Bytes)
		U64(c, &p.Left)
	})
	List(c, &m.Sizes, SizesMax, func(c *Codec, g *GroupSize) {
		U32(c, &g.Group)
		U64(c, &g.Bytes)
	})
	U64(c, &m.Synced)
}

// ServerRenewReply renews the lease, counted from when the renewal was sent.
type ServerRenewReply struct {
	LeaseMs uint32
	Term    uint64
	Time    int64
}

// Kind implements Message.
func (*ServerRenewReply) Kind() Kind { return kindServerRenewRep }

// Fields implements Message.
func (m *ServerRenewReply) Fields(c *Codec) {
	U32(c, &m.LeaseMs)
	U64(c, &m.Term)
	I64(c, &m.Time)
}

// Watch waits until something that concerns the chunkserver is newer than
// Revision, at most half a lease, and is answered with WatchReply. A
// chunkserver keeps one outstanding. Revisions are log indexes and so go on
// under a new leader.
type Watch struct {
	Session  ashlar.SessionID
	Revision uint64
}

// Kind implements Message.
func (*Watch) Kind() Kind { return kindWatch }

// Fields implements Message.
func (m *Watch) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.Revision)
}

// WatchReply carries all groups that the chunkserver has a member of, and the
// whole fence list, as of Revision. Data of any other group on its disks has
// no owner and may be deleted.
type WatchReply struct {
	Revision uint64
	Groups   []ashlar.Group
	Fences   []Fence
	// Rules names the pools whose rules are not the defaults.
	Rules []PoolRule
}

// PoolRule is what a chunkserver has to know of a pool. Copies is how many
// in-sync members a group must have for its primary to acknowledge a write or
// a sync. RepairBytes is how many bytes a second each chunkserver may send to
// bring members up to date, 0 for the default; nothing is sent while Paused.
type PoolRule struct {
	Pool        uint32
	Copies      uint8
	RepairBytes uint64
	Paused      bool
}

// Kind implements Message.
func (*WatchReply) Kind() Kind { return kindWatchReply }

// Fields implements Message.
func (m *WatchReply) Fields(c *Codec) {
	U64(c, &m.Revision)
	List(c, &m.Groups, nodeGroups, CodeGroup)
	List(c, &m.Fences, FencesMax, fence)
	List(c, &m.Rules, PoolsMax, func(c *Codec, r *PoolRule) {
		U32(c, &r.Pool)
		U8(c, &r.Copies)
		U64(c, &r.RepairBytes)
		Bool(c, &r.Paused)
	})
}

// Fenced acknowledges all fences up to Revision: every request that had been
// admitted from those sessions is applied on all in-sync members or is
// certain never to be (I-7). Answer: Empty.
type Fenced struct {
	Session  ashlar.SessionID
	Revision uint64
}

// Kind implements Message.
func (*Fenced) Kind() Kind { return kindFenced }

// Fields implements Message.
func (m *Fenced) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.Revision)
}

// ReportMember is a primary's report that a member did not answer within a
// second or failed; the masters decide. Answer: Empty.
type ReportMember struct {
	Session ashlar.SessionID
	Group   ashlar.PGID
	Epoch   ashlar.Epoch
	Disk    ashlar.DiskID
	Reason  string
}

// Kind implements Message.
func (*ReportMember) Kind() Kind { return kindReportMember }

// Fields implements Message.
func (m *ReportMember) Fields(c *Codec) {
	U64(c, &m.Session)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U32(c, &m.Disk)
	Text(c, &m.Reason, textMax)
}

// ReportSynced is a primary's word that a syncing member has everything and
// has made it durable: it may become in-sync. Answer: Empty.
type ReportSynced struct {
	Session ashlar.SessionID
	Group   ashlar.PGID
	Epoch   ashlar.Epoch
	Disk    ashlar.DiskID
}

// Kind implements Message.
func (*ReportSynced) Kind() Kind { return kindReportSynced }

// Fields implements Message.
func (m *ReportSynced) Fields(c *Codec) {
	U64(c, &m.Session)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U32(c, &m.Disk)
}

// ReportDisk says that a disk of the chunkserver failed and is detached.
// Answer: Empty.
type ReportDisk struct {
	Session ashlar.SessionID
	Disk    ashlar.DiskID
	Reason  string
}

// Kind implements Message.
func (*ReportDisk) Kind() Kind { return kindReportDisk }

// Fields implements Message.
func (m *ReportDisk) Fields(c *Codec) {
	U64(c, &m.Session)
	U32(c, &m.Disk)
	Text(c, &m.Reason, textMax)
}

// Cut raises the generation of an object in one group (I-10) and, with
// Truncate, cuts its chunks: the chunks in Cuts to their lengths, and every
// other chunk at or above From away. It is sent by the leader to the primary,
// which drains admitted requests of lower generations, has every member
// record the generation durably and cut, and answers Empty. The primary sends
// the same message on to members with Disk set.
type Cut struct {
	Disk     ashlar.DiskID // 0: addressed to the primary
	Group    ashlar.PGID
	Epoch    ashlar.Epoch
	Layer    ashlar.LayerID
	Gen      ashlar.Generation
	Truncate bool
	From     uint32
	Cuts     []ChunkCut
	// Term is that of the leader that sends it. A chunkserver that has heard of
	// a later one refuses it: its sender was paused or cut off.
	Term uint64
}

// ChunkCut is the new length of one chunk, in bytes.
type ChunkCut struct {
	Chunk uint32
	Len   uint32
}

// Kind implements Message.
func (*Cut) Kind() Kind { return kindCut }

// Fields implements Message.
func (m *Cut) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64(c, &m.Layer)
	U64(c, &m.Gen)
	Bool(c, &m.Truncate)
	U32(c, &m.From)
	List(c, &m.Cuts, cutsMax, func(c *Codec, k *ChunkCut) {
		U32(c, &k.Chunk)
		U32(c, &k.Len)
	})
	U64(c, &m.Term)
}

// DeleteLayers removes every chunk of the layers from a group for good. Sent
// by the leader to the primary, which passes it on with Disk set. Answer:
// Empty when every member that is not offline has done it.
type DeleteLayers struct {
	Disk   ashlar.DiskID
	Group  ashlar.PGID
	Epoch  ashlar.Epoch
	Layers []ashlar.LayerID
	Term   uint64 // as in Cut
}

// Kind implements Message.
func (*DeleteLayers) Kind() Kind { return kindDeleteLayers }

// Fields implements Message.
func (m *DeleteLayers) Fields(c *Codec) {
	U32(c, &m.Disk)
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	U64s(c, &m.Layers, LayersMax)
	U64(c, &m.Term)
}

// Yield asks a live primary to consent to a change that takes the primary's
// seat from it: it stops admitting requests of Epoch, finishes those it
// admitted, and answers Empty. It serves again when told of a higher epoch in
// which it is primary, or when Resume is sent (the change did not happen).
type Yield struct {
	Group  ashlar.PGID
	Epoch  ashlar.Epoch
	Resume bool
	Term   uint64 // as in Cut
}

// Kind implements Message.
func (*Yield) Kind() Kind { return kindYield }

// Fields implements Message.
func (m *Yield) Fields(c *Codec) {
	U32(c, &m.Group)
	U64(c, &m.Epoch)
	Bool(c, &m.Resume)
	U64(c, &m.Term)
}

// Scrub verifies chunks: with Start it begins a pass over every chunk on
// every disk of the chunkserver (of one disk if Disk is set) unless one is
// running; either way it is answered with ScrubReply.
type Scrub struct {
	Start bool
	Disk  ashlar.DiskID
}

// Kind implements Message.
func (*Scrub) Kind() Kind { return kindScrub }

// Fields implements Message.
func (m *Scrub) Fields(c *Codec) {
	Bool(c, &m.Start)
	U32(c, &m.Disk)
}

// ScrubReply tells how far the current or last pass is.
type ScrubReply struct {
	Running  bool
	Passes   uint64 // finished since the process started
	Chunks   uint64 // verified in this pass
	Total    uint64 // to verify in this pass
	Bytes    uint64
	Damaged  uint64 // blocks with a bad checksum, or that differ between members
	Repaired uint64
}

// Kind implements Message.
func (*ScrubReply) Kind() Kind { return kindScrubReply }

// Fields implements Message.
func (m *ScrubReply) Fields(c *Codec) {
	Bool(c, &m.Running)
	U64(c, &m.Passes)
	U64(c, &m.Chunks)
	U64(c, &m.Total)
	U64(c, &m.Bytes)
	U64(c, &m.Damaged)
	U64(c, &m.Repaired)
}
