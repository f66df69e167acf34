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
)

// Limits of lists in this conversation. nameMax is above ashlar.NameMax so
// that a name too long is refused with its own error by the masters.
const (
	ReaddirMax  = 4096 // entries in one answer
	ReleaseMax  = 4096
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
	case *SetAttr, *Make, *Link, *Remove, *Rename, *SetXattr, *RemoveXattr, *Reserve, *Commit, *Grow,
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
// answers with: two directories and what a rename replaced.
const alsoMax = 4

// HintMax is how much of a path goes into a hint, in bytes.
const HintMax = 1024

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

// Lookup finds a name in a directory, "." and ".." included. Answer: Entry.
type Lookup struct {
	Parent ashlar.Inode
	Name   string
}

// Kind implements Message.
func (*Lookup) Kind() Kind { return kindLookup }

// Fields implements Message.
func (m *Lookup) Fields(c *Codec) {
	U64(c, &m.Parent)
	Text(c, &m.Name, nameMax)
}

// GetAttr returns the Entry of an inode, also of one unlinked but open.
type GetAttr struct {
	Inode ashlar.Inode
}

// Kind implements Message.
func (*GetAttr) Kind() Kind { return kindGetAttr }

// Fields implements Message.
func (m *GetAttr) Fields(c *Codec) { U64(c, &m.Inode) }

// Bits of SetAttr.Valid.
const (
	SetMode     = 1 << 0
	SetUID      = 1 << 1
	SetGID      = 1 << 2
	SetSize     = 1 << 3
	SetAtime    = 1 << 4
	SetMtime    = 1 << 5
	SetAtimeNow = 1 << 6 // the leader's clock
	SetMtimeNow = 1 << 7
	SetCtime    = 1 << 8
	// SetKill takes setuid, setgid and capabilities away from a file, as a
	// change of its owner or its data does.
	SetKill = 1 << 9
)

// SetAttr changes attributes. A change of size is answered after every group
// of the layout has recorded the raised generation and cut (I-10). Answer:
// Entry.
type SetAttr struct {
	Inode ashlar.Inode
	Valid uint32
	Mode  uint16
	UID   uint32
	GID   uint32
	Size  uint64
	Atime int64
	Mtime int64
	Ctime int64
}

// Kind implements Message.
func (*SetAttr) Kind() Kind { return kindSetAttr }

// Fields implements Message.
func (m *SetAttr) Fields(c *Codec) {
	U64(c, &m.Inode)
	U32(c, &m.Valid)
	U16(c, &m.Mode)
	U32(c, &m.UID)
	U32(c, &m.GID)
	U64(c, &m.Size)
	I64(c, &m.Atime)
	I64(c, &m.Mtime)
	I64(c, &m.Ctime)
}

// Make creates a file, directory, symbolic link or special file. Without
// Exclusive an existing regular file is returned with Created false. Open
// also registers it as open by the session. Umask is taken from Mode unless
// the directory has a default access control list. Unnamed makes a regular
// file without a name, open, to which Link can give one unless Exclusive.
// Answer: Entry.
type Make struct {
	Parent    ashlar.Inode
	Name      string
	Type      ashlar.FileType
	Mode      uint16
	Rdev      uint32
	Target    string // of a symbolic link
	Exclusive bool
	Open      bool
	Umask     uint16
	Unnamed   bool
}

// Kind implements Message.
func (*Make) Kind() Kind { return kindMake }

// Fields implements Message.
func (m *Make) Fields(c *Codec) {
	U64(c, &m.Parent)
	Text(c, &m.Name, nameMax)
	U8(c, &m.Type)
	U16(c, &m.Mode)
	U32(c, &m.Rdev)
	Text(c, &m.Target, nameMax)
	Bool(c, &m.Exclusive)
	Bool(c, &m.Open)
	U16(c, &m.Umask)
	Bool(c, &m.Unnamed)
}

// Link gives an inode another name. Answer: Entry.
type Link struct {
	Inode  ashlar.Inode
	Parent ashlar.Inode
	Name   string
}

// Kind implements Message.
func (*Link) Kind() Kind { return kindLink }

// Fields implements Message.
func (m *Link) Fields(c *Codec) {
	U64(c, &m.Inode)
	U64(c, &m.Parent)
	Text(c, &m.Name, nameMax)
}

// Remove takes a name away: unlink, or rmdir with Dir. Answer: Entry of what
// the name was, with its new link count. Closed, if set, is what the session
// believes the name to be: it has not got that open, and gives its lease on it
// back if this was the last name.
type Remove struct {
	Parent ashlar.Inode
	Name   string
	Dir    bool
	Closed ashlar.Inode
}

// Kind implements Message.
func (*Remove) Kind() Kind { return kindRemove }

// Fields implements Message.
func (m *Remove) Fields(c *Codec) {
	U64(c, &m.Parent)
	Text(c, &m.Name, nameMax)
	Bool(c, &m.Dir)
	U64(c, &m.Closed)
}

// Flags of Rename, as renameat2(2) numbers them.
const (
	RenameNoReplace = 1 << 0
	RenameExchange  = 1 << 1
	// RenameWhiteout leaves a character device 0,0 under the old name.
	RenameWhiteout = 1 << 2
)

// Rename moves a name. Answer: Entry of the inode moved.
type Rename struct {
	OldParent ashlar.Inode
	OldName   string
	NewParent ashlar.Inode
	NewName   string
	Flags     uint32
}

// Kind implements Message.
func (*Rename) Kind() Kind { return kindRename }

// Fields implements Message.
func (m *Rename) Fields(c *Codec) {
	U64(c, &m.OldParent)
	Text(c, &m.OldName, nameMax)
	U64(c, &m.NewParent)
	Text(c, &m.NewName, nameMax)
	U32(c, &m.Flags)
}

// Readlink reads a symbolic link. Answer: ReadlinkReply.
type Readlink struct {
	Inode ashlar.Inode
}

// Kind implements Message.
func (*Readlink) Kind() Kind { return kindReadlink }

// Fields implements Message.
func (m *Readlink) Fields(c *Codec) { U64(c, &m.Inode) }

// ReadlinkReply is the target of a symbolic link.
type ReadlinkReply struct {
	Target string
}

// Kind implements Message.
func (*ReadlinkReply) Kind() Kind { return kindReadlinkRep }

// Fields implements Message.
func (m *ReadlinkReply) Fields(c *Codec) { Text(c, &m.Target, nameMax) }

// Readdir lists a directory after a cookie, 0 for its start. Cookies are
// stable: an entry keeps its own for life, and removals do not disturb
// others. "." and ".." are not listed. Limit is in entries. Plus asks for
// attributes. Answer: ReaddirReply.
type Readdir struct {
	Inode  ashlar.Inode
	Cookie uint64
	Limit  uint32
	Plus   bool
}

// Kind implements Message.
func (*Readdir) Kind() Kind { return kindReaddir }

// Fields implements Message.
func (m *Readdir) Fields(c *Codec) {
	U64(c, &m.Inode)
	U64(c, &m.Cookie)
	U32(c, &m.Limit)
	Bool(c, &m.Plus)
}

// ReaddirReply is a run of entries; EOF says that there are no more. Dir is the
// directory as of then.
type ReaddirReply struct {
	Plus    bool
	EOF     bool
	Dir     Leased
	Parent  ashlar.Inode // what ".." is
	Entries []DirEntry
}

// DirEntry is one name. Attr and Object are set with Plus.
type DirEntry struct {
	Name   string
	Inode  ashlar.Inode
	Type   ashlar.FileType
	Cookie uint64
	Attr   ashlar.Attr
	Object Object
	Lease  ashlar.LeaseMode
	// Unsettled is that of Entry.
	Unsettled bool
}

// Kind implements Message.
func (*ReaddirReply) Kind() Kind { return kindReaddirReply }

// Fields implements Message.
func (m *ReaddirReply) Fields(c *Codec) {
	Bool(c, &m.Plus)
	Bool(c, &m.EOF)
	CodeAttr(c, &m.Dir.Attr)
	leaseMode(c, &m.Dir.Lease)
	U64(c, &m.Parent)
	List(c, &m.Entries, ReaddirMax, func(c *Codec, e *DirEntry) {
		Text(c, &e.Name, nameMax)
		U64(c, &e.Inode)
		U8(c, &e.Type)
		U64(c, &e.Cookie)
		if m.Plus {
			CodeAttr(c, &e.Attr)
			CodeObject(c, &e.Object)
			leaseMode(c, &e.Lease)
			Bool(c, &e.Unsettled)
		}
	})
}

// Open registers a file as open by the session, so that it outlives its last
// name, and returns its current Entry. Truncate also empties it.
type Open struct {
	Inode    ashlar.Inode
	Write    bool
	Truncate bool
}

// Kind implements Message.
func (*Open) Kind() Kind { return kindOpen }

// Fields implements Message.
func (m *Open) Fields(c *Codec) {
	U64(c, &m.Inode)
	Bool(c, &m.Write)
	Bool(c, &m.Truncate)
}

// Release says that the session has closed files for the last time; each
// counts once whatever the number of opens. Answer: Empty.
type Release struct {
	Inodes []ashlar.Inode
}

// Kind implements Message.
func (*Release) Kind() Kind { return kindRelease }

// Fields implements Message.
func (m *Release) Fields(c *Codec) { U64s(c, &m.Inodes, ReleaseMax) }

// GetXattr reads an extended attribute. Answer: XattrReply.
type GetXattr struct {
	Inode ashlar.Inode
	Name  string
}

// Kind implements Message.
func (*GetXattr) Kind() Kind { return kindGetXattr }

// Fields implements Message.
func (m *GetXattr) Fields(c *Codec) {
	U64(c, &m.Inode)
	Text(c, &m.Name, nameMax)
}

// XattrReply is the value of an extended attribute.
type XattrReply struct {
	Value []byte
}

// Kind implements Message.
func (*XattrReply) Kind() Kind { return kindXattrReply }

// Fields implements Message.
func (m *XattrReply) Fields(c *Codec) { Blob(c, &m.Value, ashlar.XattrValueMax) }

// Flags of SetXattr, as setxattr(2) numbers them.
const (
	XattrCreate  = 1
	XattrReplace = 2
	// XattrKillSetgid, beyond those, clears setgid with an access control list:
	// whoever sets it is not in the group.
	XattrKillSetgid = 1 << 8
)

// SetXattr sets an extended attribute. Answer: Empty.
type SetXattr struct {
	Inode ashlar.Inode
	Name  string
	Value []byte
	Flags uint32
}

// Kind implements Message.
func (*SetXattr) Kind() Kind { return kindSetXattr }

// Fields implements Message.
func (m *SetXattr) Fields(c *Codec) {
	U64(c, &m.Inode)
	Text(c, &m.Name, nameMax)
	Blob(c, &m.Value, 2*ashlar.XattrValueMax) // too long is refused with its own error
	U32(c, &m.Flags)
}

// ListXattr lists the names of extended attributes. Answer: ListXattrReply.
type ListXattr struct {
	Inode ashlar.Inode
}

// Kind implements Message.
func (*ListXattr) Kind() Kind { return kindListXattr }

// Fields implements Message.
func (m *ListXattr) Fields(c *Codec) { U64(c, &m.Inode) }

// ListXattrReply names the extended attributes of an inode.
type ListXattrReply struct {
	Names []string
}

// Kind implements Message.
func (*ListXattrReply) Kind() Kind { return kindListXattrRep }

// Fields implements Message.
func (m *ListXattrReply) Fields(c *Codec) {
	List(c, &m.Names, xattrsMax, func(c *Codec, s *string) { Text(c, s, nameMax) })
}

// RemoveXattr removes an extended attribute. Answer: Empty.
type RemoveXattr struct {
	Inode ashlar.Inode
	Name  string
}

// Kind implements Message.
func (*RemoveXattr) Kind() Kind { return kindRemoveXattr }

// Fields implements Message.
func (m *RemoveXattr) Fields(c *Codec) {
	U64(c, &m.Inode)
	Text(c, &m.Name, nameMax)
}

// StatFS asks for the space of the volume that an inode is in. Answer:
// StatFSReply.
type StatFS struct {
	Inode ashlar.Inode
}

// Kind implements Message.
func (*StatFS) Kind() Kind { return kindStatFS }

// Fields implements Message.
func (m *StatFS) Fields(c *Codec) { U64(c, &m.Inode) }

// StatFSReply tells space in bytes of user data (raw space over copies).
type StatFSReply struct {
	Total, Free, Used uint64
	Inodes            uint64 // in the volume
}

// Kind implements Message.
func (*StatFSReply) Kind() Kind { return kindStatFSReply }

// Fields implements Message.
func (m *StatFSReply) Fields(c *Codec) {
	U64(c, &m.Total)
	U64(c, &m.Free)
	U64(c, &m.Used)
	U64(c, &m.Inodes)
}

// Reserve gives an appender the next Len bytes at the end of a file: the
// size grows by Len before the answer, so no two appenders share an offset.
// Size is the appender's own unreported end of file, 0 if none. Answer:
// ReserveReply.
type Reserve struct {
	Inode ashlar.Inode
	Size  uint64
	Len   uint32
}

// Kind implements Message.
func (*Reserve) Kind() Kind { return kindReserve }

// Fields implements Message.
func (m *Reserve) Fields(c *Codec) {
	U64(c, &m.Inode)
	U64(c, &m.Size)
	U32(c, &m.Len)
}

// ReserveReply is where to write.
type ReserveReply struct {
	Off   uint64
	Entry Entry
}

// Kind implements Message.
func (*ReserveReply) Kind() Kind { return kindReserveReply }

// Fields implements Message.
func (m *ReserveReply) Fields(c *Codec) {
	U64(c, &m.Off)
	m.Entry.Fields(c)
}

// Commit reports data written: the size becomes max(size, Size), mtime and
// ctime become Mtime (0: the leader's clock), the version rises. Layer and
// Gen must still be the file's. Answer: Entry.
type Commit struct {
	Inode ashlar.Inode
	Layer ashlar.LayerID
	Gen   ashlar.Generation
	Size  uint64
	Mtime int64
}

// Kind implements Message.
func (*Commit) Kind() Kind { return kindCommit }

// Fields implements Message.
func (m *Commit) Fields(c *Codec) {
	U64(c, &m.Inode)
	U64(c, &m.Layer)
	U64(c, &m.Gen)
	U64(c, &m.Size)
	I64(c, &m.Mtime)
}

// Grow extends a file's layout so that it covers a chunk. Answer: Entry.
type Grow struct {
	Inode ashlar.Inode
	Layer ashlar.LayerID
	Chunk uint32
}

// Kind implements Message.
func (*Grow) Kind() Kind { return kindGrow }

// Fields implements Message.
func (m *Grow) Fields(c *Codec) {
	U64(c, &m.Inode)
	U64(c, &m.Layer)
	U32(c, &m.Chunk)
}

// Access checks permission for the credential: Mask as access(2), 4 read, 2
// write, 1 execute. Answer: Empty.
type Access struct {
	Inode ashlar.Inode
	Mask  uint8
}

// Kind implements Message.
func (*Access) Kind() Kind { return kindAccess }

// Fields implements Message.
func (m *Access) Fields(c *Codec) {
	U64(c, &m.Inode)
	U8(c, &m.Mask)
}

// FindVolume finds a volume by name. Answer: VolumeReply.
type FindVolume struct {
	Name string
}

// Kind implements Message.
func (*FindVolume) Kind() Kind { return kindFindVolume }

// Fields implements Message.
func (m *FindVolume) Fields(c *Codec) { Text(c, &m.Name, nameMax) }

// VolumeReply describes a volume.
type VolumeReply struct {
	ID     ashlar.VolumeID
	Name   string
	Root   ashlar.Inode
	Pool   string
	Policy ashlar.Policy
}

// Kind implements Message.
func (*VolumeReply) Kind() Kind { return kindVolumeReply }

// Fields implements Message.
func (m *VolumeReply) Fields(c *Codec) {
	U32(c, &m.ID)
	Text(c, &m.Name, nameMax)
	U64(c, &m.Root)
	Text(c, &m.Pool, nameMax)
	CodePolicy(c, &m.Policy)
}

// CodePolicy codes a layout policy.
func CodePolicy(c *Codec, p *ashlar.Policy) {
	U32(c, &p.ChunkSize)
	U8(c, &p.StripeWidth)
	U32(c, &p.StripeUnit)
}

// GetGroups asks where placement groups are now; with no ids, all of them.
// After, if set, delays the answer until the first group's epoch is above it
// or half a second has passed. Answer: GroupsReply.
type GetGroups struct {
	Groups []ashlar.PGID
	After  ashlar.Epoch
}

// Kind implements Message.
func (*GetGroups) Kind() Kind { return kindGetGroups }

// Fields implements Message.
func (m *GetGroups) Fields(c *Codec) {
	U32s(c, &m.Groups, GroupsMax)
	U64(c, &m.After)
}

// GroupsReply is a list of placement groups with the addresses of their
// members filled in.
type GroupsReply struct {
	Groups []ashlar.Group
}

// Kind implements Message.
func (*GroupsReply) Kind() Kind { return kindGroupsReply }

// Fields implements Message.
func (m *GroupsReply) Fields(c *Codec) { List(c, &m.Groups, GroupsMax, CodeGroup) }

// CodeGroup codes a placement group.
func CodeGroup(c *Codec, g *ashlar.Group) {
	U32(c, &g.ID)
	U32(c, &g.Pool)
	U64(c, &g.Epoch)
	List(c, &g.Members, 2*ashlar.ReplicasMax, func(c *Codec, m *ashlar.Member) {
		U32(c, &m.Disk)
		U32(c, &m.Node)
		U8(c, &m.State)
		Text(c, &m.Addr, textMax)
		U64(c, &m.Incarnation)
	})
	Bool(c, &g.LastCopy)
}
