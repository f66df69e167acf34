package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// A file of rules is text, one rule a line; empty lines and those that begin
// with # do not count.
//
//	clock +1h                             the wall clock runs an hour ahead; -90s: behind
//	disk PREFIX full                      whatever takes space fails: ENOSPC
//	disk PREFIX readonly                  every change fails: EROFS
//	disk PREFIX OPS error [every N]       every operation, or every N-th, fails: EIO
//	disk PREFIX OPS stall TIME [every N]  ... waits so long first
//
// PREFIX is an absolute path: it and what is below it. OPS is read, write,
// sync or any. Counts begin when the rule comes into force. Where several
// rules concern an operation all count it, and the first that strikes decides.

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

// rule is what happens to some operations below a path.
type rule struct {
	kinds  errfs.Kind
	prefix string
	every  int64
	err    error
	stall  time.Duration
	seen   int64 // Set.mu must be held
}

// concerns tells whether a rule is about an operation.
func (r *rule) concerns(op errfs.Op) bool {
	if op.Kind&r.kinds == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(absolute(op.Path), r.prefix)
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

// strikes counts an operation and tells whether it is hit.
func (r *rule) strikes() bool {
	r.seen++
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
	}
	var ok bool
	if r.kinds, ok = operations[w[0]]; !ok {
		return nil, fmt.Errorf("no operation %q; there are full, readonly, and error or stall of read, write, sync or any", w[0])
	}
	return r, r.operation(w[1:])
}

// operation parses what follows OPS.
func (r *rule) operation(w []string) error {
	if len(w) == 0 {
		return errors.New("want error or stall after the operation")
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
	default:
		return fmt.Errorf("an operation does not %q; there are error and stall", w[0])
	}
	if len(w) == 0 {
		return nil
	}
	if w[0] != "every" || len(w) < 2 {
		return fmt.Errorf("%q: want every N, or nothing", strings.Join(w, " "))
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
