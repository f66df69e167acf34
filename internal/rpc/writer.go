package rpc

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writer sends frames on one connection. Frames queued while others are being
// written leave together in one writev. A frame that finds the connection
// idle is written by its own goroutine without ever blocking it: what the
// socket does not take at once is left to the writer's goroutine.
type writer struct {
	conn   net.Conn
	raw    syscall.RawConn // nil if conn has none
	failed func(error)     // told once of a write error; without mu
	wake   chan struct{}   // buffered 1
	stop   chan struct{}   // closed by fail

	wrote atomic.Uint64 // bytes, for noticing a stall

	mu     sync.Mutex
	err    error       // set once
	busy   bool        // somebody writes, or run was woken to
	queue  []*frame    // state frameQueued
	active []*frame    // state frameWriting; retired by whoever set busy
	rest   net.Buffers // what sendDirect leaves of active to run
	bytes  int         // of queue

	// Used only by whoever set busy.
	direct directWrite
	one    [1]*frame
	spare  []*frame
	iov    net.Buffers
	small  []byte // heads gathered
}

var errQueueFull = errors.New("send queue is full")

// newWriter returns a writer whose run method must be running.
func newWriter(c net.Conn, failed func(error)) *writer {
	w := &writer{conn: c, failed: failed, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
			w.direct.fn = w.direct.try
		}
	}
	return w
}

// send queues f, or writes it here if direct is asked for and nobody else is
// writing. limit bounds the bytes queued, 0 for no bound. f belongs to the
// writer from now on, also when an error is returned.
func (w *writer) send(f *frame, direct bool, limit int) error {
	w.mu.Lock()
	if err := w.err; err != nil || limit > 0 && w.bytes > 0 && w.bytes+f.size() > limit {
		f.state = frameDone
		w.mu.Unlock()
		f.gone()
		if err == nil {
			err = errQueueFull
		}
		return err
	}
	if direct && w.raw != nil && !w.busy {
		w.busy = true
		f.state = frameWriting
		w.one[0] = f
		w.active = w.one[:]
		w.mu.Unlock()
		w.sendDirect(f)
		return nil
	}
	f.state = frameQueued
	w.queue = append(w.queue, f)
	w.bytes += f.size()
	start := !w.busy
	w.busy = true
	w.mu.Unlock()
	if start {
		w.wakeUp()
	}
	return nil
}

func (w *writer) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *writer) sendDirect(f *frame) {
	n := w.direct.write(w.raw, f.head, f.payload)
	w.wrote.Add(uint64(n))
	w.mu.Lock()
	if n < f.size() && w.err == nil { // run takes it from here, and meets the error if there is one
		rest := net.Buffers{f.head[min(n, len(f.head)):]}
		if f.payload != nil {
			rest = append(rest, f.payload[max(0, n-len(f.head)):])
		}
		if f.free != nil {
			w.takeOver(&rest)
		}
		w.rest = rest
		w.mu.Unlock()
		w.wakeUp()
		return
	}
	w.retire()
	w.one[0] = nil
	more := len(w.queue) > 0
	w.busy = more
	w.mu.Unlock()
	f.gone()
	if more {
		w.wakeUp()
	}
}

// retire marks the active frames done and returns them; the caller calls gone
// on each after it has released mu, which must be held.
func (w *writer) retire() []*frame {
	batch := w.active
	for _, f := range batch {
		f.state = frameDone
		if f.free != nil {
			close(f.free)
			f.free = nil
		}
	}
	w.active = nil
	return batch
}

// gone tells the owner and gives the frame back.
func (f *frame) gone() {
	if o := f.owner; o != nil {
		f.owner = nil
		o.frameGone()
	}
	f.recycle()
}

// run writes what is queued until fail.
func (w *writer) run() {
	for {
		select {
		case <-w.wake:
			for w.batch() {
			}
		case <-w.stop:
			w.mu.Lock()
			var left []*frame
			if w.rest != nil {
				w.rest = nil
				left = w.retire()
			}
			w.mu.Unlock()
			for _, f := range left {
				f.gone()
			}
			return
		}
	}
}

// batch writes everything queued; false means there was nothing.
func (w *writer) batch() bool {
	w.mu.Lock()
	if bufs := w.rest; bufs != nil {
		w.rest = nil
		w.mu.Unlock()
		return w.writeOut(bufs)
	}
	w.mu.Unlock()
	runtime.Gosched() // whoever can run now may have a frame for this batch
	w.mu.Lock()
	if w.err != nil || len(w.queue) == 0 {
		w.busy = false
		w.mu.Unlock()
		return false
	}
	w.active, w.queue, w.spare = w.queue, w.spare, nil
	w.bytes = 0
	iov, small, start := w.iov[:0], w.small[:0], 0
	for _, f := range w.active {
		f.state = frameWriting
		small = append(small, f.head...)
		if len(f.payload) > 0 {
			iov = append(iov, small[start:], f.payload)
			start = len(small)
		}
	}
	if start < len(small) {
		iov = append(iov, small[start:])
	}
	w.mu.Unlock()
	w.iov = iov
	if w.small = small; cap(small) > 4*headKept {
		w.small = nil
	}
	return w.writeOut(iov)
}

// writeOut writes bufs and retires the active frames. A write deadline in the
// past is how detach asks for borrowed memory back.
func (w *writer) writeOut(bufs net.Buffers) bool {
	var failure error
	for {
		n, err := bufs.WriteTo(w.conn)
		w.wrote.Add(uint64(n))
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			failure = err
			break
		}
		// The deadline goes before the requests are looked at: one that comes
		// later sets it again.
		_ = w.conn.SetWriteDeadline(time.Time{})
		w.mu.Lock()
		w.takeOver(&bufs)
		w.mu.Unlock()
	}
	w.mu.Lock()
	batch := w.retire()
	w.mu.Unlock()
	for i, f := range batch {
		batch[i] = nil
		f.gone()
	}
	if len(batch) > 0 && &batch[0] != &w.one[0] { // the array of one is not the queue's to grow into
		w.spare = batch[:0]
	}
	clear(w.iov[:cap(w.iov)])
	if failure != nil {
		w.fail(failure)
		w.failed(failure)
		return false
	}
	return true
}

// takeOver copies what is left to send of the active frames into private
// memory, if anyone asked for theirs. mu must be held.
func (w *writer) takeOver(bufs *net.Buffers) {
	asked := false
	for _, f := range w.active {
		asked = asked || f.free != nil
	}
	if !asked {
		return
	}
	private := []byte{}
	for _, b := range *bufs {
		private = append(private, b...)
	}
	*bufs = net.Buffers{private}
	for _, f := range w.active {
		if f.free != nil {
			close(f.free)
			f.free = nil
		}
		f.payload = nil
	}
}

// fail stops the writer: what is queued is dropped and send returns err.
func (w *writer) fail(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = err
	dropped := w.queue
	w.queue, w.bytes = nil, 0
	for _, f := range dropped {
		f.state = frameDone
	}
	close(w.stop)
	w.mu.Unlock()
	for _, f := range dropped {
		f.gone()
	}
}

// detach returns when f's payload is not read any more: a queued frame is
// dropped, one being written is taken over. f must have been lent a payload.
func (w *writer) detach(f *frame) {
	w.mu.Lock()
	switch f.state {
	case frameQueued:
		for i, q := range w.queue {
			if q == f {
				w.queue = append(w.queue[:i], w.queue[i+1:]...)
				w.bytes -= f.size()
				break
			}
		}
		f.state = frameDone
		w.mu.Unlock()
		f.gone()
	case frameWriting:
		if f.payload == nil { // taken over before
			w.mu.Unlock()
			return
		}
		if f.free == nil {
			f.free = make(chan struct{})
		}
		free := f.free
		w.mu.Unlock()
		_ = w.conn.SetWriteDeadline(time.Unix(1, 0))
		<-free
	default:
		w.mu.Unlock()
	}
}

// queued returns the bytes waiting to be written.
func (w *writer) queued() (n int, busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes, w.busy
}

// directWrite is one write that does not wait.
type directWrite struct {
	fn            func(fd uintptr) bool
	head, payload []byte
	iov           [2][]byte
	n             int
}

func (d *directWrite) write(raw syscall.RawConn, head, payload []byte) int {
	d.head, d.payload, d.n = head, payload, 0
	_ = raw.Write(d.fn) // what went wrong shows at the next write
	d.head, d.payload, d.iov = nil, nil, [2][]byte{}
	return d.n
}

func (d *directWrite) try(fd uintptr) bool {
	var n int
	var err error
	if len(d.payload) == 0 {
		n, err = unix.Write(int(fd), d.head)
	} else {
		d.iov = [2][]byte{d.head, d.payload}
		n, err = unix.Writev(int(fd), d.iov[:])
	}
	if err == nil {
		d.n = n
	}
	return true
}
