package chunkserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fetchMax is the most data of a Fetch, in bytes.
const fetchMax = ashlar.IOMax

// asMember finds the seat that a primary's message is for; leave must follow.
func (s *Server) asMember(d ashlar.DiskID, g ashlar.PGID) (*life, *seat, error) {
	l, err := s.current()
	if err != nil {
		return nil, nil, err
	}
	t, err := l.member(d, g)
	if err != nil {
		l.leave()
		return nil, nil, err
	}
	return l, t, nil
}

// handleReplicate applies a write that the primary ordered.
func (s *Server) handleReplicate(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Replicate)
	l, t, err := s.asMember(m.Disk, m.Write.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	force := m.Write.Flags&replicaForce != 0
	m.Write.Flags &^= replicaForce
	if err := checkWrite(&m.Write); err != nil {
		return nil, err
	}
	for {
		wait := make(chan struct{})
		var verdict replication.Verdict
		var note *replication.Note
		t.step(nil, func(g *replication.Group) { verdict, note, err = g.Replicate(m, wait) })
		switch verdict {
		case replication.Refused:
			return nil, ashlar.E("replicate", ashlar.KindOf(err), t.subject(), nil)
		case replication.Do:
			err = t.store(&m.Write, m.Write.Epoch, force)
			t.step(nil, func(g *replication.Group) { g.NoteApplied(note, err) })
			close(wait)
			return nil, err
		case replication.Joined: // by a request that the primary gave up on
			select {
			case <-note.Wait.(chan struct{}):
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if m.Write.Flags&wire.WriteSync != 0 {
			return nil, t.d.store.SyncLayer(t.group, m.Write.Layer)
		}
		return nil, nil
	}
}

// handleReplicaSync makes an object's data durable.
func (s *Server) handleReplicaSync(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.ReplicaSync)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if err := t.of(m.Epoch); err != nil {
		return nil, err
	}
	return nil, t.d.store.SyncLayer(m.Group, m.Layer)
}

// handleReplicaCommit learns what is committed; with Committed 0 it only
// shows that this member is alive.
func (s *Server) handleReplicaCommit(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.ReplicaCommit)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	t.step(nil, func(g *replication.Group) { g.Commit(m.Epoch, m.Committed) })
	return nil, nil
}

// handleAdopt records a new epoch and hands over what is noted (I-4).
func (s *Server) handleAdopt(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Adopt)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if m.Group.Index(m.Disk) < 0 {
		return nil, ashlar.E("adopt", ashlar.Invalid, fmt.Sprintf("pg %d on disk %d", m.Group.ID, m.Disk), errors.New("not a member"))
	}
	t := l.seat(seatKey{m.Disk, m.Group.ID}, true)
	if t == nil {
		return nil, ashlar.E("adopt", ashlar.NotReady, fmt.Sprintf("pg %d on disk %d", m.Group.ID, m.Disk), errors.New("disk is not served"))
	}
	t.adopted(m.Group.Epoch)
	t.configure(m.Group)
	err = t.until(ctx, func(g *replication.Group) (bool, error) {
		if g.Epoch() != m.Group.Epoch {
			return false, ashlar.WrongEpoch
		}
		return g.Phase() >= replication.Following, nil
	})
	if err != nil {
		return nil, ashlar.E("adopt", ashlar.KindOf(err), t.subject(), err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sm.Handover(), nil
}

// handleCatchup takes the primary's results and generations and, for a
// syncing member, answers what this one needs beyond chunks that changed.
func (s *Server) handleCatchup(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Catchup)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	rep := &wire.CatchupReply{}
	err = t.guarded(m.Epoch, func() error {
		if m.Pass != 0 {
			if err := t.beginPass(ctx, m.Epoch, m.Pass); err != nil {
				return err
			}
			rep.Layers, rep.Known, rep.Mark = t.lacks(m.Gens)
		}
		var err error
		t.step(nil, func(g *replication.Group) {
			rep.Ranges = g.Flying()
			err = g.Resolve(m.Epoch, m.Inflight, m.Horizons)
		})
		rec, _ := t.d.store.Group(m.Group)
		rep.Since = rec.LastInSync
		rep.Whole = t.d.store.Suspect(m.Group)
		if len(rep.Whole) > wire.ChunkListMax { // too many to name: everything
			rep.Since, rep.Whole = 0, nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rep, nil
}

// lacks returns the objects whose generation is lower here: their cuts were
// missed, so that all that is left of them is to be copied. The generations
// are recorded when that is done. Known are those that had that generation
// when the mark was set.
func (t *seat) lacks(gens []wire.ObjectGen) (layers, known []ashlar.LayerID, m wire.CatchupMark) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range gens {
		if o.Gen > t.d.store.Generation(t.group, o.Layer) {
			layers = append(layers, o.Layer)
			t.lacking = append(t.lacking, o)
			if t.mark.knew[o.Layer] == o.Gen {
				known = append(known, o.Layer)
			}
		}
	}
	return layers, known, t.mark.CatchupMark
}

func keyLess(a, b wire.ChunkKey) bool {
	return a.Layer < b.Layer || a.Layer == b.Layer && a.Index < b.Index
}

// handleChunkList deletes the chunks in a part of the group that the primary
// does not have, and names those that are missing here.
func (s *Server) handleChunkList(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.ChunkList)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	rep := &wire.ChunkListReply{}
	if err := t.inPass(m.Epoch, m.Pass, func() error { return t.compare(m, rep) }); err != nil {
		return nil, err
	}
	return rep, nil
}

func (t *seat) compare(m *wire.ChunkList, rep *wire.ChunkListReply) error {
	want := make(map[wire.ChunkKey]bool, len(m.Chunks))
	for _, k := range m.Chunks {
		want[k] = true
	}
	from := m.From
	for {
		keys, err := t.d.store.Keys(m.Group, from, listPage)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if m.To.Layer != 0 && !keyLess(k, m.To) {
				keys = nil
				break
			}
			if want[k] {
				delete(want, k)
				continue
			}
			if err := t.d.store.Delete(chunkstore.Key{Group: m.Group, Layer: k.Layer, Index: k.Index}); err != nil {
				return err
			}
		}
		if len(keys) < listPage {
			break
		}
		from = keys[len(keys)-1]
		from.Index++
	}
	for k := range want {
		rep.Missing = append(rep.Missing, k)
	}
	sortKeys(rep.Missing)
	return nil
}

// handleCopy overwrites blocks by the primary's.
func (s *Server) handleCopy(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Copy)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	k := chunkstore.Key{Group: m.Group, Layer: m.Layer, Index: m.Chunk}
	return nil, t.inPass(m.Epoch, m.Pass, func() error {
		if len(m.States) == 0 && !m.Replace {
			return t.d.store.SetOrigin(k, &m.Origin)
		}
		if m.Pass != 0 && !m.Replace {
			if err := t.wantsAll(k, m); err != nil {
				return err
			}
		}
		err := t.d.store.Import(k, m, m.Epoch)
		if err == nil { // what was found damaged here is mended by it
			t.d.repaired.Add(t.d.store.Mended(k, int(m.Off/ashlar.BlockSize), len(m.States)))
			if m.Pass != 0 {
				t.reached(m.Epoch, wire.ChunkKey{Layer: m.Layer, Index: m.Chunk}, m.Done)
			}
		}
		return err
	})
}

// wantsAll refuses, once, a part of a chunk whose header is damaged here: the
// catch-up then copies all of it, also what did not change.
func (t *seat) wantsAll(k chunkstore.Key, m *wire.Copy) error {
	info, ok, err := t.d.store.Info(k)
	if err != nil || !ok || !info.Damaged {
		return err
	}
	if err := t.d.store.RestoreHeader(k, m.ChunkSize, m.Origin, m.Epoch); err != nil {
		return err
	}
	t.unreached(wire.ChunkKey{Layer: k.Layer, Index: k.Index})
	t.d.repaired.Add(1)
	return ashlar.E("copy", ashlar.Corrupt, k.String(), errors.New("its header was damaged here"))
}

// handleCatchupEnd makes everything received durable; what was suspect here
// has been replaced by the primary's.
func (s *Server) handleCatchupEnd(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.CatchupEnd)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if err := t.of(m.Epoch); err != nil {
		return nil, err
	}
	if err := t.d.store.SyncGroup(m.Group); err != nil {
		return nil, err
	}
	return nil, t.inPass(m.Epoch, m.Pass, func() error {
		t.mu.Lock()
		gens := t.lacking
		t.mu.Unlock()
		err := t.d.store.SetGenerations(m.Group, gens)
		if err != nil {
			return err
		}
		t.step(nil, func(g *replication.Group) { err = g.Caught(m.Epoch) })
		if err != nil {
			return err
		}
		for _, ck := range t.d.store.Suspect(m.Group) {
			t.d.store.ClearSuspect(chunkstore.Key{Group: m.Group, Layer: ck.Layer, Index: ck.Index})
		}
		t.reached(m.Epoch, lastChunk, 0)
		t.mu.Lock()
		t.vetted = true
		t.mu.Unlock()
		return nil
	})
}

// handleFetch reads blocks for the primary's repair.
func (s *Server) handleFetch(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Fetch)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if m.Len > fetchMax {
		return nil, ashlar.E("fetch", ashlar.Invalid, t.subject(), fmt.Errorf("%d bytes", m.Len))
	}
	if err := t.of(m.Epoch); err != nil {
		return nil, err
	}
	rep := &wire.FetchReply{}
	k := chunkstore.Key{Group: m.Group, Layer: m.Layer, Index: m.Chunk}
	if info, ok, err := t.d.store.Info(k); err != nil {
		return nil, err
	} else if ok {
		rep.ChunkSize, rep.Origin = info.ChunkSize, info.Origin
	}
	rep.States, rep.Sums, rep.Data, err = t.d.store.Export(k, m.Off, m.Len, r.Buffer(int(m.Len)))
	if err == nil {
		rep.End, err = t.d.store.End(k, m.Off, m.Len)
	}
	if err != nil {
		return nil, err
	}
	return rep, nil
}

// handleChunkSums tells the stored checksums of a chunk, for scrubbing, after
// verifying its data against them: a block that is damaged is told as lost.
func (s *Server) handleChunkSums(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.ChunkSums)
	l, t, err := s.asMember(m.Disk, m.Group)
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if err := t.of(m.Epoch); err != nil {
		return nil, err
	}
	k := chunkstore.Key{Group: m.Group, Layer: m.Layer, Index: m.Chunk}
	_, bad, err := t.d.store.Verify(k)
	if chunkstore.HeaderDamaged(err) {
		return &wire.ChunkSumsReply{Header: true}, nil
	}
	if err != nil {
		return nil, err
	}
	rep := &wire.ChunkSumsReply{}
	if info, ok, err := t.d.store.Info(k); err == nil && ok {
		rep.Origin = info.Origin
	}
	if rep.States, rep.Sums, err = t.d.store.Sums(k); err != nil {
		return nil, err
	}
	for _, r := range bad {
		for b := r.Off / ashlar.BlockSize; b < (r.Off+r.Len)/ashlar.BlockSize && int(b) < len(rep.States); b++ {
			rep.States[b] = chunkstore.Lost
		}
	}
	return rep, nil
}
