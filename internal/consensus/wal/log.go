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

// Options say where a log is and how it is kept.
type Options struct {
	Dir     string
	FS      vfs.FS
	Cluster ashlar.ClusterID
	// SegmentBytes is the size of a segment; 0 means SegmentDefault.
	SegmentBytes int64
}

// SegmentDefault is the size of a segment, in bytes.
const SegmentDefault = 16 << 20

// spareMax is how many removed segments are kept to be written again.
const spareMax = 1

// formatVersion is the version of the segments.
const formatVersion = 1

var magic = header.Magic{'A', 'S', 'H', 'L', 'R', 'L', 'O', 'G'}

// State is what a log held when it was opened.
type State struct {
	Hard    Hard
	Mark    Mark            // the log begins above it
	Pending *Mark           // a checkpoint whose installation was not finished
	Entries []*raftpb.Entry // Mark.Index+1 and on
	Empty   bool            // nothing was ever written
}

// Batch is what one Append makes durable. Zero fields are left out.
type Batch struct {
	Hard    *Hard
	Pending *Mark
	Mark    *Mark
	Entries []*raftpb.Entry
}

// Log is an open log. Its methods are called by one goroutine.
type Log struct {
	o        Options
	segments []segment // the oldest first; the last is written if file is set
	file     vfs.File  // nil until the first Append
	end      int64     // of what was written to the last segment
	hard     Hard
	mark     *Mark
	pending  *Mark
	buf      []byte
	spares   []string // base names of removed segments to write again
	next     chan prepared
	err      error // the first failure: nothing is written after it
}

type segment struct {
	sequence uint64
	last     uint64 // highest index of an entry in it
	size     int64
}

type prepared struct {
	file vfs.File
	name string
	err  error
}

func segmentName(sequence uint64) string { return fmt.Sprintf("log-%016x.wal", sequence) }

// Append makes b durable, after everything appended before. An error is
// final: the log must be considered lost.
func (l *Log) Append(b Batch) error {
	if l.err == nil {
		if l.err = l.append(b); l.err != nil {
			l.err = ashlar.E("append to log", ashlar.IO, l.o.Dir, l.err)
		}
	}
	return l.err
}

func (l *Log) append(b Batch) error {
	if l.file == nil {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	w := frameWriter{l: l}
	w.begin()
	for _, e := range b.Entries {
		if len(e.Data) > EntryMax {
			return ashlar.E("append to log", ashlar.TooBig, "", fmt.Errorf("entry of %d bytes", len(e.Data)))
		}
		w.buf = appendEntry(w.buf, e)
		w.last = max(w.last, e.GetIndex())
		if len(w.buf)-w.start >= frameTarget {
			if err := w.end(); err != nil {
				return err
			}
			w.begin()
		}
	}
	// The hard state comes after the entries, also in what a new segment
	// repeats: its commit index may be that of entries in this batch, and must
	// not be durable while others stand in their place.
	w.appendState(&b)
	if err := w.end(); err != nil {
		return err
	}
	l.keep(&b)
	return w.flush()
}

func (w *frameWriter) appendState(b *Batch) {
	if b.Pending != nil {
		w.buf = appendMark(w.buf, recPending, b.Pending)
	}
	if b.Mark != nil {
		w.buf = appendMark(w.buf, recMark, b.Mark)
	}
	if b.Hard != nil {
		w.buf = appendHard(w.buf, *b.Hard)
	}
}

// keep remembers what new segments repeat.
func (l *Log) keep(b *Batch) {
	if b.Pending != nil {
		l.pending = b.Pending
	}
	if b.Mark != nil {
		l.mark, l.pending = b.Mark, nil
	}
	if b.Hard != nil {
		l.hard = *b.Hard
	}
}

// frameWriter gathers the frames of one Append, so that they usually take one
// write and one sync.
type frameWriter struct {
	l     *Log
	buf   []byte
	start int    // of the frame being filled
	last  uint64 // highest index in it
	dirty uint64 // highest index in what is in buf
}

func (w *frameWriter) begin() {
	if w.buf == nil {
		w.buf = w.l.buf[:0]
	}
	w.start = len(w.buf)
	w.buf = append(w.buf, make([]byte, frameHeader)...)
}

// end closes the frame, in the next segment if it does not fit here.
func (w *frameWriter) end() error {
	l := w.l
	if len(w.buf)-w.start == frameHeader {
		w.buf = w.buf[:w.start] // nothing in it
		return nil
	}
	if l.end > sector && l.end+int64(len(w.buf))+sector > l.o.SegmentBytes {
		frame := append([]byte(nil), w.buf[w.start:]...)
		w.buf = w.buf[:w.start]
		if err := w.flush(); err != nil {
			return err
		}
		if err := l.rotate(); err != nil {
			return err
		}
		w.buf, w.start = append(w.buf[:0], frame...), 0
	}
	seg := &l.segments[len(l.segments)-1]
	w.buf = sealFrame(w.buf, w.start, seg.sequence, uint64(l.end))
	seg.last = max(seg.last, w.last)
	w.last = 0
	return nil
}

func (w *frameWriter) flush() error {
	l := w.l
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := l.file.WriteAt(w.buf, l.end); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.end += int64(len(w.buf))
	l.segments[len(l.segments)-1].size = l.end
	if cap(w.buf) <= 4*frameTarget {
		l.buf = w.buf
	}
	w.buf = w.buf[:0]
	return nil
}

// rotate goes on in a new segment. Everything written so far is durable.
func (l *Log) rotate() error {
	p := <-l.next
	if p.err != nil {
		l.next <- p // for Close
		return p.err
	}
	sequence, prevEnd := uint64(1), uint64(0)
	if n := len(l.segments); n > 0 {
		sequence, prevEnd = l.segments[n-1].sequence+1, uint64(l.segments[n-1].size)
	}
	b := make([]byte, sector, 2*sector)
	copy(b, header.Header{Magic: magic, Version: formatVersion, Cluster: l.o.Cluster}.Encode())
	binary.LittleEndian.PutUint64(b[64:], sequence)
	binary.LittleEndian.PutUint64(b[72:], prevEnd)
	binary.LittleEndian.PutUint32(b[80:], crc32.Checksum(b[64:80], castagnoli))
	b = append(b, make([]byte, frameHeader)...)
	b = appendHard(b, l.hard)
	if l.mark != nil {
		b = appendMark(b, recMark, l.mark)
	}
	if l.pending != nil {
		b = appendMark(b, recPending, l.pending)
	}
	b = sealFrame(b, sector, sequence, sector)
	err := func() error {
		if _, err := p.file.WriteAt(b, 0); err != nil {
			return err
		}
		if err := p.file.Sync(); err != nil {
			return err
		}
		if err := l.o.FS.Rename(path.Join(l.o.Dir, p.name), path.Join(l.o.Dir, segmentName(sequence))); err != nil {
			return err
		}
		return l.o.FS.SyncDir(l.o.Dir)
	}()
	if err != nil {
		l.next <- p // for Close
		return err
	}
	old := l.file
	l.file, l.end = p.file, int64(len(b))
	l.segments = append(l.segments, segment{sequence: sequence, size: l.end})
	l.prepareNext()
	if old != nil {
		return old.Close()
	}
	return nil
}

// prepareNext makes the next segment ready in the background: a spare one if
// there is one, else a new file full of zeros, so that a sync in it changes
// no metadata.
func (l *Log) prepareNext() {
	spare := ""
	if n := len(l.spares); n > 0 {
		spare, l.spares = l.spares[n-1], l.spares[:n-1]
	}
	next := make(chan prepared, 1)
	l.next = next
	go func() { next <- prepare(l.o, spare) }()
}

// nextName is the file being prepared; part of the format only in that Open
// removes it.
const nextName = "next.tmp"

func prepare(o Options, spare string) prepared {
	name := path.Join(o.Dir, nextName)
	if spare != "" {
		f, err := o.FS.Open(path.Join(o.Dir, spare))
		if err == nil {
			return prepared{file: f, name: spare}
		}
	}
	f, err := o.FS.Create(name)
	if err != nil {
		return prepared{err: err}
	}
	if err := f.Preallocate(o.SegmentBytes); err != nil {
		return prepared{err: errors.Join(err, f.Close())}
	}
	if err := f.Sync(); err != nil {
		return prepared{err: errors.Join(err, f.Close())}
	}
	return prepared{file: f, name: nextName}
}

// Truncate removes segments that hold nothing above the last mark appended.
func (l *Log) Truncate() error {
	if l.mark == nil || l.err != nil {
		return l.err
	}
	removed := false
	for ; len(l.segments) > 1 && l.segments[0].last <= l.mark.Index; removed = true {
		name := segmentName(l.segments[0].sequence)
		if len(l.spares) < spareMax && l.segments[0].size <= l.o.SegmentBytes {
			spare := fmt.Sprintf("spare-%016x.tmp", l.segments[0].sequence)
			if err := l.o.FS.Rename(path.Join(l.o.Dir, name), path.Join(l.o.Dir, spare)); err != nil {
				return err
			}
			l.spares = append(l.spares, spare)
		} else if err := l.o.FS.Remove(path.Join(l.o.Dir, name)); err != nil {
			return err
		}
		l.segments = l.segments[1:]
	}
	if !removed {
		return nil
	}
	// A spare is written only after its old name is surely gone.
	return l.o.FS.SyncDir(l.o.Dir)
}

// Begins returns the index of the last mark: the log holds what is above.
func (l *Log) Begins() uint64 {
	if l.mark == nil {
		return 0
	}
	return l.mark.Index
}

// Bytes returns the size of what is in the log's segments.
func (l *Log) Bytes() int64 {
	n := int64(0)
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// Close closes the log. It makes nothing durable that was not.
func (l *Log) Close() error {
	p := <-l.next
	l.next <- prepared{err: errors.New("log is closed")}
	err := p.err
	if p.file != nil {
		err = p.file.Close()
	}
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	if l.err == nil {
		l.err = errors.New("log is closed")
	}
	return err
}
