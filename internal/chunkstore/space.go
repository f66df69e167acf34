package chunkstore

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
)

// The default reserve, and the part of it that repairs may use too.
const (
	reserveBytes   = 1 << 30
	reservePercent = 2
	repairShare    = 4 // repairs leave a quarter of the reserve
	// Free space is asked for again after so long or so many bytes.
	spaceEvery = 200 * time.Millisecond
	spaceBytes = 64 << 20
)

// space decides whether new data still fits.
type space struct {
	d       *Disk
	reserve uint64

	mu    sync.Mutex
	free  uint64 // at the last asking, less what was written since
	since uint64 // bytes written since
	at    clock.Time
	valid bool
}

func (s *space) init(d *Disk, reserve uint64) error {
	s.d, s.reserve = d, reserve
	u, err := d.fs.Usage(d.dir)
	if err != nil {
		return err
	}
	if reserve == 0 {
		s.reserve = max(reserveBytes, u.Total/100*reservePercent)
	}
	return nil
}

// take asks for room for n new bytes; repairs may use most of the reserve.
func (s *space) take(n uint64, repair bool) error {
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.d.clk.Now()
	if !s.valid || s.since > spaceBytes || now.Sub(s.at) > spaceEvery || s.free < s.reserve+n {
		u, err := s.d.fs.Usage(s.d.dir)
		if err != nil {
			return s.d.lose(err)
		}
		s.free, s.since, s.at, s.valid = u.Free, 0, now, true
	}
	reserve := s.reserve
	if repair {
		reserve /= repairShare
	}
	if s.free < reserve+n {
		return ashlar.E("write", ashlar.NoSpace, s.d.dir, fmt.Errorf("%d bytes free, %d in reserve", s.free, reserve))
	}
	s.free -= n
	s.since += n
	return nil
}

// exhausted makes the next take ask anew.
func (s *space) exhausted() {
	s.mu.Lock()
	s.valid = false
	s.mu.Unlock()
}

// Usage returns the size of the disk and how many bytes are free for new
// data, the reserve taken off.
func (d *Disk) Usage() (total, free uint64) {
	u, err := d.fs.Usage(d.dir)
	if err != nil {
		return 0, 0
	}
	return u.Total, u.Free - min(u.Free, d.space.reserve)
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
