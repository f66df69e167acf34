package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// event is the begin or the end of a fault.
type event struct {
	at time.Duration
	do func(context.Context)
}

// disturb carries out the schedule. Faults may overlap: each end takes back
// what its begin did, and a process runs when nothing keeps it down.
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
			r.say("%v", f)
			end, err := r.begin(ctx, f)
			if err != nil {
				r.errs = append(r.errs, fmt.Errorf("fault %q: %w", f, err))
			}
			if end != nil {
				r.injected++
				add(event{time.Since(began) + f.For, func(context.Context) {
					r.say("over: %v", f)
					if err := end(); err != nil {
						r.errs = append(r.errs, fmt.Errorf("end of fault %q: %w", f, err))
					}
				}})
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

// watchNodes notes processes that ended and should not have.
func (r *round) watchNodes() {
	for _, n := range r.c.nodes {
		if n.down == 0 && n.proc.ended() && !n.suffered {
			r.errs = append(r.errs, fmt.Errorf("%s ended by itself: %v", n.name, n.proc.err))
			n.suffered = true // told once
		}
	}
}

// node finds a node by name; "leader" is the one that leads, nil if none does.
func (r *round) node(ctx context.Context, name string) (*node, error) {
	if name == "leader" {
		s, err := r.c.status(ctx)
		if err != nil || s.Leader == "" {
			r.say("nobody leads: nothing happens")
			return nil, nil
		}
		name = s.Leader
		r.say("%s leads", name)
	}
	for _, n := range r.c.nodes {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("there is no node %q", name)
}

// begin begins a fault and returns what ends it, nil if nothing happened.
func (r *round) begin(ctx context.Context, f Fault) (end func() error, err error) {
	if len(f.Args) > 0 {
		for _, k := range r.clients {
			if k.name == f.Args[0] {
				return r.onClient(k, f)
			}
		}
	}
	if f.Kind == "killall" {
		for _, n := range r.c.nodes {
			n.proc.signal(syscall.SIGKILL)
		}
		var ends []func() error
		for _, n := range r.c.nodes {
			ends = append(ends, r.hold(n))
		}
		return func() (err error) {
			for _, end := range ends {
				if e := end(); e != nil {
					err = e
				}
			}
			return err
		}, nil
	}
	n, err := r.node(ctx, f.Args[0])
	if n == nil {
		return nil, err
	}
	switch f.Kind {
	case "kill":
		return r.hold(n), nil
	case "pause":
		n.paused++
		n.proc.signal(syscall.SIGSTOP)
		return func() error {
			if n.paused--; n.paused == 0 {
				n.proc.signal(syscall.SIGCONT)
			}
			return nil
		}, nil
	case "disk", "setclock":
		return r.onDisk(n, f)
	}
	return r.onLinks(ctx, n, f)
}

// hold keeps a node down.
func (r *round) hold(n *node) (end func() error) {
	n.down++
	r.c.kill(n)
	return func() error {
		if n.down--; n.down == 0 {
			return r.c.start(n)
		}
		return nil
	}
}

// onClient is a fault of a client process.
func (r *round) onClient(k *clientProc, f Fault) (end func() error, err error) {
	switch f.Kind {
	case "kill":
		k.down++
		k.proc.signal(syscall.SIGKILL)
		<-k.proc.gone
		return func() error {
			if k.down--; k.down == 0 {
				return r.startClient(k)
			}
			return nil
		}, nil
	case "pause":
		k.proc.signal(syscall.SIGSTOP)
		return func() error { k.proc.signal(syscall.SIGCONT); return nil }, nil
	}
	return nil, fmt.Errorf("%s is no fault of a client", f.Kind)
}

// onDisk changes the rules of a node. A process whose disk had errors is
// started again when the disk is mended, as an administrator would.
func (r *round) onDisk(n *node, f Fault) (end func() error, err error) {
	list, rule := &n.clock, "clock "
	if f.Kind == "setclock" {
		rule += f.Args[1]
	} else {
		list, rule = &n.disk, "disk "+n.file(f.Args[1])+" "+diskFaults[f.Args[2]]
	}
	mend := f.Kind == "disk" && f.Args[2] != "stall" && f.Args[2] != "hang"
	n.suffered = n.suffered || mend
	*list = append(*list, rule)
	return func() error {
		i := slices.Index(*list, rule)
		*list = slices.Delete(*list, i, i+1)
		if err := r.c.writeRules(n); err != nil || !mend || n.down > 0 {
			return err
		}
		r.c.kill(n)
		return r.c.start(n)
	}, r.c.writeRules(n)
}

// onLinks changes what a node's packets meet.
func (r *round) onLinks(ctx context.Context, n *node, f Fault) (end func() error, err error) {
	var rules []string
	switch f.Kind {
	case "cut", "deaf":
		ip := clientIP
		if f.Args[1] != "clients" {
			m, err := r.node(ctx, f.Args[1])
			if m == nil || m == n {
				return nil, err
			}
			ip = m.ip
		}
		rules = []string{"INPUT -s " + ip + " -j DROP"}
		if f.Kind == "cut" {
			rules = append(rules, "OUTPUT -d "+ip+" -j DROP")
		}
	case "isolate":
		rules = []string{"INPUT -i eth0 -j DROP", "OUTPUT -o eth0 -j DROP"}
	case "mute":
		rules = []string{"OUTPUT -o eth0 -j DROP"}
	case "lossy":
		rules = []string{"INPUT -i eth0 -m statistic --mode random --probability 0.2 -j DROP"}
	case "refuse":
		with := "tcp-reset"
		if f.Args[1] == "icmp" {
			with = "icmp-port-unreachable"
		}
		rules = []string{"INPUT -i eth0 -p tcp -j REJECT --reject-with " + with}
	}
	tables := func(verb string) error {
		for _, rule := range rules {
			if err := command("ip netns exec " + n.ns + " iptables -w " + verb + " " + rule); err != nil {
				return err
			}
		}
		return nil
	}
	return func() error { return tables("-D") }, tables("-A")
}

// lift ends whatever a round left, so that nothing is wrong any more.
func (r *round) lift() error {
	for _, n := range r.c.nodes {
		n.disk, n.clock, n.down, n.paused = nil, nil, 0, 0
		if err := r.c.writeRules(n); err != nil {
			return err
		}
		if err := command("ip netns exec " + n.ns + " iptables -w -F"); err != nil {
			return err
		}
		n.proc.signal(syscall.SIGCONT)
		if n.proc.ended() {
			if err := r.c.start(n); err != nil {
				return err
			}
		}
	}
	return nil
}
