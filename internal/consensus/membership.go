package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Member is one voice in the group, or a learner: one that follows without a
// vote. Name and Addr are the caller's own; they travel with the membership.
type Member struct {
	ID         uint64
	Name, Addr string
	Learner    bool
}

// Limits of a membership.
const (
	membersMax    = 64
	memberTextMax = 1024
)

// membership is who belongs to the group as of a log index. It is immutable.
type membership struct {
	conf    *raftpb.ConfState
	members []Member // sorted by ID
}

func newMembership(members []Member) (*membership, error) {
	m := &membership{conf: &raftpb.ConfState{}, members: slices.Clone(members)}
	slices.SortFunc(m.members, func(a, b Member) int { return compare(a.ID, b.ID) })
	for i, mem := range m.members {
		if err := checkMember(mem); err != nil {
			return nil, err
		}
		if i > 0 && m.members[i-1].ID == mem.ID {
			return nil, ashlar.E("form group", ashlar.Invalid, mem.Name, errors.New("two members have one id"))
		}
		if mem.Learner {
			m.conf.Learners = append(m.conf.Learners, mem.ID)
		} else {
			m.conf.Voters = append(m.conf.Voters, mem.ID)
		}
	}
	return m, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func checkMember(m Member) error {
	if m.ID == 0 || m.ID >= 1<<63 || len(m.Name) > memberTextMax || len(m.Addr) > memberTextMax {
		return ashlar.E("check member", ashlar.Invalid, m.Name, fmt.Errorf("id %d", m.ID))
	}
	return nil
}

func (m *membership) find(id uint64) (Member, bool) {
	i, ok := slices.BinarySearchFunc(m.members, id, func(a Member, id uint64) int { return compare(a.ID, id) })
	if !ok {
		return Member{}, false
	}
	return m.members[i], true
}

func (m *membership) voters() []uint64 { return m.conf.GetVoters() }

// apply returns the membership after a committed change. It does to the
// configuration exactly what raft does, so that it can also be done where
// there is no raft: at start, between the mark and the applied index.
func (m *membership) apply(cc *raftpb.ConfChangeV2, index uint64) (*membership, error) {
	ch := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: index}
	cfg, prs, err := confchange.Restore(ch, m.conf)
	if err != nil {
		return nil, fmt.Errorf("membership %v: %w", m.conf, err)
	}
	ch.Tracker.Config, ch.Tracker.Progress = cfg, prs
	if cc.LeaveJoint() {
		cfg, _, err = ch.LeaveJoint()
	} else if autoLeave, joint := cc.EnterJoint(); joint {
		cfg, _, err = ch.EnterJoint(autoLeave, cc.Changes...)
	} else {
		cfg, _, err = ch.Simple(cc.Changes...)
	}
	if err != nil {
		return nil, fmt.Errorf("change membership %v by %v: %w", m.conf, cc, err)
	}
	ch.Tracker.Config = cfg
	return m.withConf(ch.Tracker.ConfState(), cc)
}

// withConf returns the membership with the configuration that raft came to
// and the names that the change carries.
func (m *membership) withConf(conf *raftpb.ConfState, cc *raftpb.ConfChangeV2) (*membership, error) {
	members := slices.Clone(m.members)
	if len(cc.Context) > 0 {
		named, err := decodeMembers(cc.Context)
		if err != nil {
			return nil, err
		}
		for _, n := range named {
			members = slices.DeleteFunc(members, func(o Member) bool { return o.ID == n.ID })
			members = append(members, n)
		}
	}
	out := &membership{conf: conf}
	for _, mem := range members {
		mem.Learner = slices.Contains(conf.GetLearners(), mem.ID)
		if mem.Learner || slices.Contains(conf.GetVoters(), mem.ID) || slices.Contains(conf.GetVotersOutgoing(), mem.ID) {
			out.members = append(out.members, mem)
		}
	}
	slices.SortFunc(out.members, func(a, b Member) int { return compare(a.ID, b.ID) })
	return out, nil
}

// encode returns the membership as marks and checkpoints carry it:
//
//	length  uvarint, of conf
//	conf    raftpb.ConfState
//	members count u32, then of each: id u64, name string, addr string, learner u8
func (m *membership) encode() []byte {
	conf, err := proto.Marshal(m.conf)
	if err != nil {
		panic("consensus: " + err.Error()) // numbers always marshal
	}
	b := binary.AppendUvarint(nil, uint64(len(conf)))
	b = append(b, conf...)
	return append(b, encodeMembers(m.members)...)
}

func decodeMembership(b []byte) (*membership, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, ashlar.E("decode", ashlar.Corrupt, "membership", nil)
	}
	m := &membership{conf: &raftpb.ConfState{}}
	if err := proto.Unmarshal(b[k:k+int(n)], m.conf); err != nil {
		return nil, ashlar.E("decode", ashlar.Corrupt, "membership", err)
	}
	var err error
	m.members, err = decodeMembers(b[k+int(n):])
	return m, err
}

func memberFields(c *wire.Codec, m *Member) {
	wire.U64(c, &m.ID)
	wire.Text(c, &m.Name, memberTextMax)
	wire.Text(c, &m.Addr, memberTextMax)
	wire.Bool(c, &m.Learner)
}

func encodeMembers(members []Member) []byte {
	c := wire.Encoder(nil)
	wire.List(c, &members, membersMax, memberFields)
	return c.Bytes()
}

func decodeMembers(b []byte) ([]Member, error) {
	var members []Member
	c := wire.Decoder(b)
	wire.List(c, &members, membersMax, memberFields)
	if err := c.Finish(); err != nil {
		return nil, err
	}
	return members, nil
}
