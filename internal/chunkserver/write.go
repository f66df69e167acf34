package chunkserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// replicaForce is a flag of Replicate.Write beyond those of clients: some
// member has applied the write, so a full disk uses its reserve.
const replicaForce = 1 << 31

// fullFor is how long a group refuses writes after a member had no room.
const fullFor = 2 * time.Second

// handleWrite is the primary's side of a client's write.
func (s *Server) handleWrite(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	w := r.Msg.(*wire.Write)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	defer s.serve()()
	if err := checkWrite(w); err != nil {
		return nil, err
	}
	t, err := l.admit(ctx, r, &w.Address)
	if err != nil {
		return nil, err
	}
	return nil, t.write(ctx, w)
}

// checkWrite refuses what no member could store, before it is ordered.
func checkWrite(w *wire.Write) error {
	subject := fmt.Sprintf("pg %d layer %x chunk %d", w.Group, uint64(w.Layer), w.Chunk)
	zero := w.Flags&wire.WriteZero != 0
	size := w.ChunkSize
	switch {
	case w.Flags&^(wire.WriteSync|wire.WriteRetry|wire.WriteZero) != 0,
		w.Len == 0, w.Seq == 0, uint64(w.Off)+uint64(w.Len) > uint64(size), !zero && len(w.Data) != int(w.Len), zero && len(w.Data) != 0,
		size < ashlar.ChunkSizeMin || size > ashlar.ChunkSizeMax || size&(size-1) != 0:
		return ashlar.E("write", ashlar.Invalid, subject, fmt.Errorf("%d bytes at %d of %d, %d of data, sequence %d", w.Len, w.Off, size, len(w.Data), w.Seq))
	case !zero && checksum.Verify(w.Sums, uint64(w.Off), w.Data) >= 0:
		return ashlar.E("write", ashlar.Corrupt, subject, errors.New("the data does not match its checksums"))
	}
	return nil
}

// write orders a write and waits for its end. The payload must stay valid, so
// it returns only when nobody reads it any more; a caller that gave up meets
// its write withdrawn, or finished.
func (t *seat) write(ctx context.Context, w *wire.Write) error {
	if t.l.s.clk.Now().Before(t.fullUntil()) && t.takesRoom(w) {
		return ashlar.E("write", ashlar.NoSpace, fmt.Sprintf("pg %d", t.group), errors.New("a member's disk is full"))
	}
	if err := t.enough(); err != nil {
		return err
	}
	if err := t.sound(ctx, w); err != nil {
		return err
	}
	wait := &waiter{done: make(chan struct{})}
	op := &replication.Op{Write: w, Wait: wait}
	var verdict replication.Verdict
	var other *replication.Op
	var err error
	mine := t.step(op, func(g *replication.Group) { verdict, other, err = g.Order(op) })
	switch verdict {
	case replication.Refused:
		return err
	case replication.Already:
		if w.Flags&wire.WriteSync != 0 { // perhaps made equal since, and so not synced everywhere
			if err := t.sync(ctx, &w.Address); err != nil {
				return err
			}
		}
		return t.answerable()
	case replication.Joined:
		return t.join(ctx, other.Wait.(*waiter))
	}
	t.carryOut(mine)
	select {
	case <-wait.done:
	case <-ctx.Done():
		t.step(nil, func(g *replication.Group) { g.Withdraw(op, ctx.Err()) })
		<-wait.done
	}
	wait.users.Wait()
	if wait.err != nil {
		return wait.err
	}
	return t.answerable()
}

// takesRoom tells whether a write needs room that its blocks do not have yet.
func (t *seat) takesRoom(w *wire.Write) bool {
	if w.Flags&wire.WriteZero != 0 {
		return false
	}
	held, err := t.d.store.Holds(chunkstore.Key{Group: t.group, Layer: w.Layer, Index: w.Chunk}, w.Off, w.Len)
	return err != nil || !held
}

// sound verifies the blocks of which a write changes only a part, and mends
// what is damaged. A block of which no member has a good copy can not be
// changed in part; that is told before the write is ordered, because every
// member would fail at it.
func (t *seat) sound(ctx context.Context, w *wire.Write) error {
	const b = ashlar.BlockSize
	first, last := w.Off/b*b, (w.Off+w.Len-1)/b*b
	edges := [2]uint32{first, last}
	partial := [2]bool{w.Off != first || w.Off+w.Len < first+b, last != first && w.Off+w.Len < last+b}
	k := chunkstore.Key{Group: t.group, Layer: w.Layer, Index: w.Chunk}
	for i, off := range edges {
		if !partial[i] {
			continue
		}
		buf := rpc.GetBuffer(b)
		_, _, err := t.d.store.Read(k, off, b, buf)
		if damage(err) != nil {
			_, _, err = t.readMended(ctx, &wire.Read{Address: w.Address, Off: off, Len: b}, buf)
		}
		rpc.PutBuffer(buf)
		if errors.Is(err, ashlar.Corrupt) {
			return err // any other is found again where it is dealt with
		}
	}
	return nil
}

// join waits for the same write that an earlier request ordered.
func (t *seat) join(ctx context.Context, w *waiter) error {
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if w.err != nil {
		return w.err
	}
	return t.answerable()
}

// leased refuses an answer once the lease is over (I-6).
func (t *seat) leased() error {
	if !t.l.lease.valid() {
		return ashlar.NoLease
	}
	return nil
}

// answerable is leased for what acknowledges a write.
func (t *seat) answerable() error {
	if err := t.leased(); err != nil {
		return err
	}
	return t.enough()
}

// enough refuses to acknowledge writes while fewer members are in-sync than
// the pool's write-min asks for; the client tries again.
func (t *seat) enough() error {
	rules := *t.l.rules.Load()
	if len(rules) == 0 {
		return nil
	}
	t.mu.Lock()
	cfg := t.sm.Config()
	have, want := cfg.Count(ashlar.InSync), int(rules[cfg.Pool].Copies)
	t.mu.Unlock()
	if have < want {
		return ashlar.E("write", ashlar.NotReady, fmt.Sprintf("pg %d", t.group),
			fmt.Errorf("it has %d copies and its pool's write-min is %d", have, want))
	}
	return nil
}

func (t *seat) fullUntil() clock.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.full
}

func (t *seat) setFull() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.full = t.l.s.clk.Now().Add(fullFor)
}

// apply writes to the local disk what the state machine ordered.
func (t *seat) apply(a *replication.Action) {
	w := a.Op.Write
	err := t.store(w, a.Epoch, false)
	if errors.Is(err, ashlar.NoSpace) { // others may have it already
		t.setFull()
		err = t.awaitRoom(a, t.store(w, a.Epoch, true))
	}
	if damage(err) != nil {
		// A block written in part is damaged. The others' is the old one or
		// the new one; either will do under this write.
		k := chunkstore.Key{Group: t.group, Layer: w.Layer, Index: w.Chunk}
		err = t.mended(t.job(a.Disk, a.Epoch), k, a.Epoch, func() error { return t.store(w, a.Epoch, true) })
	}
	if err != nil {
		t.l.s.log.Error("write failed on the primary's disk", "group", t.group, "disk", t.d.path, "err", err)
	}
	a.Op.Wait.(*waiter).users.Done()
	t.step(nil, func(g *replication.Group) { g.Applied(a.Op, a.Epoch, err) })
}

// awaitRoom applies a write that was ordered before the disk was found full, as
// soon as there is room, while no other member is in-sync. If one is, the
// failure is for the masters to hear: the other is primary then.
func (t *seat) awaitRoom(a *replication.Action, err error) error {
	ctx := t.job(a.Disk, a.Epoch)
	for told := false; errors.Is(err, ashlar.NoSpace) && ctx.Err() == nil && len(t.peers(a.Epoch)) == 0; told = true {
		if !told {
			t.l.s.log.Error("a write waits for room on the last disk of its group", "group", t.group, "disk", t.d.path, "err", err)
		}
		t.l.s.sleep(ctx, fullFor/2)
		t.setFull()
		err = t.store(a.Op.Write, a.Epoch, true)
	}
	return err
}

// store writes to the local disk, durably if asked to.
func (t *seat) store(w *wire.Write, e ashlar.Epoch, force bool) error {
	k := chunkstore.Key{Group: t.group, Layer: w.Layer, Index: w.Chunk}
	cw := chunkstore.Write{
		Off: w.Off, Len: w.Len, Zero: w.Flags&wire.WriteZero != 0, Data: w.Data, Sums: w.Sums,
		ChunkSize: w.ChunkSize, Origin: w.Origin, Epoch: e,
	}
	err := t.d.store.Write(k, &cw)
	if force && errors.Is(err, ashlar.NoSpace) {
		err = t.d.force(k, &cw)
	}
	if err == nil && w.Flags&wire.WriteSync != 0 {
		err = t.d.store.SyncLayer(t.group, w.Layer)
	}
	return err
}

// carryOut does what a write asks for by the goroutine that waits for it: the
// members are sent their copies, then the local one is made, and only then are
// the answers looked at.
func (t *seat) carryOut(mine []replication.Action) {
	sent := make([]*delivery, 0, 4)
	for i := range mine {
		if a := &mine[i]; a.Kind == replication.ActSend {
			d := t.deliver(a)
			d.begin()
			sent = append(sent, d)
		}
	}
	for i := range mine {
		if a := &mine[i]; a.Kind == replication.ActApply {
			t.apply(a)
			t.work.Done()
		}
	}
	for i, d := range sent {
		if i < len(sent)-1 && !d.answered() { // the members fail apart from each other
			go d.finish()
			continue
		}
		d.finish()
	}
}

// delivery is a write on its way to a member.
type delivery struct {
	t       *seat
	a       replication.Action
	m       wire.Replicate
	ctx     context.Context // of the member in this epoch
	pending *rpc.Pending    // nil if nothing was sent yet
}

func (t *seat) deliver(a *replication.Action) *delivery {
	d := &delivery{t: t, a: *a, ctx: t.job(a.Disk, a.Epoch)}
	d.m = wire.Replicate{Disk: a.Disk, Op: a.Num, Committed: a.Committed, Write: *a.Op.Write}
	d.m.Write.Epoch = a.Epoch
	return d
}

// begin sends it, if that can be done without waiting.
func (d *delivery) begin() {
	if d.ctx.Err() == nil {
		d.pending = d.t.l.s.cfg.RPC.Begin(d.t.addr(d.a.Disk), &d.m, nil)
	}
}

func (d *delivery) answered() bool { return d.pending != nil && d.pending.Answered() }

// finish returns when the member has the write or the epoch is over.
func (d *delivery) finish() {
	t, a, m := d.t, &d.a, &d.m
	defer t.work.Done()
	defer a.Op.Wait.(*waiter).users.Done()
	pause := retryMin
	for {
		err := d.once()
		if d.ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			t.step(nil, func(g *replication.Group) { g.Acked(a.Op, a.Disk, a.Epoch) })
			return
		case errors.Is(err, ashlar.WrongEpoch):
			return // we shall hear of the newer one
		case errors.Is(err, ashlar.NoSpace):
			t.setFull()
			m.Write.Flags |= replicaForce
			continue
		case errors.Is(err, ashlar.Corrupt):
			w := a.Op.Write
			if err := t.supply(a.Disk, w, a.Epoch); err != nil && d.ctx.Err() == nil {
				t.failed(a.Disk, a.Epoch, err)
			}
		case errors.Is(err, ashlar.IO):
			t.failed(a.Disk, a.Epoch, err)
		}
		t.l.s.sleep(d.ctx, pause)
		pause = min(2*pause, retryMax)
	}
}

// once waits for what was sent, or sends it.
func (d *delivery) once() error {
	p := d.pending
	d.pending = nil
	switch {
	case p == nil:
		return d.t.call(d.ctx, d.a.Disk, d.a.Epoch, &d.m, nil)
	case p.Answered():
		return p.Wait(d.ctx)
	}
	return d.t.patiently(d.ctx, d.a.Disk, d.a.Epoch, p.Wait)
}

// supply gives a member the blocks that a write touches in part: its own are
// damaged.
func (t *seat) supply(d ashlar.DiskID, w *wire.Write, e ashlar.Epoch) error {
	const b = ashlar.BlockSize
	for _, off := range []uint32{w.Off / b * b, (w.Off + w.Len - 1) / b * b} {
		c, err := t.export(w.Layer, w.Chunk, off, b, e)
		if err == nil {
			c.Disk = d
			err = t.surely(d, e, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// call makes a request of a member, patiently.
func (t *seat) call(ctx context.Context, d ashlar.DiskID, e ashlar.Epoch, req, reply wire.Message) error {
	addr := t.addr(d)
	return t.patiently(ctx, d, e, func(ctx context.Context) error {
		return t.l.s.cfg.RPC.Call(ctx, addr, req, reply)
	})
}

// patiently waits for an answer of a member. One that does not answer within
// memberTimeout is asked whether it is alive; if it is not, or cannot be
// reached, it is reported. The request itself goes on for memberSlow.
func (t *seat) patiently(ctx context.Context, d ashlar.DiskID, e ashlar.Epoch, answer func(context.Context) error) error {
	cctx, cancel := context.WithTimeout(ctx, memberSlow)
	defer cancel()
	stop := t.l.s.clk.AfterFunc(memberTimeout, func() {
		pctx, pcancel := context.WithTimeout(cctx, memberTimeout)
		defer pcancel()
		err := t.l.s.cfg.RPC.Call(pctx, t.addr(d), &wire.ReplicaCommit{Disk: d, Group: t.group, Epoch: e}, nil)
		if cctx.Err() == nil && (errors.Is(err, ashlar.Unreachable) || errors.Is(err, ashlar.Timeout)) {
			t.failed(d, e, err)
		}
	})
	err := answer(cctx)
	stop()
	if err != nil && ctx.Err() == nil && (errors.Is(err, ashlar.Unreachable) || errors.Is(err, ashlar.Timeout)) {
		t.failed(d, e, err)
	}
	return err
}
