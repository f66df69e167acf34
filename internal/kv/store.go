// Package kv is the masters' ordered store: atomic batches, consistent
// views, scans in both directions and hard-link checkpoints. It knows no
// key's meaning; keys are byte strings in byte order. It is not a log: the
// engine's own is off, because the consensus log already holds every batch.
//
// Every batch is applied together with the log index it came from, so that
// after a crash the store is exactly the state as of Applied, and the log is
// replayed from there.
//
// # Lock order
//
//	Store.applyMu       one Apply, or the swap of Restore, at a time
//	  Store.mu          which instance is current; held for pointer copies only
//
// A callback of Scan holds neither.
//
// # What survives a crash
//
// Of a process or of the machine alike: a prefix of the batches, at least up
// to the index that Flushed last returned; a Restore that returned. A Restore
// in progress leaves either the old contents or the new.
package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// Defaults and fixed sizes, in bytes.
const (
	// CacheDefault is the block cache if Options names none.
	CacheDefault = 64 << 20
	// memTableSize is when a table in memory is flushed; there are at most
	// memTables of them, then Apply waits. The engine takes their memory out of
	// its cache, so that is made larger by as much: without, no block would stay
	// cached while there is much to flush.
	memTableSize = 32 << 20
	memTables    = 4
	// compactions is how many run at once at most.
	compactions = 2
	// flushesToCompact is how many flushes may lie over each other before they
	// are merged, and flushesMax how many before Apply waits for that. A
	// checkpoint is a flush, however little was applied: many in a row must not
	// stop requests, they only make reads look in more places.
	flushesToCompact = 2
	flushesMax       = 200
)

// formatMajor is the engine's format; raising it is a change of format
// version (see docs/format/kv-store.md) because it can not be lowered.
const formatMajor = pebble.FormatTableFormatV6

// Options say where and how a Store is kept.
type Options struct {
	// Dir is the store's directory, made if needed.
	Dir string
	// FS is the disk; vfs.OS if nil.
	FS vfs.FS
	// InMemory keeps the store on a disk of its own in memory. FS must be nil.
	InMemory bool
	// Cluster is written to a new store and must match an old one. Zero
	// matches any.
	Cluster ashlar.ClusterID
	// CacheBytes bounds the block cache; 0 means CacheDefault.
	CacheBytes int64
	// Logger receives the engine's reports; nil discards them.
	Logger *slog.Logger
	// Fatal is called when the disk failed and the engine can not go on. It
	// must not return: what is in memory is not to be trusted, and the log has
	// it. Nil panics.
	Fatal func(error)
}

// Store is an open store. Methods may be called concurrently; Apply orders
// its callers.
type Store struct {
	o       Options
	log     *slog.Logger
	lock    io.Closer
	cache   *pebble.Cache
	applyMu sync.Mutex

	mu  sync.RWMutex
	cur *instance // nil once closed

	applied atomic.Uint64
	flushed atomic.Uint64 // an index known durable
	open    sync.WaitGroup
}

// instance is one engine, closed when its last user lets go. Restore
// replaces the current one.
type instance struct {
	db   *pebble.DB
	name string
	refs atomic.Int64
	s    *Store
	drop bool // remove the directory when closed
	err  error
}

// systemPrefix begins the store's own keys; others may not.
var systemPrefix = []byte{0xFF, 0xFF}

// appliedKey holds the applied index, a little-endian u64.
var appliedKey = []byte("\xFF\xFFapplied")

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("kv: store is closed")

// Open opens or makes a store. Errors of kind WrongCluster, Version and
// Corrupt come from its header; Busy means that another process has it.
func Open(o Options) (*Store, error) {
	if o.InMemory {
		o.FS = vfs.NewMem()
	}
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = CacheDefault
	}
	s := &Store{o: o, log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := vfs.MakeDir(o.FS, o.Dir); err != nil {
		return nil, err
	}
	lock, err := o.FS.Lock(path.Join(o.Dir, lockName))
	if err != nil {
		return nil, ashlar.E("open store", ashlar.Busy, o.Dir, err)
	}
	s.lock = lock
	s.cache = pebble.NewCache(o.CacheBytes + memTables*memTableSize)
	if err := s.openCurrent(); err != nil {
		s.cache.Unref()
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func (s *Store) openCurrent() error {
	name, err := s.prepareDir()
	if err != nil {
		return err
	}
	in, applied, err := s.openInstance(name)
	if err != nil {
		return err
	}
	s.cur = in
	s.applied.Store(applied)
	s.flushed.Store(applied)
	return nil
}

// failedPause is how long a flush or compaction that failed waits before it is
// tried again: the disk is full, or fails.
const failedPause = 100 * time.Millisecond

func (s *Store) engineOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          pebbleFS(s.o.FS),
		Cache:                       s.cache,
		FormatMajorVersion:          formatMajor,
		DisableWAL:                  true,
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       flushesToCompact,
		L0StopWritesThreshold:       flushesMax,
		CompactionConcurrencyRange:  func() (int, int) { return 1, compactions },
		Logger:                      engineLog{s.log, s.o.Fatal},
	}
	listener := pebble.EventListener{
		// The engine tries again at once, for ever; reading goes on meanwhile.
		BackgroundError: func(err error) {
			s.log.Error("store: background work failed, trying again", "err", err)
			<-time.After(failedPause)
		},
	}
	o.EventListener = &listener
	return o
}

func (s *Store) openInstance(name string) (*instance, uint64, error) {
	db, err := pebble.Open(path.Join(s.o.Dir, name), s.engineOptions())
	if err != nil {
		return nil, 0, fmt.Errorf("open store %s/%s: %w", s.o.Dir, name, err)
	}
	in := &instance{db: db, name: name, s: s}
	in.refs.Store(1)
	s.open.Add(1)
	applied, err := readApplied(db)
	if err != nil {
		in.release()
		return nil, 0, err
	}
	return in, applied, nil
}

func readApplied(r pebble.Reader) (uint64, error) {
	v, ok, err := get(r, appliedKey)
	if err != nil || !ok {
		return 0, err
	}
	if len(v) != 8 {
		return 0, ashlar.E("open store", ashlar.Corrupt, "applied index", fmt.Errorf("%d bytes", len(v)))
	}
	return binary.LittleEndian.Uint64(v), nil
}

// acquire returns the current instance, which the caller must release.
func (s *Store) acquire() (*instance, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.cur == nil {
		return nil, ErrClosed
	}
	s.cur.refs.Add(1)
	return s.cur, nil
}

func (in *instance) release() {
	if in.refs.Add(-1) > 0 {
		return
	}
	in.err = in.db.Close()
	if in.drop {
		in.err = errors.Join(in.err, in.s.o.FS.RemoveAll(path.Join(in.s.o.Dir, in.name)))
	}
	in.s.open.Done()
}

// Apply applies ops in order as one atomic change and moves the applied index
// to appliedIndex, which must be higher than before. It does not wait for the
// disk. The slices may be reused once it returns.
func (s *Store) Apply(ops []Op, appliedIndex uint64) error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	in, err := s.acquire()
	if err != nil {
		return err
	}
	defer in.release()
	if at := s.applied.Load(); appliedIndex <= at {
		return ashlar.E("apply", ashlar.Invalid, "", fmt.Errorf("index %d, but %d is applied", appliedIndex, at))
	}
	b := in.db.NewBatch()
	defer b.Close()
	for _, op := range ops {
		if err := checkKey(op.Key); err != nil {
			return err
		}
		if op.Delete {
			err = b.Delete(op.Key, nil)
		} else {
			err = b.Set(op.Key, op.Value, nil)
		}
		if err != nil {
			return err
		}
	}
	if err := b.Set(appliedKey, binary.LittleEndian.AppendUint64(nil, appliedIndex), nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	s.applied.Store(appliedIndex)
	return nil
}

func checkKey(key []byte) error {
	switch {
	case len(key) == 0 || len(key) > KeyMax:
		return ashlar.E("apply", ashlar.Invalid, "", fmt.Errorf("key of %d bytes", len(key)))
	case len(key) >= 2 && key[0] == systemPrefix[0] && key[1] == systemPrefix[1]:
		return ashlar.E("apply", ashlar.Invalid, "", fmt.Errorf("key %q is the store's own", key))
	}
	return nil
}

// Get returns the value of key; it is the caller's own.
func (s *Store) Get(key []byte) (value []byte, ok bool, err error) {
	in, err := s.acquire()
	if err != nil {
		return nil, false, err
	}
	defer in.release()
	return get(in.db, key)
}

// Scan calls fn with each key in [lo, hi) in ascending order, or descending
// if reverse, until fn returns false. A nil hi means no bound. What fn is
// given is valid during the call. The scan sees one state throughout.
func (s *Store) Scan(lo, hi []byte, reverse bool, fn func(k, v []byte) bool) error {
	in, err := s.acquire()
	if err != nil {
		return err
	}
	defer in.release()
	return scan(in.db, lo, hi, reverse, fn)
}

// Applied returns the index of the last batch applied.
func (s *Store) Applied() uint64 { return s.applied.Load() }

// Flushed makes everything applied before the call durable and returns its
// index: the log may be cut at and below it.
func (s *Store) Flushed() (uint64, error) {
	in, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer in.release()
	at := s.applied.Load()
	if s.flushed.Load() >= at {
		return at, nil
	}
	if err := in.db.Flush(); err != nil {
		return 0, fmt.Errorf("flush store: %w", err)
	}
	for {
		old := s.flushed.Load()
		if at <= old || s.flushed.CompareAndSwap(old, at) {
			return at, nil
		}
	}
}

// DiskBytes returns what the store takes on disk, about.
func (s *Store) DiskBytes() uint64 {
	in, err := s.acquire()
	if err != nil {
		return 0
	}
	defer in.release()
	return in.db.Metrics().DiskSpaceUsage()
}

// Close closes the store. What was applied and not flushed is lost, as in a
// crash; call Flushed first to save a replay. It waits for open views.
func (s *Store) Close() error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	s.mu.Lock()
	in := s.cur
	s.cur = nil
	s.mu.Unlock()
	if in == nil {
		return ErrClosed
	}
	in.release()
	s.open.Wait()
	s.cache.Unref()
	return errors.Join(in.err, s.lock.Close())
}

func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	v, c, err := r.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, false, nil
		}
		return nil, false, err
	}
	out := make([]byte, len(v))
	copy(out, v)
	return out, true, c.Close()
}

func scan(r pebble.Reader, lo, hi []byte, reverse bool, fn func(k, v []byte) bool) error {
	if hi == nil || string(hi) > string(systemPrefix) {
		hi = systemPrefix
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return err
	}
	first, next := it.First, it.Next
	if reverse {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !fn(it.Key(), v) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

type engineLog struct {
	log   *slog.Logger
	fatal func(error)
}

func (l engineLog) Infof(format string, args ...any) {
	l.log.Debug("store engine: " + fmt.Sprintf(format, args...))
}

func (l engineLog) Errorf(format string, args ...any) {
	l.log.Error("store engine: " + fmt.Sprintf(format, args...))
}

// Fatalf is called when the engine can not go on, and may not return: what is
// in memory is then not to be trusted, and a restart replays the log.
func (l engineLog) Fatalf(format string, args ...any) {
	msg := "store engine: " + fmt.Sprintf(format, args...)
	l.log.Error(msg)
	if l.fatal != nil {
		l.fatal(errors.New(msg))
	}
	panic(msg)
}
