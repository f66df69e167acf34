package consensus

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
)

// storage is what raft reads: the log above the mark, in memory as on disk.
// Its size is bounded by Config.SnapshotThresholdBytes and what slow members
// still need.
type storage struct {
	*raft.MemoryStorage
	conf *raftpb.ConfState // as of the applied index at start
	n    *Node
}

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, _, err := s.MemoryStorage.InitialState()
	return hs, s.conf, err
}

// Snapshot implements raft.Storage: a promise that a checkpoint at least as
// new can be made. The real one is made when the message is sent.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	index := s.n.applied.Load()
	term, err := s.Term(index)
	if err != nil || index == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return snapshotAt(index, term, s.n.membershipAt(index)), nil
}

func snapshotAt(index, term uint64, m *membership) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     m.encode(),
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: m.conf},
	}
}

// bootstrapIndex and bootstrapTerm are where the log of a new group begins:
// its first membership stands there as if it had been agreed upon.
const (
	bootstrapIndex = 1
	bootstrapTerm  = 1
)

// load opens the log, finishes what a crash interrupted, and fills storage.
// It returns the applied index that raft goes on from.
func (n *Node) load(fresh bool) (applied uint64, err error) {
	l, st, err := wal.Open(wal.Options{Dir: n.dir(logDir), FS: n.cfg.FS, Cluster: n.cfg.Cluster, SegmentBytes: n.cfg.SegmentBytes})
	if err != nil {
		return 0, err
	}
	n.wal = l
	if applied, err = n.loadState(st, fresh); err != nil {
		_ = l.Close()
		n.wal = nil
	}
	return applied, err
}

func (n *Node) loadState(st *wal.State, fresh bool) (applied uint64, err error) {
	applied = n.cfg.Machine.AppliedIndex()
	if st.Empty {
		// The first Start writes the log right after the identity; if power
		// was lost between the two, nothing was promised to anybody yet.
		if !fresh && (n.incarnation > 2 || applied != 0) || fresh && applied != 0 && len(n.cfg.Bootstrap) == 0 {
			return 0, ashlar.E("start consensus in", ashlar.Corrupt, n.cfg.Dir,
				fmt.Errorf("the log is missing: rejoin under a new member id"))
		}
		if err := n.firstMark(st, max(applied, bootstrapIndex)); err != nil {
			return 0, err
		}
	}
	if p := st.Pending; p != nil && applied == p.Index && !holds(st, p) {
		// The checkpoint was installed; only the mark was not written.
		if err := n.wal.Append(wal.Batch{Mark: p}); err != nil {
			return 0, err
		}
		st.Mark, st.Entries = *p, nil
	}
	last := st.Mark.Index + uint64(len(st.Entries))
	if st.Mark.Index == bootstrapIndex {
		applied = max(applied, bootstrapIndex)
	}
	if applied > last || applied < st.Mark.Index {
		return 0, ashlar.E("start consensus in", ashlar.Corrupt, n.cfg.Dir,
			fmt.Errorf("the store is at %d, the log holds %d to %d: rejoin under a new member id", applied, st.Mark.Index+1, last))
	}
	return applied, n.fill(st, applied)
}

// holds tells whether the log itself has the entry that a checkpoint ends
// with: then the checkpoint came to nothing, and the log reached its place, so
// that what is above it stands.
func holds(st *wal.State, p *wal.Mark) bool {
	if p.Index == st.Mark.Index {
		return p.Term == st.Mark.Term
	}
	if p.Index < st.Mark.Index || p.Index-st.Mark.Index > uint64(len(st.Entries)) {
		return false
	}
	return st.Entries[p.Index-st.Mark.Index-1].GetTerm() == p.Term
}

// firstMark begins the log: with the first membership of a new group, above
// the state that it was given, or with nothing if a leader is to send it.
func (n *Node) firstMark(st *wal.State, index uint64) error {
	b := wal.Batch{Hard: &wal.Hard{}}
	if len(n.cfg.Bootstrap) > 0 {
		m, err := newMembership(n.cfg.Bootstrap)
		if err != nil {
			return err
		}
		if len(m.voters()) == 0 {
			return ashlar.E("form group", ashlar.Invalid, "", fmt.Errorf("nobody has a vote"))
		}
		st.Mark = wal.Mark{Index: index, Term: bootstrapTerm, Data: m.encode()}
		st.Hard = wal.Hard{Term: bootstrapTerm, Commit: index}
		b.Hard, b.Mark = &st.Hard, &st.Mark
	}
	return n.wal.Append(b)
}

// fill gives raft the log and works out who belongs to the group as of the
// applied index, from the mark and the changes since.
func (n *Node) fill(st *wal.State, applied uint64) error {
	m := &membership{conf: &raftpb.ConfState{}}
	var err error
	if len(st.Mark.Data) > 0 {
		if m, err = decodeMembership(st.Mark.Data); err != nil {
			return err
		}
	}
	s := &storage{MemoryStorage: raft.NewMemoryStorage(), n: n}
	if st.Mark.Index > 0 {
		if err := s.ApplySnapshot(snapshotAt(st.Mark.Index, st.Mark.Term, m)); err != nil {
			return err
		}
	}
	if err := s.Append(st.Entries); err != nil {
		return err
	}
	n.confs = []confAt{{st.Mark.Index, m}}
	for _, e := range st.Entries {
		if e.GetIndex() > applied {
			break
		}
		cc, err := decodeConfChange(e)
		if err != nil {
			return err
		}
		if cc == nil {
			continue
		}
		if m, err = m.apply(cc, e.GetIndex()); err != nil {
			return err
		}
		n.confs = append(n.confs, confAt{e.GetIndex(), m})
	}
	s.conf = m.conf
	h := st.Hard
	h.Commit = max(h.Commit, applied) // what was applied was committed
	h.Commit = min(h.Commit, st.Mark.Index+uint64(len(st.Entries)))
	n.hard = h
	n.lastIndex = st.Mark.Index + uint64(len(st.Entries))
	n.storage = s
	return s.SetHardState(&raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit})
}

// confAt is the membership from an index on.
type confAt struct {
	index uint64
	*membership
}

// membershipAt returns who belonged to the group as of an index at or above
// the mark.
func (n *Node) membershipAt(index uint64) *membership {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.confs[0].membership
	for _, c := range n.confs {
		if c.index <= index {
			m = c.membership
		}
	}
	return m
}

// forgetConfs drops memberships that are older than a mark needs.
func (n *Node) forgetConfs(mark uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.confs) > 1 && n.confs[1].index <= mark {
		n.confs = n.confs[1:]
	}
}
