package wire

import "github.com/ashlarfs/ashlar"

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
