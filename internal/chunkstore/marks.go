package chunkstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"slices"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Dirty marks (I-8), file "marks", a journal with magic "ASHLMARK" whose
// bodies are 32 bytes, or a boot record:
//
//	 0  kind      u8: 1 boot, 2 dirty chunk, 3 dirty layers, 4 suspect chunk,
//	              5 no longer suspect
//	 1  reserved  3 bytes, zero
//	 4  group     u32   (2, 4, 5)
//	 8  layer     u64   (2, 4, 5), first layer (3)
//	16  last      u64   last layer, included (3)
//	24  index     u32   (2, 4, 5)
//	28  reserved  u32, zero
//
//	boot: 0 kind, 1 reserved 3 bytes, 4 the kernel's boot id as text
//
// Each journal begins with the boot in which its marks were made. Dirty
// layers are those of every group: whoever creates a chunk marks the 4096
// layers around its own and the next 4096 in advance, so that creating files
// costs one sync in thousands.
const (
	markBoot      = 1
	markChunk     = 2
	markLayers    = 3
	markSuspect   = 4
	markUnsuspect = 5

	markBytes = 32
	marksName = "marks"
	bootIDMax = 256
	// markGrain is how many layers one mark of layers covers.
	markGrain = 4096
	// marksLogMax is the size of the log at which it is rewritten, if it has
	// grown to twice what it was after the last time.
	marksLogMax = 192 << 10
)

var marksMagic = header.Magic([]byte("ASHLMARK"))

type mark struct {
	kind byte
	key  Key
	last ashlar.LayerID
	boot string
}

func (m *mark) encode() []byte {
	if m.kind == markBoot {
		return append([]byte{markBoot, 0, 0, 0}, m.boot...)
	}
	b := make([]byte, markBytes)
	b[0] = m.kind
	binary.LittleEndian.PutUint32(b[4:], uint32(m.key.Group))
	binary.LittleEndian.PutUint64(b[8:], uint64(m.key.Layer))
	binary.LittleEndian.PutUint64(b[16:], uint64(m.last))
	binary.LittleEndian.PutUint32(b[24:], m.key.Index)
	return b
}

func decodeMark(b []byte) (mark, error) {
	if len(b) < 4 {
		return mark{}, errors.New("mark cut short")
	}
	m := mark{kind: b[0]}
	switch m.kind {
	case markBoot:
		if len(b) > 4+bootIDMax {
			return m, fmt.Errorf("boot id of %d bytes", len(b)-4)
		}
		m.boot = string(b[4:])
		return m, nil
	case markChunk, markLayers, markSuspect, markUnsuspect:
		if len(b) != markBytes {
			return m, fmt.Errorf("mark of %d bytes", len(b))
		}
		m.key.Group = ashlar.PGID(binary.LittleEndian.Uint32(b[4:]))
		m.key.Layer = ashlar.LayerID(binary.LittleEndian.Uint64(b[8:]))
		m.last = ashlar.LayerID(binary.LittleEndian.Uint64(b[16:]))
		m.key.Index = binary.LittleEndian.Uint32(b[24:])
		return m, nil
	}
	return m, fmt.Errorf("mark of kind %d", m.kind)
}

// marks is the log of dirty marks and what it adds up to. A chunk that is in
// Disk.unsynced is marked, durably before its first write, and it stays marked
// while a write to it is in flight: synced here, such a write may be missing
// elsewhere, and the table of writes in flight does not survive a power loss.
type marks struct {
	d    *Disk
	j    *journal
	boot string

	mu       sync.Mutex
	chunks   map[Key]uint64                // ticket of the mark
	grains   map[ashlar.LayerID]*grainMark // by first layer
	suspects map[ashlar.PGID]map[Key]bool  // true: torn perhaps
	base     int64                         // size of the log after its last rewriting
}

type grainMark struct {
	ticket uint64
	used   bool // a chunk was made in it since the last rewriting
}

// loadedMarks is what a marks log held when the disk was opened.
type loadedMarks struct {
	sameBoot bool
	chunks   []Key
	ranges   []layerRange
	suspects map[Key]bool
}

type layerRange struct{ first, last ashlar.LayerID }

func (r layerRange) has(l ashlar.LayerID) bool { return l >= r.first && l <= r.last }

func readMarks(bodies [][]byte, damaged bool, boot string) (*loadedMarks, error) {
	l := &loadedMarks{suspects: map[Key]bool{}}
	for _, b := range bodies {
		m, err := decodeMark(b)
		if err != nil {
			return nil, err
		}
		switch m.kind {
		case markBoot:
			l.sameBoot = m.boot == boot && boot != ""
		case markChunk:
			l.chunks = append(l.chunks, m.key)
		case markLayers:
			l.ranges = append(l.ranges, layerRange{m.key.Layer, m.last})
		case markSuspect:
			l.suspects[m.key] = true
		case markUnsuspect:
			delete(l.suspects, m.key)
		}
	}
	if damaged { // marks are missing: anything may be dirty
		l.ranges = append(l.ranges, layerRange{0, math.MaxUint64})
	}
	return l, nil
}

// openMarks reads the log, turns the marks of another boot into suspects and
// those of this one into unsynced chunks, and begins a new log.
func (d *Disk) openMarks(boot string) error {
	m := &marks{d: d, boot: boot, chunks: map[Key]uint64{}, grains: map[ashlar.LayerID]*grainMark{}, suspects: map[ashlar.PGID]map[Key]bool{}}
	d.marks = m
	m.j = newJournal(d.fs, path.Join(d.dir, marksName), header.Header{Magic: marksMagic, Version: journalVersion, Cluster: d.id.cluster}, d.lose)
	var loaded *loadedMarks
	bodies, damaged, err := m.j.read()
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.id.owner == 1:
		loaded = &loadedMarks{}
	case errors.Is(err, fs.ErrNotExist), ashlar.KindOf(err) == ashlar.Corrupt:
		damaged = true
		d.log.Warn("dirty marks are missing or damaged: every chunk counts as dirty", slog.Any("err", err))
		fallthrough
	case err == nil:
		if loaded, err = readMarks(bodies, damaged, boot); err != nil {
			d.log.Warn("a dirty mark is malformed: every chunk counts as dirty", slog.Any("err", err))
			loaded, _ = readMarks(nil, true, boot)
		}
	default:
		return err
	}
	d.bootChanged = !loaded.sameBoot && d.id.owner > 1
	dirty, err := d.expand(loaded)
	if err != nil {
		return err
	}
	for k := range loaded.suspects {
		m.addSuspect(k)
	}
	for _, k := range dirty {
		if loaded.sameBoot {
			d.unsynced.add(k)
		} else {
			m.addSuspect(k)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rewrite(map[ashlar.LayerID]*grainMark{})
}

func (m *marks) addSuspect(k Key) {
	if m.suspects[k.Group] == nil {
		m.suspects[k.Group] = map[Key]bool{}
	}
	m.suspects[k.Group][k] = true
}

// expand returns the chunks that the dirty marks cover: those named, whether
// or not they have a file, and those that have one in the layers named.
func (d *Disk) expand(l *loadedMarks) ([]Key, error) {
	seen := map[Key]bool{}
	for _, k := range l.chunks {
		seen[k] = true
	}
	if len(l.ranges) > 0 {
		groups, err := d.groupDirs()
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if err := d.expandGroup(g, l.ranges, seen); err != nil {
				return nil, err
			}
		}
	}
	out := make([]Key, 0, len(seen))
	for k := range seen {
		out = append(out, k)
	}
	return out, nil
}

func (d *Disk) expandGroup(g ashlar.PGID, ranges []layerRange, seen map[Key]bool) error {
	slots, err := d.slots(g)
	if err != nil {
		return err
	}
	for _, s := range slots {
		if !slices.ContainsFunc(ranges, func(r layerRange) bool { return r.meetsSlot(s) }) {
			continue
		}
		err := d.names(g, s, func(k Key) {
			if slices.ContainsFunc(ranges, func(r layerRange) bool { return r.has(k.Layer) }) {
				seen[k] = true
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// meetsSlot tells whether any layer of the range lies in a directory.
func (r layerRange) meetsSlot(slot uint8) bool {
	if r.last-r.first >= fanout*fanout {
		return true
	}
	for l := r.first &^ (fanout - 1); l <= r.last; l += fanout {
		if slotOf(l) == slot {
			return true
		}
		if l > math.MaxUint64-fanout {
			break
		}
	}
	return false
}

// ensure returns when a mark that covers the chunk is durable. The chunk must
// be in unsynced already. created tells that its file is about to be made.
func (m *marks) ensure(k Key, created bool) error {
	m.mu.Lock()
	ticket, ok := m.covered(k, created)
	var ahead uint64
	if !ok && created {
		ticket = m.markGrain(k.Layer &^ (markGrain - 1))
	} else if !ok {
		ticket = m.j.add((&mark{kind: markChunk, key: k}).encode())
		m.chunks[k] = ticket
	}
	if created {
		// The grain after is marked ahead of need, in the same batch or in
		// the background.
		next := k.Layer&^(markGrain-1) + markGrain
		if next != 0 && m.grains[next] == nil {
			ahead = m.markGrain(next)
		}
	}
	full := m.j.size() > max(marksLogMax, 2*m.base)
	m.mu.Unlock()
	if full {
		m.d.kick()
	}
	if err := m.j.wait(ticket); err != nil {
		return err
	}
	if ahead > ticket {
		m.d.kick()
	}
	return nil
}

// covered returns the ticket of a mark that covers k. m.mu must be held.
func (m *marks) covered(k Key, created bool) (uint64, bool) {
	if g := m.grains[k.Layer&^(markGrain-1)]; g != nil {
		g.used = g.used || created
		return g.ticket, true
	}
	t, ok := m.chunks[k]
	return t, ok
}

// markGrain adds a mark of layers. m.mu must be held.
func (m *marks) markGrain(first ashlar.LayerID) uint64 {
	t := m.j.add((&mark{kind: markLayers, key: Key{Layer: first}, last: first + markGrain - 1}).encode())
	m.grains[first] = &grainMark{ticket: t}
	return t
}

// compact rewrites the log with marks of what is unsynced or in flight only,
// keeping the layers in which chunks are being made.
func (m *marks) compact() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := map[ashlar.LayerID]*grainMark{}
	for first, g := range m.grains { // the used ones and their successors stay
		if before := m.grains[first-markGrain]; g.used || before != nil && before.used {
			kept[first] = &grainMark{}
		}
	}
	return m.rewrite(kept)
}

// rewrite writes the log anew, with these marks of layers. m.mu must be held.
func (m *marks) rewrite(grains map[ashlar.LayerID]*grainMark) error {
	bodies := [][]byte{(&mark{kind: markBoot, boot: m.boot}).encode()}
	chunks := map[Key]uint64{}
	keep := func(k Key) {
		if _, ok := chunks[k]; !ok && grains[k.Layer&^(markGrain-1)] == nil {
			chunks[k] = 0
			bodies = append(bodies, (&mark{kind: markChunk, key: k}).encode())
		}
	}
	m.d.unsynced.each(keep)
	// Looked at last: what left the unsynced meanwhile is in flight still, or on
	// every member.
	m.d.inflight.each(keep)
	for first := range grains {
		bodies = append(bodies, (&mark{kind: markLayers, key: Key{Layer: first}, last: first + markGrain - 1}).encode())
	}
	for _, keys := range m.suspects {
		for k := range keys {
			bodies = append(bodies, (&mark{kind: markSuspect, key: k}).encode())
		}
	}
	if err := m.j.rewrite(bodies); err != nil {
		return err
	}
	m.chunks, m.grains, m.base = chunks, grains, m.j.size()
	return nil
}

// droppable tells whether the log holds marks that compact would drop.
func (m *marks) droppable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.j.size() > max(marksLogMax, 2*m.base):
		return true
	case m.d.unsynced.count() > 0:
		return false
	case len(m.grains) > 0 || len(m.chunks) == 0:
		return len(m.grains) > 0
	}
	needed := map[Key]struct{}{}
	m.d.inflight.each(func(k Key) { needed[k] = struct{}{} })
	return len(m.chunks) > len(needed)
}

// isMarked tells whether a chunk may have been written since its last sync.
func (m *marks) isMarked(k Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.covered(k, false)
	return ok || m.suspects[k.Group][k] || m.d.unsynced.has(k)
}

// Suspect returns the chunks of a group that were dirty when power was lost:
// they may be torn, or lack writes, and are served only after they were
// compared with other members (I-8). Some may have no file; a chunk that was
// made since its last sync and lost as a whole may not be listed, and is found
// missing when lists of chunks are compared.
func (d *Disk) Suspect(g ashlar.PGID) []wire.ChunkKey {
	d.marks.mu.Lock()
	defer d.marks.mu.Unlock()
	out := make([]wire.ChunkKey, 0, len(d.marks.suspects[g]))
	for k := range d.marks.suspects[g] {
		out = append(out, wire.ChunkKey{Layer: k.Layer, Index: k.Index})
	}
	slices.SortFunc(out, compareChunkKeys)
	return out
}

// IsSuspect tells whether a chunk is one of those that Suspect returns.
func (d *Disk) IsSuspect(k Key) bool {
	d.marks.mu.Lock()
	defer d.marks.mu.Unlock()
	return d.marks.suspects[k.Group][k]
}

// ClearSuspect records that a chunk was verified. What was rewritten for that
// is unsynced like any write. The record becomes durable in time; until then
// another crash makes the chunk suspect again.
func (d *Disk) ClearSuspect(keys ...Key) {
	m := d.marks
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		if m.suspects[k.Group][k] {
			delete(m.suspects[k.Group], k)
			m.j.add((&mark{kind: markUnsuspect, key: k}).encode())
		}
	}
}
