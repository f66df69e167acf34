package consensus

import (
	"context"
	"errors"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/ashlarfs/ashlar"
)

// confWait is a caller who waits for a change of members, or, if caughtUp is
// set, for that member to hold the log up to index.
type confWait struct {
	term, index uint64
	caughtUp    uint64
	done        chan error
}

// AddLearner adds m as a learner, or changes the name and address of the
// learner it is. It returns when the change is applied here.
func (n *Node) AddLearner(ctx context.Context, m Member) error {
	m.Learner = true
	if err := checkMember(m); err != nil {
		return err
	}
	return n.changeMembers(ctx, func(now *membership) (*raftpb.ConfChangeV2, error) {
		if old, ok := now.find(m.ID); ok && !old.Learner {
			return nil, ashlar.E("add learner", ashlar.Exist, m.Name, errors.New("it is a voter"))
		}
		if len(now.members) >= membersMax {
			return nil, ashlar.E("add learner", ashlar.TooBig, m.Name, errors.New("the group is full"))
		}
		return confChange(raftpb.ConfChangeAddLearnerNode, m), nil
	})
}

// Promote gives a learner a vote once it holds what was committed when
// Promote was called. It returns when the change is applied here.
func (n *Node) Promote(ctx context.Context, id uint64) error {
	if err := n.waitCaughtUp(ctx, id); err != nil {
		return err
	}
	return n.changeMembers(ctx, func(now *membership) (*raftpb.ConfChangeV2, error) {
		m, ok := now.find(id)
		if !ok {
			return nil, ashlar.E("promote", ashlar.NotExist, "", nil)
		}
		m.Learner = false
		return confChange(raftpb.ConfChangeAddNode, m), nil
	})
}

// AddMember adds m as a learner, waits until it has caught up and, unless
// m.Learner is set, gives it a vote.
func (n *Node) AddMember(ctx context.Context, m Member) error {
	if err := n.AddLearner(ctx, m); err != nil || m.Learner {
		return err
	}
	return n.Promote(ctx, m.ID)
}

// RemoveMember removes a voter or learner; its id must never be used again.
// The leader may remove itself and then no longer leads.
func (n *Node) RemoveMember(ctx context.Context, id uint64) error {
	return n.changeMembers(ctx, func(now *membership) (*raftpb.ConfChangeV2, error) {
		m, ok := now.find(id)
		if !ok {
			return nil, ashlar.E("remove member", ashlar.NotExist, "", nil)
		}
		if v := now.voters(); len(v) == 1 && v[0] == id {
			return nil, ashlar.E("remove member", ashlar.Invalid, m.Name, errors.New("it is the last voter"))
		}
		cc := confChange(raftpb.ConfChangeRemoveNode, m)
		cc.Context = nil
		return cc, nil
	})
}

// UpdateMember changes the name and address of a member.
func (n *Node) UpdateMember(ctx context.Context, m Member) error {
	if err := checkMember(m); err != nil {
		return err
	}
	return n.changeMembers(ctx, func(now *membership) (*raftpb.ConfChangeV2, error) {
		old, ok := now.find(m.ID)
		if !ok {
			return nil, ashlar.E("update member", ashlar.NotExist, m.Name, nil)
		}
		m.Learner = old.Learner
		return confChange(raftpb.ConfChangeUpdateNode, m), nil
	})
}

func confChange(t raftpb.ConfChangeType, m Member) *raftpb.ConfChangeV2 {
	return &raftpb.ConfChangeV2{
		Changes: []*raftpb.ConfChangeSingle{{Type: t.Enum(), NodeId: &m.ID}},
		Context: encodeMembers([]Member{m}),
	}
}

// changeMembers proposes one change, worked out from the membership as it is,
// and waits until it is applied. There is at most one at a time: a second is
// refused with Busy.
func (n *Node) changeMembers(ctx context.Context, change func(*membership) (*raftpb.ConfChangeV2, error)) error {
	done := make(chan error, 1)
	err := n.do(ctx, func() {
		if err := n.proposeChange(change, done); err != nil {
			done <- err
		}
	})
	if err != nil {
		return err
	}
	return n.wait(ctx, done)
}

func (n *Node) wait(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-n.ctx.Done():
		return ErrStopped
	case <-ctx.Done():
		return ctxErr(ctx)
	}
}

func (n *Node) proposeChange(change func(*membership) (*raftpb.ConfChangeV2, error), done chan error) error {
	if !n.lead.Self || !n.props.ready() {
		return ErrNotLeader
	}
	if n.confIndex > n.rn.BasicStatus().Applied {
		return ashlar.E("change members", ashlar.Busy, "", errors.New("another change is under way"))
	}
	cc, err := change(n.members)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(cc)
	if err != nil {
		return err
	}
	e := &raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}
	for {
		term, index := n.props.place()
		err := n.propose(term, index, e)
		if errors.Is(err, ErrMoved) && !errors.Is(err, ErrDropped) {
			continue // the evaluator was faster
		}
		if err != nil {
			return err
		}
		n.confIndex = index
		n.confWaits = append(n.confWaits, confWait{term: term, index: index, done: done})
		return nil
	}
}

// place is NextIndex without acknowledging anything.
func (p *proposals) place() (term, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.term, p.next
}

// confApplied tells raft, and whoever waits, of an applied change.
func (n *Node) confApplied(c *confResult) {
	n.rn.ApplyConfChange(c.cc)
	n.setMembers(c.membership)
	if n.lead.Self {
		n.lease.count(n.members.conf, n.cfg.ID, n.cfg.leaseDuration())
	}
	n.confWaits = slices.DeleteFunc(n.confWaits, func(w confWait) bool {
		if w.caughtUp != 0 || w.index > c.index {
			return false
		}
		if w.index == c.index && w.term == c.term {
			w.done <- nil
		} else {
			w.done <- ErrDropped
		}
		return true
	})
}

func (n *Node) setMembers(m *membership) {
	n.members = m
	if n.cfg.MembersChanged != nil {
		n.cfg.MembersChanged(m.members)
	}
}

func (n *Node) waitCaughtUp(ctx context.Context, id uint64) error {
	done := make(chan error, 1)
	err := n.do(ctx, func() {
		if !n.lead.Self {
			done <- ErrNotLeader
			return
		}
		st := n.rn.BasicStatus()
		n.confWaits = append(n.confWaits, confWait{term: st.GetTerm(), index: st.GetCommit(), caughtUp: id, done: done})
		n.checkConfWaits()
	})
	if err != nil {
		return err
	}
	return n.wait(ctx, done)
}

// checkConfWaits answers those whose member has caught up; it runs at ticks.
func (n *Node) checkConfWaits() {
	if len(n.confWaits) == 0 {
		return
	}
	progress := n.rn.Status().Progress
	n.confWaits = slices.DeleteFunc(n.confWaits, func(w confWait) bool {
		if w.caughtUp == 0 {
			return false
		}
		pr, ok := progress[w.caughtUp]
		switch {
		case !ok:
			w.done <- ashlar.E("wait for member", ashlar.NotExist, "", nil)
		case pr.Match >= w.index:
			w.done <- nil
		default:
			return false
		}
		return true
	})
}

func (n *Node) failConfWaits() {
	for _, w := range n.confWaits {
		w.done <- ErrNotLeader
	}
	n.confWaits = nil
}

// transfer is an offer of leadership.
type transfer struct {
	to    uint64
	ticks int // since it failed
}

// checkTransfer follows an offer at ticks. Raft withdraws it after an election
// time-out. Until the heir is known to ignore it there is no lease, and if
// that takes too long this member begins a new term, in which the offer is
// void.
func (n *Node) checkTransfer(offered uint64) {
	t := &n.transfer
	if t.to == 0 || offered != 0 {
		return
	}
	if t.ticks++; t.ticks == 1 {
		n.lease.withdrawn(n.cfg.Clock.Now())
		n.wakeLeadWaits()
	}
	switch {
	case !n.lease.blocked:
		n.transfer = transfer{}
	case t.ticks > n.cfg.ElectionTicks:
		term := n.lead.Term + 1
		_ = n.rn.Step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: &t.to, To: &n.cfg.ID, Term: &term})
	}
}

// TransferLeadership hands leadership to the voter that holds most of the log
// and returns when another leads. The lease is given up first.
func (n *Node) TransferLeadership(ctx context.Context) error {
	var started error
	changed := make(chan struct{})
	err := n.do(ctx, func() { started = n.beginTransfer(changed) })
	if err != nil {
		return err
	}
	if started != nil {
		return started
	}
	for {
		select {
		case <-changed:
		case <-n.ctx.Done():
			return ErrStopped
		case <-ctx.Done():
			return ctxErr(ctx)
		}
		var led, failed bool
		changed = make(chan struct{})
		if err := n.do(ctx, func() {
			led, failed = n.lead.Leader != 0 && !n.lead.Self, n.lead.Self
			n.leadWaits = append(n.leadWaits, changed)
		}); err != nil || led {
			return err
		}
		if failed {
			return ashlar.E("hand leadership on", ashlar.Timeout, "", nil)
		}
	}
}

func (n *Node) beginTransfer(changed chan struct{}) error {
	if !n.lead.Self {
		return ErrNotLeader
	}
	best, match := uint64(0), uint64(0)
	for id, pr := range n.rn.Status().Progress {
		if id != n.cfg.ID && !pr.IsLearner && pr.RecentActive && (pr.Match > match || pr.Match == match && id < best) {
			best, match = id, pr.Match
		}
	}
	if best == 0 {
		return ashlar.E("hand leadership on", ashlar.Unreachable, "", errors.New("no other voter answers"))
	}
	n.leadWaits = append(n.leadWaits, changed)
	n.lease.block(best)
	n.transfer = transfer{to: best}
	n.rn.TransferLeader(best)
	return nil
}

// LeaderIsDead tells that an incarnation of a member is surely dead, which
// ends its lease: if this member follows it, it calls an election without
// waiting. All followers should be told; the one with the lowest id begins. It
// says nothing of a later incarnation, and of a leader whose incarnation is
// not known because it has not been heard in its term.
func (n *Node) LeaderIsDead(id, incarnation uint64) {
	n.inbox.put(event{call: func() {
		if _, ok := n.members.find(id); ok && id != n.cfg.ID && incarnation > n.dead[id] {
			n.dead[id] = incarnation
		}
		n.leaveDeadLeader()
	}})
}

// leaveDeadLeader calls an election if the leader is known to be dead.
func (n *Node) leaveDeadLeader() {
	id := n.lead.Leader
	if id == 0 || n.lead.Self || n.life.term != n.lead.Term || n.life.incarnation > n.dead[id] {
		return
	}
	if err := n.rn.ForgetLeader(); err != nil {
		return
	}
	rank := 0
	for _, v := range n.members.voters() {
		if v != id && v < n.cfg.ID {
			rank++
		}
	}
	// Again soon: the others may not have been told yet, and those before may
	// be dead too.
	n.quiet, n.patience = 0, 1+2*rank
	if rank == 0 && slices.Contains(n.members.voters(), n.cfg.ID) {
		_ = n.rn.Campaign()
	}
}

// Status returns this member's view of the group, or an error if it does not
// run.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	err := n.do(ctx, func() {
		st := n.rn.Status()
		s = Status{ID: n.cfg.ID, Leader: st.Lead, Term: st.GetTerm(), Commit: st.GetCommit(), Applied: n.applied.Load(), Last: n.lastIndex}
		for _, m := range n.members.members {
			ms := MemberStatus{Member: m}
			if pr, ok := st.Progress[m.ID]; ok {
				ms.Match, ms.Active = pr.Match, pr.RecentActive || m.ID == n.cfg.ID
				ms.Snapshot = pr.IsPaused() && pr.PendingSnapshot > 0
			}
			s.Members = append(s.Members, ms)
		}
	})
	if err != nil {
		return Status{}, err
	}
	if s.First, err = n.storage.FirstIndex(); err != nil {
		return Status{}, err
	}
	s.LogBytes, s.Lease, s.Incarnation = n.logSize.Load(), n.LeaseValid(), n.incarnation
	n.mu.Lock()
	s.SnapshotsSending = len(n.sending)
	n.mu.Unlock()
	return s, nil
}

var _ raft.Logger = raftLog{}
