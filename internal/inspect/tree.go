package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// depthMax bounds how deep directories are followed.
const depthMax = 32

// Walker looks at whole trees.
type Walker struct {
	Options
	// Each is called with every report, in order of path within a directory.
	Each func(*Report)
	// Progress, if set, hears how many files and bytes were looked at.
	Progress func(files int, bytes int64)

	Totals Totals
}

// Walk looks at a file, or at everything below a directory. Errors of single
// files are in reports; its own error is that of the context.
func (w *Walker) Walk(ctx context.Context, name string) error {
	st, err := w.FS.Stat(name)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return w.dir(ctx, name, place{}, 0)
	}
	w.report(Look(w.Options, name), st.Size())
	return ctx.Err()
}

// place is what a directory is part of.
type place struct {
	disk *diskContext
	last string // the newest segment in it
	ours bool   // it has several names of Ashlar's
}

func (w *Walker) report(r *Report, bytes int64) {
	w.Totals.Add(r)
	w.Totals.Bytes += bytes
	w.Each(r)
	if w.Progress != nil {
		w.Progress(w.Totals.Files, w.Totals.Bytes)
	}
}

// names that mean nothing: locks, and what a crash left of a replacement.
func ignored(name string) bool {
	return name == "lock" || name == "LOCK" || name == "chunkserver.lock" || strings.HasSuffix(name, ".tmp") || name == "chunkserver.new"
}

func (w *Walker) dir(ctx context.Context, dir string, at place, depth int) error {
	names, err := w.FS.List(dir)
	if err != nil || depth > depthMax {
		r := &Report{Path: dir, Status: OK}
		r.fail(errors.Join(err, ctx.Err()))
		w.report(r, 0)
		return ctx.Err()
	}
	has := map[string]bool{}
	known := 0
	for _, n := range names {
		has[n] = true
		if common[n] || n == chunkstore.ChunksName || n == "chunkserver.lock" {
			known++
		}
		if expected(path.Join(dir, n)) == "log segment" {
			at.last = n
		}
	}
	at.ours = known > 1
	if done, err := w.store(ctx, dir, has); done || err != nil {
		return err
	}
	if has[chunkstore.IdentityName] && has[chunkstore.ChunksName] {
		at.disk = w.disk(dir, has)
	}
	w.inUse(dir, has)
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.one(ctx, path.Join(dir, n), at, depth); err != nil {
			return err
		}
	}
	if at.last != "" {
		w.log(dir)
	}
	return nil
}

// one looks at a name in a directory.
func (w *Walker) one(ctx context.Context, name string, at place, depth int) error {
	base := path.Base(name)
	if ignored(base) {
		return nil
	}
	st, err := w.FS.Stat(name)
	if isNotExist(err) {
		return nil // removed meanwhile
	}
	if err == nil && st.IsDir() {
		return w.dir(ctx, name, at, depth+1)
	}
	if err == nil && !st.Mode().IsRegular() {
		return nil
	}
	x := &file{o: w.Options, name: name, newest: at.last == "" || base == at.last, chance: !at.ours}
	size := int64(0)
	if err == nil {
		size = st.Size()
	}
	if at.disk != nil {
		x.excused = at.disk.excused
	}
	r := look(x)
	if at.disk != nil && r.Cluster != "" && r.Cluster != at.disk.cluster && at.disk.cluster != "" {
		r.damage("it belongs to cluster %s, the disk to %s", r.Cluster, at.disk.cluster)
	}
	w.report(r, size)
	return nil
}

// inUse notes that a running process has the directory.
func (w *Walker) inUse(dir string, has map[string]bool) {
	for _, n := range []string{"lock", consensus.LockName, "chunkserver.lock"} {
		if !has[n] {
			continue
		}
		l, err := w.FS.Lock(path.Join(dir, n))
		if errors.Is(err, syscall.EWOULDBLOCK) {
			r := &Report{Path: dir, Kind: "directory", Status: OK}
			r.note("a running process has it: what is being written meanwhile may look damaged")
			w.report(r, 0)
		} else if err == nil {
			_ = l.Close() // nothing was taken
		}
	}
}

// diskContext is what a disk says of its chunks.
type diskContext struct {
	cluster string
	all     bool
	dirty   map[chunkstore.Key]bool
	ranges  [][2]ashlar.LayerID
	flying  map[chunkstore.Key]bool
}

// disk reads what excuses torn chunks, and reports what the disk lacks.
func (w *Walker) disk(dir string, has map[string]bool) *diskContext {
	d := &diskContext{dirty: map[chunkstore.Key]bool{}, flying: map[chunkstore.Key]bool{}}
	for _, n := range []string{chunkstore.MarksName, chunkstore.GroupsName, chunkstore.InflightName} {
		if !has[n] {
			r := &Report{Path: path.Join(dir, n), Status: OK, Kind: expected(path.Join(dir, n))}
			r.damage("it is missing from the disk")
			w.report(r, 0)
		}
	}
	if b, err := ReadFile(w.FS, path.Join(dir, chunkstore.IdentityName), smallMax); err == nil {
		if id, err := chunkstore.ReadIdentityFile(b, ""); err == nil {
			d.cluster = id.Cluster.String()
		}
	}
	d.marks(w.FS, dir)
	if b, err := ReadFile(w.FS, path.Join(dir, chunkstore.InflightName), chunkstore.InflightFileSize); err == nil {
		if t, err := chunkstore.ReadInflightFile(b, ""); err == nil {
			for _, e := range t.Entries {
				if !e.Done {
					d.flying[chunkstore.Key{Group: e.Group, Layer: e.Layer, Index: e.Chunk}] = true
				}
			}
		}
	}
	return d
}

func (d *diskContext) marks(fsys vfs.FS, dir string) {
	b, err := ReadFile(fsys, path.Join(dir, chunkstore.MarksName), journalMax)
	if err != nil {
		d.all = true
		return
	}
	m, err := chunkstore.ReadMarksFile(b, "")
	if err != nil || m.Missing {
		d.all = true
		return
	}
	for _, k := range append(m.Dirty, m.Suspects...) {
		d.dirty[k] = true
	}
	d.ranges = m.Ranges
}

// excused says why a chunk may be torn, "" if it may not.
func (d *diskContext) excused(k chunkstore.Key) string {
	if d.flying[k] {
		return "a write to it was in flight; it is made equal on all members before it is served"
	}
	marked := d.all || d.dirty[k]
	for _, r := range d.ranges {
		marked = marked || k.Layer >= r[0] && k.Layer <= r[1]
	}
	if marked {
		return "it is marked dirty; it is compared with other members before it is served"
	}
	return ""
}

// log reports whether the segments of a log follow each other.
func (w *Walker) log(dir string) {
	r := &Report{Path: dir, Kind: "log", Status: OK}
	st, err := wal.Read(w.FS, dir)
	if err != nil {
		r.fail(err)
	} else {
		r.field("mark", "index %d, term %d", st.Mark.Index, st.Mark.Term)
		r.field("entries", "%d above it", len(st.Entries))
		r.field("state", "term %d, vote %x, commit %d", st.Hard.Term, st.Hard.Vote, st.Hard.Commit)
		if st.Pending != nil {
			r.note("a checkpoint as of index %d was being installed", st.Pending.Index)
		}
	}
	w.report(r, 0)
}

// store looks at a store of the masters, or a checkpoint, as one thing.
func (w *Walker) store(ctx context.Context, dir string, has map[string]bool) (done bool, err error) {
	if !has[kv.IdentityName] {
		return false, nil
	}
	name := path.Join(dir, kv.IdentityName)
	b, err := ReadFile(w.FS, name, smallMax)
	if err != nil {
		return false, nil // the file's own report says so
	}
	k := kindOf(b)
	looksLike := has[kv.CurrentName] && has["db-000001"]
	if (k == nil || k.magic != kv.IdentityMagic) && !looksLike || has[consensus.LogDir] {
		return false, nil
	}
	r := &Report{Path: dir, Kind: "store", Status: OK}
	if !has[kv.CurrentName] {
		r.Kind = "checkpoint"
	}
	if l, err := w.FS.Lock(path.Join(dir, kv.LockName)); errors.Is(err, syscall.EWOULDBLOCK) {
		r.note("a running process has it: what it writes meanwhile may look damaged")
	} else if err == nil {
		_ = l.Close()
	}
	bytes := w.readStore(ctx, dir, name, b, r)
	w.report(r, bytes)
	return true, ctx.Err()
}

func (w *Walker) readStore(ctx context.Context, dir, name string, identity []byte, r *Report) (bytes int64) {
	cluster, err := kv.ReadIdentityFile(identity, name)
	if err != nil {
		r.fail(err)
		return 0
	}
	r.cluster(cluster)
	keys := 0
	applied, unnamed, err := kv.Read(w.FS, dir, func(k, v []byte) error {
		keys++
		bytes += int64(len(k) + len(v))
		if w.Entries {
			r.Entries = append(r.Entries, fmt.Sprintf("%x %d bytes", k, len(v)))
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		r.fail(err)
	}
	switch {
	case len(unnamed) > 0 && applied == 0:
		r.damage("its manifest names no table, but there are %v: it is cut short", unnamed)
	case len(unnamed) > 0:
		r.note("its manifest does not name %v: a flush was interrupted, or the manifest is cut short; if the log beside it begins above index %d it is damage", unnamed, applied)
	}
	r.field("applied", "index %d", applied)
	r.field("keys", "%d, %d bytes", keys, bytes)
	return bytes
}

// ReadFile returns a file of at most limit bytes.
func ReadFile(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, ashlar.E("read", ashlar.Corrupt, name, fmt.Errorf("%d bytes, at most %d are right", n, limit))
	}
	b := make([]byte, n)
	if got, err := f.ReadAt(b, 0); int64(got) != n {
		return nil, ashlar.E("read", ashlar.IO, name, errors.Join(err, fs.ErrInvalid))
	}
	return b, nil
}

// Count tells how many files there are below a name, for showing progress. It
// stops counting when the context ends.
func Count(ctx context.Context, fsys vfs.FS, name string) (files int) {
	st, err := fsys.Stat(name)
	if err != nil || ctx.Err() != nil {
		return 0
	}
	if !st.IsDir() {
		return 1
	}
	names, err := fsys.List(name)
	if err != nil {
		return 0
	}
	for _, n := range names {
		files += Count(ctx, fsys, path.Join(name, n))
	}
	return files
}
