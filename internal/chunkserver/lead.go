package chunkserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// adopt has a member record the epoch and hand over what it noted (I-4). It
// is repeated until the epoch is over; a member that does not answer is
// reported.
func (t *seat) adopt(a *replication.Action) {
	ctx := t.job(a.Disk, a.Epoch)
	pause := retryMin
	began := t.l.s.clk.Now()
	for ctx.Err() == nil {
		t.mu.Lock()
		cfg := *t.sm.Config()
		t.mu.Unlock()
		if cfg.Epoch != a.Epoch {
			return
		}
		var h wire.Handover
		err := t.call(ctx, a.Disk, a.Epoch, &wire.Adopt{Disk: a.Disk, Group: cfg}, &h)
		if err == nil {
			t.step(nil, func(g *replication.Group) { g.HandedOver(a.Disk, a.Epoch, &h) })
			return
		}
		if errors.Is(err, ashlar.WrongEpoch) {
			return
		}
		if ctx.Err() == nil && t.l.s.clk.Now().Sub(began) > memberTimeout {
			t.failed(a.Disk, a.Epoch, err)
		}
		t.l.s.sleep(ctx, pause)
		pause = min(2*pause, retryMax)
	}
}

// equalise gives one range the same content on every in-sync member: this
// one's. It is written here again too, so that its regions carry the epoch.
func (t *seat) equalise(a *replication.Action) {
	defer t.step(nil, func(g *replication.Group) { g.Equalised(a.Epoch, &a.Range) })
	ctx := t.job(t.d.number(), a.Epoch)
	select {
	case t.equalising <- struct{}{}:
		defer func() { <-t.equalising }()
	case <-ctx.Done():
		return
	}
	const b = ashlar.BlockSize
	f := &a.Range
	lo, hi := f.Off/b*b, uint64(f.Off)+uint64(f.Len)+b-1
	end := uint32(min(hi/b*b, ashlar.ChunkSizeMax))
	for off := lo; off < end; off += ashlar.IOMax {
		n := min(end-off, ashlar.IOMax)
		for pause := retryMin; ctx.Err() == nil; pause = min(2*pause, retryMax) {
			if err := t.equaliseRange(ctx, a.Epoch, f, off, n); err == nil {
				break
			} else if ctx.Err() == nil {
				t.l.s.log.Warn("range not made equal yet", "group", t.group, "epoch", a.Epoch, "err", err)
			}
			t.l.s.sleep(ctx, pause)
		}
	}
}

func (t *seat) equaliseRange(ctx context.Context, e ashlar.Epoch, f *wire.Inflight, off, n uint32) error {
	k := chunkstore.Key{Group: t.group, Layer: f.Layer, Index: f.Chunk}
	info, exists, err := t.d.store.Info(k)
	if err != nil {
		return err
	}
	if exists && !info.Damaged && off >= info.ChunkSize {
		return nil
	}
	// Cut short by a crash here, it is mended: another member's copy does as
	// well, because the write was acknowledged to nobody. One that can not be
	// asked now is asked again.
	var c *wire.Copy
	export := func() (err error) { c, err = t.export(f.Layer, f.Chunk, off, n, e); return err }
	err = t.mended(ctx, k, e, export)
	if errors.Is(err, ashlar.Corrupt) {
		var blocks int
		if blocks, err = t.d.store.Accept(k, off, n, e); err == nil {
			t.l.s.log.Warn("blocks of a write cut short accepted as read", "chunk", k.String(), "blocks", blocks, "disk", t.d.path)
			err = export()
		}
	}
	if err != nil {
		return err
	}
	if exists {
		if err := t.d.store.Import(k, c, e); err != nil {
			return err
		}
	}
	peers := t.peers(e)
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, d := range peers {
		wg.Go(func() {
			m := *c
			m.Disk = d
			if !exists { // then it must not exist there either
				m.ChunkSize, m.Replace, m.States = ashlar.ChunkSizeMin, true, nil
			}
			errs[i] = t.call(ctx, d, e, &m, nil)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// export reads blocks of the local disk as a Copy under an epoch.
func (t *seat) export(layer ashlar.LayerID, chunk, off, n uint32, e ashlar.Epoch) (*wire.Copy, error) {
	k := chunkstore.Key{Group: t.group, Layer: layer, Index: chunk}
	c := &wire.Copy{Group: t.group, Epoch: e, Layer: layer, Chunk: chunk, Off: off}
	info, ok, err := t.d.store.Info(k)
	if err != nil {
		return nil, err
	}
	if ok && info.Damaged {
		return nil, ashlar.E("export", ashlar.Corrupt, k.String(), &chunkstore.Damage{Regions: []chunkstore.Region{{Len: ashlar.ChunkSizeMax}}, Header: true})
	}
	if ok {
		c.ChunkSize, c.Origin = info.ChunkSize, info.Origin
		n = min(n, info.ChunkSize-min(off, info.ChunkSize))
	}
	if n == 0 {
		return c, nil
	}
	if c.States, c.Sums, c.Data, err = t.d.store.Export(k, off, n, make([]byte, n)); err != nil {
		return nil, err
	}
	c.End, err = t.d.store.End(k, off, n)
	return c, err
}

// resolve gives an in-sync member the results that this one has.
func (t *seat) resolve(a *replication.Action) {
	ctx := t.job(a.Disk, a.Epoch)
	m := &wire.Catchup{Disk: a.Disk, Group: t.group, Epoch: a.Epoch}
	t.mu.Lock()
	m.Inflight, m.Horizons = t.sm.Results()
	t.mu.Unlock()
	m.Horizons = m.Horizons[:min(len(m.Horizons), wire.InflightMax)]
	for pause := retryMin; ctx.Err() == nil; pause = min(2*pause, retryMax) {
		var rep wire.CatchupReply
		err := t.call(ctx, a.Disk, a.Epoch, m, &rep)
		if err == nil {
			t.step(nil, func(g *replication.Group) { g.Resolved(a.Disk, a.Epoch) })
			return
		}
		if errors.Is(err, ashlar.WrongEpoch) {
			return
		}
		t.l.s.sleep(ctx, pause)
	}
}

// vet verifies the chunks that may be torn since power was lost, before the
// group is served (I-8). Bad blocks come from another in-sync member; if none
// has them they are taken as read. What is here then goes to every member that
// returns.
func (t *seat) vet(e ashlar.Epoch) {
	t.mu.Lock()
	done := t.vetted
	t.mu.Unlock()
	if done {
		return
	}
	t.l.spawn(func() {
		for pause := retryMin; t.l.ctx.Err() == nil; pause = min(2*pause, retryMax) {
			err := t.vetAll(e)
			if err == nil {
				break
			}
			if t.d.failed() != nil || t.epoch() != e {
				return
			}
			t.l.s.log.Warn("chunks not verified yet", "group", t.group, "err", err)
			t.l.s.sleep(t.l.ctx, pause)
		}
		t.mu.Lock()
		t.vetted = true
		t.mu.Unlock()
		t.changed()
	})
}

func (t *seat) epoch() ashlar.Epoch {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sm.Epoch()
}

func (t *seat) vetAll(e ashlar.Epoch) error {
	ctx := t.job(t.d.number(), e)
	for _, ck := range t.d.store.Suspect(t.group) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k := chunkstore.Key{Group: t.group, Layer: ck.Layer, Index: ck.Index}
		err := t.guarded(e, func() error { return t.vetChunk(ctx, k, e) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *seat) vetChunk(ctx context.Context, k chunkstore.Key, e ashlar.Epoch) error {
	info, ok, err := t.d.store.Info(k)
	if err == nil && ok && info.Damaged {
		if err = t.mendHeader(ctx, k, e); errors.Is(err, ashlar.Corrupt) {
			// One that never reached the disk is all zeros, and no damage; this one
			// can not be read, or rotted. What the chunk holds was perhaps synced:
			// it stays, damaged and suspect, and the others are served.
			t.l.s.log.Error("header of a chunk can not be read, and no member has it", "chunk", k.String(), "disk", t.d.path, "err", err)
			return nil
		}
	}
	if err != nil {
		return err
	}
	if ok {
		_, bad, err := t.d.store.Verify(k)
		if err != nil {
			return err
		}
		for _, r := range bad {
			err := t.mend(ctx, k, []chunkstore.Region{r}, e)
			if err == nil {
				continue
			}
			if !errors.Is(err, ashlar.Corrupt) { // a copy may be good and can not be had now
				return err
			}
			n, err := t.d.store.Accept(k, r.Off, r.Len, e)
			if err != nil {
				return err
			}
			t.l.s.log.Warn("blocks torn by a power loss accepted as read", "chunk", k.String(), "blocks", n, "disk", t.d.path)
		}
		// It may be whole and yet lack a write that another member kept, which
		// that one would not be sent: it is older than its last in-sync epoch.
		if err := t.d.store.Touch(k, e); err != nil {
			return err
		}
	}
	t.d.store.ClearSuspect(k)
	return nil
}

// sortKeys orders chunk keys.
func sortKeys(keys []wire.ChunkKey) {
	slices.SortFunc(keys, func(a, b wire.ChunkKey) int {
		switch {
		case a.Layer != b.Layer && a.Layer < b.Layer, a.Layer == b.Layer && a.Index < b.Index:
			return -1
		case a == b:
			return 0
		}
		return 1
	})
}

func (t *seat) subject() string { return fmt.Sprintf("pg %d epoch %d", t.group, t.epoch()) }
