// Package header is the first 64 bytes of every file Ashlar writes: what kind
// of file it is, in which version of its format, of which cluster, and which
// features a reader must know. It reads and writes these bytes, nothing else.
//
//	 0  magic       8 bytes, names the kind of file
//	 8  version     u32, the format's
//	12  reserved    u32, zero
//	16  cluster     16 bytes, the cluster's UUID
//	32  compat      u64, features any reader may ignore
//	40  rocompat    u64, features a writer must know
//	48  incompat    u64, features a reader must know
//	56  reserved    u32, zero
//	60  crc         u32, CRC-32C of bytes 0-59
//
// Integers are little-endian.
package header

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/ashlarfs/ashlar"
)

// Size is the length of an encoded Header, in bytes.
const Size = 64

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Magic names a kind of file.
type Magic [8]byte

// Header is what a file says about itself.
type Header struct {
	Magic    Magic
	Version  uint32
	Cluster  ashlar.ClusterID
	Compat   uint64
	ROCompat uint64
	Incompat uint64
}

// Encode returns the Size bytes of h.
func (h Header) Encode() []byte {
	b := make([]byte, Size)
	copy(b, h.Magic[:])
	binary.LittleEndian.PutUint32(b[8:], h.Version)
	copy(b[16:], h.Cluster[:])
	binary.LittleEndian.PutUint64(b[32:], h.Compat)
	binary.LittleEndian.PutUint64(b[40:], h.ROCompat)
	binary.LittleEndian.PutUint64(b[48:], h.Incompat)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// Decode reads a header from the first Size bytes of b and checks it against
// want: the same magic, a version not above want's, the same cluster unless
// want names none, and no feature that want does not know. name is the file's,
// for the error, whose kind is Corrupt, Version or WrongCluster.
func Decode(b []byte, want Header, name string) (Header, error) {
	bad := func(kind ashlar.Kind, format string, args ...any) (Header, error) {
		return Header{}, ashlar.E("read header of", kind, name, fmt.Errorf(format, args...))
	}
	if len(b) < Size {
		return bad(ashlar.Corrupt, "%d bytes, want %d", len(b), Size)
	}
	var h Header
	copy(h.Magic[:], b)
	if h.Magic != want.Magic {
		return bad(ashlar.Corrupt, "magic %q, want %q", h.Magic[:], want.Magic[:])
	}
	if got, stored := crc32.Checksum(b[:60], castagnoli), binary.LittleEndian.Uint32(b[60:]); got != stored {
		return bad(ashlar.Corrupt, "checksum %08x, want %08x", got, stored)
	}
	h.Version = binary.LittleEndian.Uint32(b[8:])
	copy(h.Cluster[:], b[16:])
	h.Compat = binary.LittleEndian.Uint64(b[32:])
	h.ROCompat = binary.LittleEndian.Uint64(b[40:])
	h.Incompat = binary.LittleEndian.Uint64(b[48:])
	switch {
	case h.Version == 0 || h.Version > want.Version:
		return bad(ashlar.Version, "format version %d, this release reads up to %d", h.Version, want.Version)
	case (h.Incompat|h.ROCompat)&^(want.Incompat|want.ROCompat) != 0:
		return bad(ashlar.Version, "unknown features %#x", (h.Incompat|h.ROCompat)&^(want.Incompat|want.ROCompat))
	case !want.Cluster.IsZero() && h.Cluster != want.Cluster:
		return bad(ashlar.WrongCluster, "it belongs to cluster %s, not %s", h.Cluster, want.Cluster)
	}
	return h, nil
}
