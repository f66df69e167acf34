package wire

import "github.com/ashlarfs/ashlar"

const (
	kindOperation    Kind = 32
	kindEntry        Kind = 33
	kindLookup       Kind = 34
	kindGetAttr      Kind = 35
	kindSetAttr      Kind = 36
	kindMake         Kind = 37
	kindLink         Kind = 38
	kindRemove       Kind = 39
	kindRename       Kind = 40
	kindReadlink     Kind = 41
	kindReadlinkRep  Kind = 42
	kindReaddir      Kind = 43
	kindReaddirReply Kind = 44
	kindOpen         Kind = 45
	kindRelease      Kind = 46
	kindGetXattr     Kind = 47
	kindXattrReply   Kind = 48
	kindSetXattr     Kind = 49
	kindListXattr    Kind = 50
	kindListXattrRep Kind = 51
	kindRemoveXattr  Kind = 52
	kindStatFS       Kind = 53
	kindStatFSReply  Kind = 54
	kindReserve      Kind = 55
	kindReserveReply Kind = 56
	kindCommit       Kind = 57
	kindGrow         Kind = 58
	kindAccess       Kind = 59
	kindFindVolume   Kind = 60
	kindVolumeReply  Kind = 61
	kindGetGroups    Kind = 62
	kindGroupsReply  Kind = 63
	kindAccessed     Kind = 68
)

var (
	_ = register[Operation]()
	_ = register[Entry]()
	_ = register[Lookup]()
	_ = register[GetAttr]()
	_ = register[SetAttr]()
	_ = register[Make]()
	_ = register[Link]()
	_ = register[Remove]()
	_ = register[Rename]()
	_ = register[Readlink]()
	_ = register[ReadlinkReply]()
	_ = register[Readdir]()
	_ = register[ReaddirReply]()
	_ = register[Open]()
	_ = register[Release]()
	_ = register[GetXattr]()
	_ = register[XattrReply]()
	_ = register[SetXattr]()
	_ = register[ListXattr]()
	_ = register[ListXattrReply]()
	_ = register[RemoveXattr]()
	_ = register[StatFS]()
	_ = register[StatFSReply]()
	_ = register[Reserve]()
	_ = register[ReserveReply]()
	_ = register[Commit]()
	_ = register[Grow]()
	_ = register[Access]()
	_ = register[FindVolume]()
	_ = register[VolumeReply]()
	_ = register[GetGroups]()
	_ = register[GroupsReply]()
	_ = register[Accessed]()
)

// Limits of lists in this conversation. nameMax is above ashlar.NameMax so
// that a name too long is refused with its own error by the masters.
const (
	ReaddirMax  = 4096 // entries in one answer
	ReleaseMax  = 4096
	AccessedMax = 1024
	CommitsMax  = 64
	segmentsMax = 4096
	xattrsMax   = 4096
	nameMax     = ashlar.PathMax
	GroupsMax   = 4096
)

// Operation carries one request of a session to the leader and is answered
// with the reply that its body documents. Seq is zero for reads; for changes
// it rises by one, and stays the same when the operation is retried (I-3).
// Lowest is the lowest sequence the session still waits for.
type Operation struct {
	Session    ashlar.SessionID
	Generation uint64 // of the connection
	Seq        uint64
	Lowest     uint64
	Cred       ashlar.Cred
	// Leases asks for leases on the inodes that the answer shows.
	Leases bool
	Body   Message
}

// Kind implements Message.
func (*Operation) Kind() Kind { return kindOperation }

// Fields implements Message.
func (m *Operation) Fields(c *Codec) {
	U64(c, &m.Session)
	U64(c, &m.Generation)
	U64(c, &m.Seq)
	U64(c, &m.Lowest)
	U32(c, &m.Cred.UID)
	U32(c, &m.Cred.GID)
	U32s(c, &m.Cred.Groups, ashlar.GroupsMax)
	Bool(c, &m.Cred.Checked)
	Bool(c, &m.Leases)
	if _, nested := m.Body.(*Operation); nested {
		c.Fail("operation within an operation")
		return
	}
	Any(c, &m.Body)
}

// Changes tells whether an operation body changes logged state and therefore
// carries a sequence. Open and Release change only what the leader holds in
// memory and are repeated freely.
func Changes(m Message) bool {
	switch m := m.(type) {
	case *SetAttr, *Make, *Link, *Remove, *Rename, *SetXattr, *RemoveXattr, *Reserve, *Commit, *Commits, *Grow, *Accessed,
		*SetPool, *DeletePool, *SetVolume, *DeleteVolume, *SetDisk, *SetNode, *SetLock, *SetName:
		return true
	case *Open:
		return m.Truncate
	}
	return false
}

// CodeAttr codes an attribute record.
func CodeAttr(c *Codec, a *ashlar.Attr) {
	U64(c, &a.Inode)
	U32(c, &a.Gen)
	U8(c, &a.Type)
	U16(c, &a.Mode)
	U8(c, &a.Flags)
	U32(c, &a.Nlink)
	U32(c, &a.UID)
	U32(c, &a.GID)
	U32(c, &a.Rdev)
	U64(c, &a.Size)
	U64(c, &a.Blocks)
	I64(c, &a.Atime)
	I64(c, &a.Mtime)
	I64(c, &a.Ctime)
	I64(c, &a.Btime)
	U32(c, &a.Project)
	U64(c, &a.Version)
}

// CodeLayout codes a layout and checks that its arithmetic is safe.
func CodeLayout(c *Codec, l *ashlar.Layout) {
	U32(c, &l.ChunkSize)
	U32(c, &l.Limit)
	List(c, &l.Segments, segmentsMax, func(c *Codec, s *ashlar.Segment) {
		U32(c, &s.First)
		U32(c, &s.StripeUnit)
		U32s(c, &s.Groups, ashlar.StripeWidthMax)
	})
	if c.reading && c.err == nil {
		checkLayout(c, l)
	}
}

func checkLayout(c *Codec, l *ashlar.Layout) {
	if len(l.Segments) == 0 {
		return
	}
	cs := l.ChunkSize
	if cs < ashlar.ChunkSizeMin || cs > ashlar.ChunkSizeMax || cs&(cs-1) != 0 {
		c.Fail("layout: chunk size %d", cs)
		return
	}
	for i, s := range l.Segments {
		u := s.StripeUnit
		switch {
		case len(s.Groups) == 0:
			c.Fail("layout: segment %d has no groups", i)
		case u == 0 || u > cs || u&(u-1) != 0:
			c.Fail("layout: stripe unit %d", u)
		case i == 0 && s.First != 0:
			c.Fail("layout: first segment starts at chunk %d", s.First)
		case i > 0 && s.First <= l.Segments[i-1].First:
			c.Fail("layout: segment %d starts at chunk %d", i, s.First)
		}
	}
}

// Object names the data of a file: the head layer, the generation that every
// data request must carry (I-10), and where its chunks are.
type Object struct {
	Layer  ashlar.LayerID
	Gen    ashlar.Generation
	Layout ashlar.Layout
}

// CodeObject codes an object.
func CodeObject(c *Codec, o *Object) {
	U64(c, &o.Layer)
	U64(c, &o.Gen)
	CodeLayout(c, &o.Layout)
}

// Entry answers every operation that yields an inode. Created tells for Make
// and Open whether it was made just now. Object is set for regular files.
type Entry struct {
	Attr    ashlar.Attr
	Created bool
	Object  Object
	// Hint is the file's present "volume:/path", at most HintMax bytes from its
	// end; only in answers to what begins writing (Make, Open, Grow).
	Hint string
	// Lease is what the session holds of the inode from now on, at least; none
	// also while it is being recalled.
	Lease ashlar.LeaseMode
	// Also is the attributes of the other inodes that were changed, or of the
	// directory that a Lookup was made in.
	Also []Leased
	// Unsettled says that a change of the inode is under way, for which the
	// leader gives no lease.
	Unsettled bool
}

// Leased is the attributes of an inode, and a lease as in Entry.
type Leased struct {
	Attr  ashlar.Attr
	Lease ashlar.LeaseMode
}

// alsoMax is the most inodes changed by one operation beside the one that it
// answers with: of a rename two directories, what was replaced, and a whiteout.
const alsoMax = 4

// HintMax is how much of a path goes into a hint, in bytes.
const HintMax = 1016

// Kind implements Message.
func (*Entry) Kind() Kind { return kindEntry }

// Fields implements Message.
func (m *Entry) Fields(c *Codec) {
	CodeAttr(c, &m.Attr)
	Bool(c, &m.Created)
	CodeObject(c, &m.Object)
	Text(c, &m.Hint, HintMax)
	leaseMode(c, &m.Lease)
	Bool(c, &m.Unsettled)
	List(c, &m.Also, alsoMax, func(c *Codec, l *Leased) {
		CodeAttr(c, &l.Attr)
		leaseMode(c, &l.Lease)
	})
}
