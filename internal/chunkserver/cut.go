package chunkserver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// handleCut raises an object's generation and cuts it (I-10). The primary
// stops admitting writes of the object, waits for those in flight, and has
// every member record the generation and cut; what waits behind it is then of
// a lower generation and refused.
func (s *Server) handleCut(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Cut)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if m.Disk != 0 {
		t, err := l.member(m.Disk, m.Group)
		if err != nil {
			return nil, err
		}
		return nil, t.guarded(m.Epoch, func() error { return t.cut(m) })
	}
	t, err := l.ordered(ctx, m.Group, m.Epoch, m.Term)
	if err != nil {
		return nil, err
	}
	done := func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.cutDone(m.Layer, m.Gen)
	}
	remote := func(d ashlar.DiskID) wire.Message {
		c := *m
		c.Disk = d
		return &c
	}
	err = t.onAll(ctx, m.Epoch, m.Layer, done, func() error { return t.cut(m) }, remote)
	if err == nil {
		t.mu.Lock()
		t.noteCut(m.Layer, m.Gen)
		t.mu.Unlock()
	}
	return nil, err
}

// cut cuts an object and then records the generation, so that a recorded one
// means that the cut was made here. Members do so whenever they are told:
// while the cut is not made on all of them, one that made it under an earlier
// epoch may have taken writes of the older generation since. The regions get
// the next epoch: a member that was in-sync in this one and misses the cut has
// to be sent them.
func (t *seat) cut(m *wire.Cut) error {
	if t.d.store.Generation(m.Group, m.Layer) > m.Gen {
		return nil // overtaken
	}
	if m.Truncate {
		if err := t.d.store.Cut(m.Group, m.Layer, m.From, m.Cuts, m.Epoch+1); err != nil {
			return err
		}
	}
	return t.d.store.SetGeneration(m.Group, m.Layer, m.Gen)
}

// cutsMax is the most objects of which a primary remembers in an epoch that
// they were cut.
const cutsMax = 1 << 16

// cutDone tells whether the cut that raised an object to a generation is known
// to be made on all members. A request for it that comes again, from a leader
// that was cut off say, must not cut what was written since (I-10). t.mu must
// be held.
func (t *seat) cutDone(layer ashlar.LayerID, gen ashlar.Generation) bool {
	return t.cutsEpoch == t.sm.Epoch() && t.cuts[layer] >= gen
}

// noteCut notes that a cut is made everywhere: here just now, or because a
// client was told of the generation. t.mu must be held.
func (t *seat) noteCut(layer ashlar.LayerID, gen ashlar.Generation) {
	if gen <= 1 || t.cutDone(layer, gen) {
		return
	}
	if e := t.sm.Epoch(); t.cutsEpoch != e || t.cuts == nil {
		t.cutsEpoch, t.cuts = e, map[ashlar.LayerID]ashlar.Generation{}
	}
	if len(t.cuts) >= cutsMax {
		for l := range t.cuts { // any one
			delete(t.cuts, l)
			break
		}
	}
	t.cuts[layer] = gen
}

// deletedMax is the most layers of which a primary remembers in an epoch that
// they were deleted; the oldest make room.
const deletedMax = 1 << 16

// noteDeleted notes layers that are deleted: their writes are kept out now, and
// one that its client gave up on and that comes only then would make a chunk
// that nobody ever deletes. It can come to this primary in this epoch alone
// (I-4), so it need not be known longer.
func (t *seat) noteDeleted(layers []ashlar.LayerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.sm.Epoch(); t.deletedEpoch != e || t.deleted == nil {
		t.deletedEpoch, t.deleted, t.deletedOrder = e, map[ashlar.LayerID]struct{}{}, nil
	}
	for _, l := range layers {
		if _, ok := t.deleted[l]; !ok {
			t.deleted[l] = struct{}{}
			t.deletedOrder = append(t.deletedOrder, l)
		}
	}
	for len(t.deletedOrder) > deletedMax {
		delete(t.deleted, t.deletedOrder[0])
		t.deletedOrder = t.deletedOrder[1:]
	}
}

// isDeleted tells whether a layer is known to be deleted. t.mu must be held.
func (t *seat) isDeleted(l ashlar.LayerID) bool {
	_, ok := t.deleted[l]
	return ok && t.deletedEpoch == t.sm.Epoch()
}

// handleDeleteLayers removes layers for good.
func (s *Server) handleDeleteLayers(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.DeleteLayers)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if m.Disk != 0 {
		t, err := l.member(m.Disk, m.Group)
		if err != nil {
			return nil, err
		}
		return nil, t.guarded(m.Epoch, func() error { return t.d.store.DeleteLayers(m.Group, m.Layers) })
	}
	t, err := l.ordered(ctx, m.Group, m.Epoch, m.Term)
	if err != nil {
		return nil, err
	}
	local := func() error {
		t.noteDeleted(m.Layers)
		return t.d.store.DeleteLayers(m.Group, m.Layers)
	}
	remote := func(d ashlar.DiskID) wire.Message {
		c := *m
		c.Disk = d
		return &c
	}
	// One layer at a time is held; the files are removed for all at once.
	layers := m.Layers
	if len(layers) == 1 {
		return nil, t.onAll(ctx, m.Epoch, layers[0], nil, local, remote)
	}
	return nil, t.onAll(ctx, m.Epoch, 0, nil, local, remote)
}

// heardTerm notes the term of a leader, and tells whether no later one has been
// heard of.
func (s *Server) heardTerm(term uint64) bool {
	for {
		known := s.term.Load()
		if term < known {
			return false
		}
		if term == known || s.term.CompareAndSwap(known, term) {
			return true
		}
	}
}

// deposed is the answer to the request of a leader that was paused, or cut off,
// while another was elected: that one may have asked for the same since, or for
// the contrary.
func deposed(term uint64) error {
	return ashlar.E("request", ashlar.Stale, fmt.Sprintf("term %d", term), errors.New("there is a later leader"))
}

// ordered returns the seat that is the primary of a group in an epoch, for a
// request of the masters of a term. They may be ahead of the watch.
func (l *life) ordered(ctx context.Context, g ashlar.PGID, e ashlar.Epoch, term uint64) (*seat, error) {
	if !l.s.heardTerm(term) {
		return nil, deposed(term)
	}
	if !l.lease.valid() {
		return nil, ashlar.NoLease
	}
	ctx, cancel := context.WithTimeout(ctx, admitWait)
	defer cancel()
	return l.await(ctx, g, e)
}

// onAll runs a change of an object (of the whole group if layer is 0) here and
// on every member, with its writes and reads drained and kept out. If a
// member fails it is reported, and the masters ask again in the next epoch:
// all these changes may be repeated. It does nothing if done, asked once
// everything is drained, says so.
func (t *seat) onAll(ctx context.Context, e ashlar.Epoch, layer ashlar.LayerID, done func() bool, local func() error, remote func(ashlar.DiskID) wire.Message) error {
	s := &replication.Span{Scope: replication.ScopeLayer, Layer: layer}
	if layer == 0 {
		s.Scope = replication.ScopeGroup
	}
	if err := t.lock(ctx, e, s); err != nil {
		return err
	}
	defer t.unlock(s)
	if done != nil && done() {
		return t.still(e)
	}
	t.mu.Lock()
	members := t.sm.Members()
	t.mu.Unlock()
	errs := make([]error, len(members)+1)
	var wg sync.WaitGroup
	for i, d := range members {
		wg.Go(func() {
			err := t.surely(d, e, remote(d))
			if ashlar.KindOf(err) == ashlar.IO {
				t.failed(d, e, err)
			}
			if err != nil && !t.attached(d, e) {
				err = nil // a syncing member that begins anew gets it by its catch-up
			}
			errs[i] = err
		})
	}
	errs[len(members)] = t.guarded(e, local)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return ashlar.E("change object", ashlar.NotReady, t.subject(), err)
	}
	return t.still(e)
}

// handleYield consents to a change that takes the primary's seat away: it
// stops admitting, finishes what it admitted, and answers.
func (s *Server) handleYield(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Yield)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	if !s.heardTerm(m.Term) {
		return nil, deposed(m.Term)
	}
	t := l.primary(m.Group)
	if t == nil {
		return nil, ashlar.E("yield", ashlar.NotReady, "", errors.New("no such member here"))
	}
	if m.Resume {
		t.step(nil, func(g *replication.Group) { g.Resume(m.Epoch) })
		t.changed()
		return nil, nil
	}
	// The span goes in line first: once yielded, none is taken any more.
	span := &replication.Span{Scope: replication.ScopeGroup}
	granted := make(chan struct{})
	span.Owner = granted
	ok := false
	t.step(nil, func(g *replication.Group) {
		if err = g.Yield(m.Epoch); err == nil {
			ok = g.Line(span)
		}
	})
	if err != nil {
		return nil, err
	}
	defer t.unlock(span)
	if ok {
		return nil, nil
	}
	err = t.until(ctx, func(g *replication.Group) (bool, error) {
		if g.Epoch() != m.Epoch {
			return false, ashlar.WrongEpoch
		}
		select {
		case <-granted:
			return true, nil
		default:
			return false, nil
		}
	})
	return nil, err
}
