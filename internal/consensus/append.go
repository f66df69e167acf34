package consensus

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
)

// appendJob is something for the append goroutine; one field is set.
type appendJob struct {
	msg *raftpb.Message // MsgStorageAppend
	cut *wal.Mark       // the log may be cut here
}

// runAppend is the append goroutine: everything queued becomes one write and
// one sync, and only then are the answers sent that promise it (I-1).
func (n *Node) runAppend() {
	var jobs []appendJob
	for {
		select {
		case <-n.ctx.Done():
			n.saveHard()
			return
		case <-n.appendq.wake:
		}
		jobs = n.appendq.take(jobs)
		if err := n.appendJobs(jobs); err != nil {
			n.fail(err)
			return
		}
		if n.logSize.Store(n.wal.Bytes()); n.logSize.Load() >= n.cutAt {
			select {
			case n.cutc <- struct{}{}:
			default:
			}
		}
	}
}

// saveHard remembers how far the log is committed, which saves time at the
// next start and promises nothing.
func (n *Node) saveHard() {
	if n.Err() == ErrStopped {
		_ = n.wal.Append(wal.Batch{Hard: &n.hard})
	}
}

func (n *Node) appendJobs(jobs []appendJob) error {
	var (
		batch   wal.Batch
		answers []*raftpb.Message
	)
	flush := func() error {
		if err := n.appendBatch(&batch); err != nil {
			return err
		}
		n.answer(answers)
		answers = nil
		return nil
	}
	for _, j := range jobs {
		if j.cut != nil {
			if j.cut.Index <= n.wal.Begins() {
				continue // a checkpoint was installed meanwhile
			}
			batch.Mark = j.cut
			if err := flush(); err != nil {
				return err
			}
			if err := n.wal.Truncate(); err != nil {
				return err
			}
			n.cutAt = n.wal.Bytes() + n.cfg.SnapshotThresholdBytes/2
			n.cutAt = max(n.cutAt, n.cfg.SnapshotThresholdBytes)
			continue
		}
		if !raft.IsEmptySnap(j.msg.GetSnapshot()) {
			if err := flush(); err != nil {
				return err
			}
			if err := n.install(j.msg.GetSnapshot()); err != nil {
				return err
			}
		}
		n.gather(&batch, j.msg)
		answers = append(answers, j.msg.GetResponses()...)
	}
	return flush()
}

// gather adds what a message of raft wants stored. That more is committed is
// not worth a sync: the log itself proves it again.
func (n *Node) gather(b *wal.Batch, m *raftpb.Message) {
	if m.Term != nil && (m.GetTerm() != 0 || m.GetVote() != 0 || m.GetCommit() != 0) {
		h := wal.Hard{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
		if h.Term != n.hard.Term || h.Vote != n.hard.Vote {
			b.Hard = &h
		}
		n.hard = h
	}
	if len(m.Entries) == 0 {
		return
	}
	if len(b.Entries) > 0 {
		// A later leader's entries take the place of an earlier one's.
		first := b.Entries[0].GetIndex()
		if i := m.Entries[0].GetIndex(); i < first {
			b.Entries = nil
		} else if keep := i - first; keep < uint64(len(b.Entries)) {
			b.Entries = b.Entries[:keep]
		}
	}
	b.Entries = append(b.Entries, m.Entries...)
}

// appendBatch makes a batch durable and then visible to raft.
func (n *Node) appendBatch(b *wal.Batch) error {
	if b.Hard != nil {
		*b.Hard = n.hard
	}
	if b.Hard != nil || b.Mark != nil || b.Pending != nil || len(b.Entries) > 0 {
		if err := n.wal.Append(*b); err != nil {
			return err
		}
		if err := n.storage.Append(b.Entries); err != nil {
			return err
		}
	}
	*b = wal.Batch{}
	return nil
}

// answer delivers what raft wanted said once something was stored.
func (n *Node) answer(messages []*raftpb.Message) {
	if len(messages) == 0 {
		return
	}
	n.send(messages)
	events := make([]event, 0, len(messages))
	urgent := false
	for _, m := range messages {
		if m.GetTo() == n.cfg.ID {
			events = append(events, event{local: m})
			// A leader counts itself, a candidate its own vote. That entries
			// are stored merely lets raft forget its copy of them.
			urgent = urgent || m.GetType() != raftpb.MsgStorageAppendResp || m.GetSnapshot() != nil
		}
	}
	if urgent {
		n.inbox.put(events...)
	} else if len(events) > 0 {
		n.inbox.putQuietly(events...)
	}
}

// install replaces log and state by a checkpoint that raft has taken. The
// pending mark is durable first: a crash between the store and the log is
// then recognised at the next start.
func (n *Node) install(s *raftpb.Snapshot) error {
	index, term := s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()
	n.mu.Lock()
	r := n.received
	n.received = nil
	n.mu.Unlock()
	if r == nil || r.index != index || r.term != term {
		return ashlar.E("install checkpoint", ashlar.Corrupt, "", fmt.Errorf("that of index %d is gone", index))
	}
	mark := &wal.Mark{Index: index, Term: term, Data: s.Data}
	if err := n.wal.Append(wal.Batch{Pending: mark}); err != nil {
		return err
	}
	done := make(chan error, 1)
	n.applyq.put(applyJob{restore: r, done: done})
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-n.ctx.Done():
		return ErrStopped
	}
	if err := n.wal.Append(wal.Batch{Mark: mark}); err != nil {
		return err
	}
	if err := n.storage.ApplySnapshot(s); err != nil {
		return err
	}
	return n.wal.Truncate()
}
