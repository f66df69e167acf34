package placement

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The records; each begins with its version and holds the fields that its
// Fields method codes, in that order. docs/format/metadata.md repeats them.
const (
	recordV1 = 1
	nodeV2   = 2 // with the process
	poolV2   = 2 // with the rules of repair
	diskV2   = 2 // with the reason of a drain
)

const (
	textMax  = 4096
	seatsMax = 2 * ashlar.ReplicasMax
)

// Pool is a class of storage: which disks, how many copies, how far apart.
type Pool struct {
	ID       uint32
	Name     string
	Replicas uint8
	WriteMin uint8
	Domain   ashlar.Domain
	Labels   []string // every one must be on a disk for it to be used
	// RepairBytes bounds what each chunkserver sends for repair, bytes a
	// second; 0 means RepairBytesDefault. RepairAfter is how long a disk may be
	// away, nanoseconds; 0 means the masters' configuration.
	RepairBytes uint64
	RepairAfter int64
	Paused      bool // nothing is repaired or moved
}

// Fields implements key.Record.
func (p *Pool) Fields(c *wire.Codec) {
	v := key.VersionSince(c, recordV1, poolV2)
	wire.U32(c, &p.ID)
	wire.Text(c, &p.Name, ashlar.NameMax)
	wire.U8(c, &p.Replicas)
	wire.U8(c, &p.WriteMin)
	wire.U8(c, &p.Domain)
	codeLabels(c, &p.Labels)
	if v >= poolV2 {
		wire.U64(c, &p.RepairBytes)
		wire.I64(c, &p.RepairAfter)
		wire.Bool(c, &p.Paused)
	}
}

func codeLabels(c *wire.Codec, l *[]string) {
	wire.List(c, l, wire.LabelsMax, func(c *wire.Codec, s *string) { wire.Text(c, s, textMax) })
}

// Node is a chunkserver. Up says that Incarnation holds a session; it turns
// false only when the lease of that incarnation is surely over (I-6).
type Node struct {
	ID          ashlar.NodeID
	Name        string
	UUID        wire.UUID
	Addr        string
	Rack        string
	Incarnation ashlar.Incarnation
	Process     ashlar.Incarnation // that serves the incarnation, 0 if it is not witnessed
	Session     ashlar.SessionID
	Up          bool
	Since       int64 // when Up last changed
	Drain       bool
	Fenced      uint64 // it has acknowledged every fence up to this revision (I-7)
}

// Fields implements key.Record.
func (n *Node) Fields(c *wire.Codec) {
	v := key.VersionSince(c, recordV1, nodeV2)
	wire.U32(c, &n.ID)
	wire.Text(c, &n.Name, ashlar.NameMax)
	wire.Fixed(c, n.UUID[:])
	wire.Text(c, &n.Addr, textMax)
	wire.Text(c, &n.Rack, textMax)
	wire.U64(c, &n.Incarnation)
	wire.U64(c, &n.Session)
	wire.Bool(c, &n.Up)
	wire.I64(c, &n.Since)
	wire.Bool(c, &n.Drain)
	wire.U64(c, &n.Fenced)
	if v >= nodeV2 {
		wire.U64(c, &n.Process)
	}
}

// Disk is one disk of a chunkserver. It serves if it is Attached and its node
// is Up.
type Disk struct {
	ID        ashlar.DiskID
	UUID      wire.UUID
	Node      ashlar.NodeID
	Path      string
	Owner     uint64 // times it was opened, as last registered
	Labels    []string
	Relabeled bool // Labels were set by an operator and outlive registration
	Attached  bool
	Failed    string // why it is lost, "" if it is not
	Drain     bool
	Added     int64 // when it was first seen
	Away      int64 // since when it does not serve; 0 while it does
	// Damaged is how many damaged blocks had been found when the disk was last
	// drained for them; Why says why it is drained, "" if an operator asked.
	Damaged uint64
	Why     string
}

// Fields implements key.Record.
func (d *Disk) Fields(c *wire.Codec) {
	v := key.VersionSince(c, recordV1, diskV2)
	wire.U32(c, &d.ID)
	wire.Fixed(c, d.UUID[:])
	wire.U32(c, &d.Node)
	wire.Text(c, &d.Path, ashlar.PathMax)
	wire.U64(c, &d.Owner)
	codeLabels(c, &d.Labels)
	wire.Bool(c, &d.Relabeled)
	wire.Bool(c, &d.Attached)
	wire.Text(c, &d.Failed, textMax)
	wire.Bool(c, &d.Drain)
	wire.I64(c, &d.Added)
	wire.I64(c, &d.Away)
	if v >= diskV2 {
		wire.U64(c, &d.Damaged)
		wire.Text(c, &d.Why, textMax)
	}
}

// Group is a placement group with what only the masters keep of it: Seats
// runs parallel to Members.
type Group struct {
	ashlar.Group
	Seats []Seat
}

// Seat is what the masters note of a member.
type Seat struct {
	Since    int64 // when its state last changed
	Failures uint8 // in a row
	Leave    bool  // to be dropped once enough others are in-sync
}

// Fields implements key.Record.
func (g *Group) Fields(c *wire.Codec) {
	key.Version(c, recordV1)
	wire.U32(c, &g.ID)
	wire.U32(c, &g.Pool)
	wire.U64(c, &g.Epoch)
	wire.List(c, &g.Members, seatsMax, func(c *wire.Codec, m *ashlar.Member) {
		wire.U32(c, &m.Disk)
		wire.U32(c, &m.Node)
		wire.U8(c, &m.State)
	})
	wire.List(c, &g.Seats, seatsMax, func(c *wire.Codec, s *Seat) {
		wire.I64(c, &s.Since)
		wire.U8(c, &s.Failures)
		wire.Bool(c, &s.Leave)
	})
	wire.Bool(c, &g.LastCopy)
	if c.Reading() && len(g.Seats) != len(g.Members) {
		c.Fail("group %d: %d seats for %d members", g.ID, len(g.Seats), len(g.Members))
	}
}
