package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlarfs/ashlar"
)

// Codec walks the fields of a message, writing them or reading them: a
// message has one Fields method, so that the two can not disagree. Integers
// are little-endian and of fixed width; byte strings, strings and lists carry
// a length or count before them. The first error sticks; after it a reading
// codec leaves fields alone.
//
// A reading codec never allocates more than the input justifies: every
// element of a list takes at least one byte of it.
type Codec struct {
	b       []byte
	reading bool
	err     error
}

// Encoder returns a codec that appends to b.
func Encoder(b []byte) *Codec { return &Codec{b: b} }

// Decoder returns a codec that reads b. Decoded byte strings are copies.
func Decoder(b []byte) *Codec { return &Codec{b: b, reading: true} }

// Reading tells whether fields are being read rather than written.
func (c *Codec) Reading() bool { return c.reading }

// Bytes returns what was written, or what is left to read.
func (c *Codec) Bytes() []byte { return c.b }

// Err returns the first error.
func (c *Codec) Err() error { return c.err }

// Fail records an error found by a message's own checks.
func (c *Codec) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = ashlar.E("decode", ashlar.Corrupt, "", fmt.Errorf(format, args...))
	}
}

// Finish returns the first error, or one if input is left over.
func (c *Codec) Finish() error {
	if c.err == nil && c.reading && len(c.b) != 0 {
		c.Fail("%d bytes after the last field", len(c.b))
	}
	return c.err
}

func (c *Codec) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if len(c.b) < n {
		c.Fail("truncated: want %d bytes, have %d", n, len(c.b))
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

// U8 codes one byte.
func U8[T ~uint8](c *Codec, v *T) {
	if !c.reading {
		c.b = append(c.b, byte(*v))
	} else if b := c.take(1); b != nil {
		*v = T(b[0])
	}
}

// U16 codes two bytes.
func U16[T ~uint16](c *Codec, v *T) {
	if !c.reading {
		c.b = binary.LittleEndian.AppendUint16(c.b, uint16(*v))
	} else if b := c.take(2); b != nil {
		*v = T(binary.LittleEndian.Uint16(b))
	}
}

// U32 codes four bytes.
func U32[T ~uint32](c *Codec, v *T) {
	if !c.reading {
		c.b = binary.LittleEndian.AppendUint32(c.b, uint32(*v))
	} else if b := c.take(4); b != nil {
		*v = T(binary.LittleEndian.Uint32(b))
	}
}

// U64 codes eight bytes.
func U64[T ~uint64](c *Codec, v *T) {
	if !c.reading {
		c.b = binary.LittleEndian.AppendUint64(c.b, uint64(*v))
	} else if b := c.take(8); b != nil {
		*v = T(binary.LittleEndian.Uint64(b))
	}
}

// I64 codes a signed eight bytes.
func I64[T ~int64](c *Codec, v *T) {
	u := uint64(*v)
	U64(c, &u)
	if c.reading {
		*v = T(u)
	}
}

// Bool codes one byte, 0 or 1.
func Bool(c *Codec, v *bool) {
	var u uint8
	if *v {
		u = 1
	}
	U8(c, &u)
	if c.reading {
		if u > 1 {
			c.Fail("boolean %d", u)
		}
		*v = u == 1
	}
}

// Blob codes a byte string of at most limit bytes, with a 4-byte length.
func Blob(c *Codec, v *[]byte, limit int) {
	n := uint32(len(*v))
	U32(c, &n)
	if !c.reading {
		if len(*v) > limit {
			c.Fail("byte string of %d bytes, limit %d", len(*v), limit)
		}
		c.b = append(c.b, *v...)
		return
	}
	if int64(n) > int64(limit) {
		c.Fail("byte string of %d bytes, limit %d", n, limit)
		return
	}
	if b := c.take(int(n)); b != nil {
		if n == 0 {
			*v = nil
			return
		}
		*v = append([]byte(nil), b...)
	}
}

// Text codes a string of at most limit bytes, with a 4-byte length.
func Text(c *Codec, v *string, limit int) {
	n := uint32(len(*v))
	U32(c, &n)
	if !c.reading {
		if len(*v) > limit {
			c.Fail("string of %d bytes, limit %d", len(*v), limit)
		}
		c.b = append(c.b, *v...)
		return
	}
	if int64(n) > int64(limit) {
		c.Fail("string of %d bytes, limit %d", n, limit)
		return
	}
	if b := c.take(int(n)); b != nil {
		*v = string(b)
	}
}

// Fixed codes a byte array of fixed size.
func Fixed(c *Codec, v []byte) {
	if !c.reading {
		c.b = append(c.b, v...)
	} else if b := c.take(len(v)); b != nil {
		copy(v, b)
	}
}

// List codes a list of at most limit elements, with a 4-byte count.
func List[T any](c *Codec, v *[]T, limit int, elem func(c *Codec, e *T)) {
	n := uint32(len(*v))
	U32(c, &n)
	if int64(n) > int64(limit) {
		c.Fail("list of %d elements, limit %d", n, limit)
		return
	}
	if !c.reading {
		for i := range *v {
			elem(c, &(*v)[i])
		}
		return
	}
	if int(n) > len(c.b) {
		c.Fail("list of %d elements in %d bytes", n, len(c.b))
		return
	}
	if n == 0 {
		*v = nil
		return
	}
	out := make([]T, 0, min(int(n), 1024))
	for i := uint32(0); i < n && c.err == nil; i++ {
		var zero T
		out = append(out, zero)
		elem(c, &out[i]) // in place: an element of its own would be allocated
	}
	if c.err == nil {
		*v = out
	}
}

// U32s codes a list of 32-bit integers.
func U32s[T ~uint32](c *Codec, v *[]T, limit int) { List(c, v, limit, U32[T]) }

// U64s codes a list of 64-bit integers.
func U64s[T ~uint64](c *Codec, v *[]T, limit int) { List(c, v, limit, U64[T]) }
