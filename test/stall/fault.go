package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"syscall"
	"time"
)

// fault makes a node fail; undo brings it back.
type fault func(c *cluster, n *node) (undo func() error, err error)

func kill(c *cluster, n *node) (func() error, error) {
	if err := n.cmd.Process.Kill(); err != nil {
		return nil, err
	}
	return func() error {
		<-n.gone
		return c.start(n)
	}, nil
}

func pause(_ *cluster, n *node) (func() error, error) {
	return func() error { return n.cmd.Process.Signal(syscall.SIGCONT) }, n.cmd.Process.Signal(syscall.SIGSTOP)
}

func silence(_ *cluster, n *node) (func() error, error) {
	inside := "ip netns exec " + n.ns + " iptables "
	err := commands(inside+"-A INPUT -i eth0 -j DROP", inside+"-A OUTPUT -o eth0 -j DROP")
	return func() error { return commands(inside+"-F INPUT", inside+"-F OUTPUT") }, err
}

// reject has every packet of a node refused in its name: by resets, and the
// next time by ICMP errors.
func reject(c *cluster, n *node) (func() error, error) {
	c.rejects++
	with := "-p tcp -j REJECT --reject-with tcp-reset"
	if c.rejects%2 == 0 {
		with = "-j REJECT --reject-with icmp-port-unreachable"
	}
	inside := "ip netns exec " + n.ns + " iptables "
	err := commands(inside+"-A INPUT -i eth0 "+with, inside+"-A OUTPUT -o eth0 "+with)
	return func() error { return commands(inside+"-F INPUT", inside+"-F OUTPUT") }, err
}

// newUUID returns a random UUID as text.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// once makes one fault while applications run and brings the node back.
func (c *cluster) once(ctx context.Context, f fault, lead bool, watch time.Duration, turn int) (quiet, stall sample, err error) {
	if err := c.whole(ctx); err != nil {
		return quiet, stall, err
	}
	n, err := c.victim(ctx, lead, turn)
	if err != nil {
		return quiet, stall, err
	}
	l := c.load()
	defer l.stop()
	quiet = l.watch(ctx, quietTime)
	undo, err := f(c, n)
	if err != nil {
		return quiet, stall, err
	}
	stall = l.watch(ctx, watch)
	if err := undo(); err != nil {
		return quiet, stall, err
	}
	after := l.watch(ctx, quietTime) // coming back must not hurt either
	stall.errors = append(append(stall.errors, after.errors...), quiet.errors...)
	return quiet, stall, ctx.Err()
}
