package chunkserver

import (
	"context"
	"fmt"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// handleRead answers a client's read.
func (s *Server) handleRead(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Read)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	defer s.serve()()
	if m.Off%ashlar.BlockSize != 0 || m.Len%ashlar.BlockSize != 0 || m.Len == 0 || m.Len > ashlar.IOMax ||
		uint64(m.Off)+uint64(m.Len) > ashlar.ChunkSizeMax {
		return nil, ashlar.E("read", ashlar.Invalid, fmt.Sprintf("pg %d", m.Group), fmt.Errorf("%d bytes at %d", m.Len, m.Off))
	}
	t, err := l.admit(ctx, r, &m.Address)
	if err != nil {
		return nil, err
	}
	rep := &wire.ReadReply{}
	buf := r.Buffer(int(m.Len))
	if rep.Sums, rep.Zero, err = t.read(ctx, m, buf); err != nil {
		return nil, err
	}
	if !rep.Zero {
		rep.Data = buf
	}
	return rep, nil
}

// read reads under a shared span, so that it waits for writes in flight
// (I-5), and mends what it finds damaged.
func (t *seat) read(ctx context.Context, m *wire.Read, buf []byte) (sums []uint32, zero bool, err error) {
	s := span(m.Layer, m.Chunk, m.Off, m.Len, true)
	if err := t.lock(ctx, m.Epoch, s); err != nil {
		return nil, false, err
	}
	k := chunkstore.Key{Group: t.group, Layer: m.Layer, Index: m.Chunk}
	err = t.gateRead(&m.Address)
	if err == nil {
		sums, zero, err = t.d.store.Read(k, m.Off, m.Len, buf)
	}
	t.unlock(s)
	if damage(err) != nil {
		sums, zero, err = t.readMended(ctx, m, buf)
	}
	if err != nil {
		return nil, false, err
	}
	return sums, zero, t.still(m.Epoch)
}

func (t *seat) gateRead(a *wire.Address) error {
	if a.Gen < t.d.store.Generation(t.group, a.Layer) {
		return ashlar.WrongGeneration // I-10
	}
	if a.Gen > 1 {
		t.mu.Lock()
		t.noteCut(a.Layer, a.Gen)
		t.mu.Unlock()
	}
	return nil
}

// readMended fetches damaged blocks from another member of the same epoch,
// with writes kept out, and reads again.
func (t *seat) readMended(ctx context.Context, m *wire.Read, buf []byte) (sums []uint32, zero bool, err error) {
	s := span(m.Layer, m.Chunk, m.Off, m.Len, false)
	if err := t.lock(ctx, m.Epoch, s); err != nil {
		return nil, false, err
	}
	defer t.unlock(s)
	k := chunkstore.Key{Group: t.group, Layer: m.Layer, Index: m.Chunk}
	own := t.job(t.d.number(), m.Epoch) // a newer epoch must not wait for the mending
	err = t.guarded(m.Epoch, func() error {
		return t.mended(own, k, m.Epoch, func() (err error) {
			sums, zero, err = t.d.store.Read(k, m.Off, m.Len, buf)
			return err
		})
	})
	return sums, zero, err
}

// guarded runs a change of the local disk that is not a write of the group:
// no newer epoch is recorded before it ended.
func (t *seat) guarded(e ashlar.Epoch, f func() error) error {
	if err := t.enter(e); err != nil {
		return err
	}
	defer t.exit()
	return f()
}

// still tells whether an answer read in an epoch may be sent (I-6): the lease
// is checked after the data was read.
func (t *seat) still(e ashlar.Epoch) error {
	if err := t.leased(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.sm.Answers(e) {
		return ashlar.WrongEpoch
	}
	return nil
}

// handleSync makes every acknowledged write of an object durable on all
// members.
func (s *Server) handleSync(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Sync)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	t, err := l.admit(ctx, r, &m.Address)
	if err != nil {
		return nil, err
	}
	if err := t.gateRead(&m.Address); err != nil {
		return nil, err
	}
	if err := t.sync(ctx, &m.Address); err != nil {
		return nil, err
	}
	return nil, t.answerable()
}

// sync syncs on every member that gets writes. If one fails it is reported,
// and the rest is synced again in the next epoch: a write acknowledged before
// is on all members of that one too (I-5).
func (t *seat) sync(ctx context.Context, a *wire.Address) error {
	for {
		var e ashlar.Epoch
		var members []ashlar.DiskID
		err := t.until(ctx, func(g *replication.Group) (bool, error) {
			if g.Phase() == replication.Following {
				return false, ashlar.WrongEpoch
			}
			e, members = g.Epoch(), g.Members()
			return g.Phase() == replication.Serving, nil
		})
		if err != nil {
			return err
		}
		if err = t.syncOnce(e, members, a); err == nil {
			return nil
		}
		if t.d.failed() != nil {
			return ashlar.E("sync", ashlar.NotReady, fmt.Sprintf("pg %d", t.group), err)
		}
		t.l.s.sleep(ctx, retryMin)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (t *seat) syncOnce(e ashlar.Epoch, members []ashlar.DiskID, a *wire.Address) error {
	errs := make([]error, len(members)+1)
	var wg sync.WaitGroup
	for i, d := range members {
		wg.Go(func() {
			m := &wire.ReplicaSync{Disk: d, Address: *a}
			m.Epoch = e
			ctx := t.job(d, e)
			err := t.call(ctx, d, e, m, nil)
			if err != nil && !t.attached(d, e) {
				err = nil // a syncing member that begins anew is synced at its end
			}
			if ashlar.KindOf(err) == ashlar.IO {
				t.failed(d, e, err)
			}
			errs[i] = err
		})
	}
	errs[len(members)] = t.d.store.SyncLayer(t.group, a.Layer)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// attached tells whether a member is in-sync in an epoch or, if syncing, gets
// every write.
func (t *seat) attached(d ashlar.DiskID, e ashlar.Epoch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sm.Epoch() != e {
		return true // whatever failed has to be done again
	}
	return t.sm.Attached(d, e)
}
