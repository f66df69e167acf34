package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// A member's directory:
//
//	LOCK      held while running
//	IDENTITY  whose directory this is; replaced by rename at every start
//	log/      package wal
//	snap/     checkpoints being sent and received; emptied at every start
//
// IDENTITY:
//
//	 0  header       64 bytes, package header, magic "ASHLRMBR"
//	64  member       u64
//	72  incarnation  u64, one more at every start
//	80  crc          u32, CRC-32C of bytes 64-79
//
// Names and layout are part of the format.
const (
	lockName     = "LOCK"
	identityName = "IDENTITY"
	logDir       = "log"
	snapDir      = "snap"
	identitySize = header.Size + 20
)

// identityVersion is the version of IDENTITY.
const identityVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *Config) identityHeader() header.Header {
	return header.Header{Magic: IdentityMagic, Version: identityVersion, Cluster: c.Cluster}
}

// openDir makes or checks the directory, locks it, and begins an incarnation.
// fresh tells that the directory was new.
func openDir(c *Config) (lock io.Closer, incarnation uint64, fresh bool, err error) {
	if err := vfs.MakeDir(c.FS, c.Dir); err != nil {
		return nil, 0, false, err
	}
	lock, err = c.FS.Lock(path.Join(c.Dir, lockName))
	if err != nil {
		return nil, 0, false, ashlar.E("start consensus in", ashlar.Busy, c.Dir, err)
	}
	old, err := readIdentity(c)
	if errors.Is(err, fs.ErrNotExist) {
		fresh, err = true, nil
	}
	if err == nil {
		err = errors.Join(
			c.FS.RemoveAll(path.Join(c.Dir, snapDir)),
			c.FS.MkdirAll(path.Join(c.Dir, snapDir)),
			c.FS.MkdirAll(path.Join(c.Dir, logDir)),
			writeIdentity(c, old+1))
	}
	if err != nil {
		return nil, 0, false, errors.Join(err, lock.Close())
	}
	return lock, old + 1, fresh, nil
}

func readIdentity(c *Config) (incarnation uint64, err error) {
	name := path.Join(c.Dir, identityName)
	f, err := c.FS.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, identitySize)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return 0, ashlar.E("read", ashlar.Corrupt, name, err)
	}
	return decodeIdentity(b, c)
}

func decodeIdentity(b []byte, c *Config) (incarnation uint64, err error) {
	f, err := decodeIdentityFile(b, c.identityHeader(), path.Join(c.Dir, identityName))
	if err == nil && f.Member != c.ID {
		err = ashlar.E("start consensus in", ashlar.Invalid, c.Dir,
			fmt.Errorf("the directory belongs to member %d, not %d", f.Member, c.ID))
	}
	return f.Incarnation, err
}

func decodeIdentityFile(b []byte, want header.Header, name string) (IdentityFile, error) {
	h, err := header.Decode(b, want, name)
	if err != nil {
		return IdentityFile{}, err
	}
	if len(b) < identitySize || crc32.Checksum(b[64:80], castagnoli) != binary.LittleEndian.Uint32(b[80:]) {
		return IdentityFile{}, ashlar.E("read", ashlar.Corrupt, name, errors.New("checksum differs"))
	}
	return IdentityFile{h.Cluster, binary.LittleEndian.Uint64(b[64:]), binary.LittleEndian.Uint64(b[72:])}, nil
}

func writeIdentity(c *Config, incarnation uint64) error {
	b := c.identityHeader().Encode()
	b = binary.LittleEndian.AppendUint64(b, c.ID)
	b = binary.LittleEndian.AppendUint64(b, incarnation)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[64:80], castagnoli))
	return writeFile(c.FS, c.Dir, identityName, b)
}

// writeFile replaces a file atomically and durably.
func writeFile(fsys vfs.FS, dir, name string, b []byte) error {
	tmp := path.Join(dir, name+".tmp")
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
