package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
)

// Node is a running member of the group.
type Node struct {
	cfg         Config
	log         *slog.Logger
	lock        io.Closer
	incarnation uint64
	storage     *storage

	inbox   *queue[event]
	appendq *queue[appendJob]
	applyq  *queue[applyJob]
	cutc    chan struct{}

	inboxCount, inboxBytes atomic.Int64

	props   proposals
	lease   lease
	stamps  stamps
	reads   readers
	applied atomic.Uint64
	logSize atomic.Int64

	checkpointMu sync.Mutex
	receiveMu    sync.Mutex
	receiveSeq   uint64 // receiveMu must be held

	mu       sync.Mutex
	confs    []confAt          // ascending; the first covers the mark
	received *received         // a checkpoint that raft was told of
	sending  map[uint64]uint64 // to whom, and below which index the log is kept for it
	err      error             // why it stopped

	ctx    context.Context // ends when the node does
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Below: the raft goroutine's.
	rn        *raft.RawNode
	lead      Leadership
	life      leaderLife
	dead      map[uint64]uint64 // by member, which incarnations are dead: up to this one
	lastIndex uint64            // of the log, counting what is only in memory
	quiet     int               // ticks without a word from a leader
	patience  int               // ticks of quiet before an election
	voteAfter clock.Time
	fresh     bool // a new group's first start, until it has a leader
	confWaits []confWait
	leadWaits []chan struct{}
	transfer  transfer
	holder    holder
	members   *membership
	confIndex uint64 // of the last change proposed here
	readSeq   uint64

	// The append goroutine's.
	wal   *wal.Log
	hard  wal.Hard // as of what raft asked to store
	cutAt int64    // log size at which it is cut next
}

// event is something for the raft goroutine; one field is set.
type event struct {
	msg      *message
	local    *raftpb.Message // of the append or apply goroutine
	conf     *confResult     // a change of members was applied
	proposal *proposal
	call     func()
}

// Start starts a member. The caller stops it with Stop; if it fails on its
// own, Done ends and Err tells why.
func Start(cfg Config) (*Node, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	lock, incarnation, fresh, err := openDir(&cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, lock: lock, incarnation: incarnation,
		inbox: newQueue[event](), appendq: newQueue[appendJob](), applyq: newQueue[applyJob](),
		cutc: make(chan struct{}, 1), sending: map[uint64]uint64{}, dead: map[uint64]uint64{},
	}
	n.stamps.from = map[uint64]stamp{}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.begin(fresh); err != nil {
		n.cancel()
		if n.wal != nil {
			err = errors.Join(err, n.wal.Close())
		}
		return nil, errors.Join(err, lock.Close())
	}
	return n, nil
}

func (n *Node) begin(fresh bool) error {
	applied, err := n.load(fresh)
	if err != nil {
		return err
	}
	n.applied.Store(applied)
	n.logSize.Store(n.wal.Bytes())
	n.cutAt = n.cfg.SnapshotThresholdBytes
	n.members = n.membershipAt(applied)
	n.rn, err = raft.NewRawNode(&raft.Config{
		ID: n.cfg.ID, ElectionTick: n.cfg.ElectionTicks, HeartbeatTick: n.cfg.HeartbeatTicks,
		Storage: n.storage, Applied: applied, AsyncStorageWrites: true,
		MaxSizePerMsg: messageTarget, MaxCommittedSizePerReady: applyBytesMax,
		MaxInflightMsgs: inflightMax, MaxInflightBytes: inflightBytesMax,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftLog{n.log},
	})
	if err != nil {
		return err
	}
	n.fresh = fresh && len(n.cfg.Bootstrap) > 0
	if !fresh {
		// Before the crash this member may have promised a leader its lease.
		n.voteAfter = n.cfg.Clock.Now().Add(n.cfg.leaseDuration())
	}
	n.newPatience()
	if n.cfg.MembersChanged != nil {
		n.cfg.MembersChanged(n.members.members)
	}
	n.wg.Go(func() { n.guard(n.runRaft) })
	n.wg.Go(func() { n.guard(n.runAppend) })
	n.wg.Go(func() { n.guard(n.runApply) })
	n.wg.Go(func() { n.guard(n.runCut) })
	return nil
}

// guard ends the node if one of its goroutines panics: raft does so when its
// own invariants are broken, and a member in doubt must not go on.
func (n *Node) guard(run func()) {
	defer func() {
		if p := recover(); p != nil {
			n.fail(fmt.Errorf("panic: %v", p))
		}
	}()
	run()
}

// fail stops the node for good. Only the first error counts.
func (n *Node) fail(err error) {
	n.mu.Lock()
	if n.err == nil {
		n.err = err
		if !errors.Is(err, ErrStopped) {
			n.log.Error("consensus: member stops", "member", n.cfg.ID, "err", err)
		}
	}
	n.mu.Unlock()
	n.lease.drop()
	n.props.lose()
	n.cancel()
}

// Done ends when the node has stopped or failed.
func (n *Node) Done() <-chan struct{} { return n.ctx.Done() }

// Err tells why the node stopped; ErrStopped after Stop, nil while it runs.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// Incarnation counts the starts of this member.
func (n *Node) Incarnation() uint64 { return n.incarnation }

// Stop hands leadership on if it can before ctx ends, and stops the member.
// What is proposed and not committed may or may not come to be.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	if n.ctx.Err() == nil {
		if terr := n.TransferLeadership(ctx); terr != nil && !errors.Is(terr, ErrNotLeader) {
			n.log.Info("consensus: leadership was not handed on", "err", terr)
		}
	}
	return errors.Join(err, n.Kill())
}

// Kill stops the member at once, as far as the group can tell like a crash.
func (n *Node) Kill() error {
	n.fail(ErrStopped)
	n.wg.Wait()
	if n.lock == nil {
		return nil
	}
	err := errors.Join(n.wal.Close(), n.lock.Close())
	n.lock = nil
	return err
}

func (n *Node) dir(name string) string { return path.Join(n.cfg.Dir, name) }

// runRaft is the raft goroutine.
func (n *Node) runRaft() {
	ticker := n.cfg.Clock.NewTicker(n.cfg.TickInterval)
	defer ticker.Stop()
	if v := n.members.voters(); len(v) == 1 && v[0] == n.cfg.ID {
		_ = n.rn.Campaign() // nobody to wait for
	}
	var events []event
	for {
		n.drainReady()
		select {
		case <-n.ctx.Done():
			return
		case <-n.inbox.wake:
		case <-ticker.C():
			n.tick()
		}
		events = n.inbox.take(events)
		n.step(events)
	}
}

func (n *Node) drainReady() {
	for n.rn.HasReady() {
		n.ready(n.rn.Ready())
	}
}

// step takes events in the order they came, but proposals together.
func (n *Node) step(events []event) {
	var props []*proposal
	for _, e := range events {
		switch {
		case e.msg != nil:
			n.stepMessage(*e.msg)
		case e.local != nil:
			_ = n.rn.Step(e.local)
		case e.conf != nil:
			n.confApplied(e.conf)
		case e.proposal != nil:
			props = append(props, e.proposal)
		case e.call != nil:
			e.call()
		}
	}
	if len(props) > 0 {
		n.stepProposals(props)
	}
}

func (n *Node) stepMessage(m message) {
	n.inboxCount.Add(-1)
	n.inboxBytes.Add(-messageSize(m))
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if n.cfg.Clock.Now().Before(n.voteAfter) {
			return
		}
	case raftpb.MsgTimeoutNow:
		if n.stamps.get(m.GetFrom(), m.GetTerm()) > m.stamp {
			return // withdrawn: the leader may count on its lease again
		}
	}
	if err := n.rn.Step(m.Message); err != nil {
		return // an answer of somebody who is not a member any more
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat:
		n.heardLeader(m)
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		if n.lead.Self && m.GetTerm() == n.lead.Term {
			n.lease.answered(m.GetFrom(), m.stamp)
			n.lease.count(n.members.conf, n.cfg.ID, n.cfg.leaseDuration())
		}
	}
}

// heardLeader notes that raft took a message of its leader, and when that was
// sent: answers carry it back.
func (n *Node) heardLeader(m message) {
	st := n.rn.BasicStatus()
	if st.GetTerm() != m.GetTerm() || st.Lead != m.GetFrom() {
		return
	}
	n.quiet = 0
	if n.patience <= n.cfg.ElectionTicks {
		n.newPatience() // LeaderIsDead had made it short
	}
	n.stamps.set(m.GetFrom(), stamp{m.GetTerm(), m.stamp})
	n.life = leaderLife{m.GetTerm(), m.life}
	if m.life <= n.dead[m.GetFrom()] {
		n.checkLeadership()
		n.leaveDeadLeader() // it sent this before it ended
	}
}

// leaderLife is which incarnation leads in a term.
type leaderLife struct{ term, incarnation uint64 }

func (n *Node) tick() {
	n.rn.Tick()
	n.quiet++
	st := n.rn.BasicStatus()
	switch {
	case st.RaftState == raft.StateLeader:
		n.quiet = 0
		n.checkConfWaits()
		n.checkTransfer(st.LeadTransferee)
	case !slices.Contains(n.members.voters(), n.cfg.ID):
		return // a learner, or not yet a member
	case n.quiet >= n.patience, n.fresh && st.Lead == 0 && n.quiet%4 == 1 && n.firstVoter():
		if n.quiet >= n.patience {
			n.quiet = 0
			n.newPatience()
		}
		_ = n.rn.Campaign()
	}
}

// firstVoter tells whether this is the member that calls the first election
// of a new group, so that it need not wait for one to be due.
func (n *Node) firstVoter() bool {
	v := n.members.voters()
	return len(v) > 0 && v[0] == n.cfg.ID
}

func (n *Node) newPatience() {
	n.patience = n.cfg.ElectionTicks + 1 + rand.IntN(n.cfg.ElectionTicks/2)
}

// ready does what raft asks for.
func (n *Node) ready(rd raft.Ready) {
	if len(rd.Entries) > 0 {
		n.lastIndex = rd.Entries[len(rd.Entries)-1].GetIndex()
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		n.lastIndex = rd.Snapshot.GetMetadata().GetIndex()
	}
	if rd.SoftState != nil || !raft.IsEmptyHardState(rd.HardState) {
		n.checkLeadership()
	}
	n.send(n.hold(rd.Messages))
	for _, m := range rd.Messages {
		switch {
		case m.GetTo() == raft.LocalAppendThread:
			n.appendq.put(appendJob{msg: m})
		case m.GetTo() == raft.LocalApplyThread:
			n.applyq.put(applyJob{msg: m})
		case m.GetType() == raftpb.MsgSnap:
			n.sendCheckpoint(m.GetTo(), m.GetTerm())
		}
	}
	for _, rs := range rd.ReadStates {
		n.reads.confirmed(rs, &n.applied)
	}
}

// checkLeadership follows changes of term, leader and role.
func (n *Node) checkLeadership() {
	st := n.rn.BasicStatus()
	now := Leadership{Term: st.GetTerm(), Leader: st.Lead, Self: st.RaftState == raft.StateLeader}
	if now == n.lead {
		return
	}
	was := n.lead
	n.lead = now
	if now.Leader != 0 {
		n.fresh = false
	}
	if was.Self {
		n.lease.drop()
		n.props.lose()
		n.reads.lose()
		n.failConfWaits()
		if n.cfg.Dropped != nil {
			n.cfg.Dropped(was.Term, 0)
		}
	}
	if now.Self {
		n.lease.begin()
		n.lease.count(n.members.conf, n.cfg.ID, n.cfg.leaseDuration())
		n.props.begin(now.Term, n.lastIndex+1)
		n.confIndex = n.lastIndex // raft takes no change before it has applied this
	}
	n.applyq.put(applyJob{lead: &now})
	n.transfer = transfer{}
	n.wakeLeadWaits()
}

func (n *Node) wakeLeadWaits() {
	for _, w := range n.leadWaits {
		close(w)
	}
	n.leadWaits = nil
}

// do runs f on the raft goroutine and returns when it has.
func (n *Node) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	n.inbox.put(event{call: func() { f(); close(done) }})
	select {
	case <-done:
		return nil
	case <-n.ctx.Done():
		return ErrStopped
	case <-ctx.Done():
		return ctxErr(ctx)
	}
}

func ctxErr(ctx context.Context) error {
	kind := ashlar.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = ashlar.Timeout
	}
	return ashlar.E("consensus", kind, "", ctx.Err())
}

// raftLog gives raft's reports to slog; a panic of raft ends the node.
type raftLog struct{ log *slog.Logger }

func (l raftLog) Debug(v ...any)              { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Debugf(f string, v ...any)   { l.log.Debug("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLog) Info(v ...any)               { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Infof(f string, v ...any)    { l.log.Debug("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLog) Warning(v ...any)            { l.log.Warn("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Warningf(f string, v ...any) { l.log.Warn("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLog) Error(v ...any)              { l.log.Error("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Errorf(f string, v ...any)   { l.log.Error("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLog) Fatal(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLog) Fatalf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
func (l raftLog) Panic(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLog) Panicf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
