package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// A file of rules is text, one rule a line; empty lines and those that begin
// with # do not count.
//
//	clock +1h                      the wall clock runs an hour ahead; -90s: behind
//	disk PREFIX full               whatever takes space fails: ENOSPC
//	disk PREFIX free SIZE          no more than SIZE is shown as free; nothing fails
//	disk PREFIX readonly           every change fails: EROFS
//	disk PREFIX OPS error [OFTEN]  every operation fails: EIO
//	disk PREFIX OPS stall TIME [OFTEN]   ... waits so long first
//	disk PREFIX read flip [OFTEN]  one bit, any, of what is read is wrong
//
// PREFIX is an absolute path: it and what is below it. OPS is read, write,
// sync or any. OFTEN is "every N": each N-th operation, or "chance P%": each
// with that likelihood, such as 0.5%. Counts begin when the rule comes into
// force. Where several rules concern an operation all count it, and the first
// that strikes decides.

// shiftMax is the farthest the wall clock may be moved.
const shiftMax = 10 * 365 * 24 * time.Hour

// everyMax bounds N.
const everyMax = 1 << 30

// plan is a file of rules, parsed.
type plan struct {
	shift time.Duration
	rules []*rule
	lines []string // as they were written
}

// rule is what happens to some operations below a path: one of err, stall, flip
// and scarce.
type rule struct {
	text   string // as it was written
	kinds  errfs.Kind
	prefix string
	every  int64   // of chance: 0
	chance float64 // of one; of every: 0
	err    error
	stall  time.Duration
	flip   bool
	scarce bool // free is the most that is shown as free
	free   uint64

	seen   int64 // Set.mu must be held
	struck bool  // likewise
}

// concerns tells whether a rule is about an operation.
func (r *rule) concerns(op errfs.Op) bool {
	return op.Kind&r.kinds != 0 && r.under(op.Path)
}

// under tells whether a rule is about a path.
func (r *rule) under(path string) bool {
	rest, ok := strings.CutPrefix(absolute(path), r.prefix)
	return ok && (rest == "" || rest[0] == '/' || r.prefix == "/")
}

// absolute is the path as rules name it.
func absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return filepath.Clean(path)
	}
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// strikes counts an operation and tells whether it is hit. Set.mu must be held.
func (r *rule) strikes() bool {
	r.seen++
	if r.every == 0 {
		return rand.Float64() < r.chance
	}
	return r.seen%r.every == 0
}

// operations are the words for kinds of operation.
var operations = map[string]errfs.Kind{
	"read":  errfs.Read,
	"write": errfs.Write | errfs.Preallocate | errfs.Truncate | errfs.PunchHole,
	"sync":  errfs.Sync | errfs.SyncDir,
	"any":   errfs.Any,
}

// growing is what may take space. A real disk that is full lets what was
// preallocated be overwritten; which that is cannot be told here.
const growing = errfs.Create | errfs.Write | errfs.Preallocate | errfs.Mkdir

func parse(text []byte) (*plan, error) {
	p := &plan{}
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, FileMax+1)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := p.line(strings.Fields(line)); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", n, line, err)
		}
		if l := len(p.rules); l > 0 && p.rules[l-1].text == "" {
			p.rules[l-1].text = line
		}
		p.lines = append(p.lines, line)
	}
	return p, sc.Err()
}

func (p *plan) line(w []string) error {
	switch w[0] {
	case "clock":
		return p.clock(w[1:])
	case "disk":
		r, err := parseDisk(w[1:])
		p.rules = append(p.rules, r)
		return err
	}
	return fmt.Errorf("no rule %q; there are clock and disk", w[0])
}

func (p *plan) clock(w []string) error {
	if len(w) != 1 {
		return errors.New("want clock and how far: clock +1h")
	}
	d, err := time.ParseDuration(w[0])
	if err != nil {
		return fmt.Errorf("how far %q: want a duration such as +1h or -90s", w[0])
	}
	if d.Abs() > shiftMax {
		return fmt.Errorf("%v is farther than %v", d, shiftMax)
	}
	p.shift = d
	return nil
}

func parseDisk(w []string) (*rule, error) {
	if len(w) < 2 {
		return nil, errors.New("want disk, an absolute path and what happens: disk /srv/d1 full")
	}
	if !strings.HasPrefix(w[0], "/") {
		return nil, fmt.Errorf("%q is not an absolute path", w[0])
	}
	r := &rule{prefix: filepath.Clean(w[0]), every: 1}
	w = w[1:]
	switch w[0] {
	case "full":
		r.kinds, r.err = growing, syscall.ENOSPC
		return r, surplus(w[1:])
	case "readonly":
		r.kinds, r.err = errfs.Mutation, syscall.EROFS
		return r, surplus(w[1:])
	case "free":
		return r, r.least(w[1:])
	}
	var ok bool
	if r.kinds, ok = operations[w[0]]; !ok {
		return nil, fmt.Errorf("no operation %q; there are full, free, readonly, and error, stall or flip of read, write, sync or any", w[0])
	}
	return r, r.operation(w[1:])
}

// least parses what follows free.
func (r *rule) least(w []string) (err error) {
	if len(w) == 0 {
		return errors.New("want a size after free: free 1MiB")
	}
	r.scarce = true
	if r.free, err = config.ParseSize(w[0]); err != nil {
		return fmt.Errorf("free: %w", err)
	}
	return surplus(w[1:])
}

// operation parses what follows OPS.
func (r *rule) operation(w []string) error {
	if len(w) == 0 {
		return errors.New("want error, stall or flip after the operation")
	}
	switch w[0] {
	case "error":
		r.err, w = syscall.EIO, w[1:]
	case "stall":
		if len(w) < 2 {
			return errors.New("want a time after stall: stall 300ms")
		}
		d, err := time.ParseDuration(w[1])
		if err != nil || d <= 0 || d > StallMax {
			return fmt.Errorf("stall %q: want a duration, at most %v", w[1], StallMax)
		}
		r.stall, w = d, w[2:]
	case "flip":
		if r.kinds != errfs.Read {
			return errors.New("only what is read is flipped: read flip")
		}
		r.flip, w = true, w[1:]
	default:
		return fmt.Errorf("an operation does not %q; there are error, stall and flip", w[0])
	}
	if len(w) == 0 {
		return nil
	}
	return r.often(w)
}

// often parses how often a rule strikes.
func (r *rule) often(w []string) error {
	if len(w) < 2 || w[0] != "every" && w[0] != "chance" {
		return fmt.Errorf("%q: want every N, chance P%%, or nothing", strings.Join(w, " "))
	}
	if w[0] == "chance" {
		text, ok := strings.CutSuffix(w[1], "%")
		p, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || !(p > 0 && p <= 100) {
			return fmt.Errorf("chance %q: want a percentage above 0%% and up to 100%%", w[1])
		}
		r.every, r.chance = 0, p/100
		return surplus(w[2:])
	}
	n, err := strconv.ParseInt(w[1], 10, 64)
	if err != nil || n < 1 || n > everyMax {
		return fmt.Errorf("every %q: want a number from 1 to %d", w[1], everyMax)
	}
	r.every = n
	return surplus(w[2:])
}

// surplus refuses words that nothing reads.
func surplus(w []string) error {
	if len(w) == 0 {
		return nil
	}
	return fmt.Errorf("%q is too much", strings.Join(w, " "))
}
