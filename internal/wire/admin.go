package wire

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"

	"github.com/ashlarfs/ashlar"
)

const (
	kindGetStatus      Kind = 192
	kindStatusReply    Kind = 193
	kindSetPool        Kind = 194
	kindDeletePool     Kind = 195
	kindSetVolume      Kind = 196
	kindDeleteVolume   Kind = 197
	kindSetDisk        Kind = 198
	kindSetNode        Kind = 199
	kindAddMaster      Kind = 200
	kindRemoveMaster   Kind = 201
	kindTransferLeader Kind = 202
)

var (
	_ = register[GetStatus]()
	_ = register[StatusReply]()
	_ = register[SetPool]()
	_ = register[DeletePool]()
	_ = register[SetVolume]()
	_ = register[DeleteVolume]()
	_ = register[SetDisk]()
	_ = register[SetNode]()
	_ = register[AddMaster]()
	_ = register[RemoveMaster]()
	_ = register[TransferLeader]()
)

// GetStatus asks the leader for the state of the cluster. Answer:
// StatusReply.
type GetStatus struct{}

// Kind implements Message.
func (*GetStatus) Kind() Kind { return kindGetStatus }

// Fields implements Message.
func (*GetStatus) Fields(*Codec) {}

// StatusReply is a Status as JSON, packed by gzip if it is long: it is for people and scripts, grows with
// every release, and is what the -json option prints.
type StatusReply struct {
	JSON []byte
}

// Kind implements Message.
func (*StatusReply) Kind() Kind { return kindStatusReply }

// Fields implements Message.
func (m *StatusReply) Fields(c *Codec) { Blob(c, &m.JSON, BodyMax-64) }

// Set replaces the reply's content by s.
func (m *StatusReply) Set(s *Status) (err error) {
	if m.JSON, err = json.Marshal(s); err != nil || len(m.JSON) <= statusPlain {
		return err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err = z.Write(m.JSON); err == nil {
		err = z.Close()
	}
	m.JSON = b.Bytes()
	return err
}

// Limits of a Status: it is sent as it is up to statusPlain bytes, and packed
// by gzip above; StatusMax is the most it may unfold to.
const (
	statusPlain = 256 << 10
	StatusMax   = 64 << 20
)

// unpacked returns the JSON as it was before it was packed.
func (m *StatusReply) unpacked() ([]byte, error) {
	if !bytes.HasPrefix(m.JSON, []byte{0x1f, 0x8b}) {
		return m.JSON, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(m.JSON))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, StatusMax+1))
	if err == nil && len(b) > StatusMax {
		err = fmt.Errorf("it is longer than %d bytes", StatusMax)
	}
	return b, err
}

// Get parses the reply's content.
func (m *StatusReply) Get() (*Status, error) {
	s := new(Status)
	b, err := m.unpacked()
	if err == nil {
		err = json.Unmarshal(b, s)
	}
	if err != nil {
		return nil, ashlar.E("status", ashlar.Corrupt, "", err)
	}
	return s, nil
}

// Status is the state of a cluster as its leader sees it.
type Status struct {
	Cluster string `json:"cluster"`
	History uint32 `json:"history"`
	// Health is "ok", "degraded" (a copy is missing), "at risk" (one copy or
	// one master too few away from standing still), "unavailable", or "unknown"
	// (no leader answers; it never says so itself).
	Health   string `json:"health"`
	Problems []Risk `json:"problems"`
	// Redundant tells whether every group has all its copies in-sync.
	Redundant bool           `json:"redundant"`
	Leader    string         `json:"leader"`
	Term      uint64         `json:"term"`
	Committed uint64         `json:"committed"`
	Masters   []MasterStatus `json:"masters"`
	Nodes     []NodeStatus   `json:"nodes"`
	Disks     []DiskStatus   `json:"disks"`
	Pools     []PoolStatus   `json:"pools"`
	Groups    []GroupStatus  `json:"groups"`
	Volumes   []VolumeStatus `json:"volumes"`
	Sessions  []SessionState `json:"sessions"`
	Total     uint64         `json:"bytes_total"` // raw
	Free      uint64         `json:"bytes_free"`  // raw, reserve taken off
	Deleting  uint64         `json:"layers_deleting"`
	// Synced is bytes sent by chunkservers to syncing members since each
	// started.
	Synced uint64 `json:"bytes_synced"`
}

// Risk is one thing wrong, worst first, with what will happen or what to do.
type Risk struct {
	Severity string `json:"severity"` // "unavailable", "at risk", "degraded", "warning"
	What     string `json:"what"`
	Next     string `json:"next"` // until when, or the command that helps
}

// MasterStatus is one member of the consensus group.
type MasterStatus struct {
	ID      uint64 `json:"id"`
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Leader  bool   `json:"leader"`
	Learner bool   `json:"learner,omitempty"`
	Alive   bool   `json:"alive"`
	Match   uint64 `json:"match"`
}

// NodeStatus is one chunkserver.
type NodeStatus struct {
	ID          uint32  `json:"id"`
	Name        string  `json:"name"`
	Addr        string  `json:"addr"`
	Rack        string  `json:"rack,omitempty"`
	Alive       bool    `json:"alive"`
	State       string  `json:"state"`          // "up", "silent" (its words are old, see Silent), "down"
	Silent      float64 `json:"silent_seconds"` // since its last renewal, or since it is down
	Incarnation uint64  `json:"incarnation"`
	Drain       bool    `json:"drain,omitempty"`
}

// DiskStatus is one disk.
type DiskStatus struct {
	ID       uint32   `json:"id"`
	Node     string   `json:"node"`
	Path     string   `json:"path"`
	UUID     string   `json:"uuid"`
	State    string   `json:"state"` // "ok", "silent" (its node is), "full", "draining", "drained", "offline", "failed"
	Error    string   `json:"error,omitempty"`
	Drained  string   `json:"drained_because,omitempty"` // why it is being emptied, or was; "" if an operator asked
	Labels   []string `json:"labels,omitempty"`
	Total    uint64   `json:"bytes_total"`
	Free     uint64   `json:"bytes_free"`
	Chunks   uint64   `json:"chunks"`
	Groups   int      `json:"groups"`
	Damaged  uint64   `json:"blocks_damaged"`
	Repaired uint64   `json:"blocks_repaired"`
	// Age is how old the figures are, in seconds; -1 if there are none.
	Age float64 `json:"figures_age_seconds"`
}

// PoolStatus is one pool.
type PoolStatus struct {
	ID       uint32   `json:"id"`
	Name     string   `json:"name"`
	Replicas int      `json:"replicas"`
	WriteMin int      `json:"write_min"`
	Domain   string   `json:"domain"`
	Labels   []string `json:"labels,omitempty"`
	Groups   int      `json:"groups"`
	Repair   Repair   `json:"repair"`
}

// Repair is what is being copied in a pool: lost copies made anew, members
// that return, data that moves.
type Repair struct {
	Groups int     `json:"groups"` // with a member that is being brought up to date
	Done   uint64  `json:"bytes_done"`
	Left   uint64  `json:"bytes_left"`       // an estimate
	Rate   uint64  `json:"bytes_per_second"` // of late
	Time   float64 `json:"seconds_left"`     // an estimate; 0 if there is nothing to copy, or none yet: not before the speed was measured for ten seconds
	Paused bool    `json:"paused,omitempty"`
	Limit  uint64  `json:"limit_bytes_per_second"` // of each chunkserver
	After  float64 `json:"repair_after_seconds"`
}

// GroupStatus is one placement group.
type GroupStatus struct {
	ID       uint32         `json:"id"`
	Pool     string         `json:"pool"`
	Epoch    uint64         `json:"epoch"`
	State    string         `json:"state"` // "ok", "degraded", "at risk", "read-only" (below write-min), "unavailable", "moving"
	Members  []MemberStatus `json:"members"`
	LastCopy bool           `json:"last_copy,omitempty"`
}

// MemberStatus is one seat of a placement group.
type MemberStatus struct {
	Disk    uint32 `json:"disk"`
	Node    string `json:"node"`
	State   string `json:"state"`
	Primary bool   `json:"primary,omitempty"`
	Alive   bool   `json:"alive"`
	// Left is the estimate of bytes a syncing member still needs.
	Left uint64 `json:"bytes_left,omitempty"`
	// Why says what is being done there and what for, or why nothing is; ""
	// for a member that is in-sync and stays.
	Why string `json:"why,omitempty"`
}

// VolumeStatus is one volume.
type VolumeStatus struct {
	ID          uint32 `json:"id"`
	Name        string `json:"name"`
	Root        uint64 `json:"root"`
	Pool        string `json:"pool"`
	ChunkSize   uint32 `json:"chunk_size"`
	StripeWidth int    `json:"stripe_width"`
	StripeUnit  uint32 `json:"stripe_unit"`
	Inodes      uint64 `json:"inodes"`
	Bytes       uint64 `json:"bytes"`
}

// SessionState is one client session.
type SessionState struct {
	ID     uint64  `json:"id"`
	Name   string  `json:"name"`
	Silent float64 `json:"silent_seconds"`
	Opens  int     `json:"opens"`
}

// SetPool creates a pool, or with Update changes one. Answer: Empty.
type SetPool struct {
	Name     string
	Update   bool
	Replicas uint8         // 1 to ashlar.ReplicasMax; 0 leaves it
	WriteMin uint8         // 0 leaves it
	Domain   ashlar.Domain // 0 leaves it
	Labels   []string      // every one must be on a disk for it to be used
	Relabel  bool          // Labels replaces those of an existing pool
	// RepairBytes is how many bytes a second each chunkserver may send for
	// repair and movement; 0 leaves it, RepairDefault sets the default.
	RepairBytes uint64
	Pause       bool   // stop repair and movement
	Resume      bool   // let them go on
	RepairAfter uint64 // milliseconds a disk may be away before it is replaced; 0 leaves it
}

// RepairDefault, as SetPool.RepairBytes, sets the default.
const RepairDefault = ^uint64(0)

// Kind implements Message.
func (*SetPool) Kind() Kind { return kindSetPool }

// Fields implements Message.
func (m *SetPool) Fields(c *Codec) {
	Text(c, &m.Name, nameMax)
	Bool(c, &m.Update)
	U8(c, &m.Replicas)
	U8(c, &m.WriteMin)
	U8(c, &m.Domain)
	List(c, &m.Labels, LabelsMax, func(c *Codec, s *string) { Text(c, s, labelTextMax) })
	Bool(c, &m.Relabel)
	U64(c, &m.RepairBytes)
	Bool(c, &m.Pause)
	Bool(c, &m.Resume)
	U64(c, &m.RepairAfter)
}

// DeletePool removes a pool that no volume uses. Answer: Empty.
type DeletePool struct {
	Name string
}

// Kind implements Message.
func (*DeletePool) Kind() Kind { return kindDeletePool }

// Fields implements Message.
func (m *DeletePool) Fields(c *Codec) { Text(c, &m.Name, nameMax) }

// SetVolume creates a volume, or with Update changes one: Rename if set, and
// the policy for new files if its ChunkSize is set. Answer: VolumeReply.
type SetVolume struct {
	Name   string
	Update bool
	Rename string
	Pool   string // "" for the default pool; only at creation
	Policy ashlar.Policy
	Mode   uint16 // of the root directory, at creation
	UID    uint32
	GID    uint32
}

// Kind implements Message.
func (*SetVolume) Kind() Kind { return kindSetVolume }

// Fields implements Message.
func (m *SetVolume) Fields(c *Codec) {
	Text(c, &m.Name, nameMax)
	Bool(c, &m.Update)
	Text(c, &m.Rename, nameMax)
	Text(c, &m.Pool, nameMax)
	CodePolicy(c, &m.Policy)
	U16(c, &m.Mode)
	U32(c, &m.UID)
	U32(c, &m.GID)
}

// DeleteVolume removes a volume: an empty one, or with Force all its content
// too, in the background. Answer: Empty.
type DeleteVolume struct {
	Name  string
	Force bool
}

// Kind implements Message.
func (*DeleteVolume) Kind() Kind { return kindDeleteVolume }

// Fields implements Message.
func (m *DeleteVolume) Fields(c *Codec) {
	Text(c, &m.Name, nameMax)
	Bool(c, &m.Force)
}

// SetDisk changes a disk: Drain moves its data to others (Undrain stops
// that), Remove forgets a drained or dead one, Relabel replaces its labels.
// Answer: Empty.
type SetDisk struct {
	Disk    ashlar.DiskID
	Drain   bool
	Undrain bool
	Remove  bool
	Force   bool // remove although groups still name it
	Relabel bool
	Labels  []string
}

// Kind implements Message.
func (*SetDisk) Kind() Kind { return kindSetDisk }

// Fields implements Message.
func (m *SetDisk) Fields(c *Codec) {
	U32(c, &m.Disk)
	Bool(c, &m.Drain)
	Bool(c, &m.Undrain)
	Bool(c, &m.Remove)
	Bool(c, &m.Force)
	Bool(c, &m.Relabel)
	List(c, &m.Labels, LabelsMax, func(c *Codec, s *string) { Text(c, s, labelTextMax) })
}

// SetNode changes a chunkserver: Drain drains all its disks, Remove forgets a
// node whose disks are all removed. Answer: Empty.
type SetNode struct {
	Name    string
	Drain   bool
	Undrain bool
	Remove  bool
}

// Kind implements Message.
func (*SetNode) Kind() Kind { return kindSetNode }

// Fields implements Message.
func (m *SetNode) Fields(c *Codec) {
	Text(c, &m.Name, nameMax)
	Bool(c, &m.Drain)
	Bool(c, &m.Undrain)
	Bool(c, &m.Remove)
}

// AddMaster adds a member to the consensus group, as a learner until it has
// caught up, then as a voter unless Learner is set. The new master is started
// with an empty data directory and finds its member id by its name. Answer:
// Empty, once the membership change is committed.
type AddMaster struct {
	Name    string
	Addr    string
	Learner bool
}

// Kind implements Message.
func (*AddMaster) Kind() Kind { return kindAddMaster }

// Fields implements Message.
func (m *AddMaster) Fields(c *Codec) {
	Text(c, &m.Name, nameMax)
	Text(c, &m.Addr, textMax)
	Bool(c, &m.Learner)
}

// RemoveMaster takes a member out of the consensus group. Answer: Empty.
type RemoveMaster struct {
	Name string
}

// Kind implements Message.
func (*RemoveMaster) Kind() Kind { return kindRemoveMaster }

// Fields implements Message.
func (m *RemoveMaster) Fields(c *Codec) { Text(c, &m.Name, nameMax) }

// TransferLeader asks the leader to hand over, to the named master or to the
// most caught-up one. Answer: Empty.
type TransferLeader struct {
	Name string
}

// Kind implements Message.
func (*TransferLeader) Kind() Kind { return kindTransferLeader }

// Fields implements Message.
func (m *TransferLeader) Fields(c *Codec) { Text(c, &m.Name, nameMax) }
