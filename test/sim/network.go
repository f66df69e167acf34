package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Times and limits of the network, as a kernel has them.
const (
	latencyMin     = 50 * time.Microsecond
	latencyMax     = 300 * time.Microsecond
	bandwidth      = 1 << 30 // bytes a second
	windowBytes    = 1 << 20 // sent and not read
	backlogMax     = 128
	userTimeout    = 10 * time.Second // unacknowledged, as package rpc sets it
	keepaliveTime  = 15 * time.Second // of idle connections
	connectTimeout = 60 * time.Second
	connectRetry   = time.Second
	retransmitMax  = 500 * time.Millisecond
)

// Network joins machines with connections that behave as TCP between kernels:
// bytes arrive in order or not at all, what a killed process had sent still
// arrives, a machine without power says nothing, and one that is back resets
// what it does not know.
type Network struct {
	trace *Trace

	mu    sync.Mutex
	rng   *rand.Rand
	hosts map[string]*host
	links map[[2]string]*link
}

// host is a machine's kernel.
type host struct {
	name      string
	up        bool
	port      int
	listeners map[string]*listener
	ends      []*endpoint // open ones, in the order they were made
}

// link is one direction between two machines.
type link struct {
	cut   bool
	slow  time.Duration // more latency
	lossy bool          // loses, repeats and reorders consensus packets
}

func newNetwork(rng *rand.Rand, trace *Trace) *Network {
	return &Network{trace: trace, rng: rng, hosts: map[string]*host{}, links: map[[2]string]*link{}}
}

// host returns the machine of a name. mu must be held.
func (n *Network) host(name string) *host {
	h := n.hosts[name]
	if h == nil {
		h = &host{name: name, up: true, port: 40000, listeners: map[string]*listener{}}
		n.hosts[name] = h
	}
	return h
}

// link returns one direction between machines. mu must be held.
func (n *Network) link(from, to string) *link {
	k := [2]string{from, to}
	l := n.links[k]
	if l == nil {
		l = &link{}
		n.links[k] = l
	}
	return l
}

// delay is how long a packet takes. mu must be held.
func (n *Network) delay(l *link) time.Duration {
	d := latencyMin + time.Duration(n.rng.Int64N(int64(latencyMax-latencyMin)))
	if n.rng.IntN(200) == 0 {
		d += time.Duration(n.rng.Int64N(int64(20 * time.Millisecond))) // a queue somewhere
	}
	if l.slow > 0 {
		d += l.slow/2 + time.Duration(n.rng.Int64N(int64(l.slow)))
	}
	return d
}

// after calls f, with mu held, after d: as the network, whoever asks for it.
func (n *Network) after(d time.Duration, f func()) {
	old := setNode(0)
	time.AfterFunc(d, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		f()
	})
	setNode(old)
}

// SetLink cuts, slows or harms one direction.
func (n *Network) SetLink(from, to string, change func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	was := l.cut
	change(l)
	for _, e := range slices.Clone(n.host(from).ends) {
		if e.remote != to {
			continue
		}
		switch {
		case l.cut && !was:
			e.keepalive()
		case !l.cut && was:
			e.resume()
			if e.peer != nil {
				e.peer.resume()
			}
		}
	}
}

// Reset breaks every connection between two machines, as a middlebox may.
func (n *Network) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range slices.Clone(n.host(a).ends) {
		if e.remote == b {
			e.fail(syscall.ECONNRESET)
			if e.peer != nil {
				e.peer.fail(syscall.ECONNRESET)
			}
		}
	}
}

// Kill is the end of a machine's process: its kernel closes what was open.
func (n *Network) Kill(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	for _, addr := range sortedKeys(h.listeners) {
		h.listeners[addr].shut()
	}
	for _, e := range slices.Clone(h.ends) {
		e.closeLocked()
	}
}

// Power switches a machine off, which nobody is told, or on.
func (n *Network) Power(name string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	h.up = on
	if !on {
		for _, addr := range sortedKeys(h.listeners) {
			h.listeners[addr].shut()
		}
		for _, e := range slices.Clone(h.ends) {
			e.gone()
			if e.peer != nil {
				e.peer.keepalive()
			}
		}
		return
	}
	for _, other := range sortedKeys(n.hosts) {
		for _, e := range slices.Clone(n.hosts[other].ends) {
			if e.remote == name {
				e.resume()
			}
		}
	}
}

// Dialer returns what dials from a machine.
func (n *Network) Dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return n.dial(ctx, from, addr) }
}

func dialError(addr string, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: address(addr), Err: os.NewSyscallError("connect", err)}
}

func (n *Network) dial(ctx context.Context, from, addr string) (net.Conn, error) {
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, dialError(addr, syscall.EINVAL)
	}
	for end := time.Now().Add(connectTimeout); ; {
		n.mu.Lock()
		there, back := n.link(from, to), n.link(to, from)
		reach := n.host(to).up && !there.cut && !back.cut
		wait := connectRetry
		if reach {
			wait = n.delay(there) + n.delay(back)
		}
		n.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, dialError(addr, context.Cause(ctx))
		case <-time.After(wait):
		}
		if reach {
			return n.connect(from, to, addr)
		}
		if time.Now().After(end) {
			return nil, dialError(addr, syscall.ETIMEDOUT)
		}
	}
}

// connect makes the pair of ends once the handshake of TCP was through.
func (n *Network) connect(from, to, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	src, dst := n.host(from), n.host(to)
	if !src.up {
		return nil, dialError(addr, syscall.ENETDOWN)
	}
	ln := dst.listeners[addr]
	if ln == nil || !dst.up || len(ln.backlog) >= backlogMax {
		return nil, dialError(addr, syscall.ECONNREFUSED)
	}
	src.port++
	local := fmt.Sprintf("%s:%d", from, src.port)
	a := newEndpoint(n, src, to, local, addr)
	b := newEndpoint(n, dst, from, addr, local)
	a.peer, b.peer = b, a
	a.dialing = true
	ln.backlog = append(ln.backlog, b)
	ln.signal()
	n.trace.add("connect %s %s", local, addr)
	return a, nil
}

// Listen listens on a machine.
func (n *Network) Listen(name, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	if h.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: address(addr), Err: syscall.EADDRINUSE}
	}
	ln := &listener{n: n, host: h, addr: addr, wake: make(chan struct{})}
	h.listeners[addr] = ln
	return ln, nil
}

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

type listener struct {
	n       *Network
	host    *host
	addr    string
	backlog []*endpoint
	wake    chan struct{} // closed and replaced when something changed
	closed  bool
}

// signal wakes who waits. n.mu must be held.
func (l *listener) signal() {
	close(l.wake)
	l.wake = make(chan struct{})
}

// shut ends the listener; who was not accepted is refused. n.mu must be held.
func (l *listener) shut() {
	if l.closed {
		return
	}
	l.closed = true
	delete(l.host.listeners, l.addr)
	for _, e := range l.backlog {
		e.closeLocked()
	}
	l.backlog = nil
	l.signal()
}

func (l *listener) Accept() (net.Conn, error) {
	l.n.mu.Lock()
	for {
		if len(l.backlog) > 0 {
			e := l.backlog[0]
			l.backlog = l.backlog[1:]
			l.n.mu.Unlock()
			return e, nil
		}
		if l.closed {
			l.n.mu.Unlock()
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: address(l.addr), Err: net.ErrClosed}
		}
		wake := l.wake
		l.n.mu.Unlock()
		<-wake
		l.n.mu.Lock()
	}
}

func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.shut()
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }
