package master

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// IdentityMagic is that of the file MASTER.
var IdentityMagic = header.Magic{'A', 'S', 'H', 'L', 'R', 'M', 'S', 'T'}

// The names in a master's directory.
const (
	IdentityName = identityName
	LogDir       = "log"
	StoreDir     = "store"
)

// IdentityFile is the content of MASTER.
type IdentityFile struct {
	Cluster ashlar.ClusterID
	Member  uint64
	// First are the members of the group if this master made it.
	First []consensus.Member
}

// ReadIdentityFile reads the MASTER of a master that nobody runs, for
// internal/inspect. Errors are of kind Corrupt or Version.
func ReadIdentityFile(b []byte, name string) (*IdentityFile, error) {
	id, err := decodeIdentity(b, header.Header{Magic: IdentityMagic, Version: identityVersion}, name)
	if err != nil {
		return nil, err
	}
	return &IdentityFile{id.cluster, id.ID, id.First}, nil
}

// Change is a log entry of the masters.
type Change struct {
	Term, Index uint64
	Time        int64 // of the operation, nanoseconds since 1970
	Note        string
	Ops         []kv.Op
}

// ReadChange reads the data of a normal log entry; see
// docs/format/changelog.md.
func ReadChange(data []byte) (*Change, error) {
	b, err := decodeBatch(data)
	if err != nil {
		return nil, err
	}
	return &Change{b.Term, b.Index, b.Time, b.Note, b.Ops}, nil
}
