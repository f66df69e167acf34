package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Leaks. Every process of the cluster and the mount's is looked at when it is
// quiet before the faults of a round, and when it is quiet after them: no
// client is there, what they had open is closed, nothing is being copied. A
// process that lived through the faults is compared with itself, then and when
// it was first looked at; one that was started meanwhile with those that did
// its part before: one leads and has a follower's connections beside its own.
//
// The two looks need not find the same: between each two processes there are
// up to two connections each way, of which some are made when they are first
// needed, with two or three goroutines each; the store has a few files more or
// fewer, and the memory of a log or table that is being filled. (In rounds
// without a leak nodes had 20 to 28 sockets, 84 to 109 goroutines and a heap of
// 4 to 9 MiB, all differences of part and history included.) A round has as
// many faults as the bounds allow sockets, and many more reconnections, retries
// and files that are opened: what leaks with each of those shows in one round,
// and what leaks once in a round does after some.
const (
	socketsMore  = 10
	filesMore    = 4 // but for chunks: the store keeps open as many as it is told
	removedMore  = 1 // files that are open and have no name any more
	routinesMore = 32
	heapMore     = 16 << 20
	// memoryMax is what no such process may have, resident, at any time.
	memoryMax = 1 << 30
	// quietTimeout is how long until a process is quiet. Of a connection whose
	// other end is gone without a word the kernel knows after some 15 s.
	quietTimeout = 30 * time.Second
	// settleEvery is between two looks that must be alike to be of a process
	// that is quiet, settleTimeout how long that is tried before faults.
	settleEvery   = 200 * time.Millisecond
	settleTimeout = 5 * time.Second
)

// usage is what a process has.
type usage struct {
	sockets, files, chunks, removed int
	routines                        int
	heap                            int // bytes, after a collection
	memory                          int // resident, bytes
}

func (u *usage) String() string {
	return fmt.Sprintf("%d sockets, %d files, %d of chunks, %d removed, %d goroutines, %d MiB (%d resident)",
		u.sockets, u.files, u.chunks, u.removed, u.routines, u.heap>>20, u.memory>>20)
}

// subject is a process that is looked at, and how.
type subject struct {
	name   string
	proc   *process
	pprof  string // where it serves profiles
	chunks string // where chunks are, "" for nowhere
	leads  bool
}

// look is a process as it was found.
type look struct {
	subject
	usage
}

// subjects are all that are looked at.
func (c *cluster) subjects(ctx context.Context) ([]subject, error) {
	st, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	return c.subjectsOf(st.Leader), nil
}

func (c *cluster) subjectsOf(leader string) []subject {
	out := []subject{{name: mountName, proc: c.mount.proc, pprof: mountPprof}}
	for _, n := range c.nodes {
		out = append(out, subject{n.name, n.proc, net.JoinHostPort(n.ip, pprofPort), n.file("chunks"), leader == n.name})
	}
	return out
}

// stacks writes what every goroutine of every process is doing to files beside
// the histories: for one that does not end.
func (r *round) stacks() error {
	var errs []error
	for _, s := range r.c.subjectsOf("") {
		errs = append(errs, func() error {
			resp, err := s.get("goroutine?debug=2")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(io.LimitReader(resp.Body, stacksMax))
			return errors.Join(err, os.WriteFile(r.file("stacks-"+s.name), b, 0o644))
		}())
	}
	return errors.Join(errs...)
}

// looks looks at all processes.
func (c *cluster) looks(ctx context.Context) ([]look, error) {
	all, err := c.subjects(ctx)
	if err != nil {
		return nil, err
	}
	var out []look
	for _, s := range all {
		u, err := s.measure()
		if err != nil {
			return nil, fmt.Errorf("process of %s: %w", s.name, err)
		}
		out = append(out, look{s, *u})
	}
	return out, nil
}

// quietBefore looks at all processes once they are quiet before faults: once
// two looks are alike, or settleTimeout is over.
func (c *cluster) quietBefore(ctx context.Context) (out []look, err error) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	var last []look
	for end := time.Now().Add(settleTimeout); ; {
		if out, err = c.looks(ctx); err != nil {
			return nil, err
		}
		same := slices.EqualFunc(last, out, func(a, b look) bool {
			return a.proc == b.proc && a.leads == b.leads && a.sockets == b.sockets && a.routines == b.routines
		})
		if same || time.Now().After(end) {
			break
		}
		last = out
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	for i := range out {
		out[i].remember()
	}
	return out, nil
}

// remember keeps the first look at a process in each part it plays.
func (l *look) remember() {
	if l.proc.first == nil {
		l.proc.first = map[bool]look{}
	}
	if _, ok := l.proc.first[l.leads]; !ok {
		l.proc.first[l.leads] = *l
	}
}

// quietAfter waits until all processes are as they were before, within bounds.
func (r *round) quietAfter(ctx context.Context) error {
	var now []look
	err := poll(ctx, quietTimeout, func() (err error) {
		if now, err = r.c.looks(ctx); err != nil {
			return err
		}
		for i := range now {
			err = errors.Join(err, now[i].grown(r.before))
		}
		return err
	})
	for _, l := range now {
		r.usage = append(r.usage, l.name+": "+l.usage.String())
		r.say("%s, leads: %v: %s", l.name, l.leads, &l.usage)
	}
	if err != nil {
		return fmt.Errorf("something leaks: %w", err)
	}
	return nil
}

// grown says what a process has too much of, compared with earlier looks.
func (l *look) grown(before []look) error {
	var most usage
	var with []string
	compare := func(b look) {
		most.sockets, most.files, most.removed = max(most.sockets, b.sockets), max(most.files, b.files), max(most.removed, b.removed)
		most.routines, most.heap = max(most.routines, b.routines), max(most.heap, b.heap)
		with = append(with, fmt.Sprintf("%s: %v", b.name, &b.usage))
	}
	for _, b := range before {
		mine := b.name == l.name
		peer := (b.name == mountName) == (l.name == mountName) && b.leads == l.leads
		if mine && (b.proc == l.proc || b.name == mountName) || peer && (b.proc != l.proc) {
			compare(b)
		}
	}
	if first, ok := l.proc.first[l.leads]; ok {
		most.sockets, most.routines = min(most.sockets, first.sockets), min(most.routines, first.routines)
		with = append(with, fmt.Sprintf("itself, at first: %v", &first.usage))
	}
	switch {
	case l.sockets > most.sockets+socketsMore, l.files > most.files+filesMore, l.removed > most.removed+removedMore,
		l.routines > most.routines+routinesMore, l.heap > most.heap+heapMore, l.memory > memoryMax:
		return fmt.Errorf("%s has %v; before it was %s", l.name, &l.usage, strings.Join(with, ", "))
	}
	return nil
}

// measure looks at a process.
func (s *subject) measure() (*usage, error) {
	u := &usage{}
	proc := filepath.Join("/proc", strconv.Itoa(s.proc.Process.Pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, err
	}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		switch {
		case errors.Is(err, os.ErrNotExist): // closed meanwhile
		case err != nil:
			return nil, err
		default:
			u.count(to, s.chunks)
		}
	}
	if u.memory, err = number(filepath.Join(proc, "status"), "VmRSS:\t"); err != nil {
		return nil, err
	}
	u.memory <<= 10
	if u.routines, err = s.ask("goroutine?debug=1", "goroutine profile: total "); err != nil {
		return nil, err
	}
	u.heap, err = s.ask("heap?debug=1&gc=1", "# HeapAlloc = ")
	return u, err
}

// count counts a descriptor by what it leads to.
func (u *usage) count(to, chunks string) {
	switch {
	case strings.HasPrefix(to, "socket:"):
		u.sockets++
	case strings.HasSuffix(to, " (deleted)"):
		u.removed++
	case chunks != "" && strings.HasPrefix(to, chunks+"/chunks/"):
		u.chunks++
	default:
		u.files++
	}
}

// get asks the profiling endpoint of a process for a profile.
func (s *subject) get(profile string) (*http.Response, error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return c.Get("http://" + s.pprof + "/debug/pprof/" + profile)
}

// stacksMax is how much is kept of the stacks of a process, in bytes.
const stacksMax = 16 << 20

// ask asks the profiling endpoint of a process for a number.
func (s *subject) ask(profile, before string) (int, error) {
	resp, err := s.get(profile)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return find(resp.Body, before)
}

// number finds a number in a file.
func number(file, before string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return find(f, before)
}

// find returns the number after the text that a line begins with.
func find(r io.Reader, before string) (n int, err error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, lineMax)
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), before); ok {
			_, err = fmt.Sscan(rest, &n)
			return n, err
		}
	}
	return 0, errors.Join(fmt.Errorf("no line begins with %q", before), sc.Err())
}
