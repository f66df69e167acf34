package ashlar

// MemberState is how far a member of a placement group is from being whole.
type MemberState uint8

// The states of a member.
const (
	// InSync members hold every acknowledged write (I-5).
	InSync MemberState = 1
	// Syncing members receive every new write and are being caught up; a write
	// waits for them, a read never uses them.
	Syncing MemberState = 2
	// Offline members receive nothing; their disk is gone or being replaced.
	Offline MemberState = 3
)

// String returns the state in words.
func (s MemberState) String() string {
	switch s {
	case InSync:
		return "in-sync"
	case Syncing:
		return "syncing"
	case Offline:
		return "offline"
	}
	return "unknown"
}

// Member is one disk's seat in a placement group.
type Member struct {
	Disk  DiskID
	Node  NodeID
	State MemberState
	// Addr is where the node of the disk is served now, filled in by the
	// masters when they hand a Group out; it is not part of the state.
	Addr string
	// Incarnation of the chunkserver at Addr, 0 while it is down.
	Incarnation Incarnation
}

// Group is a placement group: an ordered replica set with an epoch. The first
// in-sync member is the primary.
type Group struct {
	ID      PGID
	Pool    uint32
	Epoch   Epoch
	Members []Member
	// LastCopy marks a group whose only in-sync member restarted and was kept,
	// because nobody else has its data.
	LastCopy bool
}

// Primary returns the index of the primary, -1 if there is none.
func (g *Group) Primary() int {
	for i := range g.Members {
		if g.Members[i].State == InSync {
			return i
		}
	}
	return -1
}

// Index returns the index of the member on a disk, -1 if it has none.
func (g *Group) Index(d DiskID) int {
	for i := range g.Members {
		if g.Members[i].Disk == d {
			return i
		}
	}
	return -1
}

// Count returns how many members are in a state.
func (g *Group) Count(s MemberState) int {
	n := 0
	for i := range g.Members {
		if g.Members[i].State == s {
			n++
		}
	}
	return n
}

// Domain is what two members of one group must not share.
type Domain uint8

// The failure domains.
const (
	DomainDisk Domain = 1
	DomainNode Domain = 2
	DomainRack Domain = 3 // the rack label of the node
)

// String returns the domain in words.
func (d Domain) String() string {
	switch d {
	case DomainDisk:
		return "disk"
	case DomainNode:
		return "node"
	case DomainRack:
		return "rack"
	}
	return "unknown"
}

// ParseDomain is the inverse of String.
func ParseDomain(s string) (Domain, bool) {
	for _, d := range []Domain{DomainDisk, DomainNode, DomainRack} {
		if d.String() == s {
			return d, true
		}
	}
	return 0, false
}
