package master

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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
	driveIdle  = 2 * time.Second        // before a long queue is looked through again in which nothing moved
	driveCall  = 5 * time.Second        // that a chunkserver has to answer
	driveMax   = 8                      // requests of one sort under way
	deletesMax = 1024                   // layers looked at together
	reapMax    = 128                    // orphans or names removed in one batch
	steadyGap  = time.Second            // without a look: everybody counts as renewed
	sweepEvery = 5 * time.Second
)

// lookout is the goroutine that looks who is silent. Nothing that takes long
// is done in it: after a pause of it everybody counts as renewed.
func (l *lead) lookout() {
	ticker := l.m.clk.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.proof:
			l.awaitOthers()
			l.keepSteady()
			l.loseServers()
			continue
		case <-ticker.C():
		}
		if !l.keepSteady() {
			continue
		}
		l.loseSilent()
		l.loseServers()
	}
}

// background is the goroutine that does what is due and can wait.
func (l *lead) background() {
	ticker := l.m.clk.NewTicker(watchEvery)
	defer ticker.Stop()
	yields := &yielding{active: map[ashlar.PGID]bool{}}
	var caring atomic.Bool
	var slow, swept clock.Time
	l.ensureCluster()
	resumed := false
	for {
		kicked := false
		select {
		case <-l.ctx.Done():
			return
		case <-l.reaping:
			if l.m.initialised.Load() && l.m.node.Load().LeaseValid() {
				l.reapOrphans()
			}
			continue
		case <-l.kick:
			kicked = true
		case <-ticker.C():
		}
		l.ensureCluster()
		if !l.m.node.Load().LeaseValid() {
			continue
		}
		if !resumed {
			resumed = true
			l.resumeAll(yields)
		}
		l.finishFences()
		l.releaseEnded(l.ctx)
		now := l.m.clk.Now()
		if kicked || now.Sub(slow) >= l.m.cfg.Tick {
			slow = now
			l.chore(yields)
			if caring.CompareAndSwap(false, true) { // it may wait for a member that is slow
				l.spawn(func() { defer caring.Store(false); l.careForMembers() })
			}
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
	l.driveCuts()
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

// hold is begin that is not refused.
func (y *yielding) hold(g ashlar.PGID) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.active[g] = true
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
	ctx, cancel := context.WithTimeout(l.ctx, driveCall)
	consent := l.m.cfg.RPC.Call(ctx, v.Nodes[q.Node].Addr, &wire.Yield{Group: q.Group, Epoch: q.Epoch, Term: l.term}, &wire.Empty{})
	cancel()
	l.logged("taking the primary's seat", consent)
	if stays, err := l.rotate(q, consent == nil); err == nil && stays {
		l.resume(q.Group, q.Epoch)
	}
}

// resume lets a primary that yielded in an epoch go on in it, until it has
// heard or the epoch is another.
func (l *lead) resume(id ashlar.PGID, e ashlar.Epoch) {
	for l.ctx.Err() == nil {
		v, err := l.current()
		if err == nil {
			g := v.Group(id)
			if g == nil || g.Epoch != e {
				return
			}
			n, up := v.Primary(g)
			if n == nil || !up {
				return // it comes back as another incarnation, which has not yielded
			}
			ctx, cancel := context.WithTimeout(l.ctx, driveCall)
			err = l.m.cfg.RPC.Call(ctx, n.Addr, &wire.Yield{Group: id, Epoch: e, Resume: true, Term: l.term}, &wire.Empty{})
			cancel()
			if err == nil || !ashlar.KindOf(err).Retryable() {
				l.logged("resuming a primary", err)
				return
			}
		}
		if l.await(l.ctx, nil, driveWait) != nil {
			return
		}
	}
}

// resumeAll is the first act of a new leader: whoever yielded to the one
// before it, and was not told what came of that, goes on. What that leader
// proposed has been applied here or never will be.
func (l *lead) resumeAll(y *yielding) {
	v, err := l.current()
	if err != nil {
		l.logged("resuming primaries", err)
		return
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, driveMax)
	for _, g := range v.Groups {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(l.ctx, time.Second)
			defer cancel()
			n, up := v.Primary(g)
			if n == nil || !up {
				return
			}
			err := l.m.cfg.RPC.Call(ctx, n.Addr, &wire.Yield{Group: g.ID, Epoch: g.Epoch, Resume: true, Term: l.term}, &wire.Empty{})
			if err != nil && ashlar.KindOf(err).Retryable() {
				y.hold(g.ID) // or a late resumption would undo a new consent
				l.spawn(func() { defer y.end(g.ID); l.resume(g.ID, g.Epoch) })
			}
		})
	}
	wg.Wait()
}

// rotate makes another member primary if the present one consented, and tells
// whether that one surely keeps its seat. A proposal whose outcome is not
// known may still come to be, at this leader or at the next: the primary may
// not be told to go on before the log says so (I-6).
func (l *lead) rotate(q placement.Yield, consented bool) (stays bool, err error) {
	for l.ctx.Err() == nil {
		err = l.change(l.ctx, func(tx meta.Tx, now int64) (string, error) {
			if consented {
				if _, err := placement.Rotate(tx, now, q.Group, q.Epoch, q.To); err != nil {
					return "", err
				}
			}
			v, err := placement.Load(tx)
			if err != nil {
				return "", err
			}
			g := v.Group(q.Group)
			stays = g != nil && g.Epoch == q.Epoch
			return fmt.Sprintf("pg %d: another primary", q.Group), nil
		})
		if err == nil || !ashlar.KindOf(err).Retryable() {
			return stays, err
		}
		if l.await(l.ctx, nil, driveWait) != nil {
			break
		}
	}
	return false, l.m.notLeader()
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
			if !(&openFiles{l: l}).IsOpen(ino) {
				due = append(due, ino)
			}
		}
		if len(due) > 0 {
			err := l.change(l.ctx, func(tx meta.Tx, _ int64) (string, error) {
				for _, ino := range due {
					if (&openFiles{l: l}).IsOpen(ino) {
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
		more, err = namespace.ReapTree(tx, now, &openFiles{l: l}, reapMax)
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
		wait := driveWait
		if progress, pages := l.deletes(); !progress && pages > 1 {
			wait = driveIdle // what is left waits for groups that are away
		}
		if err := l.await(l.ctx, nil, wait); err != nil {
			return
		}
	}
}

// deletes goes once through the whole queue of deletions, a page at a time. A
// group that fails is left alone for the rest of the pass: it holds up its own
// layers and nobody else's.
func (l *lead) deletes() (progress bool, pages int) {
	failed := map[ashlar.PGID]bool{}
	for from := ashlar.LayerID(0); l.ctx.Err() == nil; {
		tx := &plain{store: l.m.store}
		list, err := namespace.Deletions(tx, from, deletesMax)
		if err == nil {
			err = tx.err
		}
		if err != nil {
			l.logged("listing deletions", err)
			return progress, pages
		}
		if len(list) == 0 {
			return progress, pages
		}
		pages++
		progress = l.deletePage(list, failed) || progress
		if len(list) < deletesMax {
			return progress, pages
		}
		from = list[len(list)-1].Layer + 1
	}
	return progress, pages
}

// deletePage has some layers deleted by all their groups that are not in
// failed, and adds those that fail now.
func (l *lead) deletePage(list []namespace.Deletion, failed map[ashlar.PGID]bool) (progress bool) {
	byGroup := map[ashlar.PGID][]ashlar.LayerID{}
	for _, d := range list {
		for _, g := range d.Groups {
			if !failed[g] {
				byGroup[g] = append(byGroup[g], d.Layer)
			}
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, driveMax)
	for g, layers := range byGroup {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ok := l.deleteFrom(g, layers)
			mu.Lock()
			defer mu.Unlock()
			progress = progress || ok
			failed[g] = !ok
		})
	}
	wg.Wait()
	return progress
}

func (l *lead) deleteFrom(id ashlar.PGID, layers []ashlar.LayerID) bool {
	g, addr, gone := l.primaryOf(id)
	if !gone {
		if addr == "" {
			return false
		}
		ctx, cancel := context.WithTimeout(l.ctx, driveCall)
		defer cancel()
		m := &wire.DeleteLayers{Group: id, Epoch: g.Epoch, Layers: layers, Term: l.term}
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
