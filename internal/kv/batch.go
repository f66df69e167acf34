package kv

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlarfs/ashlar"
)

// Op is one change: Key is set to Value or, with Delete, removed.
type Op struct {
	Key, Value []byte
	Delete     bool
}

// Limits of a key, a value and a batch, in bytes.
const (
	KeyMax   = 4 << 10
	ValueMax = 16 << 20
)

// Batch collects changes that are applied together. Later changes of a key
// win. The zero Batch is empty and ready.
type Batch struct {
	ops   []Op
	bytes int
}

// Set sets key to value; both are kept, not copied.
func (b *Batch) Set(key, value []byte) {
	b.ops = append(b.ops, Op{Key: key, Value: value})
	b.bytes += len(key) + len(value)
}

// Delete removes key if it is there; key is kept, not copied.
func (b *Batch) Delete(key []byte) {
	b.ops = append(b.ops, Op{Key: key, Delete: true})
	b.bytes += len(key)
}

// Len returns the number of changes.
func (b *Batch) Len() int { return len(b.ops) }

// Bytes returns the total size of keys and values.
func (b *Batch) Bytes() int { return b.bytes }

// Ops returns the changes in order; they are the batch's own.
func (b *Batch) Ops() []Op { return b.ops }

// Reset empties the batch and keeps its room.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.bytes = b.ops[:0], 0
}

// AppendOps appends the encoding of ops to dst:
//
//	count  uvarint
//	count times:
//	  kind   u8: 0 set, 1 delete
//	  key    uvarint length, bytes
//	  value  uvarint length, bytes; only of a set
func AppendOps(dst []byte, ops []Op) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ops)))
	for _, op := range ops {
		if op.Delete {
			dst = append(dst, opDelete)
		} else {
			dst = append(dst, opSet)
		}
		dst = binary.AppendUvarint(dst, uint64(len(op.Key)))
		dst = append(dst, op.Key...)
		if !op.Delete {
			dst = binary.AppendUvarint(dst, uint64(len(op.Value)))
			dst = append(dst, op.Value...)
		}
	}
	return dst
}

// The kinds of an encoded op; part of the format.
const (
	opSet    = 0
	opDelete = 1
)

// opMin is the least an encoded op takes, in bytes.
const opMin = 2

// DecodeOps is the inverse of AppendOps; the ops point into b. The error's
// kind is Corrupt. It returns what is left of b.
func DecodeOps(b []byte) (ops []Op, rest []byte, err error) {
	bad := func(what string) ([]Op, []byte, error) {
		return nil, nil, ashlar.E("decode", ashlar.Corrupt, "batch", fmt.Errorf("%s", what))
	}
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k)/opMin {
		return bad("count beyond the input")
	}
	b = b[k:]
	str := func(limit uint64) ([]byte, bool) {
		l, k := binary.Uvarint(b)
		if k <= 0 || l > uint64(len(b)-k) || l > limit {
			return nil, false
		}
		s := b[k : k+int(l) : k+int(l)]
		b = b[k+int(l):]
		return s, true
	}
	ops = make([]Op, 0, n)
	for range n {
		if len(b) == 0 || b[0] > opDelete {
			return bad("unknown kind of change")
		}
		op := Op{Delete: b[0] == opDelete}
		b = b[1:]
		var ok bool
		if op.Key, ok = str(KeyMax); !ok {
			return bad("key beyond the input or too long")
		}
		if !op.Delete {
			if op.Value, ok = str(ValueMax); !ok {
				return bad("value beyond the input or too long")
			}
		}
		ops = append(ops, op)
	}
	return ops, b, nil
}
