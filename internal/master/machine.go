package master

import (
	"context"
	"encoding/binary"
	"log/slog"
	"path"

	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
)

// machine is what the log drives: consensus.StateMachine over the store. It
// applies batches and runs no logic, so masters of different releases agree.
type machine Master

var _ consensus.StateMachine = (*machine)(nil)

// applier is scratch space of the apply goroutine.
type applier struct {
	ops      []kv.Op
	accepted []bool
}

// Apply implements consensus.StateMachine. A batch that was evaluated for
// another place in the log changes nothing, at any master (I-3).
func (a *machine) Apply(entries []consensus.Entry) error {
	m := (*Master)(a)
	s := &m.replays
	s.ops, s.accepted = s.ops[:0], s.accepted[:0]
	var now int64
	var touched uint64
	for _, e := range entries {
		s.accepted = append(s.accepted, false)
		if e.Data == nil {
			continue
		}
		b, err := decodeBatch(e.Data)
		if err != nil {
			return err
		}
		if b.Term != e.Term || b.Index != e.Index {
			m.log.Warn("a batch for another place in the log is not applied",
				"index", e.Index, "term", e.Term, "for_index", b.Index, "for_term", b.Term)
			continue
		}
		s.accepted[len(s.accepted)-1] = true
		if m.log.Enabled(m.ctx, slog.LevelDebug) {
			m.log.Debug("apply", "index", e.Index, "note", b.Note)
		}
		s.ops = append(s.ops, b.Ops...)
		now = b.Time
		if m.concerns(b.Ops) {
			touched = e.Index
		}
	}
	last := entries[len(entries)-1].Index
	if now != 0 {
		s.ops = append(s.ops, kv.Op{Key: key.Time(), Value: timeRecord(now)})
	}
	if err := m.store.Apply(s.ops, last); err != nil {
		return err
	}
	if touched != 0 {
		m.touch(touched)
	}
	if l := m.lead.Load(); l != nil {
		l.applied(entries, s.accepted)
	}
	return nil
}

// concerns tells whether chunkservers wait for one of the changes.
func (m *Master) concerns(ops []kv.Op) bool {
	hit := false
	for i := range ops {
		k := ops[i].Key
		if len(k) < 3 || k[0] != 0 || k[1] != 0 {
			continue
		}
		switch {
		case placement.Concerns(k), key.Kind(k[2]) == key.KindFence:
			hit = true
		case key.Kind(k[2]) == key.KindCluster:
			m.initialised.Store(true)
		}
	}
	return hit
}

// timeRecord is key.Time's record: version 1, then the time.
func timeRecord(now int64) []byte {
	return binary.LittleEndian.AppendUint64(append(make([]byte, 0, 9), 1), uint64(now))
}

// AppliedIndex implements consensus.StateMachine.
func (a *machine) AppliedIndex() uint64 { return a.store.Applied() }

// Flush implements consensus.StateMachine.
func (a *machine) Flush() (uint64, error) { return a.store.Flushed() }

// Checkpoint implements consensus.StateMachine.
func (a *machine) Checkpoint(dir string) (uint64, error) { return a.store.Checkpoint(dir) }

// Restore implements consensus.StateMachine.
func (a *machine) Restore(dir string) (uint64, error) {
	m := (*Master)(a)
	index, err := m.store.Restore(path.Clean(dir))
	if err != nil {
		return 0, err
	}
	m.touch(index)
	return index, m.checkInitialised()
}

// LeaderChanged implements consensus.StateMachine.
func (a *machine) LeaderChanged(now consensus.Leadership) {
	m := (*Master)(a)
	defer m.leaderMoved()
	select {
	case <-m.booted: // a group of one elects itself while Start returns
	case <-m.ctx.Done():
		return
	}
	if old := m.lead.Load(); old != nil && (!now.Self || old.term != now.Term) {
		m.lead.Store(nil)
		m.log.Info("no longer the leader", "term", old.term)
		m.wg.Go(old.stop)
	}
	m.leadership.Store(&now)
	if !now.Self || m.lead.Load() != nil || m.ctx.Err() != nil {
		return
	}
	l, err := newLead(m, now.Term)
	if err != nil {
		m.log.Error("can not lead: the state is not readable", "err", err)
		m.wg.Go(func() { // another may
			ctx, cancel := context.WithTimeout(m.ctx, memberCall)
			defer cancel()
			if err := m.node.Load().TransferLeadership(ctx); err != nil {
				m.log.Error("handing leadership on", "err", err)
			}
		})
		return
	}
	m.log.Info("leading", "term", now.Term, "applied", m.store.Applied())
	m.touch(m.store.Applied())
	m.lead.Store(l)
	l.start()
}
