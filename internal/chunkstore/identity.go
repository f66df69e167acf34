package chunkstore

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The identity of a disk, file "disk", version 1 (docs/format/disk.md). It is
// replaced as a whole.
//
//	 0  file header  64 bytes, vfs/header, magic "ASHLDISK"
//	64  uuid         16 bytes, of this disk, for life
//	80  history      u32, the highest history of the cluster seen
//	84  reserved     u32, zero
//	88  owner        u64, how often the disk was opened
//	96  reserved     24 bytes, zero
//	120 crc          u32, CRC-32C of bytes 64-119
//	124 reserved     u32, zero
const (
	identityVersion = 1
	identitySize    = 128
	identityName    = "disk"
	lockName        = "lock"
	chunksName      = "chunks"
)

var diskMagic = header.Magic([]byte("ASHLDISK"))

type identity struct {
	cluster ashlar.ClusterID
	uuid    wire.UUID
	history ashlar.History
	owner   uint64
}

func (id *identity) encode() []byte {
	b := make([]byte, identitySize)
	copy(b, header.Header{Magic: diskMagic, Version: identityVersion, Cluster: id.cluster}.Encode())
	copy(b[64:], id.uuid[:])
	binary.LittleEndian.PutUint32(b[80:], uint32(id.history))
	binary.LittleEndian.PutUint64(b[88:], id.owner)
	binary.LittleEndian.PutUint32(b[120:], checksum.Of(b[64:120]))
	return b
}

// decodeIdentity reads the identity of a disk of a cluster, of any if it is
// zero.
func decodeIdentity(b []byte, cluster ashlar.ClusterID, name string) (identity, error) {
	var id identity
	h, err := header.Decode(b, header.Header{Magic: diskMagic, Version: identityVersion, Cluster: cluster}, name)
	if err != nil {
		return id, err
	}
	if len(b) < identitySize || checksum.Of(b[64:120]) != binary.LittleEndian.Uint32(b[120:]) {
		return id, ashlar.E("read identity", ashlar.Corrupt, name, errors.New("checksum differs"))
	}
	id.cluster = h.Cluster
	copy(id.uuid[:], b[64:])
	id.history = ashlar.History(binary.LittleEndian.Uint32(b[80:]))
	id.owner = binary.LittleEndian.Uint64(b[88:])
	return id, nil
}

func (id *identity) write(fsys vfs.FS, dir string) error {
	return vfs.ReplaceFile(fsys, path.Join(dir, identityName), id.encode())
}

// Format makes dir a disk of a cluster, with a new UUID. It refuses, with
// Exist, a directory that has an identity or chunks already.
func Format(fsys vfs.FS, dir string, cluster ashlar.ClusterID) error {
	if cluster.IsZero() {
		return ashlar.E("format disk", ashlar.Invalid, dir, errors.New("no cluster id"))
	}
	for _, name := range []string{identityName, chunksName} {
		if _, err := fsys.Stat(path.Join(dir, name)); err == nil {
			return ashlar.E("format disk", ashlar.Exist, dir, fmt.Errorf("it has %q already", name))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return ashlar.E("format disk", ashlar.IO, dir, err)
		}
	}
	id := identity{cluster: cluster}
	_, _ = rand.Read(id.uuid[:])
	// The identity comes last: a directory without one is not a disk.
	err := vfs.MakeDir(fsys, dir)
	if err == nil {
		err = id.write(fsys, dir)
	}
	if err != nil {
		return ashlar.E("format disk", ashlar.IO, dir, err)
	}
	return nil
}

// Formatted tells whether dir is a disk, of whatever cluster.
func Formatted(fsys vfs.FS, dir string) (bool, error) {
	_, err := fsys.Stat(path.Join(dir, identityName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// claim locks the disk, checks whose it is and durably raises its ownership
// counter.
func claim(c *Config) (identity, io.Closer, error) {
	fail := func(kind ashlar.Kind, err error) (identity, io.Closer, error) {
		return identity{}, nil, ashlar.E("open disk", kind, c.Dir, err)
	}
	if ok, err := Formatted(c.FS, c.Dir); err != nil {
		return fail(ashlar.IO, err)
	} else if !ok {
		return fail(ashlar.NotExist, errors.New("it has no identity file: not formatted, or not mounted"))
	}
	lock, err := c.FS.Lock(path.Join(c.Dir, lockName))
	if err != nil {
		return fail(ashlar.Busy, fmt.Errorf("the disk is open already, here or in another process: %w", err))
	}
	id, err := readIdentity(c)
	if err == nil && c.History != 0 && c.History < id.history {
		err = ashlar.E("open disk", ashlar.WrongCluster, c.Dir,
			fmt.Errorf("it has seen history %d of the cluster, this is history %d", id.history, c.History))
	}
	if err == nil {
		id.owner++
		id.history = max(id.history, c.History)
		err = id.write(c.FS, c.Dir)
	}
	if err != nil {
		lock.Close()
		if ashlar.KindOf(err) != ashlar.Other {
			return identity{}, nil, err
		}
		return fail(ashlar.IO, err)
	}
	return id, lock, nil
}

func readIdentity(c *Config) (identity, error) {
	name := path.Join(c.Dir, identityName)
	f, err := c.FS.Open(name)
	if err != nil {
		return identity{}, err
	}
	defer f.Close()
	b := make([]byte, identitySize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return identity{}, err
	}
	return decodeIdentity(b[:n], c.Cluster, name)
}

// FormatUUID writes a disk's UUID as 8-4-4-4-12 hexadecimal digits.
func FormatUUID(u wire.UUID) string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
