package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Flags of Open and Create.
type Flags uint32

// The flags.
const (
	Read Flags = 1 << iota
	Write
	Append   // every write goes to the end, whoever else appends
	Truncate // empty it
	// Through makes a write return only when its data is in the object.
	Through
	// Direct says that no cache above keeps what is read and written through the
	// handle.
	Direct
)

// Handle is an open file. Its methods may be called concurrently.
type Handle struct {
	i     *inode
	flags Flags

	broken atomic.Bool // locks held through it are lost

	mu     sync.Mutex
	errs   uint64 // failures of the inode reported here
	closed bool
}

// Open opens a regular file. The leader is asked unless the file is known here
// under a lease and the caller's permission was checked; it learns of the open
// when that lease is returned.
func (fs *FS) Open(ctx context.Context, cred ashlar.Cred, ino ashlar.Inode, flags Flags) (*Handle, error) {
	i, err := fs.hold(ctx, ino, flags)
	if err != nil {
		return nil, err
	}
	if err := i.open(ctx, cred, flags); err != nil {
		i.letGo(flags)
		return nil, err
	}
	return fs.handle(i, flags), nil
}

// open registers the inode as open, and empties it with Truncate.
func (i *inode) open(ctx context.Context, cred ashlar.Cred, flags Flags) error {
	if flags&Truncate == 0 && cred.Checked && i.fs.openKnown(i, flags&Write != 0) {
		return nil
	}
	e := new(wire.Entry)
	m := &wire.Open{Inode: i.id, Write: flags&Write != 0, Truncate: flags&Truncate != 0}
	if m.Truncate {
		return i.truncate(ctx, 0, func() (*wire.Entry, error) {
			return e, i.fs.openAtLeader(ctx, i, cred, m, e)
		})
	}
	if err := i.fs.openAtLeader(ctx, i, cred, m, e); err != nil {
		return err
	}
	i.merge(e, false)
	return nil
}

// openKnown opens a file that is known under a lease. One that may be being
// removed is for the leader, and so is one to be written whose name is not known
// here: its chunks note that.
func (fs *FS) openKnown(i *inode, write bool) bool {
	if fs.left() == 0 {
		return false
	}
	l := &fs.leases
	l.mu.Lock()
	x := l.firm(i.id)
	if x == nil || !x.known || x.going || x.giving != nil || x.attr.Nlink == 0 || write && x.hint == "" {
		l.mu.Unlock()
		return false
	}
	x.used = true
	e := wire.Entry{Attr: x.attr, Object: x.object, Hint: x.hint}
	l.mu.Unlock()
	i.merge(&e, false)
	return true
}

func (fs *FS) openAtLeader(ctx context.Context, i *inode, cred ashlar.Cred, m *wire.Open, e *wire.Entry) error {
	if err := fs.do(ctx, cred, m, e); err != nil {
		return err
	}
	fs.mu.Lock()
	i.registered = true
	fs.mu.Unlock()
	return nil
}

// Create makes a regular file and opens it, or without m.Exclusive opens the
// one that is there. created tells which.
func (fs *FS) Create(ctx context.Context, cred ashlar.Cred, m *wire.Make, flags Flags) (h *Handle, created bool, err error) {
	m.Type, m.Open = ashlar.TypeFile, true
	var e wire.Entry
	if err := fs.do(ctx, cred, m, &e); err != nil {
		return nil, false, err
	}
	if !e.Created {
		h, err := fs.Open(ctx, cred, e.Attr.Inode, flags)
		return h, false, err
	}
	fs.sawTime(e.Attr.Ctime)
	i, err := fs.hold(ctx, e.Attr.Inode, flags)
	if err != nil {
		return nil, true, err
	}
	fs.mu.Lock()
	i.registered = true
	fs.mu.Unlock()
	i.merge(&e, false)
	i.mu.Lock()
	i.whole, i.bare = true, true // nothing of it was ever unsynced
	i.mu.Unlock()
	return fs.handle(i, flags), true, nil
}

func (fs *FS) handle(i *inode, flags Flags) *Handle {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := &Handle{i: i, flags: flags, errs: i.errs}
	if i.untold {
		h.errs--
	}
	return h
}

// Inode returns the number of the open file.
func (h *Handle) Inode() ashlar.Inode { return h.i.id }

// Attr returns the attributes as far as they are known here.
func (h *Handle) Attr() ashlar.Attr { return h.i.view() }

// Object returns where the data is.
func (h *Handle) Object() wire.Object {
	h.i.mu.Lock()
	defer h.i.mu.Unlock()
	return h.i.ref.Object
}

// ReadAt fills p from off and returns how much there was: less than len(p)
// only at the end of the file.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off uint64) (int, error) {
	if h.flags&Read == 0 {
		return 0, ashlar.E("read", ashlar.Invalid, "", errors.New("not open for reading"))
	}
	if err := h.intact(); err != nil {
		return 0, err
	}
	end, err := h.use(ctx, ashlar.LeaseShared, off, uint64(len(p)))
	if err != nil {
		return 0, err
	}
	defer end()
	return h.i.read(ctx, p, off)
}

// use gets the lease for one access. end must follow.
func (h *Handle) use(ctx context.Context, mode ashlar.LeaseMode, off, n uint64) (end func(), err error) {
	return h.i.fs.use(ctx, h.i, h.demand(mode, off, n))
}

func (h *Handle) demand(mode ashlar.LeaseMode, off, n uint64) demand {
	return demand{mode: mode, span: span{off, off + n}, paged: n > 0 && h.flags&Direct == 0}
}

// change is use for a change of data that is none of a cache above.
func (h *Handle) change(ctx context.Context) (t *term, end func(), err error) {
	return h.i.fs.useIn(ctx, h.i, demand{mode: ashlar.LeaseExclusive})
}

// Own gets the lease that a write of n bytes at off needs, which another may
// take back at any time.
func (h *Handle) Own(ctx context.Context, off, n uint64) error {
	end, err := h.use(ctx, ashlar.LeaseExclusive, off, n)
	if err == nil {
		end()
	}
	return err
}

// WriteAt writes p at off. It returns when the data is buffered, or with
// Through when it is in the object.
func (h *Handle) WriteAt(ctx context.Context, p []byte, off uint64) error {
	return h.writeAt(ctx, p, off, false)
}

// WriteBack is WriteAt of what a cache above held, and may be waiting to get rid
// of.
func (h *Handle) WriteBack(ctx context.Context, p []byte, off uint64) error {
	return h.writeAt(ctx, p, off, true)
}

func (h *Handle) writeAt(ctx context.Context, p []byte, off uint64, cached bool) error {
	if err := h.writable(off, len(p)); err != nil || len(p) == 0 {
		return err
	}
	t, end, err := h.i.fs.useIn(ctx, h.i, demand{
		mode: ashlar.LeaseExclusive, span: span{off, off + uint64(len(p))}, paged: cached || h.flags&Direct == 0, cached: cached,
	})
	if err != nil {
		return err
	}
	defer end()
	return h.write(ctx, t, p, off)
}

func (h *Handle) writable(off uint64, n int) error {
	if h.flags&Write == 0 {
		return ashlar.E("write", ashlar.Invalid, "", errors.New("not open for writing"))
	}
	if off > ashlar.FileSizeMax || uint64(n) > ashlar.FileSizeMax-off {
		return ashlar.E("write", ashlar.TooBig, "", fmt.Errorf("a file has at most %d bytes", uint64(ashlar.FileSizeMax)))
	}
	return h.intact()
}

func (h *Handle) write(ctx context.Context, t *term, p []byte, off uint64) error {
	i := h.i
	i.mu.Lock()
	errs := i.errs
	i.mu.Unlock()
	i.io.RLock()
	defer i.io.RUnlock()
	for len(p) > 0 {
		n := min(len(p), int(PieceSize-off%PieceSize))
		if err := i.buffer(ctx, t, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+uint64(n)
	}
	if h.flags&Through == 0 {
		return nil
	}
	if err := i.flush(ctx, false); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.errs != errs {
		return i.err
	}
	return nil
}

// Append writes p at the end of the file: under an exclusive lease that is
// known here, and no two appenders get the same place. It returns where p went.
// A cache above, which may hold pages locked meanwhile, takes the end to be at
// guess.
func (h *Handle) Append(ctx context.Context, p []byte, guess uint64) (uint64, error) {
	if err := h.writable(0, len(p)); err != nil {
		return 0, err
	}
	i := h.i
	t, end, err := h.i.fs.useIn(ctx, h.i, h.demand(ashlar.LeaseExclusive, guess, uint64(len(p))))
	if err != nil {
		return 0, err
	}
	defer end()
	i.appending.Lock()
	defer i.appending.Unlock()
	i.mu.Lock()
	off := i.size()
	i.mu.Unlock()
	if err := h.writable(off, len(p)); err != nil || len(p) == 0 {
		return off, err
	}
	return off, h.write(ctx, t, p, off)
}

// Bypassed tells whether a file is open here for writing past caches above.
func (fs *FS) Bypassed(ino ashlar.Inode) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	i := fs.inodes[ino]
	return i != nil && i.writes > i.paged
}

// Shadowed tells whether a cache above may just have read, through another
// handle, what was there before a write through this one.
func (h *Handle) Shadowed() bool {
	h.i.fs.mu.Lock()
	defer h.i.fs.mu.Unlock()
	return h.flags&Direct != 0 && h.i.cached > 0
}

// IsAppend tells whether the handle was opened with Append.
func (h *Handle) IsAppend() bool { return h.flags&Append != 0 }

// Sync puts all acknowledged data of the file on stable storage, and its size
// and mtime; with dataOnly an mtime alone is left out.
func (h *Handle) Sync(ctx context.Context, dataOnly bool) error {
	// What others have written is in the object once they have no lease to
	// buffer any, and the version tells that it is there.
	end, err := h.use(ctx, ashlar.LeaseShared, 0, 0)
	switch {
	case err == nil:
		end()
	case !errors.Is(err, ashlar.Stale): // otherwise nobody has the file any more
		return err
	}
	err = h.i.sync(ctx, dataOnly)
	if kept := h.report(); kept != nil {
		return kept
	}
	if err == nil {
		err = h.intact()
	}
	return err
}

// Flush is what closing does first: all data is in the object and committed when
// it returns, unless the file may be written behind. Errors of earlier writes are reported here, once.
func (h *Handle) Flush(ctx context.Context) error {
	kept, err := h.flush(ctx)
	return cmp.Or(kept, err, h.intact())
}

// flush returns an error of earlier writes, and of its own.
func (h *Handle) flush(ctx context.Context) (kept, err error) {
	if h.flags&Write != 0 && !h.i.later(h.flags) {
		if err = h.i.flush(ctx, false); err == nil {
			err = h.i.commit(ctx)
		}
	}
	return h.report(), err
}

// report returns the last error of the inode that this handle has not told.
func (h *Handle) report() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.i.mu.Lock()
	defer h.i.mu.Unlock()
	if h.errs == h.i.errs {
		return nil
	}
	h.errs, h.i.untold = h.i.errs, false
	return h.i.err
}

// Truncate changes the size of the file.
func (h *Handle) Truncate(ctx context.Context, size uint64) error {
	if err := h.writable(size, 0); err != nil {
		return err
	}
	_, err := h.i.fs.SetAttr(ctx, ashlar.Cred{Checked: true}, &wire.SetAttr{Inode: h.i.id, Valid: wire.SetSize, Size: size})
	return err
}

// Close flushes and gives the handle up, also when it reports an error.
func (h *Handle) Close(ctx context.Context) error { return h.close(ctx, true) }

// Release is Close when its error reaches nobody: whoever opens the file next is
// told of data that was lost.
func (h *Handle) Release(ctx context.Context) error { return h.close(ctx, false) }

func (h *Handle) close(ctx context.Context, heard bool) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return ashlar.E("close", ashlar.Invalid, "", errors.New("closed already"))
	}
	h.closed = true
	h.mu.Unlock()
	kept, err := h.flush(ctx)
	if kept != nil && !heard {
		h.i.mu.Lock()
		h.i.untold = true
		h.i.mu.Unlock()
	}
	err = cmp.Or(kept, err, h.intact())
	if lerr := h.releaseAll(ctx); err == nil {
		err = lerr
	}
	if h.flags&Write != 0 && h.i.pending() {
		h.i.letGoLater(h.flags, h.told())
	} else {
		h.i.letGo(h.flags)
	}
	return err
}

// told returns how many failures of the inode it has reported.
func (h *Handle) told() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.errs
}
