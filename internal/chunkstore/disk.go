package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Key names a chunk on a disk.
type Key struct {
	Group ashlar.PGID
	Layer ashlar.LayerID
	Index uint32
}

// String names the chunk in messages.
func (k Key) String() string {
	return fmt.Sprintf("pg %d layer %x chunk %d", k.Group, uint64(k.Layer), k.Index)
}

// Region is a byte range of a chunk.
type Region struct{ Off, Len uint32 }

// Limits of what a Disk keeps in memory and leaves unsynced.
const (
	// HandlesDefault is how many chunks are kept open if Config does not say.
	HandlesDefault = 1024
	// metaPagesMax is how many 4 KiB pages of region records are cached.
	metaPagesMax = 16384
	// unsyncedMax is how many chunks may be unsynced before they are synced in
	// the background.
	unsyncedMax = 65536
	// syncParallel is how many files one call syncs at a time.
	syncParallel = 8
	// tickEvery is how often the background work looks around; chunks left
	// unsynced for syncTicks ticks are synced, as the kernel would write them.
	tickEvery = 5 * time.Second
	syncTicks = 6
)

// Config says which disk to open and how.
type Config struct {
	FS      vfs.FS
	Dir     string
	Cluster ashlar.ClusterID
	// History of the cluster, 0 if not known yet; a lower one than the disk
	// has seen is refused.
	History ashlar.History
	// BootID changes when the machine loses its memory: the contents of
	// /proc/sys/kernel/random/boot_id. Empty: assume that it did.
	BootID string
	// Reserve is how many free bytes new data leaves alone; 0 means the larger
	// of 1 GiB and 2 %.
	Reserve uint64
	// Handles is how many chunks are kept open, 0 for HandlesDefault.
	Handles int
	Clock   clock.Clock  // nil for the machine's
	Logger  *slog.Logger // nil for none
	Labels  []string
	// OnFail is called once, in a goroutine of its own, when the disk is lost.
	OnFail func(error)
}

// Disk is an open disk. Its methods may be called concurrently, except that
// writes, imports, truncations and reads of overlapping ranges of one chunk are
// ordered by the caller, as are deletes with everything else on the same
// layer.
type Disk struct {
	fs        vfs.FS
	dir       string
	chunksDir string
	id        identity
	labels    []string
	lock      io.Closer
	log       *slog.Logger
	clk       clock.Clock
	onFail    func(error)
	failure   atomic.Pointer[error]

	bootChanged bool
	marks       *marks
	groups      *groups
	inflight    *Inflight
	unsynced    unsynced
	dirs        dirs
	handles     handles
	space       space

	damaged  atomic.Uint64
	healed   atomic.Uint64
	rot      rot
	accepted atomic.Uint64

	idMu  sync.Mutex // writes of the identity
	kicks chan struct{}
	stop  chan struct{}
	done  chan struct{}
}

// Open opens a formatted disk. It refuses a directory without identity
// (NotExist), a disk of another cluster or of a later history (WrongCluster),
// one that is open already (Busy), and damaged or newer formats.
func Open(c Config) (*Disk, error) {
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Handles == 0 {
		c.Handles = HandlesDefault
	}
	id, lock, err := claim(&c)
	if err != nil {
		return nil, err
	}
	d := &Disk{
		fs: c.FS, dir: c.Dir, chunksDir: path.Join(c.Dir, chunksName), id: id, labels: c.Labels, lock: lock,
		log: c.Logger.With("disk", c.Dir), clk: c.Clock, onFail: c.OnFail,
		kicks: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	d.unsynced.init()
	d.dirs.m = map[slotKey]*nameDir{}
	d.handles.init(c.Handles)
	if err := d.start(&c); err != nil {
		_ = d.release() // why it did not start is the error that matters
		if ashlar.KindOf(err) != ashlar.Other {
			return nil, fmt.Errorf("open disk %s: %w", c.Dir, err)
		}
		return nil, ashlar.E("open disk", ashlar.IO, c.Dir, err)
	}
	go d.background()
	return d, nil
}

func (d *Disk) start(c *Config) error {
	err := d.fs.MkdirAll(d.chunksDir)
	if err == nil {
		err = d.fs.SyncDir(d.dir)
	}
	if err == nil {
		err = d.space.init(d, c.Reserve)
	}
	if err == nil {
		err = d.openGroups()
	}
	if err == nil {
		err = d.openMarks(c.BootID)
	}
	if err == nil {
		d.inflight, err = openInflight(d)
	}
	return err
}

// UUID identifies the disk for life.
func (d *Disk) UUID() wire.UUID { return d.id.uuid }

// Owner is how often the disk was opened, this time included.
func (d *Disk) Owner() uint64 { return d.id.owner }

// Cluster is whose disk it is.
func (d *Disk) Cluster() ashlar.ClusterID { return d.id.cluster }

// Dir is where the disk is.
func (d *Disk) Dir() string { return d.dir }

// Labels are what Config said.
func (d *Disk) Labels() []string { return d.labels }

// BootChanged tells that the machine lost its memory, or may have, between
// the last opening of the disk and this one.
func (d *Disk) BootChanged() bool { return d.bootChanged }

// Damaged counts the blocks found with a wrong checksum or unreadable.
func (d *Disk) Damaged() uint64 { return d.damaged.Load() }

// Healed returns how many of those were found good later although nobody
// mended them, overwritten by a client, or are gone with their chunk.
func (d *Disk) Healed() uint64 { return d.healed.Load() }

// Accepted counts the blocks that Accept took as they were read.
func (d *Disk) Accepted() uint64 { return d.accepted.Load() }

// SetHistory durably records a history of the cluster, refusing a lower one
// than is recorded with WrongCluster.
func (d *Disk) SetHistory(h ashlar.History) error {
	d.idMu.Lock()
	defer d.idMu.Unlock()
	if h == d.id.history {
		return nil
	}
	if h < d.id.history {
		return ashlar.E("set history", ashlar.WrongCluster, d.dir, fmt.Errorf("%d after %d", h, d.id.history))
	}
	next := d.id
	next.history = h
	if err := next.write(d.fs, d.dir); err != nil {
		return d.lose(err)
	}
	d.id.history = h
	return nil
}

// Failed returns why the disk is lost, nil while it is not.
func (d *Disk) Failed() error {
	if p := d.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// lose gives the disk up after an error of a write or sync: what is on it can
// not be known any more (I-8). It returns the error to report.
func (d *Disk) lose(cause error) error {
	err := error(ashlar.E("disk", ashlar.IO, d.dir, cause))
	if !d.failure.CompareAndSwap(nil, &err) {
		return d.Failed()
	}
	d.log.Error("disk is lost", "err", cause)
	if d.onFail != nil {
		go d.onFail(err)
	}
	return err
}

// kick wakes the background work.
func (d *Disk) kick() {
	select {
	case d.kicks <- struct{}{}:
	default:
	}
}

func (d *Disk) background() {
	defer close(d.done)
	ticks := d.clk.NewTicker(tickEvery)
	defer ticks.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-d.kicks:
			d.maintain(false)
		case <-ticks.C():
			d.maintain(true)
		}
	}
}

// maintain bounds what is unsynced in number and, at a tick, in age, and
// shortens the log of marks.
func (d *Disk) maintain(tick bool) {
	if d.Failed() != nil {
		return
	}
	_ = d.marks.j.waitAll() // an error has lost the disk
	var age uint64 = 1
	if tick {
		d.unsynced.advance()
		age = syncTicks
	}
	if tick || d.unsynced.count() > unsyncedMax {
		_ = d.syncLayers(d.unsynced.older(age, d.unsynced.count() > unsyncedMax))
	}
	if d.marks.droppable() && d.Failed() == nil {
		_ = d.marks.compact()
	}
}

// Close syncs everything, marks the disk clean and lets go of it.
func (d *Disk) Close() error {
	select {
	case <-d.stop:
		return ashlar.E("close disk", ashlar.Invalid, d.dir, errors.New("closed already"))
	default:
	}
	close(d.stop)
	<-d.done
	err := d.Failed()
	if err == nil {
		err = d.syncLayers(d.unsynced.layers(nil))
	}
	if err == nil {
		d.marks.mu.Lock()
		err = d.marks.rewrite(map[ashlar.LayerID]*grainMark{})
		d.marks.mu.Unlock()
	}
	return errors.Join(err, d.release())
}

// Abandon lets go of the disk as a killed process does: nothing is synced.
func (d *Disk) Abandon() error {
	close(d.stop)
	<-d.done
	return d.release()
}

func (d *Disk) release() error {
	closed := error(ashlar.E("disk", ashlar.IO, d.dir, context.Canceled))
	d.failure.CompareAndSwap(nil, &closed)
	var errs []error
	if d.marks != nil {
		errs = append(errs, d.marks.j.close())
	}
	if d.groups != nil {
		errs = append(errs, d.groups.j.close())
	}
	if d.inflight != nil {
		errs = append(errs, d.inflight.close())
	}
	d.handles.closeAll()
	return errors.Join(append(errs, d.lock.Close())...)
}
