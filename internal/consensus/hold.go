package consensus

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// holdMax is how long the news that more is committed waits for entries to go
// with, and holdLook how often it is looked at; a follower needs the news only
// to apply.
const (
	holdMax  = 10 * time.Millisecond
	holdLook = 10 * time.Millisecond
)

// holder keeps back appends without entries, by which raft tells every
// follower of every commit: while operations come one at a time they are half
// of all messages. The next append with entries says the same. What is held is
// the newest; to drop or delay it is what a network may do. It is the raft
// goroutine's.
type holder struct {
	held  map[uint64]held
	armed bool // a look is due
}

type held struct {
	msg   *raftpb.Message
	since clock.Time
}

// hold returns messages without those that are kept back for now, and with
// those of before that cannot be kept any longer.
func (n *Node) hold(messages []*raftpb.Message) []*raftpb.Message {
	patient := n.patientCommits()
	if !patient && len(n.holder.held) == 0 {
		return messages
	}
	h := &n.holder
	var out []*raftpb.Message
	for k, m := range messages {
		if m.GetType() != raftpb.MsgApp {
			if out != nil {
				out = append(out, m)
			}
			continue
		}
		old, had := h.held[m.GetTo()]
		keep := patient && len(m.Entries) == 0 && !raft.IsLocalMsgTarget(m.GetTo())
		if (keep || had) && out == nil {
			out = append(make([]*raftpb.Message, 0, len(messages)+1), messages[:k]...)
		}
		if had && !covers(m, old.msg) {
			out = append(out, old.msg)
			had = false
		}
		switch {
		case !keep:
			delete(h.held, m.GetTo())
			if out != nil {
				out = append(out, m)
			}
			continue
		case !had:
			old.since = n.cfg.Clock.Now()
		}
		if h.held == nil {
			h.held = map[uint64]held{}
		}
		h.held[m.GetTo()] = held{m, old.since}
		n.armHold()
	}
	if out == nil {
		return messages
	}
	return out
}

// covers tells whether an append says all that an earlier one without entries
// did.
func covers(m, old *raftpb.Message) bool {
	return m.GetTerm() == old.GetTerm() && m.GetIndex() >= old.GetIndex() && m.GetCommit() >= old.GetCommit()
}

// patientCommits tells whether followers may learn of commits later: not while
// the membership changes, which a member that leaves learns of only now.
func (n *Node) patientCommits() bool {
	return n.lead.Self && n.transfer == (transfer{}) && len(n.members.conf.GetVotersOutgoing()) == 0 &&
		n.confIndex <= n.rn.BasicStatus().Applied
}

func (n *Node) armHold() {
	if n.holder.armed {
		return
	}
	n.holder.armed = true
	n.cfg.Clock.AfterFunc(holdLook, func() { n.inbox.put(event{call: n.releaseHeld}) })
}

// releaseHeld sends what was held long enough.
func (n *Node) releaseHeld() {
	h := &n.holder
	h.armed = false
	if len(h.held) == 0 {
		return
	}
	now, patient := n.cfg.Clock.Now(), n.patientCommits()
	var out []*raftpb.Message
	for to, old := range h.held {
		if !n.lead.Self || old.msg.GetTerm() != n.lead.Term {
			delete(h.held, to)
		} else if !patient || now.Sub(old.since) >= holdMax {
			out = append(out, old.msg)
			delete(h.held, to)
		}
	}
	slices.SortFunc(out, func(a, b *raftpb.Message) int { return int(int64(a.GetTo()) - int64(b.GetTo())) })
	n.send(out)
	if len(h.held) > 0 {
		n.armHold()
	}
}
