package faults

import (
	"errors"
	"syscall"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// fullFS shows a disk that a rule fills up as full, as the system would.
type fullFS struct {
	vfs.FS
	set *Set
}

// Usage implements vfs.FS.
func (f fullFS) Usage(name string) (vfs.Usage, error) {
	u, err := f.FS.Usage(name)
	if err == nil && f.set.full(name) {
		u.Free = 0
	}
	return u, err
}

// full tells whether a rule fills the disk that holds name.
func (s *Set) full(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if errors.Is(r.err, syscall.ENOSPC) && r.concerns(errfs.Op{Kind: r.kinds, Path: name}) {
			return true
		}
	}
	return false
}
