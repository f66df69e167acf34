package chunkstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Group records, file "groups", a journal with magic "ASHLGRPS". A body is a
// kind u8 and, in the encoding of package wire:
//
//	1 group       placement group (wire.CodeGroup), last in-sync epoch u64,
//	              adopted epoch u64
//	2 no group    group u32; its generations go too
//	3 generation  group u32, layer u64, generation u64
//	4 no layer    group u32, layer u64
//
// Later bodies replace earlier ones.
const (
	groupSet   = 1
	groupDrop  = 2
	groupGen   = 3
	groupNoGen = 4

	groupsName   = "groups"
	groupsLogMax = 192 << 10
)

var groupsMagic = header.Magic([]byte("ASHLGRPS"))

// GroupRecord is what a disk durably knows of a placement group it is a
// member of.
type GroupRecord struct {
	// Config is the group as of the highest epoch recorded; anything lower is
	// refused (I-4).
	Config ashlar.Group
	// LastInSync is the last epoch in which this disk was in-sync, 0 if none.
	LastInSync ashlar.Epoch
	// Adopted is the last epoch that this disk recorded for its primary.
	Adopted ashlar.Epoch
}

type groupEntry struct {
	kind  byte
	rec   GroupRecord // 1
	group ashlar.PGID
	layer ashlar.LayerID
	gen   ashlar.Generation
}

func (e *groupEntry) fields(c *wire.Codec) {
	wire.U8(c, &e.kind)
	switch e.kind {
	case groupSet:
		wire.CodeGroup(c, &e.rec.Config)
		wire.U64(c, &e.rec.LastInSync)
		wire.U64(c, &e.rec.Adopted)
	case groupDrop:
		wire.U32(c, &e.group)
	case groupGen:
		wire.U32(c, &e.group)
		wire.U64(c, &e.layer)
		wire.U64(c, &e.gen)
	case groupNoGen:
		wire.U32(c, &e.group)
		wire.U64(c, &e.layer)
	default:
		c.Fail("group record of kind %d", e.kind)
	}
}

func (e groupEntry) encode() ([]byte, error) {
	c := wire.Encoder(nil)
	e.fields(c)
	return c.Bytes(), c.Err()
}

func decodeGroupEntry(b []byte) (groupEntry, error) {
	var e groupEntry
	c := wire.Decoder(b)
	e.fields(c)
	return e, c.Finish()
}

// groups is the log of group records and what it adds up to.
type groups struct {
	j *journal

	mu   sync.Mutex
	recs map[ashlar.PGID]GroupRecord
	gens map[ashlar.PGID]map[ashlar.LayerID]ashlar.Generation
	base int64
}

func (s *groups) apply(e groupEntry) {
	switch e.kind {
	case groupSet:
		s.recs[e.rec.Config.ID] = e.rec
	case groupDrop:
		delete(s.recs, e.group)
		delete(s.gens, e.group)
	case groupGen:
		if s.gens[e.group] == nil {
			s.gens[e.group] = map[ashlar.LayerID]ashlar.Generation{}
		}
		s.gens[e.group][e.layer] = max(e.gen, s.gens[e.group][e.layer])
	case groupNoGen:
		delete(s.gens[e.group], e.layer)
	}
}

func (d *Disk) openGroups() error {
	s := &groups{recs: map[ashlar.PGID]GroupRecord{}, gens: map[ashlar.PGID]map[ashlar.LayerID]ashlar.Generation{}}
	d.groups = s
	s.j = newJournal(d.fs, path.Join(d.dir, groupsName), header.Header{Magic: groupsMagic, Version: journalVersion, Cluster: d.id.cluster}, d.lose)
	bodies, damaged, err := s.j.read()
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || d.id.owner > 1 && d.hasChunks()) {
		return fmt.Errorf("group records: %w", err)
	}
	if damaged {
		return ashlar.E("read", ashlar.Corrupt, s.j.path, errors.New("group records are missing in the middle: this disk's data can not be trusted, format it anew"))
	}
	for _, b := range bodies {
		e, err := decodeGroupEntry(b)
		if err != nil {
			return fmt.Errorf("group records: %w", err)
		}
		s.apply(e)
	}
	return s.rewrite()
}

func (d *Disk) hasChunks() bool {
	g, err := d.groupDirs()
	return err != nil || len(g) > 0
}

// rewrite writes the log anew. s.mu must be held, or s not shared yet.
func (s *groups) rewrite() error {
	var bodies [][]byte
	add := func(e groupEntry) error {
		b, err := e.encode()
		bodies = append(bodies, b)
		return err
	}
	for _, r := range s.recs {
		if err := add(groupEntry{kind: groupSet, rec: r}); err != nil {
			return err
		}
	}
	for g, layers := range s.gens {
		for l, gen := range layers {
			if err := add(groupEntry{kind: groupGen, group: g, layer: l, gen: gen}); err != nil {
				return err
			}
		}
	}
	if err := s.j.rewrite(bodies); err != nil {
		return err
	}
	s.base = s.j.size()
	return nil
}

// put applies entries and returns when they are durable.
func (s *groups) put(entries ...groupEntry) error {
	s.mu.Lock()
	var ticket uint64
	for _, e := range entries {
		b, err := e.encode()
		if old, ok := s.recs[e.rec.Config.ID]; ok && e.kind == groupSet && old.Config.Epoch > e.rec.Config.Epoch {
			err = ashlar.E("record group", ashlar.WrongEpoch, fmt.Sprintf("pg %d", e.rec.Config.ID),
				fmt.Errorf("epoch %d after %d", e.rec.Config.Epoch, old.Config.Epoch))
		}
		if err != nil {
			s.mu.Unlock()
			return err
		}
		s.apply(e)
		ticket = s.j.add(b)
	}
	if s.j.size() > max(groupsLogMax, 2*s.base) {
		if err := s.rewrite(); ashlar.KindOf(err) != ashlar.NoSpace {
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	return s.j.wait(ticket)
}

// Group returns the record of a group.
func (d *Disk) Group(g ashlar.PGID) (GroupRecord, bool) {
	d.groups.mu.Lock()
	defer d.groups.mu.Unlock()
	r, ok := d.groups.recs[g]
	r.Config.Members = slices.Clone(r.Config.Members)
	return r, ok
}

// Groups returns the records of all groups, in order of their ids.
func (d *Disk) Groups() []GroupRecord {
	d.groups.mu.Lock()
	defer d.groups.mu.Unlock()
	out := make([]GroupRecord, 0, len(d.groups.recs))
	for _, r := range d.groups.recs {
		r.Config.Members = slices.Clone(r.Config.Members)
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b GroupRecord) int { return int(int64(a.Config.ID) - int64(b.Config.ID)) })
	return out
}

// SetGroup records a group durably (I-4). A record of a lower epoch than the
// one there is refused with WrongEpoch. Concurrent callers share one sync.
func (d *Disk) SetGroup(r GroupRecord) error {
	if err := d.Failed(); err != nil {
		return err
	}
	r.Config.Members = slices.Clone(r.Config.Members)
	return d.groups.put(groupEntry{kind: groupSet, rec: r})
}

// Generation returns the recorded generation of an object, 1 if none is.
func (d *Disk) Generation(g ashlar.PGID, l ashlar.LayerID) ashlar.Generation {
	d.groups.mu.Lock()
	defer d.groups.mu.Unlock()
	return max(1, d.groups.gens[g][l])
}

// SetGeneration records an object's generation durably; a lower one than is
// recorded changes nothing (I-10).
func (d *Disk) SetGeneration(g ashlar.PGID, l ashlar.LayerID, gen ashlar.Generation) error {
	return d.SetGenerations(g, []wire.ObjectGen{{Layer: l, Gen: gen}})
}

// SetGenerations is SetGeneration of many objects at once.
func (d *Disk) SetGenerations(g ashlar.PGID, gens []wire.ObjectGen) error {
	if err := d.Failed(); err != nil {
		return err
	}
	// Those recorded already may still be on their way to the disk, so they
	// are added again rather than skipped.
	var entries []groupEntry
	for _, o := range gens {
		if o.Gen > 1 && o.Gen >= d.Generation(g, o.Layer) {
			entries = append(entries, groupEntry{kind: groupGen, group: g, layer: o.Layer, gen: o.Gen})
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return d.groups.put(entries...)
}

// Generations returns the generations above 1 of a group's objects, in order
// of their layers.
func (d *Disk) Generations(g ashlar.PGID) []wire.ObjectGen {
	d.groups.mu.Lock()
	defer d.groups.mu.Unlock()
	out := make([]wire.ObjectGen, 0, len(d.groups.gens[g]))
	for l, gen := range d.groups.gens[g] {
		out = append(out, wire.ObjectGen{Layer: l, Gen: gen})
	}
	slices.SortFunc(out, func(a, b wire.ObjectGen) int {
		if a.Layer < b.Layer {
			return -1
		}
		return 1
	})
	return out
}
