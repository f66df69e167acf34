package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
)

// The layout of a frame; part of the format.
const (
	sector      = 512
	frameHeader = 32
	frameMagic  = 0x4c525341
)

// The kinds of record; part of the format.
const (
	recEntry   = 1
	recHard    = 2
	recMark    = 3
	recPending = 4
)

// EntryMax is the most data an entry may carry, in bytes.
const EntryMax = 8 << 20

// frameTarget is where a frame is closed and the next begun, in bytes.
const frameTarget = 1 << 20

// frameMax bounds a payload that is believed, in bytes.
const frameMax = frameTarget + EntryMax + 64

// markMax bounds the data of a mark, in bytes.
const markMax = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Hard is what a member must remember of elections, and how far it knows the
// log to be committed.
type Hard struct{ Term, Vote, Commit uint64 }

// Mark is a place in the log with the membership as of it.
type Mark struct {
	Index, Term uint64
	Data        []byte
}

func appendEntry(b []byte, e *raftpb.Entry) []byte {
	b = append(b, recEntry)
	b = binary.AppendUvarint(b, e.GetIndex())
	b = binary.AppendUvarint(b, e.GetTerm())
	b = binary.AppendUvarint(b, uint64(e.GetType()))
	b = binary.AppendUvarint(b, uint64(len(e.Data)))
	return append(b, e.Data...)
}

func appendHard(b []byte, h Hard) []byte {
	b = append(b, recHard)
	b = binary.AppendUvarint(b, h.Term)
	b = binary.AppendUvarint(b, h.Vote)
	return binary.AppendUvarint(b, h.Commit)
}

func appendMark(b []byte, kind byte, m *Mark) []byte {
	b = append(b, kind)
	b = binary.AppendUvarint(b, m.Index)
	b = binary.AppendUvarint(b, m.Term)
	b = binary.AppendUvarint(b, uint64(len(m.Data)))
	return append(b, m.Data...)
}

// sealFrame fills in the header of the frame that begins at b[start] and pads
// it to the next boundary.
func sealFrame(b []byte, start int, sequence, synced uint64) []byte {
	f := b[start:]
	binary.LittleEndian.PutUint32(f[0:], frameMagic)
	binary.LittleEndian.PutUint32(f[8:], uint32(len(f)-frameHeader))
	binary.LittleEndian.PutUint32(f[12:], 0)
	binary.LittleEndian.PutUint64(f[16:], sequence)
	binary.LittleEndian.PutUint64(f[24:], synced)
	binary.LittleEndian.PutUint32(f[4:], crc32.Checksum(f[8:], castagnoli))
	var zeros [sector]byte
	if over := len(f) % sector; over != 0 {
		b = append(b, zeros[over:]...)
	}
	return b
}

// decodeFrame returns the payload of the frame at the start of b, the frame's
// length with padding, and what it says was durable; ok is false if there is
// no whole frame of this segment.
func decodeFrame(b []byte, sequence uint64) (payload []byte, size int, synced uint64, ok bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b) != frameMagic || binary.LittleEndian.Uint64(b[16:]) != sequence {
		return nil, 0, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b[8:]))
	if n > frameMax || n > len(b)-frameHeader {
		return nil, 0, 0, false
	}
	if crc32.Checksum(b[8:frameHeader+n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, 0, false
	}
	size = (frameHeader + n + sector - 1) / sector * sector
	return b[frameHeader : frameHeader+n], size, binary.LittleEndian.Uint64(b[24:]), true
}

// visitor receives the records of a payload. Data points into it.
type visitor struct {
	entry   func(*raftpb.Entry) error
	hard    func(Hard) error
	mark    func(Mark) error
	pending func(Mark) error
}

// decodeRecords calls v for each record; the error's kind is Corrupt.
func decodeRecords(b []byte, v visitor) error {
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		var f [4]uint64
		fields := 4
		if kind == recHard || kind == recMark || kind == recPending {
			fields = 3
		}
		for i := range fields {
			n, k := binary.Uvarint(b)
			if k <= 0 {
				return corrupt("a number ends early")
			}
			f[i], b = n, b[k:]
		}
		var data []byte
		if kind != recHard {
			n := f[fields-1]
			limit := uint64(markMax)
			if kind == recEntry {
				limit = EntryMax
			}
			if n > limit || n > uint64(len(b)) {
				return corrupt("data of %d bytes", n)
			}
			data, b = b[:n:n], b[n:]
		}
		if err := v.visit(kind, f, data); err != nil {
			return err
		}
	}
	return nil
}

func (v visitor) visit(kind byte, f [4]uint64, data []byte) error {
	switch kind {
	case recEntry:
		e := &raftpb.Entry{Index: &f[0], Term: &f[1], Data: data}
		switch t := raftpb.EntryType(f[2]); {
		case f[2] > uint64(raftpb.EntryConfChangeV2):
			return corrupt("entry of type %d", f[2])
		case t != raftpb.EntryNormal:
			e.Type = t.Enum()
		}
		return v.entry(e)
	case recHard:
		return v.hard(Hard{f[0], f[1], f[2]})
	case recMark:
		return v.mark(Mark{f[0], f[1], data})
	case recPending:
		return v.pending(Mark{f[0], f[1], data})
	}
	return corrupt("record of kind %d", kind)
}

func corrupt(format string, args ...any) error {
	return ashlar.E("read log", ashlar.Corrupt, "", fmt.Errorf(format, args...))
}
