package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// IdentityMagic is that of IDENTITY in a store and in a checkpoint.
var IdentityMagic = header.Magic{'A', 'S', 'H', 'L', 'R', 'K', 'V', 'S'}

// The names in a store's directory.
const (
	IdentityName = identityName
	CurrentName  = currentName
	LockName     = lockName
)

// ReadIdentityFile reads the IDENTITY of a store or a checkpoint that nobody
// has open, for internal/inspect. Errors are of kind Corrupt or Version.
func ReadIdentityFile(b []byte, name string) (ashlar.ClusterID, error) {
	h, err := header.Decode(b, header.Header{Magic: IdentityMagic, Version: formatVersion}, name)
	return h.Cluster, err
}

// Live is the directory of the live database of a store, or dir itself if that
// is a checkpoint.
func Live(fsys vfs.FS, dir string) (string, error) {
	s := &Store{o: Options{FS: fsys, Dir: dir}}
	name, err := s.readCurrent()
	if errors.Is(err, fs.ErrNotExist) {
		return dir, nil
	}
	return path.Join(dir, name), err
}

// Read opens the store or checkpoint in dir, which nobody has open, without
// changing it, calls f for every key in order, and returns the applied index.
// Every block of every table is read and its checksum verified, and so is the
// order of the tables. unnamed are tables that the manifest does not name and
// that are newer than those it does. An error of the contents is of kind
// Corrupt.
func Read(fsys vfs.FS, dir string, f func(k, v []byte) error) (applied uint64, unnamed []string, err error) {
	live, err := Live(fsys, dir)
	if err != nil {
		return 0, nil, err
	}
	defer func() { // the engine panics at some kinds of damage
		if p := recover(); p != nil {
			err = ashlar.E("read store", ashlar.Corrupt, live, fmt.Errorf("%v", p))
		}
	}()
	s := &Store{o: Options{FS: fsys, Dir: dir, Fatal: func(err error) { panic(err) }}, log: slog.New(slog.DiscardHandler)}
	s.cache = pebble.NewCache(8 << 20)
	defer s.cache.Unref()
	o := s.engineOptions()
	o.FS = adapter{fsys} // also for the real disk: nothing may be written
	o.ReadOnly, o.ErrorIfNotExists = true, true
	db, err := pebble.Open(live, o)
	if err != nil {
		return 0, nil, ashlar.E("read store", ashlar.Corrupt, live, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.CheckLevels(nil); err != nil {
		return 0, nil, ashlar.E("read store", ashlar.Corrupt, live, err)
	}
	if applied, err = readApplied(db); err != nil {
		return 0, nil, err
	}
	if unnamed, err = unnamedTables(fsys, live, db); err != nil {
		return applied, nil, err
	}
	it, err := db.NewIter(nil)
	if err != nil {
		return applied, unnamed, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); len(k) >= 2 && k[0] == systemPrefix[0] && k[1] == systemPrefix[1] {
			continue
		}
		if err := f(it.Key(), it.Value()); err != nil {
			return applied, unnamed, errors.Join(err, it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return applied, unnamed, ashlar.E("read store", ashlar.Corrupt, live, err)
	}
	return applied, unnamed, nil
}

// unnamedTables compares the tables there are with those the manifest names: a
// manifest that was cut short reads as an older one. A flush that the death of
// the process interrupted leaves such a table too.
func unnamedTables(fsys vfs.FS, live string, db *pebble.DB) (out []string, err error) {
	levels, err := db.SSTables()
	if err != nil {
		return nil, ashlar.E("read store", ashlar.Corrupt, live, err)
	}
	named, newest := map[uint64]bool{}, uint64(0)
	for _, tables := range levels {
		for _, t := range tables {
			n := uint64(t.BackingSSTNum)
			named[n] = true
			newest = max(newest, n)
		}
	}
	names, err := fsys.List(live)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(name, "%d.sst", &n); err == nil && !named[n] && n > newest {
			out = append(out, name)
		}
	}
	return out, nil
}
