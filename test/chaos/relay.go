package main

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// relay is a link made slow: it stands between two interfaces and carries every
// frame from one to the other, held back for as long as the shapes in force say.
//
// It carries frames and is no end of any connection. That is how a slow link
// stays true about death (docs/protocol/cluster.md): a FIN, an RST and a refused
// connect that a master sees come from the kernel of the node, some time ago,
// and nobody else. A relay of TCP connections would, when it ends itself, send
// the FIN of a witness connection and then refuse to be connected to, both parts
// of the proof, for a node that lives; or would accept for one that is dead.
// When this one ends there is silence, which proves nothing
// (TestARelayThatEndsSaysNothingOfTheDead).
type relay struct {
	pipes [2]*pipe // to the node, from the node
	wg    sync.WaitGroup

	mu     sync.Mutex
	shapes []*shape
}

// shape makes what a node exchanges with a peer, or with all, slow.
type shape struct {
	peer  netip.Addr    // zero: all
	delay time.Duration // each way
	rate  float64       // bytes a second, each way; 0: as they come
	met   atomic.Int64  // frames
}

// Limits of a relay.
const (
	// heldMax is how many bytes may be held each way; what comes then is lost.
	// It is far more than TCP sends without an answer.
	heldMax = 64 << 20
	// queueMax is how long a frame may wait for bandwidth.
	queueMax = 500 * time.Millisecond
	// frameMax is the largest frame: segments are cut by the receiver of what
	// the kernel calls offload, so one may have 64 KiB.
	frameMax = virtioHeader + 128<<10
	// virtioHeader comes before each frame: what is left to do for offload.
	virtioHeader = 10
	receiveMax   = 16 << 20
)

// Options of packet sockets (linux/if_packet.h) that package syscall lacks.
const (
	solPacket            = 263
	packetVnetHdr        = 15
	packetIgnoreOutgoing = 23
	rcvbufForce          = 33
)

// newRelay carries between two interfaces: one that leads to a node, and one
// that leads to all others.
func newRelay(node, others string) (*relay, error) {
	a, err := packetSocket(node)
	if err != nil {
		return nil, err
	}
	b, err := packetSocket(others)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	r := &relay{}
	for i, p := range []*pipe{{from: b, to: a, inward: true}, {from: a, to: b}} {
		p.relay, p.wake = r, make(chan struct{}, 1)
		p.last, p.free = map[netip.Addr]time.Time{}, map[*shape]time.Time{}
		r.pipes[i] = p
		r.wg.Go(p.read)
		r.wg.Go(p.write)
	}
	return r, nil
}

// packetSocket opens a socket for all frames that come in at an interface.
func packetSocket(name string) (*os.File, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), name)
	for _, o := range []struct{ level, name, value int }{
		{solPacket, packetVnetHdr, 1}, {solPacket, packetIgnoreOutgoing, 1}, {syscall.SOL_SOCKET, rcvbufForce, receiveMax},
	} {
		if err := syscall.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return nil, errors.Join(fmt.Errorf("option %d of a packet socket: %w", o.name, err), f.Close())
		}
	}
	all := uint16(syscall.ETH_P_ALL)<<8 | uint16(syscall.ETH_P_ALL)>>8 // network order
	if err := syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), f.Close())
	}
	return f, nil
}

// add puts a shape into force, remove lifts it; frames that are held stay so
// for as long as they were going to.
func (r *relay) add(s *shape) {
	r.mu.Lock()
	r.shapes = append(r.shapes, s)
	r.mu.Unlock()
}

func (r *relay) remove(s *shape) (left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.shapes {
		if r.shapes[i] == s {
			r.shapes = append(r.shapes[:i:i], r.shapes[i+1:]...)
			break
		}
	}
	return len(r.shapes)
}

// close ends the relay; what it holds is gone.
func (r *relay) close() error {
	err := errors.Join(r.pipes[0].from.Close(), r.pipes[0].to.Close())
	for _, p := range r.pipes {
		p.signal()
	}
	r.wg.Wait()
	return err
}

// lost returns how many frames found no room or could not be sent; bandwidth
// does not count.
func (r *relay) lost() int64 { return r.pipes[0].lost.Load() + r.pipes[1].lost.Load() }

// held tells how many frames wait.
func (r *relay) held() (n int) {
	for _, p := range r.pipes {
		p.mu.Lock()
		n += len(p.frames)
		p.mu.Unlock()
	}
	return n
}

// pipe is one direction of a relay.
type pipe struct {
	relay    *relay
	from, to *os.File
	inward   bool // to the node: the peer is who sent it
	lost     atomic.Int64
	wake     chan struct{}

	mu     sync.Mutex
	frames frames
	bytes  int
	ended  bool
	number uint64
	last   map[netip.Addr]time.Time // when the last frame of each peer is due
	free   map[*shape]time.Time     // when the last byte is through
}

// frame is one that is held.
type frame struct {
	due    time.Time
	number uint64
	b      []byte
}

// frames is a heap: the first is due first.
type frames []frame

func (f frames) Len() int { return len(f) }

func (f frames) Less(i, j int) bool {
	if f[i].due.Equal(f[j].due) {
		return f[i].number < f[j].number
	}
	return f[i].due.Before(f[j].due)
}

func (f frames) Swap(i, j int) { f[i], f[j] = f[j], f[i] }

// Push implements heap.Interface.
func (f *frames) Push(x any) { *f = append(*f, x.(frame)) }

// Pop implements heap.Interface.
func (f *frames) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

func (p *pipe) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// read takes frames in until the socket is closed.
func (p *pipe) read() {
	defer p.signal()
	buf := make([]byte, frameMax)
	for {
		n, err := p.from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			p.mu.Lock()
			p.ended = true
			p.mu.Unlock()
			return
		}
		if err != nil || n <= virtioHeader {
			continue // the interface is down for a moment
		}
		p.take(append([]byte(nil), buf[:n]...), time.Now())
	}
}

// take decides when a frame is due.
func (p *pipe) take(b []byte, now time.Time) {
	peer := peerOf(b[virtioHeader:], p.inward)
	p.relay.mu.Lock()
	shapes := p.relay.shapes
	p.relay.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+len(b) > heldMax {
		p.lost.Add(1)
		return
	}
	due := now
	for _, s := range shapes {
		if s.peer.IsValid() && s.peer != peer {
			continue
		}
		s.met.Add(1)
		wait, ok := p.through(s, len(b)-virtioHeader, now)
		if !ok {
			return
		}
		due = due.Add(wait + s.delay)
	}
	if last := p.last[peer]; due.Before(last) {
		due = last // order is kept
	}
	p.last[peer] = due
	p.number++
	p.bytes += len(b)
	heap.Push(&p.frames, frame{due, p.number, b})
	p.signal()
}

// through returns how long a frame takes to get through a shape's bandwidth; a
// frame that would wait longer than queueMax is lost, as at any router. p.mu
// must be held.
func (p *pipe) through(s *shape, bytes int, now time.Time) (time.Duration, bool) {
	if s.rate == 0 {
		return 0, true
	}
	at := p.free[s]
	if at.Before(now) {
		at = now
	}
	if at.Sub(now) > queueMax {
		return 0, false
	}
	at = at.Add(time.Duration(float64(bytes) / s.rate * float64(time.Second)))
	p.free[s] = at
	return at.Sub(now), true
}

// write gives frames out when they are due.
func (p *pipe) write() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		p.mu.Lock()
		var next *frame
		if len(p.frames) > 0 {
			next = &p.frames[0]
		}
		if p.ended {
			p.mu.Unlock()
			return
		}
		if next != nil && !next.due.After(time.Now()) {
			f := heap.Pop(&p.frames).(frame)
			p.bytes -= len(f.b)
			p.mu.Unlock()
			if _, err := p.to.Write(f.b); err != nil {
				p.lost.Add(1)
			}
			continue
		}
		wait := time.Hour
		if next != nil {
			wait = time.Until(next.due)
		}
		p.mu.Unlock()
		t.Reset(wait)
		select {
		case <-t.C:
		case <-p.wake:
		}
	}
}

// peerOf returns the address of the other end of a frame, zero if it is none of
// IPv4.
func peerOf(b []byte, inward bool) netip.Addr {
	const ethernet, sender, receiver, address = 14, 12, 16, 4
	if len(b) < ethernet+receiver+address || binary.BigEndian.Uint16(b[12:]) != syscall.ETH_P_IP {
		return netip.Addr{}
	}
	at := ethernet + receiver
	if inward {
		at = ethernet + sender
	}
	a, _ := netip.AddrFromSlice(b[at : at+address])
	return a
}
