package faults

import (
	"errors"
	"syscall"

	"github.com/ashlarfs/ashlar/internal/vfs"
)

// shownFS shows a disk that a rule fills up, or makes scarce, as the system
// would.
type shownFS struct {
	vfs.FS
	set *Set
}

// Usage implements vfs.FS.
func (f shownFS) Usage(name string) (vfs.Usage, error) {
	u, err := f.FS.Usage(name)
	if err == nil {
		u.Free = f.set.free(name, u.Free)
	}
	return u, err
}

// free is what is shown as free of the disk that holds name.
func (s *Set) free(name string, free uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if !r.under(name) {
			continue
		}
		if errors.Is(r.err, syscall.ENOSPC) {
			s.strike(r)
			free = 0
		}
		if r.scarce && r.free < free {
			s.strike(r)
			free = r.free
		}
	}
	return free
}
