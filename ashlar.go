// Package ashlar is the vocabulary of the store: identifiers, limits,
// layouts, attributes, placement groups and error kinds. It holds no
// behaviour beyond arithmetic on these and imports only the standard library,
// so that servers, clients and tools agree on every word.
package ashlar

import (
	"encoding/hex"
	"fmt"
)

// ClusterID is the UUID of a cluster, chosen when it is made. Every file and
// every connection names it.
type ClusterID [16]byte

// String formats the id as 8-4-4-4-12 hexadecimal digits.
func (id ClusterID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero tells whether the id is unset.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// ParseClusterID is the inverse of String.
func ParseClusterID(s string) (ClusterID, error) {
	var id ClusterID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("cluster id %q: want 8-4-4-4-12 hexadecimal digits", s)
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return id, fmt.Errorf("cluster id %q: %v", s, err)
	}
	copy(id[:], b)
	return id, nil
}

// Identifiers. None is ever reused. Those of things that belong to a metadata
// partition carry its number in their top PartitionBits bits.
type (
	// Partition numbers a metadata partition; 0 holds the cluster's own state.
	Partition uint16
	// History counts restores and forced recoveries of a cluster; everything
	// issued under a lower one is refused.
	History uint32
	// MemberID is a master's id in the consensus group.
	MemberID uint64
	// NodeID numbers a node; the masters give it at its first registration.
	NodeID uint32
	// DiskID numbers a disk; it stands in the disk's identity file.
	DiskID uint32
	// PGID numbers a placement group.
	PGID uint32
	// Epoch counts the configurations of one placement group (I-4).
	Epoch uint64
	// Generation counts the owners, cuts and freezes of one object (I-10).
	Generation uint64
	// Inode numbers a file, directory or special file.
	Inode uint64
	// LayerID numbers a layer; that of an object's head names the object.
	LayerID uint64
	// VolumeID numbers a volume.
	VolumeID uint32
	// SessionID numbers a session.
	SessionID uint64
	// Incarnation is one life of a process, random and never zero.
	Incarnation uint64
)

// PartitionBits is how many top bits of an Inode, LayerID or SessionID name
// its metadata partition.
const PartitionBits = 12

// PartitionOf returns the partition that issued an Inode, LayerID or
// SessionID.
func PartitionOf[T ~uint64](id T) Partition { return Partition(uint64(id) >> (64 - PartitionBits)) }

// InPartition returns the n-th id of a partition.
func InPartition[T ~uint64](p Partition, n uint64) T {
	return T(uint64(p)<<(64-PartitionBits) | n&(1<<(64-PartitionBits)-1))
}

// RootInode is the inode of a volume's root directory as a client names it in
// Volume.Root; inode numbers below it are not used.
const RootInode Inode = 1

// Limits that users can meet.
const (
	// NameMax is the longest file name, in bytes (ENAMETOOLONG above it).
	NameMax = 255
	// PathMax is the longest path a client resolves, in bytes.
	PathMax = 4096
	// SymlinkMax is the longest symbolic link target, in bytes.
	SymlinkMax = 4095
	// XattrNameMax and XattrValueMax bound an extended attribute, in bytes.
	XattrNameMax  = 255
	XattrValueMax = 64 << 10
	// LinkMax is the highest link count of a file.
	LinkMax = 1 << 20
	// FileSizeMax is the largest file, in bytes: 16 TiB.
	FileSizeMax = 16 << 40
	// BlockSize is the unit of checksums and presence, in bytes.
	BlockSize = 4096
	// RegionSize is the unit in which a chunk notes the epoch of its last
	// change, in bytes.
	RegionSize = 64 << 10
	// ChunkSizeMin and ChunkSizeMax bound a layout's chunk size, in bytes.
	ChunkSizeMin = 64 << 10
	ChunkSizeMax = 64 << 20
	// ChunkSizeFile is the default chunk size of files, in bytes.
	ChunkSizeFile = 64 << 20
	// StripeWidthMax is the most groups in one segment of a layout.
	StripeWidthMax = 8
	// ReplicasMax is the most copies a pool keeps.
	ReplicasMax = 5
	// IOMax is the most payload in one data request, in bytes.
	IOMax = 1 << 20
	// SessionWindow is the most unanswered operations of one session.
	SessionWindow = 1024
	// WriteWindow is the most unanswered data writes of one session.
	WriteWindow = 1024
	// GroupsMax is the most supplementary groups in a credential.
	GroupsMax = 1024
)
