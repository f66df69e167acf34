package chunkstore

import (
	"encoding/binary"
	"fmt"
	"math"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The table of writes in flight, file "inflight", mapped into memory, version
// 1 (docs/format/disk.md). Stores into it survive kill -9 and cost no system
// call; of a power loss it survives by chance, and is then only believed to
// name ranges to be compared again.
//
//	     0  file header  64 bytes, vfs/header, magic "ASHLFLIG"
//	  4096  slots        8192 of 128 bytes
//	        horizons     4096 of 32 bytes
//
//	slot:     0 state u32: 0 free, 1 begun, 2 applied, 3 done
//	          4 crc u32, CRC-32C of bytes 8-79
//	          8 group u32, 12 chunk u32, 16 epoch u64, 24 op u64,
//	         32 session u64, 40 seq u64, 48 layer u64, 56 generation u64,
//	         64 off u32, 68 len u32, 72 age u64 (order of becoming known)
//	horizon:  0 session u64, 8 seq u64, 16 crc u32 of bytes 0-15, zeros
//
// A slot's state is stored last when it is taken and first when it is given
// back, so that a slot in use is whole.
const (
	inflightVersion = 1
	inflightName    = "inflight"
	slotsOff        = 4096
	slotSize        = 128
	slotCount       = wire.InflightMax
	horizonsOff     = slotsOff + slotSize*slotCount
	horizonSize     = 32
	// HorizonsMax is how many sessions' horizons are kept; beyond it the
	// lowest session numbers share one.
	HorizonsMax  = 4096
	inflightSize = horizonsOff + horizonSize*HorizonsMax

	slotFree    = 0
	slotBegun   = 1
	slotApplied = 2
	slotDone    = 3
)

var inflightMagic = header.Magic([]byte("ASHLFLIG"))

// InflightEntry is a write in the table.
type InflightEntry struct {
	Slot  int
	Group ashlar.PGID
	Epoch ashlar.Epoch
	Op    uint64
	wire.Inflight
}

// Inflight is the table of writes in flight and kept results of one disk
// (I-4, I-7). A write is in it from before it is applied until it is known to
// be on every member, and then, Done, until its session needs it no more or
// the room is needed: then its session's horizon says what was forgotten.
type Inflight struct {
	mu       sync.Mutex
	region   vfs.Region
	b        []byte
	free     []int
	done     []doneSlot // oldest first; entries whose age changed are stale
	age      uint64
	horizons map[ashlar.SessionID]int // place in the region
	hfree    []int
	// floor is the highest session whose own horizon was dropped.
	floor  ashlar.SessionID
	closed bool
}

type doneSlot struct {
	slot int
	age  uint64
}

func openInflight(d *Disk) (*Inflight, error) {
	r, err := d.fs.Region(path.Join(d.dir, inflightName), inflightSize)
	if err != nil {
		return nil, err
	}
	t := &Inflight{region: r, b: r.Bytes(), horizons: map[ashlar.SessionID]int{}}
	want := header.Header{Magic: inflightMagic, Version: inflightVersion, Cluster: d.id.cluster}
	_, err = header.Decode(t.b, want, inflightName)
	if ashlar.KindOf(err) == ashlar.Version || ashlar.KindOf(err) == ashlar.WrongCluster {
		r.Close()
		return nil, err
	}
	// A process that was killed while it made the table left zeros: nothing was
	// ever noted in it.
	if err != nil && d.id.owner > 1 && !d.bootChanged && !isZero(t.b) {
		r.Close()
		return nil, err // it was written by the same kernel: real damage
	}
	if err != nil {
		clear(t.b)
		copy(t.b, want.Encode())
	}
	t.load(d.bootChanged)
	return t, nil
}

// load reads the table as it was left. After a power loss what it says of
// results is not believed, as their data may be gone: they become horizons,
// as far as the table itself was written back. Whoever serves a group on this
// disk's word alone then can not judge any retry that was sent before.
func (t *Inflight) load(bootChanged bool) {
	for i := range HorizonsMax {
		if s, _, ok := decodeHorizon(t.horizon(i)); ok {
			if s == 0 {
				t.floor = ashlar.SessionID(binary.LittleEndian.Uint64(t.horizon(i)[8:]))
			}
			t.horizons[s] = i
		} else {
			if !isZero(t.horizon(i)) {
				clear(t.horizon(i))
			}
			t.hfree = append(t.hfree, i)
		}
	}
	var done []doneSlot
	for i := range slotCount {
		e, age, state, ok := decodeSlot(t.slot(i))
		if !ok {
			if atomic.LoadUint32(t.state(i)) != slotFree {
				t.store(i, slotFree)
			}
			t.free = append(t.free, i)
			continue
		}
		t.age = max(t.age, age)
		switch {
		case state == slotDone && bootChanged:
			t.raise(e.Session, e.Seq)
			t.store(i, slotFree)
			t.free = append(t.free, i)
		case state == slotDone:
			done = append(done, doneSlot{i, age})
		}
	}
	slices.SortFunc(done, func(a, b doneSlot) int { return int(int64(a.age - b.age)) })
	t.done = done
	slices.Reverse(t.free) // low slots first
}

func (t *Inflight) slot(i int) []byte    { return t.b[slotsOff+i*slotSize:][:slotSize] }
func (t *Inflight) horizon(i int) []byte { return t.b[horizonsOff+i*horizonSize:][:horizonSize] }

// state is the word that a slot's meaning hangs on. Regions are page aligned
// and slots 128 bytes, so that it is aligned.
func (t *Inflight) state(i int) *uint32 { return (*uint32)(unsafe.Pointer(&t.slot(i)[0])) }

func (t *Inflight) store(i int, state uint32) { atomic.StoreUint32(t.state(i), state) }

// encodeSlot fills all of a slot but its state.
func encodeSlot(b []byte, e *InflightEntry, age uint64) {
	le := binary.LittleEndian
	le.PutUint32(b[8:], uint32(e.Group))
	le.PutUint32(b[12:], e.Chunk)
	le.PutUint64(b[16:], uint64(e.Epoch))
	le.PutUint64(b[24:], e.Op)
	le.PutUint64(b[32:], uint64(e.Session))
	le.PutUint64(b[40:], e.Seq)
	le.PutUint64(b[48:], uint64(e.Layer))
	le.PutUint64(b[56:], uint64(e.Gen))
	le.PutUint32(b[64:], e.Off)
	le.PutUint32(b[68:], e.Len)
	le.PutUint64(b[72:], age)
	le.PutUint32(b[4:], checksum.Of(b[8:80]))
}

func decodeSlot(b []byte) (e InflightEntry, age uint64, state uint32, ok bool) {
	le := binary.LittleEndian
	state = le.Uint32(b)
	if state == slotFree || state > slotDone || checksum.Of(b[8:80]) != le.Uint32(b[4:]) {
		return e, 0, slotFree, false
	}
	e.Group = ashlar.PGID(le.Uint32(b[8:]))
	e.Chunk = le.Uint32(b[12:])
	e.Epoch = ashlar.Epoch(le.Uint64(b[16:]))
	e.Op = le.Uint64(b[24:])
	e.Session = ashlar.SessionID(le.Uint64(b[32:]))
	e.Seq = le.Uint64(b[40:])
	e.Layer = ashlar.LayerID(le.Uint64(b[48:]))
	e.Gen = ashlar.Generation(le.Uint64(b[56:]))
	e.Off = le.Uint32(b[64:])
	e.Len = le.Uint32(b[68:])
	e.Applied = state >= slotApplied
	e.Done = state == slotDone
	return e, le.Uint64(b[72:]), state, true
}

func encodeHorizon(b []byte, s ashlar.SessionID, seq uint64) {
	binary.LittleEndian.PutUint64(b, uint64(s))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint32(b[16:], checksum.Of(b[:16])+1) // not 0 for zeros
}

func decodeHorizon(b []byte) (s ashlar.SessionID, seq uint64, ok bool) {
	s = ashlar.SessionID(binary.LittleEndian.Uint64(b))
	seq = binary.LittleEndian.Uint64(b[8:])
	if s == 0 && seq == 0 {
		return 0, 0, false
	}
	return s, seq, binary.LittleEndian.Uint32(b[16:]) == checksum.Of(b[:16])+1
}

// Begin notes a write before it is applied. When the table is full the oldest
// kept result makes room; if there is none the error is Overloaded.
func (t *Inflight) Begin(g ashlar.PGID, epoch ashlar.Epoch, op uint64, rec *wire.Inflight) (slot int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, ashlar.E("note write", ashlar.IO, "", fmt.Errorf("disk is closed"))
	}
	if len(t.free) == 0 && !t.evict() {
		return 0, ashlar.E("note write", ashlar.Overloaded, fmt.Sprintf("pg %d", g), fmt.Errorf("%d writes in flight", slotCount))
	}
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.age++
	encodeSlot(t.slot(i), &InflightEntry{Group: g, Epoch: epoch, Op: op, Inflight: *rec}, t.age)
	t.store(i, slotBegun)
	return i, nil
}

// Applied notes that a write was applied here.
func (t *Inflight) Applied(slot int) { t.advance(slot, slotApplied) }

// Done notes that a write is on every member; it is kept for retries.
func (t *Inflight) Done(slot int) { t.advance(slot, slotDone) }

// Keep notes a result learnt from another member, as Begin and Done do.
func (t *Inflight) Keep(g ashlar.PGID, epoch ashlar.Epoch, rec *wire.Inflight) (slot int, err error) {
	if slot, err = t.Begin(g, epoch, 0, rec); err == nil {
		t.Done(slot)
	}
	return slot, err
}

func (t *Inflight) advance(i int, state uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || atomic.LoadUint32(t.state(i)) == slotFree {
		return
	}
	if state == slotDone && atomic.LoadUint32(t.state(i)) != slotDone {
		t.done = append(t.done, doneSlot{i, binary.LittleEndian.Uint64(t.slot(i)[72:])})
	}
	t.store(i, state)
}

// Free gives a slot back: nobody will ask for this write again.
func (t *Inflight) Free(slot int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && atomic.LoadUint32(t.state(slot)) != slotFree {
		t.release(slot)
	}
}

func (t *Inflight) release(i int) {
	t.store(i, slotFree)
	t.free = append(t.free, i)
	if len(t.done) > 2*slotCount {
		t.done = slices.DeleteFunc(t.done, func(x doneSlot) bool { return !t.isDone(x) })
	}
}

func (t *Inflight) isDone(x doneSlot) bool {
	return atomic.LoadUint32(t.state(x.slot)) == slotDone && binary.LittleEndian.Uint64(t.slot(x.slot)[72:]) == x.age
}

// evict forgets the oldest kept result and raises its session's horizon
// first. t.mu must be held.
func (t *Inflight) evict() bool {
	for len(t.done) > 0 {
		x := t.done[0]
		t.done = t.done[1:]
		if !t.isDone(x) {
			continue
		}
		e, _, _, _ := decodeSlot(t.slot(x.slot))
		t.raise(e.Session, e.Seq)
		t.release(x.slot)
		return true
	}
	return false
}

// raise records that results of a session up to seq are forgotten. t.mu must
// be held.
func (t *Inflight) raise(s ashlar.SessionID, seq uint64) {
	if s == 0 {
		return
	}
	i, ok := t.horizons[s]
	if ok {
		if _, old, valid := decodeHorizon(t.horizon(i)); valid && old >= seq {
			return
		}
	} else {
		if s <= t.floor {
			return
		}
		if len(t.hfree) <= 1 { // one is for the floor
			if low := t.lowestSession(); low < s {
				t.setFloor(low)
			} else {
				t.setFloor(s)
				return
			}
		}
		i = t.hfree[len(t.hfree)-1]
		t.hfree = t.hfree[:len(t.hfree)-1]
		t.horizons[s] = i
	}
	encodeHorizon(t.horizon(i), s, seq)
}

func (t *Inflight) lowestSession() ashlar.SessionID {
	low := ashlar.SessionID(math.MaxUint64)
	for s := range t.horizons {
		if s != 0 {
			low = min(low, s)
		}
	}
	return low
}

// setFloor makes everything of sessions up to s forgotten, and drops their own
// horizons. t.mu must be held.
func (t *Inflight) setFloor(s ashlar.SessionID) {
	i, ok := t.horizons[0]
	if !ok {
		if len(t.hfree) == 0 {
			return
		}
		i = t.hfree[len(t.hfree)-1]
		t.hfree = t.hfree[:len(t.hfree)-1]
		t.horizons[0] = i
	}
	t.floor = max(s, t.floor)
	encodeHorizon(t.horizon(i), 0, uint64(t.floor))
	for old, at := range t.horizons {
		if old != 0 && old <= t.floor {
			clear(t.horizon(at))
			t.hfree = append(t.hfree, at)
			delete(t.horizons, old)
		}
	}
}

// Horizon tells up to which sequence number results of a session's writes may
// have been forgotten; a retry at or below it can not be judged (I-7).
func (t *Inflight) Horizon(s ashlar.SessionID) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s <= t.floor && t.floor > 0 {
		return math.MaxUint64
	}
	if i, ok := t.horizons[s]; ok && !t.closed {
		_, seq, _ := decodeHorizon(t.horizon(i))
		return seq
	}
	return 0
}

// Horizons returns all horizons. One of session 0 means that nothing is known
// of any session up to its Seq.
func (t *Inflight) Horizons() []wire.Horizon {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]wire.Horizon, 0, len(t.horizons))
	if t.closed {
		return out
	}
	for s, i := range t.horizons {
		_, seq, _ := decodeHorizon(t.horizon(i))
		out = append(out, wire.Horizon{Session: s, Seq: seq})
	}
	slices.SortFunc(out, func(a, b wire.Horizon) int {
		if a.Session < b.Session {
			return -1
		}
		return 1
	})
	return out
}

// RaiseHorizon merges a horizon learnt from another member, session 0
// included.
func (t *Inflight) RaiseHorizon(h wire.Horizon) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if h.Session == 0 {
		if s := ashlar.SessionID(h.Seq); s > t.floor {
			t.setFloor(s)
		}
		return
	}
	t.raise(h.Session, h.Seq)
}

// ForgetSession frees the kept results and the horizon of a session that is
// over and fenced: none of its requests is admitted any more.
func (t *Inflight) ForgetSession(s ashlar.SessionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	for i := range slotCount {
		if atomic.LoadUint32(t.state(i)) == slotDone && binary.LittleEndian.Uint64(t.slot(i)[32:]) == uint64(s) {
			t.release(i)
		}
	}
	if i, ok := t.horizons[s]; ok && s != 0 {
		clear(t.horizon(i))
		t.hfree = append(t.hfree, i)
		delete(t.horizons, s)
	}
}

// List returns the writes of a group, in the order in which they were noted.
func (t *Inflight) List(g ashlar.PGID) []InflightEntry {
	return t.list(func(b []byte) bool { return binary.LittleEndian.Uint32(b[8:]) == uint32(g) })
}

// All returns the writes of all groups, as List does: after Open, what the
// process before left, with Applied false for writes that may be half done.
func (t *Inflight) All() []InflightEntry { return t.list(func([]byte) bool { return true }) }

func (t *Inflight) list(match func([]byte) bool) []InflightEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	type aged struct {
		InflightEntry
		age uint64
	}
	var found []aged
	for i := range slotCount {
		if atomic.LoadUint32(t.state(i)) == slotFree || !match(t.slot(i)) {
			continue
		}
		e, age, _, _ := decodeSlot(t.slot(i))
		e.Slot = i
		found = append(found, aged{e, age})
	}
	slices.SortFunc(found, func(a, b aged) int { return int(int64(a.age - b.age)) })
	out := make([]InflightEntry, len(found))
	for i := range found {
		out[i] = found[i].InflightEntry
	}
	return out
}

// each calls f with the chunk of every write that is not known to be on every
// member.
func (t *Inflight) each(f func(Key)) {
	if t == nil { // the disk is being opened
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	for i := range slotCount {
		if s := atomic.LoadUint32(t.state(i)); s == slotFree || s == slotDone {
			continue
		}
		b := t.slot(i)
		f(Key{
			Group: ashlar.PGID(binary.LittleEndian.Uint32(b[8:])),
			Layer: ashlar.LayerID(binary.LittleEndian.Uint64(b[48:])),
			Index: binary.LittleEndian.Uint32(b[12:]),
		})
	}
}

// Room is how many more writes fit without forgetting results.
func (t *Inflight) Room() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.free)
}

func (t *Inflight) dropGroup(g ashlar.PGID) {
	for _, e := range t.List(g) {
		t.Free(e.Slot)
	}
}

func (t *Inflight) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return t.region.Close()
}

// Inflight returns the disk's table of writes in flight.
func (d *Disk) Inflight() *Inflight { return d.inflight }
