package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Inode is the record of an inode. Attr.Inode is its key; Attr.Blocks, and
// the size of what is not a regular file, are computed.
type Inode struct {
	Attr   ashlar.Attr
	Volume ashlar.VolumeID
	// Parent and Cookie are its home: the directory and the cookie of its
	// first name. The root's parent is itself.
	Parent ashlar.Inode
	Cookie uint64
	Xattrs uint32 // how many extended attributes

	// Of a directory.
	Entries    uint64 // names in it
	NextCookie uint64

	// Of a regular file. Cutting says that a cut of its layer is pending.
	Object  wire.Object
	Cutting bool

	Target string // of a symbolic link
}

// Fields implements key.Record.
func (i *Inode) Fields(c *wire.Codec) {
	v := key.VersionSince(c, 1, 2) // 1 had no flags
	a := &i.Attr
	wire.U8(c, &a.Type)
	wire.U16(c, &a.Mode)
	if v >= 2 {
		wire.U8(c, &a.Flags)
	}
	wire.U32(c, &a.Nlink)
	wire.U32(c, &a.UID)
	wire.U32(c, &a.GID)
	wire.U32(c, &a.Rdev)
	wire.U32(c, &a.Gen)
	wire.U32(c, &a.Project)
	wire.I64(c, &a.Atime)
	wire.I64(c, &a.Mtime)
	wire.I64(c, &a.Ctime)
	wire.I64(c, &a.Btime)
	wire.U64(c, &a.Version)
	wire.U32(c, &i.Volume)
	wire.U64(c, &i.Parent)
	wire.U64(c, &i.Cookie)
	wire.U32(c, &i.Xattrs)
	switch a.Type {
	case ashlar.TypeDir:
		wire.U64(c, &i.Entries)
		wire.U64(c, &i.NextCookie)
		a.Size = directorySize
	case ashlar.TypeFile:
		wire.U64(c, &a.Size)
		wire.CodeObject(c, &i.Object)
		wire.Bool(c, &i.Cutting)
	case ashlar.TypeSymlink:
		wire.Text(c, &i.Target, ashlar.SymlinkMax)
		a.Size = uint64(len(i.Target))
	default:
		if !a.Type.Valid() {
			c.Fail("inode of type %d", a.Type)
		}
	}
}

// directorySize is what stat(2) tells of a directory, in bytes.
const directorySize = 4096

// Dentry is the record of a name: what it leads to, and its cookie.
type Dentry struct {
	Inode  ashlar.Inode
	Type   ashlar.FileType
	Cookie uint64
}

// Fields implements key.Record.
func (d *Dentry) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.U64(c, &d.Inode)
	wire.U8(c, &d.Type)
	wire.U64(c, &d.Cookie)
}

// Listed is the record of a name by its cookie.
type Listed struct {
	Inode ashlar.Inode
	Type  ashlar.FileType
	Name  string
}

// Fields implements key.Record.
func (l *Listed) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.U64(c, &l.Inode)
	wire.U8(c, &l.Type)
	wire.Text(c, &l.Name, ashlar.NameMax)
}

// Xattr is the record of an extended attribute.
type Xattr struct {
	Value []byte
}

// Fields implements key.Record.
func (x *Xattr) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.Blob(c, &x.Value, ashlar.XattrValueMax)
}

// Volume is the record of a volume.
type Volume struct {
	Name     string
	Pool     uint32
	PoolName string
	Policy   ashlar.Policy
	Root     ashlar.Inode
	Created  int64
}

// Fields implements key.Record.
func (v *Volume) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.Text(c, &v.Name, ashlar.NameMax)
	wire.U32(c, &v.Pool)
	wire.Text(c, &v.PoolName, ashlar.PathMax)
	wire.CodePolicy(c, &v.Policy)
	wire.U64(c, &v.Root)
	wire.I64(c, &v.Created)
}

// Usage is the record of what a volume holds.
type Usage struct {
	Inodes uint64
	Bytes  uint64 // sum of the sizes of regular files, holes included
}

// Fields implements key.Record.
func (u *Usage) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.U64(c, &u.Inodes)
	wire.U64(c, &u.Bytes)
}

// groupsMax is the most groups that the layers of one file can name.
const groupsMax = 4096 * ashlar.StripeWidthMax

// Deletion names a layer and the groups that may still hold chunks of it. In
// the store, Layer is the key.
type Deletion struct {
	Layer  ashlar.LayerID
	Groups []ashlar.PGID
}

// Fields implements key.Record.
func (d *Deletion) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.U32s(c, &d.Groups, groupsMax)
}

// cutRecord is the record of a cut that is under way.
type cutRecord struct {
	Inode ashlar.Inode
	Gen   ashlar.Generation // that the cut raises the layer to
	Size  uint64
	// Op is the encoded operation that needs the cut, empty if it is not known:
	// it has its result as soon as the cut is done, whoever leads then (I-3).
	Op []byte
}

// cutOpMax bounds the operation in a cutRecord, in bytes.
const cutOpMax = 64 << 10

// Fields implements key.Record.
func (r *cutRecord) Fields(c *wire.Codec) {
	v := key.VersionSince(c, 1, 2) // 1 had no operation
	wire.U64(c, &r.Inode)
	wire.U64(c, &r.Gen)
	wire.U64(c, &r.Size)
	if v >= 2 {
		wire.Blob(c, &r.Op, cutOpMax)
	}
}

// operation is what Op holds, nil if that is nothing.
func (r *cutRecord) operation() *wire.Operation {
	o := new(wire.Operation)
	if len(r.Op) == 0 || wire.Decode(r.Op, o) != nil {
		return nil
	}
	return o
}
