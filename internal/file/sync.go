package file

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// commit reports size and mtime to the leader if data was written since the
// last time. All that is to be seen by others must be in the object; data that
// is not is reported again by a later commit. What was written under a session
// that is over is not told under the next (I-7): it was lost with that.
func (i *inode) commit(ctx context.Context) error {
	i.commitMu.Lock()
	defer i.commitMu.Unlock()
	for pause := pauseMin; ; {
		in := i.fs.o.Meta.Session() // before it is looked at what is to be told
		m, committed := i.uncommitted()
		if m == nil {
			return nil
		}
		var e wire.Entry
		err := i.fs.doIn(ctx, in, ashlar.Cred{Checked: true}, m, &e)
		if errors.Is(err, ashlar.NoSession) {
			if err := i.fs.sleep(ctx, &pause); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, ashlar.WrongGeneration) {
			if err := i.refresh(ctx); err != nil {
				return err
			}
			if err := i.fs.sleep(ctx, &pause); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		i.merge(&e, true)
		committed()
		return nil
	}
}

// uncommitted returns what is to be reported to the leader, nil if nothing is,
// and what to call when it was. commitMu must be held.
func (i *inode) uncommitted() (m *wire.Commit, committed func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.changed {
		return nil, nil
	}
	seq := i.writeSeq
	// Written since the flush: once that is in the object, the version has to
	// rise again.
	all := i.left == 0 && i.dirty.bytes == 0
	m = &wire.Commit{Inode: i.id, Layer: i.ref.Layer, Gen: i.ref.Gen, Size: i.localEnd, Mtime: i.mtime, Set: i.set}
	return m, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.writeSeq == seq && all {
			i.changed, i.localEnd = false, 0
		}
		if i.writeSeq == seq {
			i.set.Valid = 0
		}
	}
}

// commitAll is commit for several files, in one operation. Those that it fails
// for are left to commit.
func (fs *FS) commitAll(ctx context.Context, all []*inode) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *inode) int { return cmp.Compare(a.id, b.id) }) // in which all lock
	all = slices.Compact(all)
	m := &wire.Commits{}
	var files []*inode
	var committed []func()
	in := fs.o.Meta.Session()
	for _, i := range all {
		i.commitMu.Lock()
		defer i.commitMu.Unlock()
		if c, done := i.uncommitted(); c != nil {
			m.List = append(m.List, *c)
			files, committed = append(files, i), append(committed, done)
		}
	}
	if len(files) < 2 {
		return
	}
	asked := fs.leases.ask()
	var r wire.CommitsReply
	if err := fs.o.Meta.DoIn(ctx, in, ashlar.Cred{Checked: true}, m, &r); err != nil || len(r.Attrs) != len(files) {
		for _, i := range files {
			fs.doubtInode(i.id)
		}
		return
	}
	for k, i := range files {
		i.mu.Lock()
		o := i.ref.Object
		i.mu.Unlock()
		fs.learn(asked, &r.Attrs[k], &o, ashlar.LeaseNone)
		i.merge(&wire.Entry{Attr: r.Attrs[k], Object: o}, true)
		committed[k]()
	}
}

// sync puts all data acknowledged before, and the size, on stable storage on
// every in-sync member; without dataOnly mtime too.
func (i *inode) sync(ctx context.Context, dataOnly bool) error {
	i.mu.Lock()
	// A few small writes go straight to stable storage, if that is all there is.
	direct := i.whole && i.synced == i.plain && i.dirty.m.Len() <= syncRunsMax
	if direct {
		i.dirty.m.Scan(func(_ uint64, e *extent) bool {
			direct = len(e.data) <= syncRunMax
			return direct
		})
	}
	errs := i.errs
	i.mu.Unlock()
	if err := i.flush(ctx, direct); err != nil {
		return err
	}
	i.mu.Lock()
	if i.errs != errs {
		err := i.err
		i.mu.Unlock()
		return err // what was lost needs no syncing; the handles report it
	}
	plain, size := i.plain, i.size()
	needSync := !i.whole || i.synced != plain
	needCommit := i.changed && (!dataOnly || i.localEnd > i.attr.Size)
	i.mu.Unlock()
	switch {
	case !needSync && !needCommit:
		return nil
	case !needCommit:
		return i.syncObject(ctx, size, plain)
	case !needSync:
		return i.commit(ctx)
	}
	var g errgroup.Group
	g.Go(func() error { return i.syncObject(ctx, size, plain) })
	g.Go(func() error { return i.commit(ctx) })
	return g.Wait()
}

// syncObject syncs all groups of the object and notes that plain runs are
// covered.
func (i *inode) syncObject(ctx context.Context, size, plain uint64) error {
	i.mu.Lock()
	foreign := i.foreign
	i.mu.Unlock()
	if size > 0 {
		err := i.withObject(ctx, 0, 0, false, func(ref *Ref) error {
			return i.fs.o.Data.Sync(ctx, ref, size)
		})
		if err != nil {
			return err
		}
	}
	i.mu.Lock()
	i.synced = max(i.synced, plain)
	if i.foreign == foreign {
		i.whole = true
	}
	i.mu.Unlock()
	return nil
}

// truncate changes the size through set, which does it at the leader. Dirty
// data beyond it is dropped, and nothing is in flight meanwhile.
func (i *inode) truncate(ctx context.Context, size uint64, set func() (*wire.Entry, error)) error {
	i.io.Lock()
	defer i.io.Unlock()
	dropped := i.discard(size)
	if err := i.flush(ctx, false); err != nil {
		return err
	}
	// Data beyond the size that the leader knows would not be cut, and come
	// back when the file grows again.
	if i.beyond(size) || i.setHere() {
		if err := i.commit(ctx); err != nil {
			return err
		}
	}
	i.commitMu.Lock()
	defer i.commitMu.Unlock()
	e, err := set()
	if err != nil {
		if dropped {
			i.mu.Lock()
			i.fail(err)
			i.mu.Unlock()
		}
		return err
	}
	i.merge(e, true)
	i.mu.Lock()
	i.changed, i.localEnd = false, 0
	i.mu.Unlock()
	return nil
}

// beyond tells whether data beyond size may be in the object without the
// leader knowing.
func (i *inode) beyond(size uint64) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed && i.localEnd > size
}
