package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// MASTER in a master's directory says which member the directory is, written
// before the member first starts and never changed for another:
//
//	0        64
//	+--------+------------------------------------------------+--------+
//	| header | member id u64, members of a new group (a list) | CRC-32C |
//	+--------+------------------------------------------------+--------+
//
// The list is that of the group's first members if this master made the
// group, else empty; a member is id u64, name, address. The checksum covers
// everything between.
const (
	identityName    = "MASTER"
	identityVersion = 1
	identityMax     = 64 << 10
	bootstrapMax    = wire.MastersMax
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type identity struct {
	cluster ashlar.ClusterID

	ID    uint64
	First []consensus.Member
}

func (i *identity) fields(c *wire.Codec) {
	wire.U64(c, &i.ID)
	wire.List(c, &i.First, bootstrapMax, func(c *wire.Codec, m *consensus.Member) {
		wire.U64(c, &m.ID)
		wire.Text(c, &m.Name, ashlar.NameMax)
		wire.Text(c, &m.Addr, 4096)
	})
}

func (m *Master) identityHeader() header.Header {
	return header.Header{Magic: IdentityMagic, Version: identityVersion, Cluster: m.cfg.Cluster}
}

// readIdentity returns what MASTER says, nil if there is none.
func (m *Master) readIdentity() (*identity, error) {
	name := path.Join(m.cfg.Dir, identityName)
	f, err := m.cfg.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, identityMax)
	n, err := f.ReadAt(b, 0)
	if cerr := f.Close(); err == nil || errors.Is(err, io.EOF) {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return decodeIdentity(b[:n], m.identityHeader(), name)
}

func decodeIdentity(b []byte, want header.Header, name string) (*identity, error) {
	h, err := header.Decode(b, want, name)
	if err != nil {
		return nil, err
	}
	b = b[header.Size:]
	if len(b) < 4 {
		return nil, ashlar.E("read", ashlar.Corrupt, name, errors.New("too short"))
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, ashlar.E("read", ashlar.Corrupt, name, fmt.Errorf("checksum %08x, want %08x", got, sum))
	}
	id := &identity{cluster: h.Cluster}
	c := wire.Decoder(body)
	id.fields(c)
	if err := c.Finish(); err != nil {
		return nil, err
	}
	return id, nil
}

// writeIdentity writes MASTER durably.
func (m *Master) writeIdentity(id *identity) error {
	c := wire.Encoder(nil)
	id.fields(c)
	if err := c.Err(); err != nil {
		return err
	}
	b := append(m.identityHeader().Encode(), c.Bytes()...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(c.Bytes(), castagnoli))
	return vfs.ReplaceFile(m.cfg.FS, path.Join(m.cfg.Dir, identityName), b)
}
