package consensus

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// lease is the leader's right to answer reads from its own state (I-2, I-6).
// It lasts leaseDuration from the moment a message was sent that a majority
// has answered: a follower that takes it votes for nobody for longer than
// that. The clock is only ever compared with itself.
type lease struct {
	until atomic.Int64 // a clock.Time; 0 while there is none

	// The raft goroutine's.
	acks    map[uint64]int64
	blocked bool
	heir    uint64 // whom leadership was offered to, while blocked
	refused int64  // when the offer was withdrawn; 0 before
}

// begin starts a term as leader.
func (l *lease) begin() {
	l.until.Store(0)
	l.acks, l.blocked, l.heir, l.refused = map[uint64]int64{}, false, 0, 0
}

// drop ends the lease; until the next begin there is none.
func (l *lease) drop() {
	l.until.Store(0)
}

// block drops the lease: heir is, or will be, told to take over without
// waiting for it.
func (l *lease) block(heir uint64) {
	l.blocked, l.heir, l.refused = true, heir, 0
	l.until.Store(0)
}

// withdrawn notes that the offer to the heir ended at now. The call to take
// over may still be on its way; the heir ignores it once it has taken a later
// message, and an answer to such a one ends the block.
func (l *lease) withdrawn(now clock.Time) { l.refused = int64(now) }

func (l *lease) answered(from uint64, stamp int64) {
	l.acks[from] = max(l.acks[from], stamp)
	if l.blocked && from == l.heir && l.refused != 0 && stamp > l.refused {
		l.blocked = false
	}
}

// count works the lease out anew from the answers.
func (l *lease) count(conf *raftpb.ConfState, self uint64, d time.Duration) {
	if l.blocked {
		return
	}
	at := l.majority(conf.GetVoters(), self)
	if len(conf.GetVotersOutgoing()) > 0 {
		at = min(at, l.majority(conf.GetVotersOutgoing(), self))
	}
	switch at {
	case 0:
		l.until.Store(0)
	case math.MaxInt64:
		l.until.Store(at)
	default:
		l.until.Store(at + int64(d))
	}
}

// majority returns the time at or after which a majority has answered; a
// member always answers itself.
func (l *lease) majority(voters []uint64, self uint64) int64 {
	if len(voters) == 0 {
		return 0
	}
	at := make([]int64, 0, len(voters))
	for _, v := range voters {
		if v == self {
			at = append(at, math.MaxInt64)
		} else {
			at = append(at, l.acks[v])
		}
	}
	slices.Sort(at)
	return at[len(at)-(len(at)/2+1)]
}

func (l *lease) valid(now clock.Time) bool { return int64(now) < l.until.Load() }

// LeaseValid tells whether this member leads, has applied the entry that
// began its term, and no other can have been elected. A reader asks after it
// has read and before it answers.
func (n *Node) LeaseValid() bool {
	return n.props.ready() && n.lease.valid(n.cfg.Clock.Now()) && n.ctx.Err() == nil
}
