// Package crashtest cuts the power before every single step of a workload: it
// wraps an in-memory disk, and before each operation that changes it takes
// crash clones of it and hands them to a check. It is used by tests alone.
//
// Lock order: FS.mu is held while the check runs, so that a workload's state
// that is changed under Do is the one the clone is of; the check must not use
// the wrapped file system.
package crashtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// Seeds is how many seeds a suite runs: few, or what ASHLAR_CRASH_SEEDS says
// (make crash).
func Seeds(t testing.TB, few uint64) uint64 {
	s := os.Getenv("ASHLAR_CRASH_SEEDS")
	if s == "" {
		return few
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatalf("ASHLAR_CRASH_SEEDS: %v", err)
	}
	return n
}

// FS is a disk that loses power at every step.
type FS struct {
	vfs.FS
	mem   *vfs.Mem
	check func(clone *vfs.Mem, at string)
	dice  *rand.Rand
	seed  uint64
	kill  bool

	mu     sync.Mutex
	steps  int
	paused bool
	kinds  errfs.Kind
}

// NewKill wraps a disk whose user is killed before each step. check is called
// with the disk as that leaves it: what a next process believes of it must be
// there after a power loss too, at once (CrashClone) and later.
func NewKill(mem *vfs.Mem, seed uint64, check func(left *vfs.Mem, at string)) *FS {
	f := New(mem, seed, check)
	f.kill = true
	return f
}

// New wraps a disk. check is called with two clones for each step: one that
// has nothing but what was synced, and one that has some of the rest.
func New(mem *vfs.Mem, seed uint64, check func(clone *vfs.Mem, at string)) *FS {
	f := &FS{mem: mem, check: check, dice: rand.New(rand.NewPCG(seed, 77)), seed: seed}
	f.FS = errfs.Wrap(mem, f.before)
	return f
}

func (f *FS) before(op errfs.Op) error {
	if op.Kind&errfs.Mutation == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused {
		return nil
	}
	f.kinds |= op.Kind
	f.steps++
	at := fmt.Sprintf("seed %d step %d, before %v of %s", f.seed, f.steps, op.Kind, op.Path)
	if f.kill {
		f.check(f.mem.KillClone(), "killed at "+at)
		return nil
	}
	f.check(f.mem.CrashClone(nil), at+", nothing unsynced kept")
	f.check(f.mem.CrashClone(f.dice), at)
	return nil
}

// Do changes what the check looks at.
func (f *FS) Do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Clone is the disk after a power loss now; for use within Do.
func (f *FS) Clone(seed uint64) *vfs.Mem {
	return f.mem.CrashClone(rand.New(rand.NewPCG(seed, 78)))
}

// Pause stops cutting the power, or goes on.
func (f *FS) Pause(yes bool) { f.Do(func() { f.paused = yes }) }

// Steps is how many steps were cut at so far, and of which kinds they were.
func (f *FS) Steps() (n int, kinds errfs.Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.steps, f.kinds
}
