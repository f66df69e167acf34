package consensus

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
)

// stamp is when a leader sent the latest message that raft took.
type stamp struct {
	term uint64
	at   int64
}

// stamps remembers for each leader the stamp to answer with.
type stamps struct {
	mu   sync.Mutex
	from map[uint64]stamp
}

func (s *stamps) set(from uint64, st stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.from[from]; st.term > old.term || st.term == old.term && st.at > old.at {
		s.from[from] = st
	}
}

func (s *stamps) get(from, term uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.from[from]; st.term == term {
		return st.at
	}
	return 0
}

// send gives messages for other members to the transport; those for this
// member's own goroutines and checkpoints it leaves alone. It is called by
// the raft and the append goroutine.
func (n *Node) send(messages []*raftpb.Message) {
	var to []uint64
	byTo := map[uint64][]message{}
	for _, m := range messages {
		if raft.IsLocalMsgTarget(m.GetTo()) || m.GetTo() == n.cfg.ID || !accepted(m.GetType()) {
			continue
		}
		if byTo[m.GetTo()] == nil {
			to = append(to, m.GetTo())
		}
		byTo[m.GetTo()] = append(byTo[m.GetTo()], n.stamped(m))
	}
	for _, id := range to {
		for _, p := range encodePackets(n.cfg.ID, id, byTo[id]) {
			n.cfg.Transport.Send(id, p)
		}
	}
}

func (n *Node) stamped(m *raftpb.Message) message {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgTimeoutNow:
		return message{m, int64(n.cfg.Clock.Now()), n.incarnation}
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		return message{m, n.stamps.get(m.GetTo(), m.GetTerm()), n.incarnation}
	}
	return message{m, 0, n.incarnation}
}

// messageSize is about what a received message keeps in memory.
func messageSize(m message) int64 {
	size := int64(256)
	for _, e := range m.Entries {
		size += int64(len(e.Data)) + 128
	}
	return size
}

// Receive takes a packet that member from sent; it keeps packet. A packet
// that is malformed or meant for another is refused, one beyond the bounds of
// the inbox is dropped with an error of kind Overloaded: raft sends it again.
func (n *Node) Receive(from uint64, packet []byte) error {
	sender, to, messages, err := decodePacket(packet)
	if err != nil {
		return err
	}
	if sender != from || to != n.cfg.ID || from == n.cfg.ID {
		return ashlar.E("receive", ashlar.Invalid, "packet", fmt.Errorf("of %d for %d came from %d to %d", sender, to, from, n.cfg.ID))
	}
	if n.ctx.Err() != nil {
		return ErrStopped
	}
	if n.inboxCount.Load() > inboxMax || n.inboxBytes.Load() > inboxBytesMax {
		return ashlar.E("receive", ashlar.Overloaded, "", nil)
	}
	events := make([]event, len(messages))
	for i := range messages {
		events[i].msg = &messages[i]
		n.inboxCount.Add(1)
		n.inboxBytes.Add(messageSize(messages[i]))
	}
	n.inbox.put(events...)
	return nil
}

// Unreachable tells that what was last sent to a member was lost; raft then
// sends less until it answers.
func (n *Node) Unreachable(id uint64) {
	n.inbox.put(event{call: func() { n.rn.ReportUnreachable(id) }})
}
