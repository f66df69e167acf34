package file

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// run is data on its way to the object. Its data does not change.
type run struct {
	off   uint64
	data  []byte
	buf   []byte
	sync  bool   // to stable storage
	n     uint64 // in order of making
	older int    // unfinished older runs that overlap
	next  []*run // newer runs that wait for this one
}

func (r *run) end() uint64 { return r.off + uint64(len(r.data)) }

// wait is closed when all runs made up to n are finished.
type wait struct {
	n    uint64
	left int
	done chan struct{}
}

// sealPartMin is the least data at the end of a piece that is sent at once,
// in bytes: a sequential writer that began in the middle of a piece.
const sealPartMin = 256 << 10

// reserve acquires room for n bytes of dirty data, flushing if there is none.
func (i *inode) reserve(ctx context.Context, n int64) error {
	if !i.room.TryAcquire(n) {
		i.push()
		if err := i.room.Acquire(ctx, n); err != nil {
			return err
		}
	}
	if !i.fs.dirty.TryAcquire(n) {
		for _, other := range i.fs.open() {
			other.push()
		}
		if err := i.fs.dirty.Acquire(ctx, n); err != nil {
			i.room.Release(n)
			return err
		}
	}
	return nil
}

func (i *inode) unreserve(n int64) {
	i.room.Release(n)
	i.fs.dirty.Release(n)
}

// push starts writing all dirty data.
func (i *inode) push() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sealAll(false)
	i.start()
}

// buffer takes a write that lies in one piece, in the term that its lease is of.
// io must be shared.
func (i *inode) buffer(ctx context.Context, t *term, p []byte, off uint64) error {
	n := int64(len(p))
	if err := i.reserve(ctx, n); err != nil {
		return err
	}
	i.mu.Lock()
	if i.fs.term.Load() != t {
		i.mu.Unlock()
		i.unreserve(n)
		return errSessionLost
	}
	before := i.dirty.bytes
	e := i.dirty.put(p, off)
	spare := n - (i.dirty.bytes - before)
	i.wrote(off + uint64(n))
	switch {
	case e.end()%PieceSize == 0 && len(e.data) >= sealPartMin:
		i.seal(e, false)
		i.start()
	case i.dirty.bytes > FileDirtyMax/2:
		i.sealAll(false)
		i.start()
	}
	if i.dirty.bytes > 0 || i.changed {
		i.age()
	}
	i.mu.Unlock()
	if spare > 0 {
		i.unreserve(spare)
	}
	return nil
}

// wrote notes a write that ends at end. mu must be held.
func (i *inode) wrote(end uint64) {
	i.writeSeq++
	if !i.changed {
		i.changed, i.localEnd = true, 0
	}
	i.localEnd = max(i.localEnd, end)
	i.mtime = i.fs.now()
	i.set.Valid &^= wire.SetMtime
}

// age sets the timer that flushes and commits what stays. mu must be held.
func (i *inode) age() {
	if i.aging || i.fs.base.Err() != nil {
		return
	}
	i.aging = true
	i.fs.o.Clock.AfterFunc(FlushAge, func() {
		i.mu.Lock()
		i.aging = false
		i.mu.Unlock()
		if i.fs.base.Err() != nil {
			return
		}
		ctx, cancel := i.fs.background()
		defer cancel()
		errs := i.failures()
		if i.flush(ctx, false) == nil && i.failures() == errs {
			_ = i.commit(ctx) // tried again, and reported, at close
		}
	})
}

// sealAll makes runs of all extents, joining neighbours. mu must be held.
func (i *inode) sealAll(sync bool) {
	var group []*extent
	flush := func() {
		if len(group) > 0 {
			i.sealGroup(group, sync)
			group = nil
		}
	}
	all := make([]*extent, 0, i.dirty.m.Len())
	i.dirty.m.Scan(func(_ uint64, e *extent) bool { all = append(all, e); return true })
	for _, e := range all {
		if len(group) > 0 {
			if last := group[len(group)-1]; last.end() != e.off || piece(last.off) != piece(e.off) {
				flush()
			}
		}
		group = append(group, e)
	}
	flush()
}

// seal makes a run of one extent. mu must be held.
func (i *inode) seal(e *extent, sync bool) { i.sealGroup([]*extent{e}, sync) }

// sealGroup makes one run of extents that follow each other in a piece. mu
// must be held.
func (i *inode) sealGroup(group []*extent, sync bool) {
	first := group[0]
	r := &run{off: first.off, data: first.data, buf: first.buf, sync: sync}
	for _, e := range group {
		i.dirty.remove(e)
	}
	if len(group) > 1 {
		r.buf = newBuffer(int(group[len(group)-1].end() - first.off))
		r.data = r.buf
		for _, e := range group {
			copy(r.data[e.off-first.off:], e.data)
			freeBuffer(e.buf)
		}
	}
	i.made++
	r.n = i.made
	i.left++
	p := piece(r.off)
	for _, o := range i.runs[p] {
		if o.off < r.end() && r.off < o.end() {
			o.next = append(o.next, r)
			r.older++
		}
	}
	i.runs[p] = append(i.runs[p], r)
	if r.older == 0 {
		i.queue = append(i.queue, r)
	}
}

// start sends runs that are ready. mu must be held.
func (i *inode) start() {
	for r := i.take(); r != nil; r = i.take() {
		go i.send(i.sending, r)
	}
}

// startButOne is start, but leaves one run to the caller, who sends it in
// i.sending as it is now. mu must be held.
func (i *inode) startButOne() *run {
	mine := i.take()
	if mine != nil {
		i.start()
	}
	return mine
}

// take returns a run that is ready, counted as in flight; nil if there is
// none, or too much is in flight. mu must be held.
func (i *inode) take() *run {
	for i.flying < FileRunsMax && i.flyingBytes < FileFlightMax && len(i.queue) > 0 {
		r := i.queue[0]
		i.queue = i.queue[1:]
		if r.n <= i.lost {
			i.finish(r, errSessionLost)
			continue
		}
		i.flying++
		i.flyingBytes += len(r.data)
		i.fs.work.Add(1)
		if i.sending == nil {
			i.sending, i.stopSending = context.WithCancel(i.fs.base)
		}
		return r
	}
	return nil
}

// outcomeTries is how often a write whose outcome cannot be told is repeated:
// the run still is the newest of its range, so writing it again is right.
const outcomeTries = 3

// send writes a run to the object, until the session is over that ctx belongs
// to: under the next one it would be a late write (I-7).
func (i *inode) send(ctx context.Context, r *run) {
	defer i.fs.work.Done()
	ctx, cancel := i.fs.bounded(ctx)
	defer cancel()
	var flags uint32
	if r.sync {
		flags = wire.WriteSync
	}
	var err error
	for range outcomeTries {
		err = i.withObject(ctx, r.off, uint64(len(r.data)), true, func(ref *Ref) error {
			return i.fs.o.Data.WriteAt(ctx, ref, r.data, r.off, flags)
		})
		if !errors.Is(err, ashlar.OutcomeUnknown) || ctx.Err() != nil {
			break
		}
	}
	i.mu.Lock()
	if err != nil && r.n <= i.lost {
		err = errSessionLost
	}
	i.flying--
	i.flyingBytes -= len(r.data)
	i.finish(r, err)
	i.start()
	i.mu.Unlock()
}

// finish takes a run out and lets those go that waited for it. mu must be
// held.
func (i *inode) finish(r *run, err error) {
	if err != nil {
		i.fs.o.Logger.Error("write lost", "inode", i.id, "offset", r.off, "bytes", len(r.data), "err", err)
		i.fail(err)
	} else if !r.sync {
		i.plain++
	}
	p := piece(r.off)
	list := i.runs[p]
	for k, o := range list {
		if o == r {
			list = append(list[:k], list[k+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(i.runs, p)
	} else {
		i.runs[p] = list
	}
	for _, n := range r.next {
		if n.older--; n.older == 0 {
			i.queue = append(i.queue, n)
		}
	}
	if i.left--; i.left == 0 && i.sending != nil {
		i.stopSending()
		i.sending = nil
	}
	kept := i.waits[:0]
	for _, w := range i.waits {
		if r.n <= w.n {
			w.left--
		}
		if w.left == 0 {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	i.waits = kept
	n := int64(len(r.data))
	freeBuffer(r.buf)
	i.unreserve(n)
}

// flush writes all data that is dirty now and waits for it. Errors of the
// data itself are kept for the handles; flush fails only when ctx ends.
func (i *inode) flush(ctx context.Context, sync bool) error {
	i.mu.Lock()
	i.sealAll(sync)
	var mine *run
	if ctx.Done() == nil { // whoever cannot give up does a part of it
		mine = i.startButOne()
	} else {
		i.start()
	}
	if i.left == 0 {
		i.mu.Unlock()
		return nil
	}
	w := &wait{n: i.made, left: i.left, done: make(chan struct{})}
	i.waits = append(i.waits, w)
	sending := i.sending
	i.mu.Unlock()
	if mine != nil {
		i.send(sending, mine)
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// discard drops dirty data at and beyond off that is not on its way yet, and
// tells whether there was any.
func (i *inode) discard(off uint64) bool {
	i.mu.Lock()
	before := i.dirty.bytes
	i.dirty.drop(off)
	n := before - i.dirty.bytes
	i.mu.Unlock()
	if n > 0 {
		i.unreserve(n)
	}
	return n > 0
}
