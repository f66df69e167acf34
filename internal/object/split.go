package object

import (
	"errors"
	"sync"

	"github.com/ashlarfs/ashlar"
)

// piece is the part of a request that one message carries.
type piece struct {
	ashlar.Extent
	data []byte // nil for zeros
}

// split cuts [off, off+n) at extents, and those by cut, which returns how much
// of an extent with n bytes left goes into one piece. p is nil or n long.
func split(ref *Ref, p []byte, n, off uint64, cut func(e *ashlar.Extent, n uint64) uint64) ([]piece, error) {
	if off+n < off {
		return nil, ashlar.E("data", ashlar.TooBig, "", errors.New("range beyond 64 bits"))
	}
	out := make([]piece, 0, 1)
	for n > 0 {
		e, err := ref.Layout.Locate(off, n)
		if err != nil {
			return nil, err
		}
		for left := uint64(e.Len); left > 0; {
			k := cut(&e, left)
			x := piece{Extent: e}
			x.Len = uint32(k)
			if p != nil {
				x.data, p = p[:k], p[k:]
			}
			out = append(out, x)
			e.Off, e.Object = e.Off+uint32(k), e.Object+k
			left, off, n = left-k, off+k, n-k
		}
	}
	return out, nil
}

// parallel does every piece, at most ParallelMax at a time, and returns the
// first error in their order. All are waited for: a write that others were
// abandoned for would be half done for no reason.
func parallel[T any](pieces []T, do func(*T) error) error {
	if len(pieces) == 1 {
		return do(&pieces[0])
	}
	errs := make([]error, len(pieces))
	slots := make(chan struct{}, ParallelMax)
	var wg sync.WaitGroup
	for i := range pieces {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(&pieces[i])
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
