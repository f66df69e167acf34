package chunkserver

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// IdentityMagic is that of the file "chunkserver" in a data directory.
var IdentityMagic = identityMagic

// ReadIdentityFile reads the identity of a chunkserver that nobody runs, for
// internal/inspect. Errors are of kind Corrupt or Version.
func ReadIdentityFile(b []byte, name string) (ashlar.ClusterID, wire.UUID, error) {
	uuid, cluster, err := decodeIdentity(b, ashlar.ClusterID{}, name)
	return cluster, uuid, err
}

// decodeIdentity reads the identity of a chunkserver of a cluster, of any if it
// is zero.
func decodeIdentity(b []byte, cluster ashlar.ClusterID, name string) (uuid wire.UUID, of ashlar.ClusterID, err error) {
	h, err := header.Decode(b, header.Header{Magic: identityMagic, Version: identityVersion, Cluster: cluster}, name)
	if err != nil {
		return uuid, of, err
	}
	if len(b) < identitySize {
		return uuid, of, ashlar.E("read", ashlar.Corrupt, name, fmt.Errorf("%d bytes, want %d", len(b), identitySize))
	}
	copy(uuid[:], b[header.Size:])
	return uuid, h.Cluster, nil
}
