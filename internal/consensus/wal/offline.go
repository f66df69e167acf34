package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// Magic is that of a segment.
var Magic = magic

// SegmentMax is the largest segment that is read, in bytes.
const SegmentMax = segmentMax

// Segment is what one segment holds.
type Segment struct {
	Cluster  ashlar.ClusterID
	Sequence uint64
	PrevEnd  uint64
	// End is where its last whole frame ends. Torn tells that something follows
	// there that is no whole frame: in the newest segment that is a write cut
	// short.
	End     int
	Torn    bool
	Frames  int
	Records []Record
}

// Record is a record of the log; one of its fields is set.
type Record struct {
	Entry         *Entry
	Hard          *Hard
	Mark, Pending *Mark
}

// Entry is an entry of the log as it is kept.
type Entry struct {
	Index, Term uint64
	Normal      bool // not a change of members
	Data        []byte
}

// ReadSegment reads a segment that nobody writes, for internal/inspect. newest
// says that no other follows it: then damage below what was durable is an
// error. Errors are of kind Corrupt or Version. What it returns points into b.
func ReadSegment(b []byte, name string, newest bool) (*Segment, error) {
	h, err := header.Decode(b, header.Header{Magic: magic, Version: formatVersion}, name)
	if err != nil {
		return nil, err
	}
	if len(b) < sector || crc32.Checksum(b[64:80], castagnoli) != binary.LittleEndian.Uint32(b[80:]) {
		return nil, ashlar.E("read", ashlar.Corrupt, name, errors.New("segment header is damaged"))
	}
	s := &Segment{Cluster: h.Cluster, Sequence: binary.LittleEndian.Uint64(b[64:]), PrevEnd: binary.LittleEndian.Uint64(b[72:]), End: sector}
	for s.End < len(b) {
		payload, size, _, ok := decodeFrame(b[s.End:], s.Sequence)
		if !ok {
			break
		}
		if err := decodeRecords(payload, s.visitor()); err != nil {
			return s, fmt.Errorf("%s: frame at %d: %w", name, s.End, err)
		}
		s.Frames++
		s.End = min(s.End+size, len(b))
	}
	if s.End+4 <= len(b) {
		s.Torn = binary.LittleEndian.Uint32(b[s.End:]) == frameMagic && len(b) >= s.End+frameHeader &&
			binary.LittleEndian.Uint64(b[s.End+16:]) == s.Sequence
	}
	if newest {
		if _, err := readFrames(b, s.Sequence, true, &replay{}); err != nil {
			return s, fmt.Errorf("%s: %w", name, err)
		}
	}
	return s, nil
}

func (s *Segment) visitor() visitor {
	return visitor{
		entry: func(e *raftpb.Entry) error {
			kept := &Entry{e.GetIndex(), e.GetTerm(), e.GetType() == raftpb.EntryNormal, e.Data}
			s.Records = append(s.Records, Record{Entry: kept})
			return nil
		},
		hard:    func(h Hard) error { s.Records = append(s.Records, Record{Hard: &h}); return nil },
		mark:    func(m Mark) error { s.Records = append(s.Records, Record{Mark: &m}); return nil },
		pending: func(m Mark) error { s.Records = append(s.Records, Record{Pending: &m}); return nil },
	}
}

// Read returns what a log that nobody runs holds, as Open would, and changes
// nothing.
func Read(fsys vfs.FS, dir string) (*State, error) {
	o := Options{FS: fsys, Dir: dir}
	sequences, _, _, err := scanSegments(o)
	if err != nil {
		return nil, err
	}
	l, r := &Log{o: o}, replay{}
	for i, sequence := range sequences {
		seg, err := l.readSegment(sequence, i == len(sequences)-1, &r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(dir, segmentName(sequence)), err)
		}
		l.segments = append(l.segments, seg)
	}
	st, err := r.finish()
	if err == nil {
		st.Empty = len(sequences) == 0
	}
	return st, err
}
