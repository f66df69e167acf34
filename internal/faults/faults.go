// Package faults makes a real process suffer what its disks and clock may do
// to it: it reads rules from a file, follows changes of it, and gives a
// vfs.FS and a clock.Clock that obey them. Operations fail, wait, or read a bit
// that is wrong, each N-th or by chance; a disk is full or read-only or says
// that less is free than is; the time of day jumps. It is for tests of whole
// processes: `ashlar serve` has it only where the environment names such a
// file. What happens at each operation is injected by vfs/errfs; how a rule is
// written is above parse. The log says when a rule strikes first (Struck).
//
// It does not reach memory maps once they are made, nor the network. Chance is
// not seeded: a schedule of faults repeats, what exactly they hit does not.
//
// Lock order: Set.mu is above the log's own lock and otherwise a leaf. What survives a crash is what survives on the
// disk below; rules are read anew by the next process.
package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// Env names the file of rules.
const Env = "ASHLAR_FAULTS"

// Struck is the message in the log when a rule strikes for the first time; its
// attribute "rule" is the rule as it was written.
const Struck = "an injected fault strikes"

// Limits and times.
const (
	// FileMax is the largest file of rules, in bytes.
	FileMax = 64 << 10
	// StallMax is the longest that one operation may be held up.
	StallMax = 10 * time.Minute
	// pollEvery is how soon a change of the file is seen.
	pollEvery = 50 * time.Millisecond
)

// Set is the rules in force. The zero value has none.
type Set struct {
	clock *clock.Shifted
	log   *slog.Logger

	mu    sync.Mutex
	rules []*rule
	over  chan struct{} // closed when the rules are replaced
}

// Open reads the rules in file, which must exist, and follows it until ctx
// ends. Rules that cannot be read later are logged and leave the earlier ones
// in force; a file that is removed lifts all.
func Open(ctx context.Context, file string, log *slog.Logger) (*Set, error) {
	text, err := read(file)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", Env, file, err)
	}
	p, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", Env, file, err)
	}
	s := &Set{clock: clock.NewShifted(clock.Real), log: log}
	log.Warn("FAULT INJECTION IS ON: disks and clock of this process lie and fail on purpose; unset "+Env+" if this is not a test",
		"file", file)
	s.set(p)
	go s.follow(ctx, file, text)
	return s, nil
}

// Clock is the machine's clock with the wall clock moved; its Now, which
// leases run on, is untouched.
func (s *Set) Clock() clock.Clock { return s.clock }

// FS returns inner under the rules.
func (s *Set) FS(inner vfs.FS) vfs.FS { return shownFS{errfs.Wrap(inner, s.inject), s} }

// read reads a file of rules.
func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, FileMax+1))
	if err == nil && len(b) > FileMax {
		err = fmt.Errorf("more than %d bytes of rules", FileMax)
	}
	return b, err
}

// follow puts changes of the file into force.
func (s *Set) follow(ctx context.Context, file string, text []byte) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := read(file)
		if errors.Is(err, fs.ErrNotExist) {
			now, err = nil, nil
		}
		if err == nil && bytes.Equal(now, text) {
			continue
		}
		var p *plan
		if err == nil {
			p, err = parse(now)
		}
		if err != nil {
			if msg := err.Error(); msg != told {
				s.log.Error("the rules of fault injection cannot be read; the earlier ones stay", "file", file, "err", err)
				told = msg
			}
			continue
		}
		text, told = now, ""
		s.set(p)
	}
}

// set puts rules into force and ends the stalls of the earlier ones.
func (s *Set) set(p *plan) {
	s.clock.Shift(p.shift)
	s.mu.Lock()
	s.rules = p.rules
	if s.over != nil {
		close(s.over)
	}
	s.over = make(chan struct{})
	s.mu.Unlock()
	s.log.Warn("injected faults now", "rules", p.lines)
}

// strike notes that a rule did something, in the log when it is the first time
// since the rule came into force: whoever wrote the rule learns that it was met.
// Set.mu must be held.
func (s *Set) strike(r *rule) {
	if !r.struck {
		r.struck = true
		s.log.Warn(Struck, "rule", r.text)
	}
}

// inject is asked before each operation (errfs.Injector). Every rule that
// concerns it counts it; the first that strikes decides.
func (s *Set) inject(op errfs.Op) error {
	s.mu.Lock()
	over := s.over
	var hit *rule
	for _, r := range s.rules {
		if r.concerns(op) && r.strikes() && hit == nil {
			hit = r
			s.strike(r)
		}
	}
	s.mu.Unlock()
	switch {
	case hit == nil:
		return nil
	case hit.flip:
		return errfs.FlipBit(rand.Uint64())
	case hit.stall == 0:
		return hit.err
	}
	t := time.NewTimer(hit.stall)
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
	}
	return nil
}
