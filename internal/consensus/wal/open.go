package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// segmentMax bounds a segment that is read, in bytes.
const segmentMax = 1 << 30

// Open opens the log in a directory, made if needed, and returns what it
// holds. A torn tail is left behind silently; damage below it is an error of
// kind Corrupt.
func Open(o Options) (*Log, *State, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = SegmentDefault
	}
	if err := vfs.MakeDir(o.FS, o.Dir); err != nil {
		return nil, nil, err
	}
	sequences, unneeded, err := listSegments(o)
	if err != nil {
		return nil, nil, err
	}
	l := &Log{o: o}
	r := replay{}
	for i, sequence := range sequences {
		seg, err := l.readSegment(sequence, i == len(sequences)-1, &r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path.Join(o.Dir, segmentName(sequence)), err)
		}
		l.segments = append(l.segments, seg)
	}
	st, err := r.finish()
	if err != nil {
		return nil, nil, err
	}
	// What a killed process wrote is read here and not durable yet; from now on
	// it counts (I-1).
	if n := len(sequences); n > 0 {
		if err := syncFile(o.FS, path.Join(o.Dir, segmentName(sequences[n-1]))); err != nil {
			return nil, nil, err
		}
	}
	for _, sequence := range unneeded {
		if err := o.FS.Remove(path.Join(o.Dir, segmentName(sequence))); err != nil {
			return nil, nil, err
		}
	}
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return nil, nil, err
	}
	st.Empty = len(sequences) == 0
	l.hard, l.pending = st.Hard, st.Pending
	if r.mark != nil {
		l.mark = r.mark
	}
	l.prepareNext()
	return l, st, nil
}

// listSegments returns the sequences in ascending order and removes what a
// crash left of segments in preparation. A power loss may undo the removal of
// some of the oldest segments: what is before a gap was not needed.
func listSegments(o Options) (out, unneeded []uint64, err error) {
	out, unneeded, left, err := scanSegments(o)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range left {
		if err := o.FS.Remove(path.Join(o.Dir, name)); err != nil {
			return nil, nil, err
		}
	}
	return out, unneeded, nil
}

// scanSegments is listSegments without removing anything: left is what a crash
// left.
func scanSegments(o Options) (out, unneeded []uint64, left []string, err error) {
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, name := range names {
		var sequence uint64
		if strings.HasSuffix(name, ".tmp") {
			left = append(left, name)
			continue
		}
		if _, err := fmt.Sscanf(name, "log-%016x.wal", &sequence); err != nil || segmentName(sequence) != name {
			return nil, nil, nil, ashlar.E("open log", ashlar.Corrupt, path.Join(o.Dir, name), errors.New("not a segment"))
		}
		if n := len(out); n > 0 && out[n-1]+1 != sequence {
			out, unneeded = nil, append(unneeded, out...)
		}
		out = append(out, sequence)
	}
	return out, unneeded, left, nil
}

func (l *Log) readSegment(sequence uint64, newest bool, r *replay) (segment, error) {
	b, err := readAll(l.o.FS, path.Join(l.o.Dir, segmentName(sequence)))
	if err != nil {
		return segment{}, err
	}
	prevEnd, err := decodeSegmentHeader(b, sequence, l.o.Cluster)
	if err != nil {
		return segment{}, err
	}
	if n := len(l.segments); n > 0 && l.segments[n-1].size != int64(prevEnd) {
		// The previous one was read up to its first broken frame.
		return segment{}, corrupt("the previous segment ends at %d, not %d", l.segments[n-1].size, prevEnd)
	}
	r.last = 0
	end, err := readFrames(b, sequence, newest, r)
	if err != nil {
		return segment{}, err
	}
	return segment{sequence: sequence, last: r.last, size: int64(end)}, nil
}

func decodeSegmentHeader(b []byte, sequence uint64, cluster ashlar.ClusterID) (prevEnd uint64, err error) {
	if _, err := header.Decode(b, header.Header{Magic: magic, Version: formatVersion, Cluster: cluster}, segmentName(sequence)); err != nil {
		return 0, err
	}
	if len(b) < sector || crc32.Checksum(b[64:80], castagnoli) != binary.LittleEndian.Uint32(b[80:]) {
		return 0, corrupt("segment header is damaged")
	}
	if got := binary.LittleEndian.Uint64(b[64:]); got != sequence {
		return 0, corrupt("it says it is segment %d", got)
	}
	return binary.LittleEndian.Uint64(b[72:]), nil
}

// readFrames replays the frames of a segment and returns where they end. An
// older segment may also end in a torn frame; the caller compares the end
// with what the next one says.
func readFrames(b []byte, sequence uint64, newest bool, r *replay) (end int, err error) {
	at := sector
	for at < len(b) {
		payload, size, _, ok := decodeFrame(b[at:], sequence)
		if !ok {
			break
		}
		if err := decodeRecords(payload, r.visitor()); err != nil {
			return 0, err
		}
		at = min(at+size, len(b))
	}
	if at == sector { // it was durable before the segment got its name
		return 0, corrupt("the first frame is damaged")
	}
	if !newest {
		return at, nil
	}
	for later := at + sector; later < len(b); later += sector {
		if _, _, synced, ok := decodeFrame(b[later:], sequence); ok && synced > uint64(at) {
			return 0, corrupt("the frame at %d is damaged: it was durable when the one at %d was written", at, later)
		}
	}
	return at, nil
}

func readAll(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > segmentMax {
		return nil, corrupt("segment of %d bytes", n)
	}
	b := make([]byte, n)
	if got, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && int64(got) == n) {
		return nil, err
	}
	return b, nil
}

// replay builds State from records.
type replay struct {
	hard    Hard
	mark    *Mark
	pending *Mark
	entries []*raftpb.Entry
	last    uint64 // highest index in this segment
}

func (r *replay) visitor() visitor {
	return visitor{
		entry:   r.entry,
		hard:    func(h Hard) error { r.hard = h; return nil },
		mark:    r.setMark,
		pending: func(m Mark) error { m.Data = append([]byte(nil), m.Data...); r.pending = &m; return nil },
	}
}

func (r *replay) entry(e *raftpb.Entry) error {
	i := e.GetIndex()
	if i == 0 || e.GetTerm() == 0 {
		return corrupt("entry with index %d, term %d", i, e.GetTerm())
	}
	r.last = max(r.last, i)
	e.Data = append([]byte(nil), e.Data...) // not the whole segment
	if n := len(r.entries); n > 0 {
		first := r.entries[0].GetIndex()
		switch {
		case i > r.entries[n-1].GetIndex()+1, i < first:
			r.entries = r.entries[:0] // finish checks that a mark covers the gap
		default:
			r.entries = r.entries[:i-first]
		}
	}
	r.entries = append(r.entries, e)
	return nil
}

func (r *replay) setMark(m Mark) error {
	m.Data = append([]byte(nil), m.Data...)
	r.mark, r.pending = &m, nil
	if n := len(r.entries); n > 0 {
		first, last := r.entries[0].GetIndex(), r.entries[n-1].GetIndex()
		if m.Index > last || m.Index >= first && r.entries[m.Index-first].GetTerm() != m.Term {
			r.entries = nil // a checkpoint replaced the log
		}
	}
	return nil
}

func (r *replay) finish() (*State, error) {
	st := &State{Hard: r.hard, Pending: r.pending}
	if r.mark != nil {
		st.Mark = *r.mark
	}
	for len(r.entries) > 0 && r.entries[0].GetIndex() <= st.Mark.Index {
		r.entries = r.entries[1:]
	}
	if len(r.entries) > 0 && r.entries[0].GetIndex() != st.Mark.Index+1 {
		return nil, corrupt("the log begins at %d, but the mark is at %d", r.entries[0].GetIndex(), st.Mark.Index)
	}
	st.Entries = append([]*raftpb.Entry(nil), r.entries...)
	return st, nil
}

func syncFile(fsys vfs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
