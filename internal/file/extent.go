package file

import (
	"sync"

	"github.com/tidwall/btree"
)

// extent is dirty data that may still change. It lies within one piece.
type extent struct {
	off  uint64
	data []byte
	buf  []byte // what data is a part of
}

func (e *extent) end() uint64 { return e.off + uint64(len(e.data)) }

func piece(off uint64) uint64 { return off / PieceSize }

// pieces holds buffers of PieceSize. A buffer may come back while a request
// that was given up still refers to it; such a request is refused by its
// checksum.
var pieces = sync.Pool{New: func() any { return new([PieceSize]byte) }}

func newBuffer(n int) []byte {
	if n > PieceSize/2 {
		return pieces.Get().(*[PieceSize]byte)[:n]
	}
	return make([]byte, n)
}

func freeBuffer(b []byte) {
	if cap(b) == PieceSize {
		pieces.Put((*[PieceSize]byte)(b[:PieceSize]))
	}
}

// grow lengthens the data to n bytes.
func (e *extent) grow(n int) {
	if n <= cap(e.data) {
		e.data = e.data[:n]
		return
	}
	c := 2 * n
	if c > PieceSize/4 {
		c = PieceSize
	}
	b := newBuffer(c)
	copy(b, e.data)
	freeBuffer(e.buf)
	e.buf, e.data = b, b[:n]
}

// extents is the dirty data of a file: extents that do not overlap.
type extents struct {
	m     btree.Map[uint64, *extent]
	bytes int64
}

// put copies p to off; both ends lie in one piece. It returns the extent that
// now holds it.
func (x *extents) put(p []byte, off uint64) *extent {
	end := off + uint64(len(p))
	var e *extent
	x.m.Descend(off, func(_ uint64, l *extent) bool { e = l; return false })
	if e != nil && (e.end() < off || piece(e.off) != piece(off)) {
		e = nil
	}
	if e != nil && end <= e.end() {
		copy(e.data[off-e.off:], p)
		return e
	}
	if e != nil {
		x.cut(e.end(), end)
		x.bytes += int64(end - e.end())
		e.grow(int(end - e.off))
		copy(e.data[off-e.off:], p)
		return e
	}
	x.cut(off, end)
	b := newBuffer(len(p))
	e = &extent{off: off, data: b, buf: b}
	copy(b, p)
	x.bytes += int64(len(p))
	x.m.Set(off, e)
	return e
}

// cut removes [off, end), in which no extent begins before off.
func (x *extents) cut(off, end uint64) {
	for {
		var e *extent
		x.m.Ascend(off, func(_ uint64, n *extent) bool { e = n; return false })
		if e == nil || e.off >= end {
			return
		}
		x.m.Delete(e.off)
		if e.end() <= end {
			x.bytes -= int64(len(e.data))
			freeBuffer(e.buf)
			continue
		}
		n := end - e.off
		e.data, e.off = e.data[n:], end
		x.bytes -= int64(n)
		x.m.Set(e.off, e)
	}
}

// remove takes an extent out.
func (x *extents) remove(e *extent) {
	x.m.Delete(e.off)
	x.bytes -= int64(len(e.data))
}

// drop removes everything at and beyond off.
func (x *extents) drop(off uint64) {
	var e *extent
	x.m.Descend(off, func(_ uint64, l *extent) bool { e = l; return false })
	if e != nil && e.off < off && e.end() > off {
		x.bytes -= int64(e.end() - off)
		e.data = e.data[:off-e.off]
	}
	x.cut(off, ^uint64(0))
}

// each calls f for every extent that overlaps [off, end), in order.
func (x *extents) each(off, end uint64, f func(*extent)) {
	start := off
	x.m.Descend(off, func(k uint64, l *extent) bool {
		if l.end() > off {
			start = k
		}
		return false
	})
	x.m.Ascend(start, func(_ uint64, e *extent) bool {
		if e.off >= end {
			return false
		}
		f(e)
		return true
	})
}

// overlay copies the part of data at dataOff that lies in p at off.
func overlay(p []byte, off uint64, data []byte, dataOff uint64) {
	if dataOff+uint64(len(data)) <= off || dataOff >= off+uint64(len(p)) {
		return
	}
	if dataOff >= off {
		copy(p[dataOff-off:], data)
	} else {
		copy(p, data[off-dataOff:])
	}
}
