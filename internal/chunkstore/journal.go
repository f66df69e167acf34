package chunkstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// A journal file, version 1 (docs/format/disk.md). Integers are
// little-endian.
//
//	  0  file header  64 bytes, vfs/header
//	 64  nonce        u32, random
//	 68  born         u32, how many frames the file was made with
//	 72  crc          u32, CRC-32C of bytes 64-71
//	512  frames       each: length u32, crc u32, nonce u32, number u32,
//	                  records, zeros up to a multiple of 8
//	     zeros
//
// A record is a length u32 and a body. The crc of a frame covers length,
// nonce, number and records. Frames are numbered from 1, and one is begun only
// after the one before is durable: a bad frame was never acknowledged, unless
// a good one with a higher number follows it, or the file was made with it;
// then the file is damaged.
const (
	journalVersion = 1
	journalStart   = 512
	frameHead      = 16
	// journalPrealloc is how much of a journal is zeroed ahead, so that
	// appending changes no metadata.
	journalPrealloc = 256 << 10
	// journalMax is the largest journal that is read, in bytes.
	journalMax = 1 << 30
	// frameMax is the largest frame, frameTarget where rewriting begins the
	// next one, bodyMax the largest body.
	frameMax    = 64 << 20
	frameTarget = 1 << 20
	bodyMax     = 64 << 10
)

// journal is an append-only log of small records with group commit. It is
// rewritten as a whole to forget what no longer matters. Its owner keeps the
// state that the records add up to.
type journal struct {
	fs      vfs.FS
	path    string
	head    header.Header
	fail    func(error) error
	mu      sync.Mutex
	idle    *sync.Cond // signalled when flushing ends
	f       vfs.File
	off     int64
	nonce   uint32
	pending [][]byte
	number  uint32 // of the last frame begun
	durable uint64 // ticket up to which all is durable
	ticket  uint64 // of what is pending
	busy    bool   // a flush is running
	err     error
}

func newJournal(fsys vfs.FS, name string, head header.Header, fail func(error) error) *journal {
	j := &journal{fs: fsys, path: name, head: head, fail: fail, ticket: 1}
	j.idle = sync.NewCond(&j.mu)
	return j
}

// read returns the bodies in the file; damaged tells that acknowledged ones
// are missing. A file that does not exist is fs.ErrNotExist.
func (j *journal) read() (bodies [][]byte, damaged bool, err error) {
	f, err := j.fs.Open(j.path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, false, err
	}
	if size > journalMax {
		return nil, false, ashlar.E("read", ashlar.Corrupt, j.path, fmt.Errorf("%d bytes, limit %d", size, journalMax))
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, false, err
	}
	return decodeJournal(b, j.head, j.path)
}

func decodeJournal(b []byte, want header.Header, name string) (bodies [][]byte, damaged bool, err error) {
	if _, err := header.Decode(b, want, name); err != nil {
		return nil, false, err
	}
	if len(b) < journalStart || checksum.Of(b[64:72]) != binary.LittleEndian.Uint32(b[72:]) {
		return nil, false, ashlar.E("read", ashlar.Corrupt, name, errors.New("no nonce"))
	}
	nonce, born := binary.LittleEndian.Uint32(b[64:]), binary.LittleEndian.Uint32(b[68:])
	last, at := uint32(0), journalStart
	for {
		records, number, n := decodeFrame(b[at:], nonce)
		if n == 0 || number != last+1 {
			break
		}
		if bodies, err = splitRecords(bodies, records); err != nil {
			return nil, false, ashlar.E("read", ashlar.Corrupt, name, err)
		}
		last, at = number, at+n
	}
	if last < born {
		return bodies, true, nil
	}
	for ; at+frameHead <= len(b); at += 8 {
		if _, number, n := decodeFrame(b[at:], nonce); n > 0 && number > last {
			return bodies, true, nil
		}
	}
	return bodies, false, nil
}

// decodeFrame returns the frame that b begins with and its length, 0 if there
// is none.
func decodeFrame(b []byte, nonce uint32) (records []byte, number uint32, n int) {
	le := binary.LittleEndian
	if len(b) < frameHead || le.Uint32(b[8:]) != nonce {
		return nil, 0, 0
	}
	size := le.Uint32(b)
	if size == 0 || size > frameMax || frameHead+int(size) > len(b) {
		return nil, 0, 0
	}
	end := frameHead + int(size)
	if checksum.Update(checksum.Of(b[:4]), b[8:end]) != le.Uint32(b[4:]) {
		return nil, 0, 0
	}
	return b[frameHead:end], le.Uint32(b[12:]), min((end+7)&^7, len(b))
}

func splitRecords(bodies [][]byte, b []byte) ([][]byte, error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return bodies, errors.New("record cut short")
		}
		n := binary.LittleEndian.Uint32(b)
		if n > bodyMax || int(n) > len(b)-4 {
			return bodies, fmt.Errorf("record of %d bytes in %d", n, len(b)-4)
		}
		bodies, b = append(bodies, b[4:4+n]), b[4+n:]
	}
	return bodies, nil
}

// appendFrame appends one frame of as many bodies as fit a frame of limit
// bytes, at least one, and returns the others.
func appendFrame(b []byte, bodies [][]byte, nonce, number uint32, limit int) ([]byte, [][]byte) {
	le := binary.LittleEndian
	at := len(b)
	b = append(b, make([]byte, frameHead)...)
	for first := true; len(bodies) > 0 && (first || len(b)-at+len(bodies[0]) < limit); first = false {
		b = le.AppendUint32(b, uint32(len(bodies[0])))
		b = append(b, bodies[0]...)
		bodies = bodies[1:]
	}
	le.PutUint32(b[at:], uint32(len(b)-at-frameHead))
	le.PutUint32(b[at+8:], nonce)
	le.PutUint32(b[at+12:], number)
	le.PutUint32(b[at+4:], checksum.Update(checksum.Of(b[at:at+4]), b[at+8:]))
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b, bodies
}

// add queues a body and returns the ticket to wait for.
func (j *journal) add(body []byte) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = append(j.pending, body)
	return j.ticket
}

// waitAll returns when everything added so far is durable.
func (j *journal) waitAll() error {
	j.mu.Lock()
	ticket := j.ticket
	if len(j.pending) == 0 {
		ticket--
	}
	j.mu.Unlock()
	return j.wait(ticket)
}

// wait returns when everything up to the ticket is durable. Whoever finds
// nobody writing writes for all.
func (j *journal) wait(ticket uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.durable < ticket && j.err == nil {
		if j.busy {
			j.idle.Wait()
			continue
		}
		j.flush()
	}
	return j.err
}

// flush writes what is pending. j.mu must be held and is given up meanwhile.
func (j *journal) flush() {
	ticket := j.ticket
	j.number++
	b, rest := appendFrame(nil, j.pending, j.nonce, j.number, frameMax)
	j.pending, j.busy = rest, true
	if len(rest) == 0 {
		j.ticket++
	} else {
		ticket-- // some of it waits for the next frame
	}
	f, off := j.f, j.off
	j.mu.Unlock()
	_, err := f.WriteAt(b, off)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = j.fail(err)
	}
	j.mu.Lock()
	j.off += int64(len(b))
	j.busy, j.err = false, err
	if err == nil {
		j.durable = ticket
	}
	j.idle.Broadcast()
}

// size returns how long the log is.
func (j *journal) size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.off
}

// rewrite replaces the log by one of the given bodies, which stand for all
// that was added before; the caller keeps others from adding meanwhile. If
// there is no room (NoSpace) the log stays as it was.
func (j *journal) rewrite(bodies [][]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.busy {
		j.idle.Wait()
	}
	if j.err != nil {
		return j.err
	}
	var nonce [4]byte
	_, _ = rand.Read(nonce[:])
	b := make([]byte, journalStart, journalStart+64*len(bodies))
	copy(b, j.head.Encode())
	number := uint32(0)
	for len(bodies) > 0 {
		number++
		b, bodies = appendFrame(b, bodies, binary.LittleEndian.Uint32(nonce[:]), number, frameTarget)
	}
	sealJournal(b, binary.LittleEndian.Uint32(nonce[:]), number)
	f, err := vfs.Replace(j.fs, j.path, b, journalPrealloc)
	if err != nil && isNoSpace(err) && j.f != nil {
		return ashlar.E("rewrite log", ashlar.NoSpace, j.path, err)
	}
	if err != nil {
		j.err = j.fail(err)
		return j.err
	}
	j.nonce = binary.LittleEndian.Uint32(nonce[:])
	if j.f != nil {
		j.f.Close() // replaced and unlinked: nothing in it matters
	}
	j.f, j.off, j.number = f, int64(len(b)), number
	j.pending, j.durable, j.ticket = nil, j.ticket, j.ticket+1
	j.idle.Broadcast()
	return nil
}

// sealJournal fills in what stands between the header and the frames.
func sealJournal(b []byte, nonce, born uint32) {
	binary.LittleEndian.PutUint32(b[64:], nonce)
	binary.LittleEndian.PutUint32(b[68:], born)
	binary.LittleEndian.PutUint32(b[72:], checksum.Of(b[64:72]))
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.busy {
		j.idle.Wait()
	}
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	if j.err == nil {
		j.err = fs.ErrClosed
	}
	return err
}
