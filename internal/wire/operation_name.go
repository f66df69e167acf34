package wire

import "github.com/ashlarfs/ashlar"

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
