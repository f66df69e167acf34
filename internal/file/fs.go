package file

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits.
const (
	// PieceSize is the most data in one run; runs do not cross multiples of it.
	PieceSize = 1 << 20
	// FileDirtyMax and DirtyMax bound data not yet written, of a file and of an
	// FS, in bytes; writers wait beyond.
	FileDirtyMax = 16 << 20
	DirtyMax     = 128 << 20
	// FileRunsMax and FileFlightMax bound what of one file is in flight: runs,
	// and bytes.
	FileRunsMax   = 96
	FileFlightMax = 12 << 20
	// FlushAge is how long data stays dirty when nothing else flushes it.
	FlushAge = time.Second
	// ReleaseDelay and ReleaseBatch bound how long, and how many, closed files
	// wait to be released together.
	ReleaseDelay = 10 * time.Millisecond
	ReleaseBatch = 64
	// syncRunsMax is how many extents Sync writes through one by one rather
	// than write them and sync the object.
	syncRunsMax = 4
	// syncRunMax is the largest of those, in bytes.
	syncRunMax = 128 << 10
	// pauseMin and pauseMax bound the pause before a request is repeated that
	// another client's change of the file keeps refusing.
	pauseMin = time.Millisecond
	pauseMax = 100 * time.Millisecond
)

// Meta carries operations to the leader. masterconn.Conn is one.
type Meta interface {
	// Do sends body and receives reply; it retries until ctx ends.
	Do(ctx context.Context, cred ashlar.Cred, body, reply wire.Message) error
	// Session is the present session, 0 while there is none, and DoIn is Do in
	// that session only.
	Session() ashlar.SessionID
	DoIn(ctx context.Context, in ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error
}

// Data reads and writes objects. object.Store is one.
type Data interface {
	ReadAt(ctx context.Context, ref *Ref, p []byte, off uint64) error
	WriteAt(ctx context.Context, ref *Ref, p []byte, off uint64, flags uint32) error
	Sync(ctx context.Context, ref *Ref, size uint64) error
	// Zero makes [off, off+n) zeros and gives their room back.
	Zero(ctx context.Context, ref *Ref, off, n uint64) error
	// Seek finds data, or a hole, in [off, size); size if there is none.
	Seek(ctx context.Context, ref *Ref, off, size uint64, hole bool) (uint64, error)
	// Copy copies between objects; ashlar.Unsupported if the source can not be
	// had without reading it here.
	Copy(ctx context.Context, from *Ref, fromOff uint64, to *Ref, off, n uint64) error
}

// Options are what an FS is made of.
type Options struct {
	Meta   Meta
	Data   Data
	Volume wire.VolumeReply
	Clock  clock.Clock
	Logger *slog.Logger
	// Timeout bounds background writes (a soft mount); 0 waits for ever.
	Timeout time.Duration
	// Lease tells how long the session's lease surely holds. Without it nothing
	// is answered from what is known here, and nothing can be read or written.
	Lease func() time.Duration
	// WriteBehind lets new, small files be closed before they are written.
	WriteBehind bool
	// Drop has caches above drop n bytes of data from off on, or with 0 all they
	// hold of an inode, names in it included, and returns when they have. Of inode
	// 0 it is every name, those in answers on their way to them included. It is
	// called without locks held, several times at once for one inode too.
	Drop func(ino ashlar.Inode, off, n uint64)
}

// FS is one client's view of a volume.
type FS struct {
	o      Options
	dirty  *semaphore.Weighted // DirtyMax
	skew   atomic.Int64        // leader's clock minus ours, when they are far apart
	base   context.Context     // of background work
	cancel context.CancelFunc
	leases leases
	drops  drops
	behind behind
	term   atomic.Pointer[term] // of the present session, or the next

	mu        sync.Mutex
	inodes    map[ashlar.Inode]*inode
	releases  []ashlar.Inode // closed, to be released
	releasing map[ashlar.Inode]chan struct{}
	timer     bool // a release is scheduled
	// untold is errors of files that are not open, which nobody was told.
	untold map[ashlar.Inode]error
	work   sync.WaitGroup
	read   accesses
	// locking ends with the session that locks are waited for under; nil while
	// nobody has waited.
	locking     context.Context
	stopLocking context.CancelFunc
}

// New returns a view of a volume.
func New(o Options) *FS {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	fs := &FS{
		o: o, dirty: semaphore.NewWeighted(DirtyMax),
		inodes:    map[ashlar.Inode]*inode{},
		releasing: map[ashlar.Inode]chan struct{}{},
		untold:    map[ashlar.Inode]error{},
	}
	fs.base, fs.cancel = context.WithCancel(context.Background())
	fs.nextTerm()
	fs.leases.init()
	fs.drops.init()
	if o.Lease != nil && o.Drop != nil {
		fs.work.Add(1)
		go fs.watchLease()
	}
	return fs
}

// Volume returns the volume as it was found.
func (fs *FS) Volume() wire.VolumeReply { return fs.o.Volume }

// Root returns the inode of the volume's root directory.
func (fs *FS) Root() ashlar.Inode { return fs.o.Volume.Root }

// background returns the context of one piece of background work.
func (fs *FS) background() (context.Context, context.CancelFunc) { return fs.bounded(fs.base) }

// bounded adds the timeout of background work to a context.
func (fs *FS) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if fs.o.Timeout > 0 {
		return context.WithTimeout(ctx, fs.o.Timeout)
	}
	return ctx, func() {}
}

// sleep pauses, longer each time.
func (fs *FS) sleep(ctx context.Context, pause *time.Duration) error {
	ch := make(chan struct{})
	stop := fs.o.Clock.AfterFunc(*pause, func() { close(ch) })
	defer stop()
	*pause = min(2**pause, pauseMax)
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// now is the leader's time of day as well as this client knows it.
func (fs *FS) now() int64 { return fs.o.Clock.Wall() + fs.skew.Load() }

// sawTime learns how far this machine's clock is from the leader's, from a
// time that the leader has just given out.
func (fs *FS) sawTime(t int64) {
	if d := t - fs.o.Clock.Wall(); d > int64(time.Second) || d < -int64(time.Second) {
		fs.skew.Store(d)
	} else {
		fs.skew.Store(0)
	}
}

// Opens returns the inodes open here, for the session's hello to a new leader.
func (fs *FS) Opens() []ashlar.Inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := make([]ashlar.Inode, 0, len(fs.inodes))
	for ino, i := range fs.inodes {
		i.registered = true
		out = append(out, ino)
	}
	return out
}

// open returns the state of every open inode.
func (fs *FS) open() []*inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := make([]*inode, 0, len(fs.inodes))
	for _, i := range fs.inodes {
		out = append(out, i)
	}
	return out
}

// state returns the state of an inode if it is open here.
func (fs *FS) state(ino ashlar.Inode) *inode {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.inodes[ino]
}

// FlushAll writes out and commits all dirty data of every open file.
func (fs *FS) FlushAll(ctx context.Context) error {
	var first error
	for _, i := range fs.open() {
		err := i.flush(ctx, false)
		if err == nil {
			err = i.commit(ctx)
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Close flushes everything, releases what is open and ends background work.
// When ctx ends first, what is left is dropped.
func (fs *FS) Close(ctx context.Context) error {
	err := fs.FlushAll(ctx)
	fs.mu.Lock()
	for ino := range fs.inodes {
		fs.releases = append(fs.releases, ino)
		delete(fs.inodes, ino)
	}
	fs.mu.Unlock()
	fs.sendReleases(ctx)
	fs.tellAccessed(ctx)
	fs.cancel()
	fs.work.Wait()
	return err
}
