package chunkserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// seat runs one replication.Group: it carries out the actions and reports
// them back.
type seat struct {
	l      *life
	d      *disk
	group  ashlar.PGID
	listed atomic.Bool // the masters list this member

	mu      sync.Mutex
	sm      *replication.Group
	made    clock.Time    // or put into a newer epoch by a primary
	news    chan struct{} // closed and replaced whenever the phase or epoch may have changed
	jobs    map[ashlar.DiskID]*job
	vetted  bool // suspect chunks were verified
	full    clock.Time
	closing bool
	told    uint64 // the commit number members were told last
	seen    uint64 // the commit number at the last idle tick

	// pass is that of the last Catchup in its epoch; copying counts what is
	// being changed for one.
	pass      uint64
	passEpoch ashlar.Epoch
	copying   int
	// lacking are the generations of that catch-up that are higher than those
	// here; they are recorded at its end.
	lacking []wire.ObjectGen
	mark    mark

	// cuts are those known to be made on all members, in cutsEpoch.
	cuts      map[ashlar.LayerID]ashlar.Generation
	cutsEpoch ashlar.Epoch
	// deleted are layers that were deleted in deletedEpoch, in their order.
	deleted      map[ashlar.LayerID]struct{}
	deletedOrder []ashlar.LayerID
	deletedEpoch ashlar.Epoch

	work       sync.WaitGroup // actions being carried out
	equalising chan struct{}  // one for each range being made equal
}

// job is what is being done for one member in one epoch; it ends when the
// epoch does or when the member must begin anew.
type job struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// waiter is what a write waits with.
type waiter struct {
	done chan struct{}
	err  error
	// users are those who still read the payload.
	users sync.WaitGroup
}

func newSeat(l *life, d *disk, k seatKey) *seat {
	t := &seat{
		l: l, d: d, group: k.group, made: l.s.clk.Now(), news: make(chan struct{}), jobs: map[ashlar.DiskID]*job{},
		equalising: make(chan struct{}, equaliseParallel),
		vetted:     len(d.store.Suspect(k.group)) == 0,
	}
	o := replication.Options{Slots: d.slots.of(k.group), Gate: t.gate, Restored: d.slots.restore(k.group)}
	o.Horizons, o.Amnesia = d.slots.forgotten()
	if d.store.BootChanged() {
		o.Amnesia = max(o.Amnesia, ashlar.SessionID(l.s.firstSession.Load()))
	}
	t.sm = replication.New(k.disk, o)
	return t
}

// gate is asked about a write before it is started. t.mu is held.
func (t *seat) gate(op *replication.Op) error {
	if t.l.fenced(op.Write.Session) {
		return ashlar.NoSession
	}
	if t.isDeleted(op.Write.Layer) {
		return ashlar.Stale
	}
	if op.Write.Gen < t.d.store.Generation(t.group, op.Write.Layer) {
		return ashlar.WrongGeneration // I-10
	}
	t.noteCut(op.Write.Layer, op.Write.Gen)
	return nil
}

// step calls f on the state machine and carries out what follows. What is to
// be sent and applied of mine is returned instead, for the caller to do itself.
func (t *seat) step(mine *replication.Op, f func(g *replication.Group)) (own []replication.Action) {
	t.mu.Lock()
	phase, epoch := t.sm.Phase(), t.sm.Epoch()
	f(t.sm)
	acts := append([]replication.Action(nil), t.sm.Actions()...)
	for i := range acts {
		t.claim(&acts[i])
	}
	if t.sm.Phase() != phase || t.sm.Epoch() != epoch {
		close(t.news)
		t.news = make(chan struct{})
	}
	t.mu.Unlock()
	for i := range acts {
		a := &acts[i]
		if mine != nil && a.Op == mine && (a.Kind == replication.ActApply || a.Kind == replication.ActSend) {
			own = append(own, *a)
		} else {
			t.perform(a)
		}
	}
	return own
}

// claim does the part of an action that must be done in order. t.mu must be
// held.
func (t *seat) claim(a *replication.Action) {
	switch a.Kind {
	case replication.ActStop:
		for d, j := range t.jobs {
			if a.Disk == 0 || a.Disk == d {
				j.cancel()
				delete(t.jobs, d)
			}
		}
	case replication.ActSend, replication.ActApply:
		a.Op.Wait.(*waiter).users.Add(1)
		t.work.Add(1)
	case replication.ActFinish, replication.ActGrant, replication.ActServe:
	default:
		t.work.Add(1)
	}
}

// job returns the context of what is done for a member in an epoch.
func (t *seat) job(d ashlar.DiskID, e ashlar.Epoch) context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sm.Epoch() != e {
		ctx, cancel := context.WithCancel(t.l.ctx)
		cancel()
		return ctx
	}
	j := t.jobs[d]
	if j == nil {
		j = &job{}
		j.ctx, j.cancel = context.WithCancel(t.l.ctx)
		if t.closing {
			j.cancel()
		}
		t.jobs[d] = j
	}
	return j.ctx
}

func (t *seat) perform(a *replication.Action) {
	act := *a
	run := func(f func()) {
		go func() {
			defer t.work.Done()
			f()
		}()
	}
	switch act.Kind {
	case replication.ActApply:
		run(func() { t.apply(&act) })
	case replication.ActSend:
		go t.deliver(&act).finish()
	case replication.ActFinish:
		w := act.Op.Wait.(*waiter)
		w.err = act.Err
		close(w.done)
	case replication.ActGrant:
		close(act.Span.Owner.(chan struct{}))
	case replication.ActRecord:
		run(func() { t.record(act.Epoch) })
	case replication.ActAdopt:
		run(func() { t.adopt(&act) })
	case replication.ActEqualise:
		run(func() { t.equalise(&act) })
	case replication.ActResolve:
		run(func() { t.resolve(&act) })
	case replication.ActServe:
		t.l.s.log.Info("serving", "group", t.group, "epoch", act.Epoch, "disk", t.d.path)
		t.vet(act.Epoch)
	case replication.ActCatchup:
		run(func() { t.l.queue.add(t, &act) })
	case replication.ActReport:
		run(func() { t.report(&act) })
	case replication.ActStop:
	}
}

// adopted notes that a primary puts this seat into a newer epoch: an answer of
// the masters that was asked for before may not list it.
func (t *seat) adopted(e ashlar.Epoch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e > t.sm.Epoch() {
		t.made = t.l.s.clk.Now()
		t.listed.Store(false)
	}
}

// unlistedSince tells whether the masters, asked at a time, must know of this
// seat if it is still to be.
func (t *seat) unlistedSince(sent clock.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listed.Load() || t.made.Before(sent)
}

// configure tells of a configuration.
func (t *seat) configure(cfg ashlar.Group) {
	t.step(nil, func(g *replication.Group) { g.Configure(cfg) })
}

// record makes the epoch durable (I-4).
func (t *seat) record(e ashlar.Epoch) {
	t.mu.Lock()
	cfg := *t.sm.Config()
	t.mu.Unlock()
	if cfg.Epoch != e {
		return
	}
	rec, _ := t.d.store.Group(t.group)
	rec.Config, rec.Adopted = cfg, e
	if at := cfg.Index(t.d.number()); at >= 0 && cfg.Members[at].State == ashlar.InSync {
		rec.LastInSync = e
	}
	if err := t.d.store.SetGroup(rec); err != nil {
		t.l.s.log.Error("epoch not recorded", "group", t.group, "epoch", e, "err", err)
		return // the disk is lost, and with it this seat
	}
	t.step(nil, func(g *replication.Group) { g.Recorded(e) })
}

// close ends the seat: writes fail with err once the disk is quiet.
func (t *seat) close(err error) {
	t.mu.Lock()
	t.closing = true
	t.mu.Unlock()
	t.step(nil, func(g *replication.Group) { g.Close(err) })
}

// wait returns when nothing of the seat is being done any more.
func (t *seat) wait() {
	_ = t.until(context.Background(), func(*replication.Group) (bool, error) { return false, nil })
	t.work.Wait()
}

// until waits until ok, called with t.mu held, returns true or an error, or
// ctx ends. ok is asked again after every change of phase or epoch.
func (t *seat) until(ctx context.Context, ok func(g *replication.Group) (bool, error)) error {
	for {
		t.mu.Lock()
		done, err := ok(t.sm)
		news := t.news
		closed := t.sm.Phase() == replication.Closed
		t.mu.Unlock()
		if done || err != nil {
			return err
		}
		if closed {
			return ashlar.NotReady
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changed wakes those who wait for something that is not the phase.
func (t *seat) changed() {
	t.mu.Lock()
	close(t.news)
	t.news = make(chan struct{})
	t.mu.Unlock()
}

// lock puts a span in line and waits until it is granted. It fails when the
// epoch is not e any more, or ctx ends.
func (t *seat) lock(ctx context.Context, e ashlar.Epoch, s *replication.Span) error {
	granted := make(chan struct{})
	s.Owner = granted
	var ok bool
	err := error(nil)
	t.step(nil, func(g *replication.Group) {
		if err = g.Ready(e); err == nil {
			ok = g.Line(s)
		}
	})
	if err != nil {
		return err
	}
	for !ok {
		t.mu.Lock()
		news, now, closed := t.news, t.sm.Epoch(), t.sm.Phase() == replication.Closed
		t.mu.Unlock()
		if now != e || closed {
			err = ashlar.WrongEpoch
			break
		}
		select {
		case <-granted:
			ok = true
		case <-news:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		t.unlock(s)
	}
	return err
}

func (t *seat) unlock(s *replication.Span) {
	t.step(nil, func(g *replication.Group) { g.Unline(s) })
}

// span is a part of a chunk, widened to whole blocks.
func span(layer ashlar.LayerID, chunk, off, n uint32, shared bool) *replication.Span {
	const b = ashlar.BlockSize
	end := uint64(off) + uint64(n)
	return &replication.Span{
		Layer: layer, Chunk: chunk, Off: off / b * b, End: uint32((end + b - 1) / b * b), Shared: shared,
	}
}

// addr returns where a member of the current configuration is served.
func (t *seat) addr(d ashlar.DiskID) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	cfg := t.sm.Config()
	if at := cfg.Index(d); at >= 0 {
		return cfg.Members[at].Addr
	}
	return ""
}

// peers returns the other in-sync members of the current epoch.
func (t *seat) peers(e ashlar.Epoch) []ashlar.DiskID {
	t.mu.Lock()
	defer t.mu.Unlock()
	cfg := t.sm.Config()
	var out []ashlar.DiskID
	if cfg.Epoch != e {
		return nil
	}
	for _, m := range cfg.Members {
		if m.State == ashlar.InSync && m.Disk != t.d.number() {
			out = append(out, m.Disk)
		}
	}
	return out
}

// failed tells the state machine that a member failed.
func (t *seat) failed(d ashlar.DiskID, e ashlar.Epoch, err error) {
	t.step(nil, func(g *replication.Group) { g.Failed(d, e, err) })
}

// report tells the masters of a failed member, and again should they have
// decided nothing by then.
func (t *seat) report(a *replication.Action) {
	l := t.l
	l.s.log.Warn("member failed", "group", t.group, "epoch", a.Epoch, "disk", a.Disk, "err", a.Err)
	ctx := t.job(a.Disk, a.Epoch)
	reason := a.Err.Error()
	if len(reason) > 1024 {
		reason = reason[:1024]
	}
	err := l.s.cfg.Leader.Call(ctx, &wire.ReportMember{
		Session: l.session, Group: t.group, Epoch: a.Epoch, Disk: a.Disk, Reason: reason,
	}, nil)
	if err != nil && l.lost(err) {
		return
	}
	l.s.sleep(ctx, 3*retryMax)
	t.step(nil, func(g *replication.Group) { g.Reportable(a.Disk, a.Epoch) })
}

// fence finishes what a lost session has in line and waits for what is in
// flight; false if the life is over.
func (t *seat) fence(id ashlar.SessionID) bool {
	for {
		clean := false
		t.step(nil, func(g *replication.Group) { clean = g.Fence(id) })
		if clean {
			return true
		}
		t.l.s.sleep(t.l.ctx, retryMin)
		if t.l.ctx.Err() != nil {
			return false
		}
	}
}

// commitIdle tells members what is committed if nothing was written since the
// last call.
func (t *seat) commitIdle() {
	t.mu.Lock()
	g := t.sm
	n := g.Committed()
	due := g.Phase() == replication.Serving && g.Idle() && n == t.seen && n != t.told
	t.seen = n
	e, members := g.Epoch(), []ashlar.DiskID(nil)
	if due {
		t.told = n
		members = g.Members()
	}
	t.mu.Unlock()
	for _, m := range members {
		t.l.spawn(func() {
			ctx, cancel := context.WithTimeout(t.job(m, e), memberTimeout)
			defer cancel()
			// Lost, it is told by the next write.
			_ = t.l.s.cfg.RPC.Call(ctx, t.addr(m), &wire.ReplicaCommit{Disk: m, Group: t.group, Epoch: e, Committed: n}, nil)
		})
	}
}

// inPass runs a change that belongs to a catch-up; one of an earlier attempt,
// which the primary gave up, is refused.
func (t *seat) inPass(e ashlar.Epoch, pass uint64, f func() error) error {
	return t.guarded(e, func() error {
		t.mu.Lock()
		if pass != 0 && (t.passEpoch != e || t.pass != pass) {
			t.mu.Unlock()
			return ashlar.WrongEpoch
		}
		t.copying++
		t.mu.Unlock()
		defer func() {
			t.mu.Lock()
			t.copying--
			t.mu.Unlock()
		}()
		return f()
	})
}

// beginPass refuses earlier attempts from now on and returns when nothing of
// them is being done.
func (t *seat) beginPass(ctx context.Context, e ashlar.Epoch, pass uint64) error {
	t.mu.Lock()
	if t.passEpoch == e && pass < t.pass {
		t.mu.Unlock()
		return ashlar.WrongEpoch
	}
	if t.passEpoch != e || t.pass != pass {
		t.lacking = nil
	}
	t.passEpoch, t.pass = e, pass
	t.mark.remember()
	t.mu.Unlock()
	for {
		t.mu.Lock()
		busy := t.copying > 0 || t.sm.Busy()
		t.mu.Unlock()
		if !busy {
			return nil
		}
		t.l.s.sleep(ctx, retryMin)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// surely makes a change on a member whose lateness would do harm: while it is
// not known whether it was carried out, or may still be, it does not return
// before the epoch is over. The member was reported then.
func (t *seat) surely(d ashlar.DiskID, e ashlar.Epoch, req wire.Message) error {
	ctx := t.job(d, e)
	err := t.call(ctx, d, e, req, nil)
	switch ashlar.KindOf(err) {
	case ashlar.Unreachable, ashlar.Timeout, ashlar.Canceled:
		if !errors.Is(err, rpc.ErrNotSent) {
			t.failed(d, e, err)
			<-ctx.Done()
		}
	}
	return err
}

// damage returns the damaged ranges that an error tells of.
func damage(err error) []chunkstore.Region {
	var d *chunkstore.Damage
	if errors.As(err, &d) {
		return d.Regions
	}
	return nil
}
