package master

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
)

// A log entry of the masters is one batch of key writes and what it was
// evaluated for (docs/format/changelog.md):
//
//	0       1         2            4          12       20
//	+-------+---------+------------+----------+--------+---------+------+-----+
//	| magic | version | partition  | time     | term   | index   | note | ops |
//	| 'B'   | 1       | u16        | i64      | u64    | u64     |      |     |
//	+-------+---------+------------+----------+--------+---------+------+-----+
//
// Integers are little-endian. note is a uvarint length and that many bytes of
// UTF-8, a line a change. ops is as package kv encodes batches. Time is the
// operation time, nanoseconds since 1970, which never goes back.
const (
	entryMagic   = 'B'
	entryVersion = 1
	entryHead    = 28
)

// Limits of a log entry, in bytes: what is proposed together stops growing at
// entryTarget; one operation may take it to entryMax. It fits one frame.
const (
	entryTarget = 256 << 10
	entryMax    = 900 << 10
	noteMax     = 64 << 10
)

// batch is the content of a log entry.
type batch struct {
	Term, Index uint64
	Time        int64
	Note        string
	Ops         []kv.Op
}

func appendBatch(dst []byte, b *batch) []byte {
	dst = append(dst, entryMagic, entryVersion, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(b.Time))
	dst = binary.LittleEndian.AppendUint64(dst, b.Term)
	dst = binary.LittleEndian.AppendUint64(dst, b.Index)
	dst = binary.AppendUvarint(dst, uint64(len(b.Note)))
	dst = append(dst, b.Note...)
	return kv.AppendOps(dst, b.Ops)
}

// decodeBatch reads an entry; keys and values point into data. The error is
// of kind Version for a format this binary does not know, else Corrupt.
func decodeBatch(data []byte) (*batch, error) {
	bad := func(kind ashlar.Kind, what string) (*batch, error) {
		return nil, ashlar.E("decode log entry", kind, "", fmt.Errorf("%s", what))
	}
	switch {
	case len(data) < entryHead || data[0] != entryMagic:
		return bad(ashlar.Corrupt, "not a batch")
	case data[1] != entryVersion:
		return bad(ashlar.Version, fmt.Sprintf("format version %d", data[1]))
	case data[2] != 0 || data[3] != 0:
		return bad(ashlar.Version, "of another partition")
	}
	b := &batch{
		Time:  int64(binary.LittleEndian.Uint64(data[4:])),
		Term:  binary.LittleEndian.Uint64(data[12:]),
		Index: binary.LittleEndian.Uint64(data[20:]),
	}
	rest := data[entryHead:]
	n, k := binary.Uvarint(rest)
	if k <= 0 || n > noteMax || n > uint64(len(rest)-k) {
		return bad(ashlar.Corrupt, "note beyond the entry")
	}
	b.Note, rest = string(rest[k:k+int(n)]), rest[k+int(n):]
	var err error
	if b.Ops, rest, err = kv.DecodeOps(rest); err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return bad(ashlar.Corrupt, fmt.Sprintf("%d bytes after the last change", len(rest)))
	}
	return b, nil
}
