package chunkstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// What this file has reads the files of a disk that nobody runs, for
// internal/inspect: no lock, no write, no repair. Errors are of kind Corrupt or
// Version and name the file.

// IdentityFile is the content of a disk's identity.
type IdentityFile struct {
	Cluster ashlar.ClusterID
	UUID    wire.UUID
	History ashlar.History
	Owner   uint64 // how often the disk was opened
}

// ReadIdentityFile reads the file "disk".
func ReadIdentityFile(b []byte, name string) (IdentityFile, error) {
	id, err := decodeIdentity(b, ashlar.ClusterID{}, name)
	return IdentityFile{id.cluster, id.uuid, id.history, id.owner}, err
}

// MarksFile is the content of the log of dirty marks.
type MarksFile struct {
	Boot    string
	Records int
	// Dirty and Ranges are what the marks cover; Suspects are the chunks that
	// were dirty when power was lost and were not compared since.
	Dirty    []Key
	Ranges   [][2]ashlar.LayerID
	Suspects []Key
	// Missing tells that records which were durable are damaged: then every
	// chunk counts as dirty.
	Missing bool
}

// ReadMarksFile reads the file "marks".
func ReadMarksFile(b []byte, name string) (*MarksFile, error) {
	bodies, damaged, err := decodeJournal(b, header.Header{Magic: marksMagic, Version: journalVersion}, name)
	if err != nil {
		return nil, err
	}
	out := &MarksFile{Records: len(bodies), Missing: damaged}
	for _, body := range bodies {
		if m, err := decodeMark(body); err != nil {
			return nil, ashlar.E("read", ashlar.Corrupt, name, err)
		} else if m.kind == markBoot {
			out.Boot = m.boot
		}
	}
	l, err := readMarks(bodies, false, "")
	if err != nil {
		return nil, ashlar.E("read", ashlar.Corrupt, name, err)
	}
	out.Dirty = l.chunks
	for _, r := range l.ranges {
		out.Ranges = append(out.Ranges, [2]ashlar.LayerID{r.first, r.last})
	}
	for k := range l.suspects {
		out.Suspects = append(out.Suspects, k)
	}
	slices.SortFunc(out.Suspects, compareKeys)
	return out, nil
}

func compareKeys(a, b Key) int {
	if a.Group != b.Group {
		return int(int64(a.Group) - int64(b.Group))
	}
	return compareChunkKeys(wire.ChunkKey{Layer: a.Layer, Index: a.Index}, wire.ChunkKey{Layer: b.Layer, Index: b.Index})
}

// GroupsFile is the content of the log of group records.
type GroupsFile struct {
	Records     int
	Groups      []GroupRecord // by id
	Generations map[ashlar.PGID]map[ashlar.LayerID]ashlar.Generation
	// Missing tells that records which were durable are damaged.
	Missing bool
}

// ReadGroupsFile reads the file "groups".
func ReadGroupsFile(b []byte, name string) (*GroupsFile, error) {
	bodies, damaged, err := decodeJournal(b, header.Header{Magic: groupsMagic, Version: journalVersion}, name)
	if err != nil {
		return nil, err
	}
	s := groups{recs: map[ashlar.PGID]GroupRecord{}, gens: map[ashlar.PGID]map[ashlar.LayerID]ashlar.Generation{}}
	for i, body := range bodies {
		e, err := decodeGroupEntry(body)
		if err != nil {
			return nil, ashlar.E("read", ashlar.Corrupt, name, fmt.Errorf("record %d: %w", i+1, err))
		}
		s.apply(e)
	}
	out := &GroupsFile{Records: len(bodies), Generations: s.gens, Missing: damaged}
	for _, r := range s.recs {
		out.Groups = append(out.Groups, r)
	}
	slices.SortFunc(out.Groups, func(a, b GroupRecord) int { return int(int64(a.Config.ID) - int64(b.Config.ID)) })
	return out, nil
}

// InflightFile is the content of the table of writes in flight.
type InflightFile struct {
	Entries  []InflightEntry
	Horizons []wire.Horizon
	// Broken counts slots and horizons in use whose checksum differs: a write
	// that was being noted when the machine lost power.
	Broken int
}

// InflightFileSize is the size of the file "inflight".
const InflightFileSize = inflightSize

// ReadInflightFile reads the file "inflight".
func ReadInflightFile(b []byte, name string) (*InflightFile, error) {
	if _, err := header.Decode(b, header.Header{Magic: inflightMagic, Version: inflightVersion}, name); err != nil {
		return nil, err
	}
	if len(b) != inflightSize {
		return nil, ashlar.E("read", ashlar.Corrupt, name, fmt.Errorf("%d bytes, want %d", len(b), inflightSize))
	}
	out := &InflightFile{}
	for i := range slotCount {
		p := b[slotsOff+i*slotSize:][:slotSize]
		if e, _, _, ok := decodeSlot(p); ok {
			e.Slot = i
			out.Entries = append(out.Entries, e)
		} else if !isZero(p[:4]) {
			out.Broken++
		}
	}
	for i := range HorizonsMax {
		p := b[horizonsOff+i*horizonSize:][:horizonSize]
		if s, seq, ok := decodeHorizon(p); ok {
			out.Horizons = append(out.Horizons, wire.Horizon{Session: s, Seq: seq})
		} else if !isZero(p) {
			out.Broken++
		}
	}
	return out, nil
}

// ChunkFile is the file of a chunk, read as it is. Its methods may be called
// concurrently if those of the reader may.
type ChunkFile struct {
	r       io.ReaderAt
	regs    []region
	broken  []bool // by region: its record is damaged
	Info    ChunkInfo
	Cluster ashlar.ClusterID
	// HintDamaged says that there was a hint whose checksum is wrong.
	HintDamaged bool
}

// ErrUnborn is what OpenChunkFile says of a file without a header: its chunk
// was being made when the process or the machine died, and no write to it was
// ever acknowledged as synced.
var ErrUnborn = errors.New("no header: the chunk was cut short at birth")

// OpenChunkFile reads the header and the records of a chunk.
func OpenChunkFile(r io.ReaderAt, name string) (*ChunkFile, error) {
	b, err := readPart(r, 0, recordsOff)
	if err != nil {
		return nil, ashlar.E("read", ashlar.IO, name, err)
	}
	hdr, err := decodeChunkHeader(b, ashlar.ClusterID{}, name)
	if err != nil {
		if isZero(b[:min(len(b), fixedEnd)]) {
			return nil, ashlar.E("read", ashlar.Corrupt, name, ErrUnborn)
		}
		return nil, err
	}
	hinted := binary.LittleEndian.Uint16(b[86:]) > 0
	n := int(hdr.size / ashlar.RegionSize)
	if b, err = readPart(r, recordsOff, n*recordSize); err != nil {
		return nil, ashlar.E("read records of", ashlar.IO, name, err)
	}
	b = append(b, make([]byte, n*recordSize-len(b))...)
	c := &ChunkFile{r: r, regs: make([]region, n), broken: make([]bool, n), Cluster: hdr.cluster}
	c.Info = ChunkInfo{Key: hdr.key, ChangedEpoch: hdr.changed, ChunkSize: hdr.size, Origin: hdr.origin}
	c.HintDamaged = hinted && hdr.origin.Hint == ""
	salt := recordSalt(hdr.key)
	for i := range c.regs {
		c.broken[i] = !c.regs[i].decode(b[i*recordSize:], salt, i)
	}
	return c, nil
}

// readPart reads up to n bytes: less at the end of the file.
func readPart(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:got], nil
}

// Regions is how many regions the chunk has.
func (c *ChunkFile) Regions() int { return len(c.regs) }

// Region tells the epoch of a region's last change and where in the region
// the last byte written is; ok is false if its record is damaged.
func (c *ChunkFile) Region(i int) (epoch ashlar.Epoch, end uint32, ok bool) {
	if c.broken[i] {
		return 0, 0, false
	}
	return c.regs[i].epoch, c.regs[i].end, true
}

// State returns the presence of a block of the chunk.
func (c *ChunkFile) State(b int) State { return c.regs[b/perRegion].state(b % perRegion) }

// ReadBlock reads a block of the chunk into p, zeros if there is no data; false
// if it is damaged or can not be read.
func (c *ChunkFile) ReadBlock(b int, p []byte) bool {
	clear(p[:block])
	switch c.State(b) {
	case Absent, Zero:
		return true
	case Lost:
		return false
	}
	n, err := c.r.ReadAt(p[:block], dataOff(c.Info.ChunkSize)+int64(b)*block)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	clear(p[n:block])
	return checksum.Of(p[:block]) == c.regs[b/perRegion].sums[b%perRegion]
}

// Check is what Verify found in a chunk.
type Check struct {
	Data, Zeros int      // blocks
	Bad         []Region // damaged blocks
	BadRecords  []int    // regions with a damaged record
}

// Verify reads every block.
func (c *ChunkFile) Verify() Check {
	var out Check
	p := make([]byte, block)
	for r := range c.regs {
		if c.broken[r] {
			out.BadRecords = append(out.BadRecords, r)
			continue
		}
		for b := r * perRegion; c.regs[r].states != 0 && b < (r+1)*perRegion; b++ {
			switch c.State(b) {
			case Data:
				out.Data++
			case Zero:
				out.Zeros++
			}
			if !c.ReadBlock(b, p) {
				out.Bad = addRegion(out.Bad, uint32(b)*block, block)
			}
		}
	}
	return out
}

// ParseChunkPath returns the key that the place of a chunk's file on its disk
// says: chunks/<group>/<XX>/<layer>.<index>, given as its last three parts.
func ParseChunkPath(group, slot, name string) (Key, bool) {
	g, ok := parseGroupDir(group)
	if !ok {
		return Key{}, false
	}
	k, ok := parseChunkName(g, name)
	return k, ok && fmt.Sprintf("%02X", slotOf(k.Layer)) == slot
}

// The names of a disk's files.
const (
	IdentityName = identityName
	MarksName    = marksName
	GroupsName   = groupsName
	InflightName = inflightName
	ChunksName   = chunksName
)

// The magics of a disk's files.
var (
	DiskMagic     = diskMagic
	MarksMagic    = marksMagic
	GroupsMagic   = groupsMagic
	InflightMagic = inflightMagic
	ChunkMagic    = chunkMagic
)
