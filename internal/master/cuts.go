package master

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// cuts are those that this leader drives: one goroutine each, joined by every
// operation that waits for it.
type cuts struct {
	mu     sync.Mutex
	active map[ashlar.LayerID]*cutting
}

type cutting struct {
	ended chan struct{}
}

func (c *cuts) init() { c.active = map[ashlar.LayerID]*cutting{} }

// join returns the cut of a layer that is under way, made by start if there
// is none.
func (c *cuts) join(layer ashlar.LayerID, start func()) *cutting {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.active[layer]
	if k == nil {
		k = &cutting{ended: make(chan struct{})}
		c.active[layer] = k
		start()
	}
	return k
}

func (c *cuts) end(layer ashlar.LayerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.active[layer].ended)
	delete(c.active, layer)
}

// cut makes a cut that an operation needs, or waits for the one that is being
// made; the operation is then evaluated again.
func (l *lead) cut(ctx context.Context, need *meta.NeedCut, o *wire.Operation) error {
	k := l.cuts.join(need.Layer, func() {
		l.spawn(func() { defer l.cuts.end(need.Layer); l.makeCut(need, o) })
	})
	select {
	case <-k.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return l.m.notLeader()
	}
}

// makeCut logs a cut, has every group record and make it, and then sets size
// and generation (I-10), as the result of the operation that began it: o, or,
// if the cut is pending already, the one that is logged with it. That may be
// with a leader before: its client has not been answered and tries again here.
func (l *lead) makeCut(need *meta.NeedCut, o *wire.Operation) {
	if need.Pending {
		// It may have ended, and another begun, since that was read; now only
		// this goroutine can end it.
		var err error
		if need, err = pendingCut(&plain{store: l.m.store}, need.Layer); err != nil || need == nil {
			l.logged("looking for a cut", err)
			return
		}
	} else {
		need.Op = o
		err := l.change(l.ctx, func(tx meta.Tx, _ int64) (string, error) {
			return fmt.Sprintf("cut of layer %d begins", need.Layer), namespace.BeginCut(tx, need)
		})
		if err != nil {
			if k := ashlar.KindOf(err); k != ashlar.WrongGeneration && k != ashlar.Busy {
				l.logged("beginning a cut", err)
			}
			return // the operation looks at the state again
		}
	}
	var wg sync.WaitGroup
	for i := range need.Cuts {
		wg.Go(func() { l.sendCut(&need.Cuts[i]) })
	}
	wg.Wait()
	for l.ctx.Err() == nil {
		err := l.finishCut(need)
		if err == nil {
			return
		}
		l.logged("finishing a cut", err)
		if l.await(l.ctx, nil, driveWait) != nil {
			return
		}
	}
}

// finishCut ends a cut that every group has made. The operation that needed it
// is evaluated in the same batch: between the two others would see the file
// cut and could make it longer, and it would be cut a second time (I-3).
func (l *lead) finishCut(need *meta.NeedCut) error {
	_, err := l.do(l.ctx, newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		now, err := pendingCut(tx, need.Layer)
		if err != nil || now == nil || now.Gen != need.Gen {
			return nil, "", err
		}
		note := fmt.Sprintf("cut of layer %d is done", need.Layer)
		if o := need.Op; o != nil {
			done := *env
			done.CutDone = func(layer ashlar.LayerID, gen ashlar.Generation) bool {
				return layer == need.Layer && gen == need.Gen
			}
			_, said, err := meta.Evaluate(tx, &done, o)
			switch k := ashlar.KindOf(err); {
			case err != nil && (k == ashlar.Corrupt || k == ashlar.IO):
				tx.rollback()
			case said != "":
				note += "\n" + said
			}
		}
		if err = namespace.FinishCut(tx, env.Now, need.Layer); err != nil {
			tx.rollback()
		}
		return nil, note, err
	}))
	return err
}

// pendingCut returns the cut of a layer that is logged and not done, nil if
// there is none.
func pendingCut(tx meta.Tx, layer ashlar.LayerID) (*meta.NeedCut, error) {
	if _, ok := tx.Get(key.Cut(layer)); !ok {
		return nil, nil
	}
	all, err := namespace.Cuts(tx, key.VolumePartition)
	for _, n := range all {
		if n.Layer == layer {
			return n, nil
		}
	}
	return nil, err
}

// sendCut asks a group's primary for a cut until it has been made or this
// master no longer leads. A group that waits for its last copy makes the cut
// wait too.
func (l *lead) sendCut(c *wire.Cut) {
	for l.ctx.Err() == nil {
		_, moved := l.m.revision()
		g, addr, gone := l.primaryOf(c.Group)
		if gone {
			return
		}
		if addr != "" {
			m := *c
			m.Epoch, m.Term = g.Epoch, l.term
			ctx, cancel := context.WithTimeout(l.ctx, driveCall)
			err := l.m.cfg.RPC.Call(ctx, addr, &m, &wire.Empty{})
			cancel()
			if err == nil {
				return
			}
			if !errors.Is(err, ashlar.WrongEpoch) {
				l.m.log.Debug("cut", "pg", uint32(c.Group), "err", err)
			}
		}
		if l.await(l.ctx, moved, driveWait) != nil {
			return
		}
	}
}

// driveCuts goes on with the cuts that nobody drives: those that an earlier
// leader began, and those whose beginning was logged when it was not known to
// be. Its caller repeats it.
func (l *lead) driveCuts() {
	tx := &plain{store: l.m.store}
	pending, err := namespace.Cuts(tx, key.VolumePartition)
	if err != nil {
		l.logged("listing cuts", err)
		return
	}
	for _, need := range pending {
		l.cuts.join(need.Layer, func() {
			l.spawn(func() { defer l.cuts.end(need.Layer); l.makeCut(need, nil) })
		})
	}
}
