package wire

import (
	"encoding/json"

	"github.com/ashlarfs/ashlar"
)

const (
	kindExplain      Kind = 203
	kindExplainReply Kind = 204
)

var (
	_ = register[Explain]()
	_ = register[ExplainReply]()
)

// Limits of one explanation.
const (
	// ExplainMax is the most placement groups in one answer; the rest follows
	// by Explain.After.
	ExplainMax = 256
	// ExplainLostMax is the most nodes, and the most disks, supposed lost.
	ExplainLostMax = 256
)

// Explain asks the leader why placement groups are as they are, and what would
// become of them. It is about the groups in Groups, or those with a member on
// Disk or on Node, or if none of these is given about all of them; at most
// ExplainMax above After are answered at once. LostNodes and LostDisks are
// supposed to be gone for good from now on. Answer: ExplainReply.
type Explain struct {
	Groups    []ashlar.PGID
	Disk      ashlar.DiskID
	Node      string
	After     ashlar.PGID
	LostNodes []string
	LostDisks []ashlar.DiskID
}

// Kind implements Message.
func (*Explain) Kind() Kind { return kindExplain }

// Fields implements Message.
func (m *Explain) Fields(c *Codec) {
	U32s(c, &m.Groups, ExplainMax)
	U32(c, &m.Disk)
	Text(c, &m.Node, ashlar.NameMax)
	U32(c, &m.After)
	List(c, &m.LostNodes, ExplainLostMax, func(c *Codec, s *string) { Text(c, s, ashlar.NameMax) })
	U32s(c, &m.LostDisks, ExplainLostMax)
}

// ExplainReply is an Explanation as JSON, as StatusReply is.
type ExplainReply struct {
	JSON []byte
}

// Kind implements Message.
func (*ExplainReply) Kind() Kind { return kindExplainReply }

// Fields implements Message.
func (m *ExplainReply) Fields(c *Codec) { Blob(c, &m.JSON, BodyMax-64) }

// Set replaces the reply's content by e.
func (m *ExplainReply) Set(e *Explanation) (err error) {
	m.JSON, err = json.Marshal(e)
	return err
}

// Get parses the reply's content.
func (m *ExplainReply) Get() (*Explanation, error) {
	e := new(Explanation)
	if err := json.Unmarshal(m.JSON, e); err != nil {
		return nil, ashlar.E("explain", ashlar.Corrupt, "", err)
	}
	return e, nil
}

// Explanation is where data is and why, as the leader sees it.
type Explanation struct {
	Leader string `json:"leader"`
	// Groups are those asked about, by number; More says that there are others
	// above the last one.
	Groups []GroupWhy `json:"placement_groups"`
	More   bool       `json:"more,omitempty"`
	// Disks are those that Groups name, and those asked about; Nodes likewise.
	Disks []DiskStatus `json:"disks"`
	Nodes []NodeStatus `json:"nodes"`
	// Rate is what all repair and movement copies in a second, of late.
	Rate uint64   `json:"bytes_per_second"`
	Lost *LossWhy `json:"if_lost,omitempty"`
}

// GroupWhy is a placement group with the reasons of its state.
type GroupWhy struct {
	GroupStatus
	Want     int    `json:"copies_wanted"`
	Copies   int    `json:"copies"` // in-sync and reached
	WriteMin int    `json:"write_min"`
	Bytes    uint64 `json:"bytes,omitempty"` // on each disk, if that was measured
	// Moves is what is on its way, or what keeps a member from its place.
	Moves []MoveWhy `json:"moves,omitempty"`
	// IfLost is the state that it would be in, "" if nothing is supposed lost;
	// LosesAll says that no in-sync copy would be left.
	IfLost     string `json:"if_lost,omitempty"`
	IfCopies   int    `json:"copies_if_lost,omitempty"`
	IfLosesAll bool   `json:"loses_all_copies,omitempty"`
}

// MoveWhy is one member that comes or goes.
type MoveWhy struct {
	Disk uint32 `json:"disk"`
	Node string `json:"node"`
	// What is "copying" (it is being brought up to date), "waiting" (it is not,
	// yet), "leaving" (others take its place), or "missing" (there is no disk for
	// a copy that should be).
	What string `json:"what"`
	// Why is "repair" (another was lost), "return" (it was away), "drain",
	// "balance", "replicas" (the pool asks for fewer or more), "labels", "lost",
	// "paused", or "room".
	Why  string `json:"why"`
	Text string `json:"text"` // the same as a sentence
	Left uint64 `json:"bytes_left,omitempty"`
}

// LossWhy sums up what would become of the groups asked about if nodes and
// disks were lost, whether or not they fit this answer.
type LossWhy struct {
	Nodes []string `json:"nodes,omitempty"`
	Disks []uint32 `json:"disks,omitempty"`
	// Groups counts all that were asked about, Touched those with a member
	// there. Of Touched, the others count those that would be in that state
	// then: each in one of them.
	Groups      int `json:"groups"`
	Touched     int `json:"touched"`
	Gone        int `json:"lose_all_copies"`
	Unavailable int `json:"unavailable"` // no copy is reached, but one is not lost
	ReadOnly    int `json:"read_only"`
	AtRisk      int `json:"at_risk"`
	Degraded    int `json:"degraded"`
	Whole       int `json:"whole"`
	// Homeless counts groups that could not be made whole again: no other disk
	// is fit for a copy.
	Homeless int `json:"no_room_to_repair"`
	// Masters that vote, those that would answer, and how many are needed.
	Voters    int  `json:"masters"`
	Left      int  `json:"masters_left"`
	Needed    int  `json:"masters_needed"`
	Majority  bool `json:"majority"`
	HasLeader bool `json:"leader_stays"`
}
