package chunkserver

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The identity of a chunkserver is one file in its data directory:
//
//	 0  header  64 bytes, package header
//	64  uuid    16 bytes
//
// Beside it lies the lock that a running process holds, so that a newer
// incarnation of one UUID proves the older one dead.
const (
	identityName    = "chunkserver"
	identityLock    = "chunkserver.lock"
	identityVersion = 1
	identitySize    = header.Size + 16
)

var identityMagic = header.Magic{'A', 'S', 'H', 'L', 'C', 'S', 'R', 'V'}

// identity is an open data directory.
type identity struct {
	uuid wire.UUID
	lock io.Closer
}

// openIdentity locks the data directory and reads its identity, making one if
// there is none.
func openIdentity(fsys vfs.FS, dir string, cluster ashlar.ClusterID) (*identity, error) {
	if err := vfs.MakeDir(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(path.Join(dir, identityLock))
	if err != nil {
		return nil, ashlar.E("open data directory", ashlar.Busy, dir, err)
	}
	id := &identity{lock: lock}
	if err := errors.Join(id.load(fsys, dir, cluster), fsys.SyncDir(dir)); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return id, nil
}

func (id *identity) load(fsys vfs.FS, dir string, cluster ashlar.ClusterID) error {
	name := path.Join(dir, identityName)
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return id.create(fsys, dir, cluster)
	}
	if err != nil {
		return err
	}
	b := make([]byte, identitySize)
	n, err := f.ReadAt(b, 0)
	if err := errors.Join(eofIsNil(err), f.Close()); err != nil {
		return err
	}
	id.uuid, _, err = decodeIdentity(b[:n], cluster, name)
	return err
}

func eofIsNil(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (id *identity) create(fsys vfs.FS, dir string, cluster ashlar.ClusterID) error {
	if _, err := rand.Read(id.uuid[:]); err != nil {
		return err
	}
	b := header.Header{Magic: identityMagic, Version: identityVersion, Cluster: cluster}.Encode()
	b = append(b, id.uuid[:]...)
	return vfs.ReplaceFile(fsys, path.Join(dir, identityName), b)
}
