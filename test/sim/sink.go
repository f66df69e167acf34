package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// sinkBytes is the most that a sink takes; what comes later is dropped.
const sinkBytes = 512 << 20

// sink takes what a run has to say without a system call and without memory of
// Go's heap, into a file or into nothing: a run that is watched has to be the
// same run. Addresses are part of what a run depends on, because maps with
// pointers for keys are walked in an order that follows from them.
//
// mu is a leaf.
type sink struct {
	file *os.File
	kept bool // it has a name

	mu  sync.Mutex
	b   []byte
	len int
}

// newSink makes a sink into a file, into one without a name if name is "". Both
// are made the same way: even how deep a stack grew makes a difference.
func newSink(name string) (*sink, error) {
	s := &sink{kept: name != ""}
	if !s.kept {
		name = filepath.Join(os.TempDir(), fmt.Sprintf("ashlar-sim-%d-%p", os.Getpid(), s))
	}
	var err error
	if s.file, err = os.Create(name); err != nil {
		return nil, err
	}
	if err := s.file.Truncate(sinkBytes); err != nil {
		return nil, err
	}
	s.b, err = unix.Mmap(int(s.file.Fd()), 0, sinkBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of %s: %w", sinkBytes, name, err)
	}
	if !s.kept {
		return s, os.Remove(name)
	}
	return s, nil
}

// Write implements io.Writer. Into nothing it writes over what was there.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kept {
		s.len = 0
	}
	s.len += copy(s.b[s.len:], p)
	return len(p), nil
}

// end cuts the file to what was written.
func (s *sink) end() error {
	if !s.kept {
		return nil
	}
	return s.file.Truncate(int64(s.len))
}
