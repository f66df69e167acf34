package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/ashlarfs/ashlar/internal/config"
)

// drainTimeout bounds how long a relay's last frames are waited for when its
// link is fast again.
const drainTimeout = 5 * time.Second

// onSlow makes a node's link slow, or what it exchanges with one peer. The
// fault counts if a frame was held.
func (r *round) onSlow(ctx context.Context, n *node, f *Fault) (*effect, error) {
	s := &shape{}
	var err error
	switch f.Kind {
	case "slow":
		s.delay, err = time.ParseDuration(f.Args[1])
	case "narrow":
		var bytes uint64
		bytes, err = config.ParseSize(f.Args[1])
		s.rate = float64(bytes)
	case "far":
		var ip string
		if ip, err = r.peer(ctx, n, &f.Args[1]); err == nil {
			s.peer, err = netip.ParseAddr(ip)
		}
		if err == nil {
			s.delay, err = time.ParseDuration(f.Args[2])
		}
	}
	if err != nil {
		return nil, err
	}
	if err := n.slow(s); err != nil {
		return nil, err
	}
	return &effect{
		met: func() (bool, error) { return s.met.Load() > 0, nil },
		end: func() error { return n.fast(ctx, s) },
	}, nil
}

// A node's link is between its interface eth0 and v of the bridge:
//
//	fast   eth0 ═ v ─ bridge
//	slow   eth0 ═ v ─ relay ─ w ═ x ─ bridge
//
// v, w and x do not answer for addresses (arp off). The new way stands before
// the old one is taken away, so for a moment a frame may come twice; none is
// lost.

// slow puts a shape into force, and a relay into the link if none is there.
func (n *node) slow(s *shape) (err error) {
	if n.relay == nil {
		if n.relay, err = newRelay("v"+n.number, "w"+n.number); err != nil {
			return fmt.Errorf("slow link of %s: %w", n.name, err)
		}
		n.relay.add(s)
		return commands("ip link set x"+n.number+" master "+bridge, "ip link set v"+n.number+" nomaster")
	}
	n.relay.add(s)
	return nil
}

// fast lifts a shape; with the last one the relay goes too.
func (n *node) fast(ctx context.Context, s *shape) error {
	if n.relay == nil || n.relay.remove(s) > 0 {
		return nil
	}
	return errors.Join(n.drained(ctx), n.direct(ctx)) // in order: what comes later must not overtake
}

// drained waits until a relay holds nothing.
func (n *node) drained(ctx context.Context) error {
	return poll(ctx, drainTimeout, func() error {
		if held := n.relay.held(); held > 0 {
			return fmt.Errorf("slow link of %s: %d frames are still held", n.name, held)
		}
		return nil
	})
}

// direct connects a node to the bridge without a relay.
func (n *node) direct(ctx context.Context) error {
	if n.relay == nil {
		return nil
	}
	err := errors.Join(command("ip link set v"+n.number+" master "+bridge), n.drained(ctx),
		// x forgets with its place in the bridge who is behind it.
		command("ip link set x"+n.number+" nomaster"), n.drained(ctx), n.relay.close())
	n.relay = nil
	return err
}
