package master

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Pace and limits of background work.
const (
	watchEvery = 100 * time.Millisecond // between looks at who is silent
	driveWait  = 200 * time.Millisecond // before an unanswered request is sent again
	driveCall  = 5 * time.Second        // that a chunkserver has to answer
	driveMax   = 8                      // requests of one sort under way
	deletesMax = 1024                   // layers looked at together
	reapMax    = 128                    // orphans or names removed in one batch
	steadyGap  = time.Second            // without a look: everybody counts as renewed
	sweepEvery = 5 * time.Second
)

// background is the goroutine that looks who is silent and what is due.
func (l *lead) background() {
	ticker := l.m.clk.NewTicker(watchEvery)
	defer ticker.Stop()
	yields := &yielding{active: map[ashlar.PGID]bool{}}
	var slow, swept clock.Time
	l.ensureCluster()
	for {
		kicked := false
		select {
		case <-l.ctx.Done():
			return
		case <-l.kick:
			kicked = true
		case <-ticker.C():
		}
		l.ensureCluster()
		if !l.keepSteady() {
			continue
		}
		l.loseSilent()
		l.loseServers()
		l.finishFences()
		now := l.m.clk.Now()
		if kicked || now.Sub(slow) >= l.m.cfg.Tick {
			slow = now
			l.chore(yields)
			l.careForMembers()
		}
		if now.Sub(swept) >= sweepEvery {
			swept = now
			l.sweep()
		}
	}
}

// ensureCluster writes the first records of a new cluster; nobody is served
// before they are there.
func (l *lead) ensureCluster() {
	if !l.m.initialised.Load() {
		l.logged("making the cluster's first records", l.initCluster())
	}
}

// chore does what is not urgent.
func (l *lead) chore(yields *yielding) {
	l.placement(yields)
	l.rebuildTable()
	l.reapOrphans()
	l.reapTrees()
}

// keepSteady tells whether the leader's lease holds. After any gap in it, or
// in looking, every session counts as renewed: its owner may have tried.
func (l *lead) keepSteady() bool {
	now := l.m.clk.Now()
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	if !l.m.node.Load().LeaseValid() || now.Sub(l.ticked) > steadyGap {
		l.steady = now
	}
	l.ticked = now
	return l.steady != now
}

// placement runs the placement rules and asks for the consents they need.
func (l *lead) placement(y *yielding) {
	var yields []placement.Yield
	facts := l.facts()
	err := l.change(l.ctx, func(tx meta.Tx, now int64) (note string, err error) {
		facts.Now = now
		yields, err = placement.Tick(tx, facts)
		return "placement", err
	})
	if err != nil {
		l.logged("placement", err)
		return
	}
	for _, q := range yields {
		if y.begin(q.Group) {
			l.spawn(func() { defer y.end(q.Group); l.yield(q) })
		}
	}
}

// yielding is which primaries are being asked to yield.
type yielding struct {
	mu     sync.Mutex
	active map[ashlar.PGID]bool
}

func (y *yielding) begin(g ashlar.PGID) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.active[g] || len(y.active) >= driveMax {
		return false
	}
	y.active[g] = true
	return true
}

func (y *yielding) end(g ashlar.PGID) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.active, g)
}

// yield takes the primary's seat from a live primary, with its consent (I-6).
// If the change does not come to be, it is told to go on.
func (l *lead) yield(q placement.Yield) {
	v, err := l.current()
	if err != nil || v.Nodes[q.Node] == nil {
		return
	}
	addr := v.Nodes[q.Node].Addr
	ask := func(resume bool) error {
		ctx, cancel := context.WithTimeout(l.ctx, driveCall)
		defer cancel()
		return l.m.cfg.RPC.Call(ctx, addr, &wire.Yield{Group: q.Group, Epoch: q.Epoch, Resume: resume}, &wire.Empty{})
	}
	moved := false
	if err = ask(false); err == nil {
		err = l.change(l.ctx, func(tx meta.Tx, now int64) (note string, err error) {
			moved, err = placement.Rotate(tx, now, q.Group, q.Epoch, q.To)
			return fmt.Sprintf("pg %d: another primary", q.Group), err
		})
	}
	l.logged("taking the primary's seat", err)
	if !moved {
		if err := ask(true); err != nil {
			l.m.log.Debug("resuming a primary", "err", err)
		}
	}
}

// rebuildTable makes the table that new data is placed by anew if groups or
// space may have changed.
func (l *lead) rebuildTable() {
	v, err := l.current()
	if err != nil {
		return
	}
	l.table.Store(placement.NewTable(v, l.facts()))
}

// reapOrphans removes inodes without names that nobody has open any more.
func (l *lead) reapOrphans() {
	if !l.opens.complete() {
		return
	}
	var from ashlar.Inode
	for l.ctx.Err() == nil {
		tx := &plain{store: l.m.store}
		orphans := namespace.Orphans(tx, from, reapMax)
		var due []ashlar.Inode
		for _, ino := range orphans {
			from = ino + 1
			if !l.opens.IsOpen(ino) {
				due = append(due, ino)
			}
		}
		if len(due) > 0 {
			err := l.change(l.ctx, func(tx meta.Tx, _ int64) (string, error) {
				for _, ino := range due {
					if l.opens.IsOpen(ino) {
						continue
					}
					if err := namespace.Reap(tx, ino); err != nil {
						return "", err
					}
				}
				return "orphans removed", nil
			})
			if err != nil {
				l.logged("removing orphans", err)
				return
			}
		}
		if len(orphans) < reapMax {
			return
		}
	}
}

// reapTrees empties volumes that were deleted by force, a little at a time.
func (l *lead) reapTrees() {
	if !l.opens.complete() {
		return
	}
	lo, hi := key.Range(key.VolumePartition, key.KindReaping)
	any := false
	if err := l.m.store.Scan(lo, hi, false, func(_, _ []byte) bool { any = true; return false }); err != nil || !any {
		return
	}
	more := false
	err := l.change(l.ctx, func(tx meta.Tx, now int64) (note string, err error) {
		more, err = namespace.ReapTree(tx, now, &l.opens, reapMax)
		return "emptying deleted volumes", err
	})
	l.logged("emptying deleted volumes", err)
	if err == nil && more {
		l.kickBackground()
	}
}

// primaryOf returns a group and the address of its primary; gone tells that
// there is no such group any more.
func (l *lead) primaryOf(id ashlar.PGID) (g *placement.Group, addr string, gone bool) {
	v, err := l.current()
	if err != nil {
		return nil, "", false
	}
	if g = v.Group(id); g == nil {
		return nil, "", true
	}
	n, ok := v.Primary(g)
	if !ok {
		return g, "", false
	}
	return g, n.Addr, false
}

// driveDeletes is the goroutine that has chunks of deleted layers removed.
func (l *lead) driveDeletes() {
	for l.ctx.Err() == nil {
		progress, full := l.deletes()
		if progress && full {
			continue
		}
		if err := l.await(l.ctx, nil, driveWait); err != nil {
			return
		}
	}
}

// deletes goes once through the queue of deletions.
func (l *lead) deletes() (progress, full bool) {
	tx := &plain{store: l.m.store}
	list, err := namespace.Deletions(tx, 0, deletesMax)
	if err != nil || len(list) == 0 {
		return false, false
	}
	byGroup := map[ashlar.PGID][]ashlar.LayerID{}
	for _, d := range list {
		for _, g := range d.Groups {
			byGroup[g] = append(byGroup[g], d.Layer)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, driveMax)
	for g, layers := range byGroup {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if l.deleteFrom(g, layers) {
				mu.Lock()
				progress = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return progress, len(list) == deletesMax
}

func (l *lead) deleteFrom(id ashlar.PGID, layers []ashlar.LayerID) bool {
	g, addr, gone := l.primaryOf(id)
	if !gone {
		if addr == "" {
			return false
		}
		ctx, cancel := context.WithTimeout(l.ctx, driveCall)
		defer cancel()
		m := &wire.DeleteLayers{Group: id, Epoch: g.Epoch, Layers: layers}
		if err := l.m.cfg.RPC.Call(ctx, addr, m, &wire.Empty{}); err != nil {
			l.m.log.Debug("deleting layers", "pg", uint32(id), "err", err)
			return false
		}
	}
	err := l.change(l.ctx, func(tx meta.Tx, _ int64) (string, error) {
		return fmt.Sprintf("pg %d: %d layers deleted", id, len(layers)), namespace.DeletionDone(tx, id, layers)
	})
	l.logged("deleting layers", err)
	return err == nil
}
