package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/internal/faults"
)

// lineMax is the longest line of a log that is read.
const lineMax = 1 << 20

// event is the begin or the end of a fault.
type event struct {
	at time.Duration
	do func(context.Context)
}

// effect is a fault that has begun.
type effect struct {
	end func() error // takes it back
	// met tells, just before the end, whether it met anything; nil: it did.
	met  func() (bool, error)
	from int64 // when it began, as now()
}

// nothing says why a fault does nothing.
type nothing string

func (n nothing) Error() string { return string(n) }

// disturb carries out the schedule. Faults may overlap: each end takes back
// what its begin did.
func (r *round) disturb(ctx context.Context) error {
	began := time.Now()
	var queue []event
	add := func(e event) {
		i, _ := slices.BinarySearchFunc(queue, e, func(a, b event) int {
			if a.at <= b.at {
				return -1
			}
			return 1
		})
		queue = slices.Insert(queue, i, e)
	}
	for _, f := range r.schedule {
		add(event{f.At, func(ctx context.Context) {
			f.At, f.Args = time.Since(began).Round(time.Millisecond), slices.Clone(f.Args)
			from := now()
			e, err := r.begin(ctx, &f)
			r.note(f, err)
			if e != nil {
				e.from = from
				add(event{time.Since(began) + f.For, func(context.Context) { r.end(f, e) }})
			}
		}})
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for len(queue) > 0 {
		t.Reset(time.Until(began.Add(queue[0].at)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		e := queue[0]
		queue = queue[1:]
		e.do(ctx)
		r.watchNodes()
	}
	return nil
}

// note writes down what a fault hit and when. What did nothing is a comment.
func (r *round) note(f Fault, err error) {
	line := f.String()
	var not nothing
	switch {
	case errors.As(err, &not):
		line = fmt.Sprintf("# %v: %s, nothing happens", f, not)
	case err != nil:
		r.errs = append(r.errs, fmt.Errorf("fault %q: %w", f, err))
	}
	r.say("%s", line)
	if _, err := fmt.Fprintln(r.resolved, line); err != nil {
		r.errs = append(r.errs, err)
	}
}

// end ends a fault, and counts it if it met anything.
func (r *round) end(f Fault, e *effect) {
	met, err := true, error(nil)
	if e.met != nil {
		met, err = e.met()
	}
	r.windows = append(r.windows, window{f, e.from, now()})
	if met {
		r.injected++
		r.say("over: %v", f)
	} else {
		r.say("over: %v, which met nothing", f)
	}
	if err := errors.Join(err, e.end()); err != nil {
		r.errs = append(r.errs, fmt.Errorf("end of fault %q: %w", f, err))
	}
}

// watchNodes notes processes that ended and should not have.
func (r *round) watchNodes() {
	if m := r.c.mount.proc; m.isGone() && m.killed.IsZero() && !m.suffered {
		r.errs = append(r.errs, fmt.Errorf("the mount ended by itself: %v", m.err))
		m.suffered = true // told once
	}
	for _, n := range r.c.nodes {
		if n.down == 0 && n.proc.isGone() && !n.proc.suffered {
			r.errs = append(r.errs, fmt.Errorf("%s ended by itself: %v", n.name, n.proc.err))
			n.proc.suffered = true // told once
		}
	}
}

// node finds the node that a word of a fault names, and puts its name there
// where it says "leader".
func (r *round) node(ctx context.Context, word *string) (*node, error) {
	if *word == "leader" {
		s, err := r.c.status(ctx)
		if err != nil || s.Leader == "" {
			return nil, nothing("nobody leads")
		}
		*word = s.Leader
	}
	for _, n := range r.c.nodes {
		if n.name == *word {
			return n, nil
		}
	}
	return nil, fmt.Errorf("there is no node %q", *word)
}

// begin begins a fault. Where nothing can happen the error is a nothing.
func (r *round) begin(ctx context.Context, f *Fault) (*effect, error) {
	if f.Kind == "killall" {
		return r.killAll()
	}
	for _, k := range r.clients {
		if k.name == f.Args[0] {
			return r.onProcess(k.name, k.proc, f, func() error { return r.startClient(k) })
		}
	}
	if m := r.c.mount; m != nil && f.Args[0] == mountName {
		return r.onProcess(mountName, m.proc, f, m.start)
	}
	n, err := r.node(ctx, &f.Args[0])
	if err != nil {
		return nil, err
	}
	switch f.Kind {
	case "kill":
		if n.proc.isGone() {
			return nil, nothing(n.name + " is down")
		}
		return r.hold(n), nil
	case "pause":
		if end := n.proc.pause(); end != nil {
			return &effect{end: end}, nil
		}
		return nil, nothing(n.name + " is down or stopped")
	case "disk", "setclock":
		return r.onRules(n, f)
	case "slow", "narrow", "far":
		return r.onSlow(ctx, n, f)
	}
	return r.onLinks(ctx, n, f)
}

// killAll kills every node that runs.
func (r *round) killAll() (*effect, error) {
	var held []*effect
	for _, n := range r.c.nodes {
		n.proc.signal(syscall.SIGKILL) // all at once, before any is waited for
	}
	for _, n := range r.c.nodes {
		if n.down == 0 {
			held = append(held, r.hold(n))
		}
	}
	if len(held) == 0 {
		return nil, nothing("all are down")
	}
	return &effect{end: func() (err error) {
		for _, e := range held {
			err = errors.Join(err, e.end())
		}
		return err
	}}, nil
}

// hold keeps a node down.
func (r *round) hold(n *node) *effect {
	n.down++
	r.c.kill(n)
	return &effect{end: func() error {
		if n.down--; n.down == 0 {
			return r.c.start(n)
		}
		return nil
	}}
}

// onProcess is a fault of a client's or mount's process, which again starts
// anew.
func (r *round) onProcess(name string, p *process, f *Fault, again func() error) (*effect, error) {
	switch f.Kind {
	case "kill":
		if p.isGone() {
			return nil, nothing(name + " is down")
		}
		p.signal(syscall.SIGKILL)
		<-p.gone
		return &effect{end: again}, nil
	case "pause":
		if end := p.pause(); end != nil {
			return &effect{end: end}, nil
		}
		return nil, nothing(name + " is down or stopped")
	}
	return nil, fmt.Errorf("%s is no fault of %s", f.Kind, name)
}

// onRules changes the rules of a node. What its disk does counts if the process
// says that it struck.
func (r *round) onRules(n *node, f *Fault) (*effect, error) {
	if f.Kind == "setclock" {
		if n.proc.isGone() {
			return nil, nothing(n.name + " is down")
		}
		return r.rule(n, &n.clock, "clock "+f.Args[1], nil)
	}
	d := diskFaults[f.Args[2]]
	rule := "disk " + n.file(f.Args[1]) + " " + d.rule
	log, err := os.Stat(n.file("log"))
	if err != nil {
		return nil, err
	}
	n.proc.suffered = n.proc.suffered || d.ends
	e, err := r.rule(n, &n.disk, rule, func() error {
		if n.down > 0 || !d.mend && !n.proc.isGone() {
			return nil
		}
		r.c.kill(n)
		return r.c.start(n)
	})
	e.met = func() (bool, error) {
		return n.said(log.Size(), fmt.Sprintf("%q node=%s rule=%q", faults.Struck, n.name, rule))
	}
	return e, err
}

// rule puts a rule into force, until the end of the effect, after which mend is
// called.
func (r *round) rule(n *node, list *[]string, rule string, mend func() error) (*effect, error) {
	*list = append(*list, rule)
	return &effect{end: func() error {
		i := slices.Index(*list, rule)
		*list = slices.Delete(*list, i, i+1)
		err := r.c.writeRules(n)
		if err == nil && mend != nil {
			err = mend()
		}
		return err
	}}, r.c.writeRules(n)
}

// said tells whether a node's log has a text after an offset.
func (n *node) said(from int64, text string) (bool, error) {
	f, err := os.Open(n.file("log"))
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return false, err
	}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, lineMax)
	for sc.Scan() {
		if bytes.Contains(sc.Bytes(), []byte(text)) {
			return true, nil
		}
	}
	return false, sc.Err()
}

// lift ends whatever a round left, so that nothing is wrong any more.
func (r *round) lift(ctx context.Context) error {
	m := r.c.mount
	m.proc.signal(syscall.SIGCONT)
	m.proc.paused = false
	if m.proc.isGone() {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, n := range r.c.nodes {
		n.disk, n.clock, n.down = nil, nil, 0
		if err := r.c.writeRules(n); err != nil {
			return err
		}
		if err := errors.Join(n.run("iptables -w -F"), n.direct(ctx)); err != nil {
			return err
		}
		n.proc.signal(syscall.SIGCONT)
		n.proc.paused = false
		if n.proc.isGone() {
			if err := r.c.start(n); err != nil {
				return err
			}
		}
	}
	return nil
}
