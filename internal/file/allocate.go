package file

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlarfs/ashlar"
)

// Allocate sees to it that [off, off+n) can be written: there is as much free
// space now, which is not set aside. The file grows to hold the range unless
// keep is set.
func (h *Handle) Allocate(ctx context.Context, off, n uint64, keep bool) error {
	if err := h.changes(off, n); err != nil {
		return err
	}
	s, err := h.i.fs.StatFS(ctx, ashlar.Cred{Checked: true})
	if err != nil {
		return err
	}
	if n > s.Free {
		return ashlar.E("allocate", ashlar.NoSpace, "", fmt.Errorf("%d bytes of %d", s.Free, n))
	}
	t, end, err := h.change(ctx)
	if err != nil {
		return err
	}
	defer end()
	h.i.io.RLock()
	defer h.i.io.RUnlock()
	return t.within(ctx, func(ctx context.Context) error { return h.i.changedTo(ctx, t, off+n, keep) })
}

// Zero makes [off, off+n) zeros and gives its room back. The file grows to
// hold the range unless keep is set.
func (h *Handle) Zero(ctx context.Context, off, n uint64, keep bool) error {
	if err := h.changes(off, n); err != nil {
		return err
	}
	t, done, err := h.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	h.i.io.Lock()
	defer h.i.io.Unlock()
	return t.within(ctx, func(ctx context.Context) error { return h.i.zeroIn(ctx, t, off, n, keep) })
}

// zeroIn is Zero in a term. io must be held.
func (i *inode) zeroIn(ctx context.Context, t *term, off, n uint64, keep bool) error {
	if err := i.flush(ctx, false); err != nil {
		return err
	}
	i.mu.Lock()
	size := i.size()
	i.mu.Unlock()
	// The end's block too: what is beyond the end is zeros, and a block that is
	// zeros all over is given back.
	end := min(off+n, size+(ashlar.BlockSize-size%ashlar.BlockSize)%ashlar.BlockSize)
	if off < end {
		if err := i.zero(ctx, off, end-off); err != nil {
			return err
		}
	}
	return i.changedTo(ctx, t, off+n, keep)
}

// changes checks a range that is to be changed.
func (h *Handle) changes(off, n uint64) error {
	if n > ashlar.FileSizeMax {
		return ashlar.E("allocate", ashlar.TooBig, "", nil)
	}
	return h.writable(off, int(n))
}

// zero makes what there is of a range in the object zeros. io must be held.
func (i *inode) zero(ctx context.Context, off, n uint64) error {
	err := i.withObject(ctx, off, n, false, func(ref *Ref) error {
		for at, end := off, off+n; at < end; {
			// What is a hole already stays one, and takes no chunk.
			start, err := i.fs.o.Data.Seek(ctx, ref, at, end, false)
			if err != nil {
				return err
			}
			if start == end {
				return nil
			}
			stop, err := i.fs.o.Data.Seek(ctx, ref, start, end, true)
			if err != nil {
				return err
			}
			if err := i.fs.o.Data.Zero(ctx, ref, start, stop-start); err != nil {
				return err
			}
			at = stop
		}
		return nil
	})
	i.mu.Lock()
	i.plain++ // even one that failed may have changed something
	i.mu.Unlock()
	return err
}

// changedTo notes a change of data that is in the object, and commits it with
// the size that it leads to. io must be shared at least.
func (i *inode) changedTo(ctx context.Context, t *term, end uint64, keep bool) error {
	if keep {
		end = 0
	}
	i.mu.Lock()
	if i.fs.term.Load() != t {
		i.mu.Unlock()
		return errSessionLost
	}
	i.wrote(end)
	i.mu.Unlock()
	return i.commit(ctx)
}

// Seek returns the first offset from off on at which the file has data or,
// with hole, has none, its end included. found is false if there is none, or
// off is not below the size.
func (h *Handle) Seek(ctx context.Context, off uint64, hole bool) (at uint64, found bool, err error) {
	i := h.i
	end, err := h.use(ctx, ashlar.LeaseShared, 0, 0)
	if err != nil {
		return 0, false, err
	}
	defer end()
	if err := i.flush(ctx, false); err != nil {
		return 0, false, err
	}
	i.mu.Lock()
	size := i.size()
	i.mu.Unlock()
	if off >= size {
		return 0, false, nil
	}
	err = i.withObject(ctx, off, size-off, false, func(ref *Ref) (err error) {
		at, err = i.fs.o.Data.Seek(ctx, ref, off, size, hole)
		return err
	})
	return at, hole || at < size, err
}

// copyMax is the most that one CopyFrom copies, in bytes: the caller may be
// interrupted between two.
const copyMax = 64 << 20

// CopyFrom copies up to n bytes at srcOff of another file to off, without
// their coming here if that can be, and returns how many; 0 at the end of the
// other file. Like WriteAt it may leave parts done when it fails.
func (h *Handle) CopyFrom(ctx context.Context, src *Handle, srcOff, off, n uint64) (uint64, error) {
	if src.flags&Read == 0 {
		return 0, ashlar.E("copy", ashlar.Invalid, "", errors.New("not open for reading"))
	}
	if err := src.intact(); err != nil {
		return 0, err
	}
	if err := h.changes(off, n); err != nil {
		return 0, err
	}
	t, end, err := h.useBoth(ctx, src)
	if err != nil {
		return 0, err
	}
	defer end()
	if err := src.i.flush(ctx, false); err != nil {
		return 0, err
	}
	src.i.mu.Lock()
	size := src.i.size()
	src.i.mu.Unlock()
	if srcOff >= size {
		return 0, nil
	}
	n = min(n, size-srcOff, copyMax)
	i, copied := h.i, uint64(0)
	i.io.Lock()
	defer i.io.Unlock()
	err = t.within(ctx, func(ctx context.Context) error {
		if err := i.flush(ctx, false); err != nil {
			return err
		}
		i.mu.Lock()
		i.plain++
		i.mu.Unlock()
		if err := i.copyRange(ctx, src.i, srcOff, off, n); err != nil {
			return err
		}
		copied = n
		return i.changedTo(ctx, t, off+n, false)
	})
	return copied, err
}

// useBoth gets the leases for a copy: of the lower inode first, as everybody
// does.
func (h *Handle) useBoth(ctx context.Context, src *Handle) (t *term, end func(), err error) {
	if src.i == h.i {
		return h.change(ctx)
	}
	var first, second func()
	if src.i.id < h.i.id {
		if first, err = src.use(ctx, ashlar.LeaseShared, 0, 0); err != nil {
			return nil, nil, err
		}
		t, second, err = h.change(ctx)
	} else {
		if t, first, err = h.change(ctx); err != nil {
			return nil, nil, err
		}
		second, err = src.use(ctx, ashlar.LeaseShared, 0, 0)
	}
	if err != nil {
		first()
		return nil, nil, err
	}
	return t, func() { second(); first() }, nil
}

// copyRange copies through the servers, and what can not be had that way
// through here. io must be held.
func (i *inode) copyRange(ctx context.Context, src *inode, srcOff, off, n uint64) error {
	err := i.withObject(ctx, off, n, true, func(to *Ref) error {
		src.mu.Lock()
		from := src.ref // as it is now: it may have grown with to
		src.mu.Unlock()
		err := i.fs.o.Data.Copy(ctx, from, srcOff, to, off, n)
		if errors.Is(err, ashlar.OutcomeUnknown) && ctx.Err() == nil { // nothing is newer than this: again
			err = i.fs.o.Data.Copy(ctx, from, srcOff, to, off, n)
		}
		return err
	})
	if !errors.Is(err, ashlar.Unsupported) {
		return err
	}
	buf := newBuffer(int(min(n, PieceSize)))
	defer freeBuffer(buf)
	for n > 0 {
		k := min(n, PieceSize-off%PieceSize)
		p := buf[:k]
		if err := src.readObject(ctx, p, srcOff); err != nil {
			return err
		}
		err := i.withObject(ctx, off, k, true, func(to *Ref) error { return i.fs.o.Data.WriteAt(ctx, to, p, off, 0) })
		if err != nil {
			return err
		}
		off, srcOff, n = off+k, srcOff+k, n-k
	}
	return nil
}
