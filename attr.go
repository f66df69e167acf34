package ashlar

// FileType is the kind of an inode; the values are those of d_type.
type FileType uint8

// The file types.
const (
	TypeFIFO    FileType = 1
	TypeChar    FileType = 2
	TypeDir     FileType = 4
	TypeBlock   FileType = 6
	TypeFile    FileType = 8
	TypeSymlink FileType = 10
	TypeSocket  FileType = 12
)

// Valid tells whether t is one of the file types.
func (t FileType) Valid() bool {
	switch t {
	case TypeFIFO, TypeChar, TypeDir, TypeBlock, TypeFile, TypeSymlink, TypeSocket:
		return true
	}
	return false
}

// Mode bits beyond the nine permissions, as in stat(2).
const (
	ModeSetuid = 0o4000
	ModeSetgid = 0o2000
	ModeSticky = 0o1000
	ModePerm   = 0o777
	ModeMask   = 0o7777
)

// What Attr.Flags tells.
const (
	// HasACL and HasDefaultACL say that there is an access control list that
	// says more than the mode, and one for what is made in the directory.
	HasACL        = 1 << 0
	HasDefaultACL = 1 << 1
	// HasCapability says that there is a security.capability, which a change
	// of the file takes away.
	HasCapability = 1 << 2
	// Linkable says that the file was made without a name and may get one.
	Linkable = 1 << 3
)

// Attr is what stat(2) tells of an inode. Times are nanoseconds since 1970.
type Attr struct {
	Inode   Inode
	Gen     uint32 // life of the inode number, for file handles
	Type    FileType
	Mode    uint16 // permission, setuid, setgid and sticky bits
	Flags   uint8  // HasACL and so on
	Nlink   uint32
	UID     uint32
	GID     uint32
	Rdev    uint32 // device number of a special file
	Size    uint64 // bytes; of a symbolic link, the length of its target
	Blocks  uint64 // 512-byte units, as du counts them
	Atime   int64
	Mtime   int64
	Ctime   int64
	Btime   int64
	Project uint32 // quota project
	// Version changes with every change of data, size or mtime; equal versions
	// mean equal content, so caches compare it at open.
	Version uint64
}

// Cred is on whose behalf an operation is done.
type Cred struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	// Checked says that the caller has checked permissions already (the
	// kernel, for a mount with default_permissions): the masters skip mode
	// checks but still use UID and GID as the owner of what is created.
	Checked bool
}

// Has tells whether the credential is in group gid.
func (c *Cred) Has(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	for _, g := range c.Groups {
		if g == gid {
			return true
		}
	}
	return false
}
