package file

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// inode is what all handles of an open file share.
//
// Local invariants, with mu held: extents do not overlap; runs that overlap
// are started in the order they were made; dirty.bytes plus the bytes of
// unfinished runs have been acquired from room and FS.dirty.
type inode struct {
	fs   *FS
	id   ashlar.Inode
	room *semaphore.Weighted // FileDirtyMax

	opens      int  // guarded by FS.mu
	writes     int  // handles open for writing; guarded by FS.mu
	paged      int  // of those, those that pages of a cache above may be written through; guarded by FS.mu
	cached     int  // handles through which a cache above may read; guarded by FS.mu
	closing    int  // of opens, closed and waiting to be written; guarded by FS.mu
	registered bool // the leader knows that it is open; guarded by FS.mu

	dropsBegun, dropsEnded atomic.Uint64 // by caches above

	appending sync.Mutex   // one Append at a time
	io        sync.RWMutex // shared by writers, held by truncation
	commitMu  sync.Mutex

	mu    sync.Mutex
	valid bool // attr and ref have been set
	attr  ashlar.Attr
	ref   *Ref // replaced, never modified
	bare  bool // made by this open, and no extended attribute set since

	// What was written here and not committed: localEnd is the end of the
	// furthest write, mtime the time of the last; writeSeq counts writes.
	changed  bool
	localEnd uint64
	mtime    int64
	writeSeq uint64
	set      wire.Behind // times set here and not committed

	dirty               extents
	runs                map[uint64][]*run // unfinished, by piece, oldest first
	queue               []*run            // ready to start
	flying, flyingBytes int
	made                uint64 // runs made so far
	left                int    // unfinished runs
	lost                uint64 // runs up to this one are not sent: their session is gone
	// sending ends when the session that the present runs are sent under is
	// lost; nil while there are none.
	sending     context.Context
	stopSending context.CancelFunc
	waits       []*wait
	aging       bool                // the flush timer is set
	plain       uint64              // plain runs finished so far
	synced      uint64              // value of plain that a Sync has covered
	whole       bool                // a Sync covered everything at some time, and no other client changed the file since
	foreign     uint64              // changes by others seen so far
	errs        uint64              // failures so far
	err         error               // the last
	untold      bool                // nobody was told it: handles opened from now on report it, too
	kept        *kept               // what the last session did not write
	lockers     map[locker]*holding // through which handles owners may hold locks
}

// hold returns the state of an inode with one more open, so that it is not
// released. The caller opens it at the leader, then calls entered or drop.
func (fs *FS) hold(ctx context.Context, ino ashlar.Inode, flags Flags) (*inode, error) {
	for {
		fs.mu.Lock()
		gone := fs.releasing[ino]
		if gone == nil {
			break
		}
		fs.mu.Unlock() // a release on its way must not overtake the open
		select {
		case <-gone:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer fs.mu.Unlock()
	i := fs.inodes[ino]
	if i == nil {
		i = &inode{fs: fs, id: ino, room: semaphore.NewWeighted(FileDirtyMax), runs: map[uint64][]*run{}}
		fs.inodes[ino] = i
		if err := fs.untold[ino]; err != nil {
			i.errs, i.err, i.untold = 1, err, true
			delete(fs.untold, ino)
		}
		for k, r := range fs.releases {
			if r == ino {
				fs.releases = append(fs.releases[:k], fs.releases[k+1:]...)
				i.registered = true
				break
			}
		}
	}
	i.opens++
	i.count(flags, 1)
	return i, nil
}

// count counts a handle by what it is for. FS.mu must be held.
func (i *inode) count(flags Flags, n int) {
	if flags&Direct == 0 {
		i.cached += n
	}
	if flags&Write != 0 {
		i.writes += n
		if flags&Direct == 0 {
			i.paged += n
		}
	}
}

// letGo undoes hold. The last one schedules the release, and gives back the
// lease on a file that has no name any more: the leader keeps the file for it.
func (i *inode) letGo(flags Flags) {
	fs := i.fs
	nameless := i.nameless()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	i.opens--
	i.count(flags, -1)
	if i.opens > 0 || fs.inodes[i.id] != i {
		return
	}
	delete(fs.inodes, i.id)
	fs.keepUntold(i)
	if i.registered {
		fs.releases = append(fs.releases, i.id)
		fs.scheduleRelease()
	}
	if nameless {
		fs.work.Add(1)
		go func() {
			defer fs.work.Done()
			fs.giveBack([]ashlar.Inode{i.id})
		}()
	}
}

// nameless tells whether the file is known to have lost its last name.
func (i *inode) nameless() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.valid && i.attr.Nlink == 0
}

// pending tells whether something was written here and is not committed.
func (i *inode) pending() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed || i.left > 0 || i.dirty.bytes > 0
}

// merge takes in what the leader says of the inode. Answers may arrive out of
// order: an older one is ignored. own says that the answer is to a change of
// data, size or mtime made here. mu must not be held.
func (i *inode) merge(e *wire.Entry, own bool) {
	i.mu.Lock()
	old := i.attr.Version
	newer := !i.valid || e.Attr.Version > old || e.Attr.Version == old && e.Attr.Ctime >= i.attr.Ctime
	if newer {
		if i.valid && e.Attr.Version > old && !(own && e.Attr.Version == old+1) {
			i.whole = false
			i.foreign++
		}
		i.attr, i.valid = e.Attr, true
		i.setObject(&e.Object)
		i.setOrigin(e)
	}
	i.mu.Unlock()
}

// mergeAttr is merge of attributes alone.
func (i *inode) mergeAttr(a *ashlar.Attr) {
	i.mu.Lock()
	ref := i.ref
	i.mu.Unlock()
	if ref != nil {
		i.merge(&wire.Entry{Attr: *a, Object: ref.Object}, false)
	}
}

// setObject replaces ref unless o is older. mu must be held.
func (i *inode) setObject(o *wire.Object) {
	if r := i.ref; r != nil && r.Layer == o.Layer {
		if o.Gen < r.Gen || o.Gen == r.Gen && coverage(o) <= coverage(&r.Object) {
			return
		}
	}
	if r := i.ref; r != nil && (r.Layer != o.Layer || r.Gen != o.Gen) {
		i.wasCut()
	}
	ref := Ref{Object: *o, Owner: i.id}
	if i.ref != nil {
		ref.Hint = i.ref.Hint
	}
	i.ref = &ref
}

// setOrigin takes over what new chunks note of the file: its attributes, and
// its name if the leader says it. mu must be held.
func (i *inode) setOrigin(e *wire.Entry) {
	ref := *i.ref
	ref.UID, ref.GID, ref.Mode = e.Attr.UID, e.Attr.GID, e.Attr.Mode
	if e.Hint != "" {
		ref.Hint = e.Hint
	}
	if old := i.ref; ref.UID != old.UID || ref.GID != old.GID || ref.Mode != old.Mode || ref.Hint != old.Hint {
		i.ref = &ref
	}
}

// wasCut forgets how far writes reached that were in the object before
// somebody cut it: what the new size does not tell of them is gone. Those not
// written yet will be. mu must be held.
func (i *inode) wasCut() {
	i.localEnd = 0
	for _, list := range i.runs {
		for _, r := range list {
			i.localEnd = max(i.localEnd, r.end())
		}
	}
	i.dirty.m.Reverse(func(_ uint64, e *extent) bool {
		i.localEnd = max(i.localEnd, e.end())
		return false
	})
}

// coverage is how many chunks an object's layout covers.
func coverage(o *wire.Object) uint64 {
	switch {
	case len(o.Layout.Segments) == 0:
		return 0
	case o.Layout.Limit == 0:
		return 1 << 32
	}
	return uint64(o.Layout.Limit)
}

// view is the attributes with what was done here and not committed.
func (i *inode) view() ashlar.Attr {
	i.mu.Lock()
	defer i.mu.Unlock()
	a := i.attr
	if i.changed {
		if i.localEnd > a.Size {
			a.Blocks += (i.localEnd - a.Size + 511) / 512
			a.Size = i.localEnd
		}
		a.Mtime, a.Ctime = i.mtime, max(a.Ctime, i.mtime)
		i.shown(&a)
	}
	return a
}

// size is the file's size as seen here. mu must be held.
func (i *inode) size() uint64 {
	if i.changed {
		return max(i.attr.Size, i.localEnd)
	}
	return i.attr.Size
}

// fail records an error for every open handle. mu must be held.
func (i *inode) fail(err error) {
	i.errs++
	i.err = err
}

// failures returns how many there were so far.
func (i *inode) failures() uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.errs
}

// refresh asks the leader for the inode's present state.
func (i *inode) refresh(ctx context.Context) error {
	var e wire.Entry
	if err := i.fs.do(ctx, ashlar.Cred{Checked: true}, &wire.GetAttr{Inode: i.id}, &e); err != nil {
		return err
	}
	i.merge(&e, false)
	return nil
}

// withObject calls f with the inode's object, again when it turns out to be of
// another generation (I-10) or too small for [off, off+n), until ctx ends.
func (i *inode) withObject(ctx context.Context, off, n uint64, grow bool, f func(*Ref) error) error {
	for pause := pauseMin; ; {
		i.mu.Lock()
		ref := i.ref
		i.mu.Unlock()
		err := f(ref)
		switch {
		case errors.Is(err, ashlar.WrongGeneration):
			err = i.refresh(ctx)
		case errors.Is(err, ashlar.ErrBeyondLayout) && grow:
			err = i.grow(ctx, ref, off, n)
		default:
			return err
		}
		if err != nil {
			return err
		}
		i.mu.Lock()
		same := i.ref == ref
		i.mu.Unlock()
		if same { // a cut is under way: its outcome is not known to the leader yet
			if err := i.fs.sleep(ctx, &pause); err != nil {
				return err
			}
		}
	}
}

// grow asks for a layout that covers [off, off+n).
func (i *inode) grow(ctx context.Context, ref *Ref, off, n uint64) error {
	var chunk uint32
	if l := &ref.Layout; l.ChunkSize > 0 {
		chunk = max(uint32((off+max(n, 1)-1)/uint64(l.ChunkSize)), l.Limit)
	}
	var e wire.Entry
	err := i.fs.do(ctx, ashlar.Cred{Checked: true}, &wire.Grow{Inode: i.id, Layer: ref.Layer, Chunk: chunk}, &e)
	if errors.Is(err, ashlar.WrongGeneration) {
		return i.refresh(ctx)
	}
	if err == nil {
		i.merge(&e, false)
	}
	return err
}
