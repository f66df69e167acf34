package file

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
)

// above is data not yet known to be in the object, over a range being read.
type above struct {
	off  uint64
	data []byte
}

// read fills p from off, up to the end of the file as it is seen here.
func (i *inode) read(ctx context.Context, p []byte, off uint64) (int, error) {
	i.mu.Lock()
	size := i.size()
	if off >= size || len(p) == 0 {
		i.mu.Unlock()
		return 0, nil
	}
	p = p[:min(uint64(len(p)), size-off)]
	// What lies above is copied before the object is read: a run that is
	// finished in between is in the object only perhaps as far as that read
	// can tell.
	over, whole := i.above(off, uint64(len(p)))
	i.mu.Unlock()
	if !whole {
		if err := i.readObject(ctx, p, off); err != nil {
			return 0, err
		}
	}
	for _, a := range over {
		overlay(p, off, a.data, a.off)
	}
	return len(p), nil
}

// above returns copies of runs and extents over [off, off+n), oldest first,
// and whether one of them is all of it. mu must be held.
func (i *inode) above(off, n uint64) (out []above, whole bool) {
	if i.left == 0 && i.dirty.bytes == 0 {
		return nil, false
	}
	end := off + n
	add := func(at uint64, data []byte) {
		lo, hi := max(at, off), min(at+uint64(len(data)), end)
		if lo >= hi {
			return
		}
		whole = whole || hi-lo == n
		out = append(out, above{lo, append([]byte(nil), data[lo-at:hi-at]...)})
	}
	for k := piece(off); k <= piece(end-1); k++ {
		for _, r := range i.runs[k] {
			add(r.off, r.data)
		}
	}
	i.dirty.each(off, end, func(e *extent) { add(e.off, e.data) })
	return out, whole
}

// readObject reads from the object; what its layout does not cover is a hole.
func (i *inode) readObject(ctx context.Context, p []byte, off uint64) error {
	beyond := 0
	return i.withObject(ctx, off, uint64(len(p)), false, func(ref *Ref) error {
		err := i.fs.o.Data.ReadAt(ctx, ref, p, off)
		if !errors.Is(err, ashlar.ErrBeyondLayout) {
			return err
		}
		if beyond++; beyond == 1 { // others may have grown it
			return ashlar.E("read", ashlar.WrongGeneration, "", err)
		}
		return i.readCovered(ctx, ref, p, off)
	})
}

// readCovered reads the parts of [off, off+len(p)) that the layout covers and
// zeros the others.
func (i *inode) readCovered(ctx context.Context, ref *Ref, p []byte, off uint64) error {
	for len(p) > 0 {
		n := len(p)
		if x, err := ref.Layout.Locate(off, uint64(n)); err == nil {
			n = int(x.Len)
			if err := i.fs.o.Data.ReadAt(ctx, ref, p[:n], off); err != nil {
				return err
			}
		} else {
			n = min(n, int(ashlar.RegionSize-off%ashlar.RegionSize)) // no unit is smaller
			clear(p[:n])
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}
