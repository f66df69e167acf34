package chunkserver

import (
	"context"
	"errors"
	"math"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// listPage is how many chunk names go into one ChunkList.
const listPage = 4096

// copyUnit is how much is copied at a time: writes to it wait meanwhile.
const copyUnit = 256 << 10

// catchups runs the catch-ups of a life: a few at a time, groups with the
// fewest copies first.
type catchups struct {
	l *life

	mu      sync.Mutex
	waiting []*catchup
	running int
	wake    chan struct{}
}

// catchup brings one syncing member of one group up to date.
type catchup struct {
	t       *seat
	member  ashlar.DiskID
	epoch   ashlar.Epoch
	barrier uint64
	attach  uint64 // the attachment it belongs to
	pass    uint64 // of the attempt
	copies  int
	pool    uint32
	ctx     context.Context
	// from is the first chunk that no attempt has copied yet. Those before need
	// nothing more: while the attachment lasts every write goes to the member.
	// Of that chunk the regions below copied are done, too. Across attachments
	// it is the member that knows how far it is: its mark.
	from   wire.ChunkKey
	copied uint32
}

func newCatchups(l *life) *catchups { return &catchups{l: l, wake: make(chan struct{}, 1)} }

// add puts a catch-up in line.
func (q *catchups) add(t *seat, a *replication.Action) {
	t.mu.Lock()
	copies, pool := t.sm.Config().Count(ashlar.InSync), t.sm.Config().Pool
	t.mu.Unlock()
	c := &catchup{t: t, member: a.Disk, epoch: a.Epoch, barrier: a.Committed, attach: a.Num, copies: copies, pool: pool, ctx: t.job(a.Disk, a.Epoch)}
	k := seatKey{c.member, t.group}
	q.l.estimates.waits(k, 0)
	q.mu.Lock()
	q.waiting = append(q.waiting, c)
	q.mu.Unlock()
	q.kick()
	q.l.spawn(func() { // only people wait for it
		if n, err := t.d.bytes(t.group, wire.ChunkKey{}, 0, nil); err == nil {
			q.l.estimates.holds(k, n)
		}
	})
}

func (q *catchups) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run starts catch-ups until the life ends.
func (q *catchups) run() {
	for {
		for c := q.pick(); c != nil; c = q.pick() {
			started := q.l.spawn(func() {
				c.run()
				q.mu.Lock()
				q.running--
				q.mu.Unlock()
				q.kick()
			})
			if !started {
				return
			}
		}
		select {
		case <-q.wake:
		case <-q.l.ctx.Done():
			return
		}
	}
}

// pick takes the catch-up of the group with the fewest copies.
func (q *catchups) pick() *catchup {
	q.mu.Lock()
	defer q.mu.Unlock()
	best := -1
	for i, c := range q.waiting {
		if best < 0 || c.copies < q.waiting[best].copies {
			best = i
		}
	}
	if best < 0 || q.running >= catchupParallel {
		return nil
	}
	c := q.waiting[best]
	q.waiting = append(q.waiting[:best], q.waiting[best+1:]...)
	q.running++
	return c
}

// run repeats the catch-up until it succeeds, or the epoch is over.
func (c *catchup) run() {
	l := c.t.l
	k := seatKey{c.member, c.t.group}
	defer l.estimates.over(k)
	for pause := retryMin; c.ctx.Err() == nil; pause = min(2*pause, retryMax) {
		err := c.all()
		if err == nil {
			err = c.reportSynced()
		}
		if err == nil || c.ctx.Err() != nil {
			return
		}
		l.s.log.Warn("catch-up goes on after a failure", "group", c.t.group, "disk", c.member, "err", err)
		l.s.sleep(c.ctx, pause)
	}
}

func (c *catchup) reportSynced() error {
	l := c.t.l
	ok := false
	c.t.step(nil, func(g *replication.Group) { ok = g.Promise(c.member, c.epoch, c.attach) })
	if !ok {
		return nil // it began anew meanwhile; another catch-up follows
	}
	err := l.s.cfg.Leader.Call(c.ctx, &wire.ReportSynced{Session: l.session, Group: c.t.group, Epoch: c.epoch, Disk: c.member}, nil)
	if err != nil && l.lost(err) {
		return nil
	}
	if errors.Is(err, ashlar.WrongEpoch) {
		return nil
	}
	return err
}

func (c *catchup) call(req, reply wire.Message) error {
	return c.t.call(c.ctx, c.member, c.epoch, req, reply)
}

// all is one attempt. Every write since the barrier goes to the member too,
// and each range is copied with writes to it kept out, so that a copy never
// overwrites what is newer.
func (c *catchup) all() error {
	t := c.t
	err := t.until(c.ctx, func(*replication.Group) (bool, error) { return t.vetted, nil })
	if err != nil {
		return err
	}
	if err := c.call(&wire.ReplicaCommit{Disk: c.member, Group: t.group, Epoch: c.epoch, Committed: c.barrier}, nil); err != nil {
		return err
	}
	c.pass = t.l.passes.Add(1)
	var rep wire.CatchupReply
	req := &wire.Catchup{Disk: c.member, Group: t.group, Epoch: c.epoch, Pass: c.pass, Gens: t.d.store.Generations(t.group)}
	t.mu.Lock()
	req.Inflight, req.Horizons = t.sm.Results()
	t.mu.Unlock()
	req.Horizons = req.Horizons[:min(len(req.Horizons), wire.InflightMax)]
	gens := req.Gens
	for first := true; first || len(gens) > 0; first = false {
		req.Gens = gens[:min(len(gens), wire.GensMax)]
		gens = gens[len(req.Gens):]
		var r wire.CatchupReply
		if err := c.call(req, &r); err != nil {
			return err
		}
		if first {
			rep = r // what it had in flight is told once
		} else {
			rep.Layers, rep.Known = append(rep.Layers, r.Layers...), append(rep.Known, r.Known...)
		}
		req.Inflight, req.Horizons = nil, nil
	}
	if err := c.chunks(&rep); err != nil {
		return err
	}
	return c.call(&wire.CatchupEnd{Disk: c.member, Group: t.group, Epoch: c.epoch, Pass: c.pass}, nil)
}

// chunks goes through all chunks of the group, a page at a time.
func (c *catchup) chunks(rep *wire.CatchupReply) error {
	need := newNeeds(rep)
	ranges := map[wire.ChunkKey][]chunkstore.Region{}
	for i := range rep.Ranges {
		f := &rep.Ranges[i]
		c.t.mu.Lock()
		settled := c.t.sm.Settled(f)
		c.t.mu.Unlock()
		if settled {
			continue
		}
		k := wire.ChunkKey{Layer: f.Layer, Index: f.Chunk}
		ranges[k] = append(ranges[k], chunkstore.Region{Off: f.Off, Len: f.Len})
	}
	from := c.from
	if keyLess(from, need.mark.At) {
		from = need.mark.At // what changed before it is little
	}
	bytes, err := c.t.d.bytes(c.t.group, from, rep.Since, func(k wire.ChunkKey) bool { return need.of(k).behind.whole })
	if err != nil {
		return err
	}
	c.t.l.estimates.measured(seatKey{c.member, c.t.group}, bytes)
	for more := true; more; {
		var keys []wire.ChunkKey
		var missing map[wire.ChunkKey]bool
		var err error
		keys, missing, more, err = c.list(c.from)
		if err != nil {
			return err
		}
		for _, k := range keys {
			n := need.of(k)
			n.missing = missing[k]
			if err := c.chunk(k, &n, ranges[k]); err != nil {
				return err
			}
			c.from, c.copied = k, 0
			c.from.Index++
		}
	}
	return nil
}

// list has the member drop the chunks of a page that are not here. No write
// is in flight meanwhile, so that none makes a chunk that the list lacks.
func (c *catchup) list(from wire.ChunkKey) (keys []wire.ChunkKey, missing map[wire.ChunkKey]bool, more bool, err error) {
	t := c.t
	all := &replication.Span{Scope: replication.ScopeGroup}
	if err := t.lock(c.ctx, c.epoch, all); err != nil {
		return nil, nil, false, err
	}
	defer t.unlock(all)
	if keys, err = t.d.store.Keys(t.group, from, listPage); err != nil {
		return nil, nil, false, err
	}
	m := &wire.ChunkList{Disk: c.member, Group: t.group, Epoch: c.epoch, Pass: c.pass, From: from, Chunks: keys}
	if more = len(keys) == listPage; more {
		m.To = keys[len(keys)-1]
		m.To.Index++
	}
	var rep wire.ChunkListReply
	if err := c.call(m, &rep); err != nil {
		return nil, nil, false, err
	}
	missing = make(map[wire.ChunkKey]bool, len(rep.Missing))
	for _, k := range rep.Missing {
		missing[k] = true
	}
	return keys, missing, more, nil
}

// chunk copies what the member lacks of one chunk, and what it had in flight
// itself.
func (c *catchup) chunk(ck wire.ChunkKey, need *lacks, extra []chunkstore.Region) error {
	k := chunkstore.Key{Group: c.t.group, Layer: ck.Layer, Index: ck.Index}
	info, ok, err := c.t.d.store.Info(k)
	if err != nil || !ok {
		return err
	}
	if c.t.d.store.IsSuspect(k) { // it could not be verified, and may lack what the member has
		need = &lacks{behind: lack{whole: true}, missing: need.missing}
	}
	if info.Damaged {
		err := c.t.guarded(c.epoch, func() error { return c.t.mendHeader(c.ctx, k, c.epoch) })
		if err != nil {
			return err
		}
	}
	if !info.Damaged && need.nothing(info.ChangedEpoch) && len(extra) == 0 {
		return nil
	}
	regions, err := c.regions(k, need)
	if err != nil {
		return err
	}
	used, err := c.t.d.store.ChangedRegions(k, 0)
	if err != nil {
		return err
	}
	if c.from != ck {
		c.from, c.copied = ck, 0
	}
	for i, r := range merge(regions, extra) {
		if i < len(regions) && r.Off < c.copied {
			done := min(c.copied-r.Off, r.Len)
			r.Off, r.Len = r.Off+done, r.Len-done
		}
		for off, n := r.Off, uint32(0); off < r.Off+r.Len; off += n {
			n = min(r.Off+r.Len-off, copyUnit)
			if hole := min(r.Off+r.Len-off, ashlar.IOMax); overlap(used, off, hole) == 0 {
				n = hole
			}
			// What is sent counts: a small file in a large chunk is mostly holes.
			if err := c.t.l.s.spend(c.ctx, c.pool, int(overlap(used, off, n))); err != nil {
				return err
			}
			done := c.copied
			if i < len(regions) {
				done = off + n
			}
			refused, err := c.copyRange(k, off, n, done)
			if all := (lacks{behind: lack{whole: true}}); refused && *need != all { // its header was damaged
				c.copied = 0
				return c.chunk(ck, &all, nil)
			}
			if err != nil {
				return err
			}
			c.copied = done
		}
	}
	return nil
}

// regions decides what to copy.
func (c *catchup) regions(k chunkstore.Key, need *lacks) (out []chunkstore.Region, err error) {
	if need.missing {
		return c.t.d.store.ChangedRegions(k, 0)
	}
	if need.split > 0 {
		rs, err := c.lacking(k, need.before)
		if err != nil {
			return nil, err
		}
		out = clip(rs, 0, need.split)
	}
	if need.split < math.MaxUint32 {
		rs, err := c.lacking(k, need.behind)
		if err != nil {
			return nil, err
		}
		out = append(out, clip(rs, need.split, math.MaxUint32)...)
	}
	return out, nil
}

// lacking returns the regions of a lack. If everything here is newer than what
// the member has, the chunk was perhaps made since, and the member's is an
// older one: then all of it is copied, absent blocks too. It is not emptied
// first: a catch-up that is cut short must leave what no other member would
// send again.
func (c *catchup) lacking(k chunkstore.Key, l lack) ([]chunkstore.Region, error) {
	t := c.t
	all, err := t.d.store.ChangedRegions(k, 0)
	if err != nil {
		return nil, err
	}
	if !l.whole {
		changed, err := t.d.store.ChangedRegions(k, l.since)
		if err != nil || size(changed) < size(all) {
			return changed, err
		}
	}
	info, ok, err := t.d.store.Info(k)
	if err != nil || !ok {
		return nil, err
	}
	return []chunkstore.Region{{Len: info.ChunkSize}}, nil
}

// copyRange sends one range as it is now; with it the chunk is done up to done.
// Damage here is mended first, from a member that has a good copy. Refused says
// that the member has to have all of the chunk.
func (c *catchup) copyRange(k chunkstore.Key, off, n, done uint32) (refused bool, err error) {
	t := c.t
	s := span(k.Layer, k.Index, off, n, true)
	if err := t.lock(c.ctx, c.epoch, s); err != nil {
		return false, err
	}
	defer t.unlock(s)
	var m *wire.Copy
	export := func() (err error) { m, err = t.export(k.Layer, k.Index, off, n, c.epoch); return err }
	err = export()
	if damage(err) != nil {
		err = t.guarded(c.epoch, func() error { return t.mended(c.ctx, k, c.epoch, export) })
	}
	if err != nil || m.ChunkSize == 0 { // deleted meanwhile, there too
		return false, err
	}
	m.Disk, m.Pass, m.Done = c.member, c.pass, done
	if err := c.call(m, nil); err != nil {
		return errors.Is(err, ashlar.Corrupt), err
	}
	t.l.s.synced.Add(uint64(len(m.Data)))
	t.l.estimates.copied(seatKey{c.member, t.group}, uint64(len(m.Data)))
	return false, nil
}
