package consensus

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// EntryMax is the most data one proposal may carry, in bytes.
const EntryMax = wal.EntryMax

// Config says what a member is and what it stands on.
type Config struct {
	// ID is this member's, never reused in the group.
	ID uint64
	// Cluster stands in every file and is checked.
	Cluster ashlar.ClusterID
	// Dir is the member's directory, made if needed. The state machine must
	// keep its state on the same disk: checkpoints move by rename.
	Dir string
	// FS is the disk; vfs.OS if nil.
	FS vfs.FS
	// Clock is the lease clock and the ticks; clock.Real if nil.
	Clock clock.Clock

	// TickInterval is raft's unit of time; 0 means 50 ms.
	TickInterval time.Duration
	// ElectionTicks without a leader are the least before an election, and
	// one and a half times as many the most; 0 means 16.
	ElectionTicks int
	// HeartbeatTicks is how often a leader lets itself be heard; 0 means 2.
	HeartbeatTicks int

	// Bootstrap lists the first members of a new group, the same at each of
	// them. It is used only if Dir is new; a member that joins a group has
	// none. If the machine has a state already, as after a restore from a
	// backup, the log begins above it: that is for a group of one, which
	// others then join.
	Bootstrap []Member

	Transport Transport
	Machine   StateMachine

	// MembersChanged, if set, is told the members at start and after each
	// change. It is called from the raft goroutine and must not block.
	MembersChanged func([]Member)
	// Dropped, if set, is told that proposals of term, those with an index of
	// from and above, have lost their place: what was evaluated on top of
	// them is void. It is called from the raft goroutine and must not block.
	Dropped func(term, from uint64)

	// SnapshotThresholdBytes is the size of the log at which the store is
	// flushed and the log cut; 0 means 64 MiB.
	SnapshotThresholdBytes int64
	// SegmentBytes is the size of a log segment; 0 means wal.SegmentDefault.
	SegmentBytes int64
	// Logger receives reports; nil discards them.
	Logger *slog.Logger
}

// Transport carries packets and checkpoints to other members. Both may be
// lost, late or in another order; neither may be changed or delivered to
// another member, so the connection below is authenticated and checksummed.
type Transport interface {
	// Send gives a packet to a member's Receive. It never blocks: what does
	// not fit its bounded queue is dropped. The packet is the transport's.
	Send(to uint64, packet []byte)
	// SendCheckpoint gives the stream r to a member's ReceiveCheckpoint and
	// returns when that has returned, with its error.
	SendCheckpoint(ctx context.Context, to uint64, r io.Reader) error
}

// Entry is a committed log entry.
type Entry struct {
	Index, Term uint64
	// Data is as proposed; nil in the entry that begins a term and in a
	// change of members.
	Data []byte
	// Conf is the membership from this entry on, if it changed it.
	Conf []Member
}

// Leadership says who leads in a term; Leader is 0 while nobody is known to.
type Leadership struct {
	Term   uint64
	Leader uint64
	Self   bool
}

// StateMachine is what the log drives. Apply, Restore and LeaderChanged are
// called from one goroutine, in log order; Flush and Checkpoint from others,
// at any time but one at a time.
type StateMachine interface {
	// Apply applies a run of entries, each index one above the last. The
	// machine must remember the last index together with the state, also that
	// of entries without data. An error stops the member. Data is shared and
	// must not be changed.
	Apply(entries []Entry) error
	// AppliedIndex is the index the state is as of; at start, what survived.
	AppliedIndex() uint64
	// Flush makes what is applied durable and returns its index: the log is
	// cut only below it.
	Flush() (uint64, error)
	// Checkpoint writes the state to files in dir, which does not exist yet,
	// durably, and returns the index it is as of. It may contain no
	// directories.
	Checkpoint(dir string) (index uint64, err error)
	// Restore replaces the state by the checkpoint in dir, durably and
	// atomically, and returns its index. It may move dir away.
	Restore(dir string) (index uint64, err error)
	// LeaderChanged tells of leadership, in order with Apply. Self is told
	// only after the entry that begins the term was applied: from then on
	// NextIndex answers.
	LeaderChanged(Leadership)
}

// Status is a member's view of the group.
type Status struct {
	ID, Leader, Term uint64
	Commit, Applied  uint64
	First, Last      uint64 // of the log
	LogBytes         int64
	Lease            bool
	Members          []MemberStatus
	Incarnation      uint64
	SnapshotsSending int
}

// MemberStatus is a member and, at the leader, how far it is.
type MemberStatus struct {
	Member
	Match    uint64 // highest index it is known to hold
	Active   bool   // heard of lately
	Snapshot bool   // being sent a checkpoint
}

// The errors of proposals. Each also has an ashlar.Kind.
var (
	// ErrNotLeader: this member does not lead in that term, or does not yet.
	ErrNotLeader error = ashlar.E("propose", ashlar.NotLeader, "", nil)
	// ErrMoved: the index is not the next. Earlier proposals stand; take
	// NextIndex and evaluate again.
	ErrMoved error = ashlar.E("propose", ashlar.NotReady, "index moved", nil)
	// ErrDropped: earlier proposals lost their place. Discard everything
	// evaluated on top of them; NextIndex begins anew.
	ErrDropped error = ashlar.E("propose", ashlar.NotReady, "dropped", nil)
	// ErrOverloaded: too much is proposed and not applied.
	ErrOverloaded error = ashlar.E("propose", ashlar.Overloaded, "", nil)
	// ErrStopped: the member was stopped or has failed.
	ErrStopped error = ashlar.E("consensus", ashlar.NotReady, "stopped", nil)
)

// Limits of queues.
const (
	// proposedBytesMax and proposedMax bound what is proposed and not yet
	// applied.
	proposedBytesMax = 64 << 20
	proposedMax      = 64 << 10
	// inboxMax and inboxBytesMax bound what was received and not yet stepped;
	// beyond them packets are dropped.
	inboxMax      = 16 << 10
	inboxBytesMax = 64 << 20
	// messageTarget is raft's size of an append, inflightMax and
	// inflightBytesMax bound the appends under way to one member.
	messageTarget    = 256 << 10
	inflightMax      = 512
	inflightBytesMax = 16 << 20
	// applyBytesMax bounds what is handed to Apply at once.
	applyBytesMax = 4 << 20
)

func (c *Config) setDefaults() error {
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.TickInterval == 0 {
		c.TickInterval = 50 * time.Millisecond
	}
	if c.ElectionTicks == 0 {
		c.ElectionTicks = 16
	}
	if c.HeartbeatTicks == 0 {
		c.HeartbeatTicks = 2
	}
	if c.SnapshotThresholdBytes == 0 {
		c.SnapshotThresholdBytes = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ElectionTicks < 5 || c.HeartbeatTicks*2 > c.ElectionTicks {
		return ashlar.E("start consensus", ashlar.Invalid, "", nil)
	}
	return checkMember(Member{ID: c.ID})
}

// leaseDuration is how long after sending a message that a majority answered
// no other leader can have been elected. A follower that heard from a leader
// votes for nobody for ElectionTicks ticks; of these the first may come at
// once and another may have waited in the ticker, and an eighth is left for
// clocks that run at different speeds.
func (c *Config) leaseDuration() time.Duration {
	return time.Duration(c.ElectionTicks-2-(c.ElectionTicks+7)/8) * c.TickInterval
}
