package rpc

import (
	"math/bits"
	"sync"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// Buffer sizes go by powers of two from bufferMin to wire.PayloadMax.
const (
	bufferMinBits = 12
	bufferMaxBits = 20
)

var bufferPools [bufferMaxBits - bufferMinBits + 1]sync.Pool

// A buffer's capacity is exactly a power of two in range, and at least that
// much must fit a payload.
var _ = [1]struct{}{}[wire.PayloadMax-1<<bufferMaxBits]

func bufferClass(n int) int {
	return max(bits.Len(uint(n-1)), bufferMinBits) - bufferMinBits
}

// GetBuffer returns a buffer of n bytes, n at most wire.PayloadMax, with
// unspecified content.
func GetBuffer(n int) []byte {
	if n == 0 {
		return nil
	}
	if n > wire.PayloadMax {
		return make([]byte, n)
	}
	k := bufferClass(n)
	if p, _ := bufferPools[k].Get().(*[]byte); p != nil {
		return (*p)[:n]
	}
	return make([]byte, n, 1<<(k+bufferMinBits))
}

// PutBuffer gives a buffer of GetBuffer back. It must not be used any more.
func PutBuffer(b []byte) {
	c := cap(b)
	if c < 1<<bufferMinBits || c > 1<<bufferMaxBits || c&(c-1) != 0 {
		return
	}
	b = b[:c]
	bufferPools[bufferClass(c)].Put(&b)
}

// presetPayload gives a request's payload a pooled buffer to be received
// into. It returns false for kinds that it does not know, whose handlers may
// keep the payload: those get memory of their own.
func presetPayload(m wire.Message, b []byte) bool {
	switch m := m.(type) {
	case *wire.Write:
		m.Data = b
	case *wire.Replicate:
		m.Write.Data = b
	case *wire.Copy:
		m.Data = b
	case *wire.SnapshotData:
		m.Data = b
	default:
		return false
	}
	return true
}
