package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// A store's directory:
//
//	LOCK        held while open
//	IDENTITY    header, written once
//	CURRENT     "db-000001\n", the live database; replaced by rename
//	db-000001/  the engine's files
//
// Names in it are part of the format.
const (
	lockName     = "LOCK"
	identityName = "IDENTITY"
	currentName  = "CURRENT"
	dbPrefix     = "db-"
	tmpSuffix    = ".tmp"
)

// formatVersion is the version of the store's directory and of checkpoints.
const formatVersion = 1

// currentMax bounds CURRENT, in bytes.
const currentMax = 64

func (s *Store) headerWanted() header.Header {
	return header.Header{Magic: IdentityMagic, Version: formatVersion, Cluster: s.o.Cluster}
}

// prepareDir makes or checks the directory and returns the name of the live
// database. Whatever a crash left beside it is removed.
func (s *Store) prepareDir() (string, error) {
	if err := s.checkIdentity(s.o.Dir, true); err != nil {
		return "", err
	}
	name, err := s.readCurrent()
	if errors.Is(err, fs.ErrNotExist) {
		name, err = dbName(1), nil
		if err := s.writeCurrent(name); err != nil {
			return "", err
		}
	}
	if err != nil {
		return "", err
	}
	// Who wrote CURRENT may not have lived to sync it: what it does not name is
	// removed only when no power loss can bring back the CURRENT that did.
	if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
		return "", err
	}
	names, err := s.o.FS.List(s.o.Dir)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if strings.HasPrefix(n, dbPrefix) && n != name || strings.HasSuffix(n, tmpSuffix) {
			if err := s.o.FS.RemoveAll(path.Join(s.o.Dir, n)); err != nil {
				return "", err
			}
		}
	}
	return name, nil
}

// checkIdentity checks the header in dir; with make, it writes one if there
// is none.
func (s *Store) checkIdentity(dir string, make bool) error {
	name := path.Join(dir, identityName)
	b, err := readFile(s.o.FS, name, header.Size)
	if errors.Is(err, fs.ErrNotExist) && make {
		if _, err := s.o.FS.Stat(path.Join(dir, currentName)); err == nil {
			return ashlar.E("open store", ashlar.Corrupt, name, errors.New("the header is missing"))
		}
		return writeFile(s.o.FS, dir, identityName, s.headerWanted().Encode())
	}
	if err != nil {
		return err
	}
	_, err = header.Decode(b, s.headerWanted(), name)
	return err
}

func dbName(n uint64) string { return fmt.Sprintf("%s%06d", dbPrefix, n) }

func dbNumber(name string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(name, dbPrefix), 10, 63)
	if err != nil || dbName(n) != name {
		return 0, ashlar.E("open store", ashlar.Corrupt, currentName, fmt.Errorf("it names %q", name))
	}
	return n, nil
}

func (s *Store) readCurrent() (string, error) {
	b, err := readFile(s.o.FS, path.Join(s.o.Dir, currentName), currentMax)
	if err != nil {
		return "", err
	}
	name := strings.TrimSuffix(string(b), "\n")
	_, err = dbNumber(name)
	return name, err
}

func (s *Store) writeCurrent(name string) error {
	return writeFile(s.o.FS, s.o.Dir, currentName, []byte(name+"\n"))
}

// Checkpoint makes dir, which must not exist and must be on the store's disk,
// a copy of the store by hard links, durable and readable by Restore. It does
// not stop Apply. It returns the index the copy is as of.
func (s *Store) Checkpoint(dir string) (index uint64, err error) {
	in, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer in.release()
	if _, err := s.Flushed(); err != nil {
		return 0, err
	}
	if err := in.db.Checkpoint(dir); err != nil {
		return 0, fmt.Errorf("checkpoint store: %w", err)
	}
	id, err := readFile(s.o.FS, path.Join(s.o.Dir, identityName), header.Size)
	if err != nil {
		return 0, err
	}
	if err := writeFile(s.o.FS, dir, identityName, id); err != nil {
		return 0, err
	}
	if err := s.o.FS.SyncDir(path.Dir(dir)); err != nil {
		return 0, err
	}
	return s.checkpointIndex(dir)
}

// checkpointIndex opens a checkpoint read-only: the index is what it holds,
// not what was applied when it was asked for.
func (s *Store) checkpointIndex(dir string) (uint64, error) {
	if err := s.checkIdentity(dir, false); err != nil {
		return 0, err
	}
	o := s.engineOptions()
	o.ReadOnly = true
	o.ErrorIfNotExists = true
	db, err := pebble.Open(dir, o)
	if err != nil {
		return 0, fmt.Errorf("open checkpoint: %w", err)
	}
	index, err := readApplied(db)
	return index, errors.Join(err, db.Close())
}

// Restore replaces the contents by the checkpoint in dir, which is moved into
// the store and must be on its disk; it returns the index restored. Views made
// before keep showing the old contents. A crash leaves the old or the new.
func (s *Store) Restore(dir string) (index uint64, err error) {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	old, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer old.release()
	if _, err := s.checkpointIndex(dir); err != nil {
		return 0, err
	}
	n, err := dbNumber(old.name)
	if err != nil {
		return 0, err
	}
	name := dbName(n + 1)
	if err := s.o.FS.RemoveAll(path.Join(s.o.Dir, name)); err != nil {
		return 0, err
	}
	if err := s.o.FS.Rename(dir, path.Join(s.o.Dir, name)); err != nil {
		return 0, err
	}
	if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
		return 0, err
	}
	in, index, err := s.openInstance(name)
	if err != nil {
		return 0, err
	}
	if err := s.writeCurrent(name); err != nil {
		in.release()
		return 0, err
	}
	s.swap(in, index)
	return index, nil
}

func (s *Store) swap(in *instance, index uint64) {
	s.mu.Lock()
	old := s.cur
	s.cur = in
	s.applied.Store(index)
	s.flushed.Store(index)
	s.mu.Unlock()
	old.drop = true
	old.release()
}

// writeFile replaces a file atomically and durably.
func writeFile(fsys vfs.FS, dir, name string, b []byte) error {
	tmp := path.Join(dir, name+tmpSuffix)
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path.Join(dir, name)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// readFile returns the contents of a file of at most limit bytes.
func readFile(fsys vfs.FS, name string, limit int) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, limit+1)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && n > limit {
		err = ashlar.E("read", ashlar.Corrupt, name, fmt.Errorf("longer than %d bytes", limit))
	}
	return bytes.Clone(b[:n]), err
}
