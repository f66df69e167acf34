package kv

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Snap is a consistent view of the store: what was applied when it was made,
// whatever is applied or restored later.
type Snap struct {
	in   *instance
	snap *pebble.Snapshot
	once sync.Once
	err  error
}

// Snapshot returns a view, which must be closed: until then the store keeps
// what it shows.
func (s *Store) Snapshot() (*Snap, error) {
	in, err := s.acquire()
	if err != nil {
		return nil, err
	}
	return &Snap{in: in, snap: in.db.NewSnapshot()}, nil
}

// Get is Store.Get in the view.
func (v *Snap) Get(key []byte) (value []byte, ok bool, err error) { return get(v.snap, key) }

// Scan is Store.Scan in the view.
func (v *Snap) Scan(lo, hi []byte, reverse bool, fn func(k, v []byte) bool) error {
	return scan(v.snap, lo, hi, reverse, fn)
}

// Applied returns the index the view is as of.
func (v *Snap) Applied() (uint64, error) { return readApplied(v.snap) }

// Close ends the view; later calls do nothing.
func (v *Snap) Close() error {
	v.once.Do(func() {
		v.err = v.snap.Close()
		v.in.release()
	})
	return v.err
}
