package rpc

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// header is a frame's header; package wire draws it.
type header struct {
	body, payload uint32
	kind          wire.Kind
	flags         uint16
	id            uint64
	deadline      uint32 // milliseconds, 0 for none
}

func (h *header) put(b []byte) {
	_ = b[wire.HeaderSize-1]
	binary.LittleEndian.PutUint32(b[0:], h.body)
	binary.LittleEndian.PutUint32(b[4:], h.payload)
	binary.LittleEndian.PutUint16(b[8:], uint16(h.kind))
	binary.LittleEndian.PutUint16(b[10:], h.flags)
	binary.LittleEndian.PutUint64(b[12:], h.id)
	binary.LittleEndian.PutUint32(b[20:], h.deadline)
}

// parse reads a header and refuses lengths above the limits.
func (h *header) parse(b []byte) error {
	_ = b[wire.HeaderSize-1]
	h.body = binary.LittleEndian.Uint32(b[0:])
	h.payload = binary.LittleEndian.Uint32(b[4:])
	h.kind = wire.Kind(binary.LittleEndian.Uint16(b[8:]))
	h.flags = binary.LittleEndian.Uint16(b[10:])
	h.id = binary.LittleEndian.Uint64(b[12:])
	h.deadline = binary.LittleEndian.Uint32(b[20:])
	if h.body > wire.BodyMax || h.payload > wire.PayloadMax {
		return ashlar.E("frame", ashlar.Corrupt, "",
			fmt.Errorf("body of %d and payload of %d bytes, limits %d and %d", h.body, h.payload, wire.BodyMax, wire.PayloadMax))
	}
	return nil
}

// frame is one frame on its way out. head is header, body and a small
// payload; payload is sent from where it is.
type frame struct {
	head    []byte
	payload []byte
	lent    bool       // payload was not nil at first
	owner   frameOwner // told once, when the frame is written or dropped; may be nil
	state   frameState
	free    chan struct{} // made by detach: closed when payload is not used any more
}

type frameOwner interface{ frameGone() }

type frameState uint8

const (
	frameNew frameState = iota
	frameQueued
	frameWriting
	frameDone
)

// headKept is the largest head buffer that goes back to the pool.
const headKept = 64 << 10

var framePool = sync.Pool{New: func() any { return &frame{head: make([]byte, 0, 512)} }}

// newFrame encodes m. The frame comes from a pool and goes back by recycle.
func newFrame(h header, m wire.Message) (*frame, error) {
	f := framePool.Get().(*frame)
	var space [wire.HeaderSize]byte
	b := append(f.head[:0], space[:]...)
	if m != nil {
		h.kind = m.Kind()
		var err error
		if b, err = wire.Encode(b, m); err != nil {
			f.recycle()
			return nil, err
		}
		if p, ok := m.(wire.Payloader); ok {
			f.payload = p.Payload()
		}
	}
	h.body, h.payload = uint32(len(b)-wire.HeaderSize), uint32(len(f.payload))
	if h.body > wire.BodyMax || len(f.payload) > wire.PayloadMax {
		n, p := h.body, len(f.payload)
		f.payload = nil
		f.recycle()
		return nil, ashlar.E("encode", ashlar.TooBig, "",
			fmt.Errorf("%T has a body of %d and a payload of %d bytes, limits %d and %d", m, n, p, wire.BodyMax, wire.PayloadMax))
	}
	h.put(b)
	if len(f.payload) <= inlinePayload {
		b = append(b, f.payload...)
		f.payload = nil
	}
	f.lent = f.payload != nil
	f.head = b
	return f, nil
}

func (f *frame) size() int { return len(f.head) + len(f.payload) }

// recycle gives the frame back. One with a borrowed payload is left to the
// garbage collector, because the call that lent it still points to it.
func (f *frame) recycle() {
	if cap(f.head) > headKept || f.lent {
		return
	}
	*f = frame{head: f.head[:0]}
	framePool.Put(f)
}
