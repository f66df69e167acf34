package wire

import "github.com/ashlarfs/ashlar"

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

// Accessed sets the access times of what was read. Each is set only if it still
// is what the reader knew, and the caller may read the inode; an inode that is
// gone is passed over. Attributes that others know under leases stay as they
// are: they learn of it later. Answer: Empty.
type Accessed struct {
	List []AccessTime
}

// AccessTime is of a read of an inode.
type AccessTime struct {
	Inode ashlar.Inode
	Was   int64 // the access time that the reader knew
	At    int64
}

// Kind implements Message.
func (*Accessed) Kind() Kind { return kindAccessed }

// Fields implements Message.
func (m *Accessed) Fields(c *Codec) {
	List(c, &m.List, AccessedMax, func(c *Codec, a *AccessTime) {
		U64(c, &a.Inode)
		I64(c, &a.Was)
		I64(c, &a.At)
	})
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
// Gen must still be the file's. Then Set is done, as far as it has fields; it
// may have SetBehind. Answer: Entry.
type Commit struct {
	Inode ashlar.Inode
	Layer ashlar.LayerID
	Gen   ashlar.Generation
	Size  uint64
	Mtime int64
	Set   Behind
}

// Behind is times that were set under an exclusive lease before the leader knew,
// at Ctime; otherwise as in SetAttr.
type Behind struct {
	Valid uint32
	Atime int64
	Mtime int64
	Ctime int64
}

// SetBehind is the fields that Behind has.
const SetBehind = SetAtime | SetMtime

func (m *Behind) fields(c *Codec) {
	U32(c, &m.Valid)
	I64(c, &m.Atime)
	I64(c, &m.Mtime)
	I64(c, &m.Ctime)
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
	m.Set.fields(c)
}

// Commits is several Commits in one operation: all of them, or none if one is
// refused. Answer: CommitsReply.
type Commits struct {
	List []Commit
}

// Kind implements Message.
func (*Commits) Kind() Kind { return kindCommits }

// Fields implements Message.
func (m *Commits) Fields(c *Codec) {
	List(c, &m.List, CommitsMax, func(c *Codec, x *Commit) { x.Fields(c) })
}

// CommitsReply tells the attributes afterwards, in the order of Commits.
type CommitsReply struct {
	Attrs []ashlar.Attr
}

// Kind implements Message.
func (*CommitsReply) Kind() Kind { return kindCommitsReply }

// Fields implements Message.
func (m *CommitsReply) Fields(c *Codec) { List(c, &m.Attrs, CommitsMax, CodeAttr) }

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
