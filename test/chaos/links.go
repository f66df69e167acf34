package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// onLinks changes what a node's packets meet, by rules of iptables in its
// namespace. The fault counts if a packet met one of them.
func (r *round) onLinks(ctx context.Context, n *node, f *Fault) (*effect, error) {
	var rules []string
	switch f.Kind {
	case "cut", "deaf":
		ip, err := r.peer(ctx, n, &f.Args[1])
		if err != nil {
			return nil, err
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
	r.marks++
	mark := fmt.Sprintf("fault-%d", r.marks)
	tables := func(verb string) (err error) {
		for _, rule := range rules {
			err = errors.Join(err, n.run("iptables -w "+verb+" "+rule+" -m comment --comment "+mark))
		}
		return err
	}
	return &effect{
		met: func() (bool, error) { return n.packets(mark) },
		end: func() error { return tables("-D") },
	}, tables("-A")
}

// peer returns the address of the other end of a link.
func (r *round) peer(ctx context.Context, n *node, word *string) (string, error) {
	if *word == "clients" {
		return clientIP, nil
	}
	m, err := r.node(ctx, word)
	if err != nil {
		return "", err
	}
	if m == n {
		return "", nothing("it is one node")
	}
	return m.ip, nil
}

// run runs a command in a node's namespace.
func (n *node) run(line string) error { return command("ip netns exec " + n.ns + " " + line) }

// packets tells whether a packet met a rule with a comment.
func (n *node) packets(mark string) (bool, error) {
	out, err := exec.Command("ip", "netns", "exec", n.ns, "iptables", "-w", "-nvxL").Output()
	if err != nil {
		return false, fmt.Errorf("list the rules of %s: %w", n.name, err)
	}
	for _, l := range strings.Split(string(out), "\n") {
		if w := strings.Fields(l); len(w) > 0 && strings.Contains(l, "/* "+mark+" */") {
			p, err := strconv.ParseUint(w[0], 10, 64)
			if err != nil || p > 0 {
				return p > 0, err
			}
		}
	}
	return false, nil
}
