package consensus

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

// IdentityMagic is that of IDENTITY in a member's directory.
var IdentityMagic = header.Magic{'A', 'S', 'H', 'L', 'R', 'M', 'B', 'R'}

// The names in a member's directory.
const (
	IdentityName = identityName
	LogDir       = logDir
	LockName     = lockName
)

// IdentityFile is the content of a member's IDENTITY.
type IdentityFile struct {
	Cluster             ashlar.ClusterID
	Member, Incarnation uint64
}

// ReadIdentityFile reads the IDENTITY of a member that nobody runs, for
// internal/inspect. Errors are of kind Corrupt or Version.
func ReadIdentityFile(b []byte, name string) (IdentityFile, error) {
	return decodeIdentityFile(b, header.Header{Magic: IdentityMagic, Version: identityVersion}, name)
}

// ReadMembers reads the membership that a mark of the log carries.
func ReadMembers(b []byte) ([]Member, error) {
	m, err := decodeMembership(b)
	if err != nil {
		return nil, err
	}
	return m.members, nil
}
