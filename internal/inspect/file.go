package inspect

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar/internal/chunkserver"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/master"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// Limits of what is read at one go, in bytes.
const (
	smallMax   = 64 << 10 // identities
	journalMax = 1 << 30
)

// kind is a kind of file: how it is known and who reads it.
type kind struct {
	name  string
	magic header.Magic
	limit int64 // 0: read piece by piece
	read  func(f *file, r *Report)
}

// kinds are all kinds of file. The magic tells them apart; expected tells what
// a file was that lost its own.
var kinds = []kind{
	{"disk identity", chunkstore.DiskMagic, smallMax, readDisk},
	{"dirty marks", chunkstore.MarksMagic, journalMax, readMarks},
	{"group records", chunkstore.GroupsMagic, journalMax, readGroups},
	{"writes in flight", chunkstore.InflightMagic, chunkstore.InflightFileSize + 1, readInflight},
	{"chunk", chunkstore.ChunkMagic, 0, readChunk},
	{"chunkserver identity", chunkserver.IdentityMagic, smallMax, readChunkserver},
	{"master identity", master.IdentityMagic, smallMax, readMaster},
	{"consensus identity", consensus.IdentityMagic, smallMax, readMember},
	{"log segment", wal.Magic, wal.SegmentMax, readSegment},
	{"store identity", kv.IdentityMagic, smallMax, readStoreIdentity},
}

// expected is what a file with a name must be.
func expected(name string) string {
	base := path.Base(name)
	switch base {
	case chunkstore.IdentityName:
		return "disk identity"
	case chunkstore.MarksName:
		return "dirty marks"
	case chunkstore.GroupsName:
		return "group records"
	case chunkstore.InflightName:
		return "writes in flight"
	case "chunkserver":
		return "chunkserver identity"
	case master.IdentityName:
		return "master identity"
	case consensus.IdentityName: // of a store's too
		return "consensus identity"
	}
	if strings.HasPrefix(base, "log-") && strings.HasSuffix(base, ".wal") {
		return "log segment"
	}
	if _, ok := chunkKeyOf(name); ok {
		return "chunk"
	}
	return ""
}

// common are names that other programs' files have too.
var common = map[string]bool{
	chunkstore.IdentityName: true, chunkstore.MarksName: true, chunkstore.GroupsName: true, chunkstore.InflightName: true, "chunkserver": true,
}

// chunkKeyOf is what the place of a chunk's file says of it.
func chunkKeyOf(name string) (chunkstore.Key, bool) {
	dir, base := path.Split(name)
	dir, slot := path.Split(strings.TrimSuffix(dir, "/"))
	dir, group := path.Split(strings.TrimSuffix(dir, "/"))
	if path.Base(dir) != chunkstore.ChunksName {
		return chunkstore.Key{}, false
	}
	return chunkstore.ParseChunkPath(group, slot, base)
}

// Options say how files are looked at.
type Options struct {
	FS vfs.FS
	// Entries adds what is in the files to the reports.
	Entries bool
}

// file is a file being looked at.
type file struct {
	o       Options
	name    string
	f       vfs.File
	size    int64
	b       []byte // all of it, if its kind is read at one go
	newest  bool   // no other segment follows
	excused func(chunkstore.Key) string
	// chance says that the file was met in a directory that is nothing of
	// Ashlar's: a name like "groups" means nothing there.
	chance bool
}

// Look looks at one file.
func Look(o Options, name string) *Report { return look(&file{o: o, name: name, newest: true}) }

func look(x *file) *Report {
	r := &Report{Path: x.name, Status: OK}
	f, err := x.o.FS.Open(x.name)
	if err != nil {
		r.fail(err)
		return r
	}
	defer f.Close()
	x.f = f
	head := make([]byte, header.Size)
	n, err := f.ReadAt(head, 0)
	if err == nil || errors.Is(err, io.EOF) {
		x.size, err = f.Size()
	}
	if err != nil {
		r.fail(err)
		return r
	}
	k := kindOf(head[:n])
	if k == nil {
		x.unknown(r, head[:n])
		return r
	}
	r.Kind = k.name
	if want := expected(x.name); want != "" && want != k.name && !(want == "consensus identity" && k.name == "store identity") {
		r.damage("its name is that of a file of kind %q", want)
	}
	if k.limit > 0 && !x.readAll(r, k.limit) {
		return r
	}
	k.read(x, r)
	return r
}

func kindOf(head []byte) *kind {
	for i := range kinds {
		if len(head) >= len(kinds[i].magic) && string(head[:8]) == string(kinds[i].magic[:]) {
			return &kinds[i]
		}
	}
	return nil
}

// unknown says what a file is whose magic is not one of Ashlar's.
func (x *file) unknown(r *Report, head []byte) {
	want := expected(x.name)
	if want == "" || x.chance && common[path.Base(x.name)] {
		r.Status = Foreign
		return
	}
	r.Kind = want
	if want == "chunk" { // perhaps cut short at birth
		readChunk(x, r)
		return
	}
	if len(head) < 8 {
		r.damage("%d bytes: too short for any header", x.size)
		return
	}
	r.damage("it begins with %q, not with the magic of a file of kind %q", head[:8], want)
}

// readAll reads the file whole.
func (x *file) readAll(r *Report, limit int64) bool {
	if x.size > limit {
		r.damage("%d bytes, a file of this kind has at most %d", x.size, limit)
		return false
	}
	x.b = make([]byte, x.size)
	n, err := x.f.ReadAt(x.b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		r.fail(err)
		return false
	}
	x.b = x.b[:n]
	return true
}

func readDisk(x *file, r *Report) {
	id, err := chunkstore.ReadIdentityFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.cluster(id.Cluster)
	r.field("disk", "%s", chunkstore.FormatUUID(id.UUID))
	r.field("history", "%d", id.History)
	r.field("opened", "%d times", id.Owner)
}

func readMarks(x *file, r *Report) {
	m, err := chunkstore.ReadMarksFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.headerCluster(x.b)
	r.field("boot", "%s", m.Boot)
	r.field("records", "%d", m.Records)
	r.field("dirty chunks", "%d", len(m.Dirty))
	r.field("dirty layers", "%d ranges", len(m.Ranges))
	r.field("suspect chunks", "%d", len(m.Suspects))
	if m.Missing {
		r.damage("records that were durable are damaged: every chunk counts as dirty")
	}
	if x.o.Entries {
		for _, k := range m.Dirty {
			r.Entries = append(r.Entries, "dirty "+k.String())
		}
		for _, g := range m.Ranges {
			r.Entries = append(r.Entries, fmt.Sprintf("dirty layers %x to %x", uint64(g[0]), uint64(g[1])))
		}
		for _, k := range m.Suspects {
			r.Entries = append(r.Entries, "suspect "+k.String())
		}
	}
}

func readGroups(x *file, r *Report) {
	g, err := chunkstore.ReadGroupsFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.headerCluster(x.b)
	r.field("records", "%d", g.Records)
	r.field("groups", "%d", len(g.Groups))
	if g.Missing {
		r.damage("records that were durable are damaged: the epochs of the groups are not known, the disk is not served")
	}
	if !x.o.Entries {
		return
	}
	for _, rec := range g.Groups {
		line := fmt.Sprintf("pg %d epoch %d, adopted %d, last in-sync %d, members", rec.Config.ID, rec.Config.Epoch, rec.Adopted, rec.LastInSync)
		for _, m := range rec.Config.Members {
			line += fmt.Sprintf(" disk %d %s", m.Disk, m.State)
		}
		r.Entries = append(r.Entries, fmt.Sprintf("%s; %d generations", line, len(g.Generations[rec.Config.ID])))
	}
}

func readInflight(x *file, r *Report) {
	t, err := chunkstore.ReadInflightFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.headerCluster(x.b)
	done := 0
	for _, e := range t.Entries {
		if e.Done {
			done++
		}
		if x.o.Entries {
			r.Entries = append(r.Entries, fmt.Sprintf("pg %d epoch %d layer %x chunk %d: %d bytes at %d, session %d write %d, applied %v, on all %v",
				e.Group, e.Epoch, uint64(e.Layer), e.Chunk, e.Len, e.Off, e.Session, e.Seq, e.Applied, e.Done))
		}
	}
	r.field("in flight", "%d", len(t.Entries)-done)
	r.field("results kept", "%d", done)
	r.field("horizons", "%d", len(t.Horizons))
	if t.Broken > 0 {
		r.note("%d entries were being made when the machine lost power: they are dropped at the next start", t.Broken)
	}
}

func readChunkserver(x *file, r *Report) {
	cluster, uuid, err := chunkserver.ReadIdentityFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.cluster(cluster)
	r.field("chunkserver", "%s", chunkstore.FormatUUID(uuid))
}

func readMaster(x *file, r *Report) {
	id, err := master.ReadIdentityFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.cluster(id.Cluster)
	r.field("member", "%x", id.Member)
	r.field("made the group", "%v", len(id.First) > 0)
	for _, m := range id.First {
		r.field("first member", "%x %s %s", m.ID, m.Name, m.Addr)
	}
}

func readMember(x *file, r *Report) {
	id, err := consensus.ReadIdentityFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.cluster(id.Cluster)
	r.field("member", "%x", id.Member)
	r.field("incarnation", "%d", id.Incarnation)
}

func readStoreIdentity(x *file, r *Report) {
	cluster, err := kv.ReadIdentityFile(x.b, x.name)
	if err != nil {
		r.fail(err)
		return
	}
	r.cluster(cluster)
}

// headerCluster takes the cluster from a header that was checked.
func (r *Report) headerCluster(b []byte) {
	var m header.Magic
	copy(m[:], b)
	if h, err := header.Decode(b, header.Header{Magic: m, Version: ^uint32(0), Incompat: ^uint64(0)}, r.Path); err == nil {
		r.cluster(h.Cluster)
	}
}

func readSegment(x *file, r *Report) {
	s, err := wal.ReadSegment(x.b, x.name, x.newest)
	if err != nil {
		r.fail(err)
	}
	if s == nil {
		return
	}
	r.cluster(s.Cluster)
	r.field("sequence", "%d", s.Sequence)
	r.field("frames", "%d, %d bytes", s.Frames, s.End)
	var first, last uint64
	entries := 0
	for i := range s.Records {
		rec := &s.Records[i]
		if e := rec.Entry; e != nil {
			if entries++; entries == 1 {
				first = e.Index
			}
			last = e.Index
		}
		if line := x.record(r, rec); x.o.Entries {
			r.Entries = append(r.Entries, line)
		}
	}
	if entries > 0 {
		r.field("entries", "%d, index %d to %d", entries, first, last)
	}
	if s.Torn {
		r.note("the write at %d was cut short and counts as never made", s.End)
	}
}

// record describes a record of the log, and reports one that can not be read.
func (x *file) record(r *Report, rec *wal.Record) string {
	switch {
	case rec.Hard != nil:
		return fmt.Sprintf("term %d, vote %x, commit %d", rec.Hard.Term, rec.Hard.Vote, rec.Hard.Commit)
	case rec.Mark != nil, rec.Pending != nil:
		m, what := rec.Mark, "mark"
		if m == nil {
			m, what = rec.Pending, "pending checkpoint"
		}
		members, err := consensus.ReadMembers(m.Data)
		if err != nil {
			r.damage("%s at index %d: %v", what, m.Index, err)
		}
		line := fmt.Sprintf("%s at index %d, term %d; members", what, m.Index, m.Term)
		for _, mem := range members {
			line += " " + mem.Name
		}
		return line
	}
	e := rec.Entry
	if !e.Normal {
		return fmt.Sprintf("%d/%d change of members", e.Term, e.Index)
	}
	if len(e.Data) == 0 {
		return fmt.Sprintf("%d/%d empty: a new leader", e.Term, e.Index)
	}
	c, err := master.ReadChange(e.Data)
	if err != nil {
		r.damage("entry %d of term %d: %v", e.Index, e.Term, err)
		return fmt.Sprintf("%d/%d not readable", e.Term, e.Index)
	}
	return fmt.Sprintf("%d/%d %s %d changes: %s", e.Term, e.Index, time.Unix(0, c.Time).UTC().Format(time.RFC3339Nano),
		len(c.Ops), strings.ReplaceAll(strings.TrimSpace(c.Note), "\n", "; "))
}

func readChunk(x *file, r *Report) {
	c, err := chunkstore.OpenChunkFile(x.f, x.name)
	place, placed := chunkKeyOf(x.name)
	excuse := ""
	if x.excused != nil && placed {
		excuse = x.excused(place)
	}
	if err != nil {
		if errors.Is(err, chunkstore.ErrUnborn) && excuse != "" {
			r.note("it has no header yet: %s", excuse)
			return
		}
		r.fail(err)
		return
	}
	info := &c.Info
	r.cluster(c.Cluster)
	r.field("chunk", "%s", info.Key)
	r.field("size", "%d", info.ChunkSize)
	r.field("owner", "inode %x, %q", uint64(info.Owner), info.Hint)
	r.field("changed in epoch", "%d", info.ChangedEpoch)
	if placed && place != info.Key {
		r.damage("it lies where %s should be", place)
	}
	if c.HintDamaged {
		r.damage("the path of its file is damaged, and dropped")
	}
	v := c.Verify()
	r.field("blocks", "%d of data, %d of zeros", v.Data, v.Zeros)
	x.chunkDamage(r, v, excuse)
	if x.o.Entries {
		chunkEntries(c, r)
	}
}

// chunkDamage says what is wrong with blocks. Of a chunk marked dirty it is no
// damage: it is compared with other members before it is served.
func (x *file) chunkDamage(r *Report, v chunkstore.Check, excuse string) {
	say := r.damage
	if excuse != "" {
		say = func(format string, a ...any) { r.note(format+": "+excuse, a...) }
	}
	for _, b := range v.Bad {
		say("%d bytes at %d do not match their checksums", b.Len, b.Off)
	}
	for _, i := range v.BadRecords {
		say("the record of region %d does not match its checksum", i)
	}
}

func chunkEntries(c *chunkstore.ChunkFile, r *Report) {
	const per = 16
	letters := [4]byte{'.', 'd', 'z', '!'}
	for i := range c.Regions() {
		epoch, end, ok := c.Region(i)
		var states [per]byte
		used := !ok
		for b := range states {
			states[b] = letters[c.State(i*per+b)]
			used = used || states[b] != '.'
		}
		if used || epoch != 0 {
			r.Entries = append(r.Entries, fmt.Sprintf("region %d epoch %d end %d %s", i, epoch, end, states[:]))
		}
	}
}

// isNotExist tells whether something is simply not there.
func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
