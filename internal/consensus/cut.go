package consensus

import (
	"go.etcd.io/raft/v3/tracker"

	"github.com/ashlarfs/ashlar/internal/consensus/wal"
)

// keepFraction of Config.SnapshotThresholdBytes is kept below the flushed
// index, so that members a little behind need no checkpoint.
const keepFraction = 4

// logGrowthMax is how many times its threshold the log may grow while a
// member still needs what would be cut.
const logGrowthMax = 4

// runCut is the cut goroutine: when the log has grown it makes the store
// durable, and only below that is the log cut.
func (n *Node) runCut() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.cutc:
		}
		if err := n.cut(); err != nil {
			n.fail(err)
			return
		}
	}
}

func (n *Node) cut() error {
	n.checkpointMu.Lock()
	flushed, err := n.cfg.Machine.Flush()
	n.checkpointMu.Unlock()
	if err != nil {
		return err
	}
	first, err := n.storage.FirstIndex()
	if err != nil {
		return err
	}
	last, err := n.storage.LastIndex()
	if err != nil {
		return err
	}
	at := min(flushed, n.applied.Load())
	entries := last - first + 1
	// In entries of average size: how many make up the part to keep.
	keep := uint64(float64(entries) / keepFraction * float64(n.cfg.SnapshotThresholdBytes) / float64(max(n.logSize.Load(), 1)))
	if at < keep+first {
		return nil
	}
	at = n.neededFrom(at-keep, first)
	if at < first {
		return nil
	}
	term, err := n.storage.Term(at)
	if err != nil {
		return nil // a checkpoint took the log's place meanwhile
	}
	n.appendq.put(appendJob{cut: &wal.Mark{Index: at, Term: term, Data: n.membershipAt(at).encode()}})
	if err := n.storage.Compact(at); err != nil {
		return nil
	}
	n.forgetConfs(at)
	return nil
}

// neededFrom lowers at so far that members who are catching up still find
// what they need, unless the log has grown too large.
func (n *Node) neededFrom(at, first uint64) uint64 {
	if n.logSize.Load() > logGrowthMax*n.cfg.SnapshotThresholdBytes {
		return at
	}
	n.mu.Lock()
	for _, index := range n.sending {
		at = min(at, index)
	}
	n.mu.Unlock()
	low := at
	err := n.do(n.ctx, func() {
		for _, pr := range n.rn.Status().Progress {
			if pr.RecentActive && pr.State != tracker.StateSnapshot && pr.Match >= first {
				low = min(low, pr.Match)
			}
		}
	})
	if err != nil {
		return at // the node stops, and low may still be written
	}
	return low
}
