// Package key is the layout of the masters' store: which key holds what, and
// the two helpers by which every package of meta reads and writes a record.
// It decides nothing; a record's fields belong to the package that owns its
// kind, and docs/format/metadata.md draws them all.
//
// A key is
//
//	+-----------+------+------------------------------+
//	| partition | kind | parts                        |
//	| u16       | u8   | integers, then at most one   |
//	+-----------+------+ byte string without length   +
//
// with every integer big-endian, so that the store's order is the order of
// the numbers. Partition 0 holds the cluster's own state; a volume's inodes,
// names and layers live in the partition that its ids carry (one today).
//
// A value is a record: its version in the first byte, then fields as
// wire.Codec writes them. An index entry that says all in its key has the
// version alone.
//
// key is the only package under meta that its siblings may import. It holds
// no state and takes no locks.
package key

import (
	"encoding/binary"

	"github.com/ashlarfs/ashlar"
)

// Tx is what an evaluation reads and writes: the committed state and, over
// it, what is already proposed.
//
// Values returned by Get and given to a Scan are read-only and good until the
// next call on the Tx. Set and Delete keep the slices they are given: the
// caller does not touch them again. Scan calls fn in key order for
// lo <= key < hi until fn returns false; fn makes no call on the Tx.
type Tx interface {
	Get(key []byte) (value []byte, ok bool)
	Set(key, value []byte)
	Delete(key []byte)
	Scan(lo, hi []byte, fn func(k, v []byte) bool)
}

// Kind is the third byte of a key. Kinds are never reused.
type Kind uint8

// Kinds in partition 0.
const (
	KindCluster      Kind = 0x01 // identity of the cluster
	KindCounter      Kind = 0x02 // next id of a sort; in every partition
	KindTime         Kind = 0x03 // last operation time
	KindMaster       Kind = 0x04 // a master's name and address by member id
	KindSession      Kind = 0x10 // a session
	KindSessionNonce Kind = 0x11 // incarnation and nonce of an open -> session
	KindResult       Kind = 0x12 // kept result of an operation (I-3)
	KindFence        Kind = 0x13 // a lost session by fence revision (I-7)
	KindSessionEnd   Kind = 0x14 // sessions to be swept away
	KindPool         Kind = 0x20
	KindPoolName     Kind = 0x21 // name -> pool
	KindNode         Kind = 0x22
	KindNodeName     Kind = 0x23 // name -> node
	KindDisk         Kind = 0x24
	KindDiskUUID     Kind = 0x25 // uuid -> disk
	KindGroup        Kind = 0x26 // placement group
	KindDiskGroup    Kind = 0x27 // disk, group: it has a member there
	KindPoolGroup    Kind = 0x28 // pool, group
	KindPoolVolume   Kind = 0x29 // pool, volume: written by namespace
	KindNodeUUID     Kind = 0x2a // uuid of a data directory -> node
	KindNodeDisk     Kind = 0x2b // node, disk
	KindPlacement    Kind = 0x2c // placement's own scalars, by number
	KindVolume       Kind = 0x30
	KindVolumeName   Kind = 0x31 // name -> volume
	KindName         Kind = 0x38 // name of a lock -> who holds it, value block
	KindNamer        Kind = 0x39 // session, name of a lock: the session holds it
)

// Kinds in a volume's partition.
const (
	KindUsage    Kind = 0x40 // inodes and bytes of a volume
	KindInode    Kind = 0x41
	KindDentry   Kind = 0x42 // directory, name -> inode, type, cookie
	KindCookie   Kind = 0x43 // directory, cookie -> inode, type, name
	KindLink     Kind = 0x44 // inode, directory, cookie: names beyond the first
	KindXattr    Kind = 0x45 // inode, name -> value
	KindOrphan   Kind = 0x46 // inode without a name that somebody has open
	KindDeletion Kind = 0x47 // layer -> groups that still hold chunks of it
	KindCut      Kind = 0x48 // layer -> cut that is under way (I-10)
	KindReaping  Kind = 0x49 // directory of a deleted volume, to be emptied
	KindLock     Kind = 0x50 // inode, class, session, owner -> locked ranges
	KindLocker   Kind = 0x51 // session, inode: the session holds a lock there
)

// The counters. Each is the next id to give out.
const (
	CounterSession uint8 = 1
	CounterFence   uint8 = 2 // fence revisions
	CounterPool    uint8 = 3
	CounterNode    uint8 = 4
	CounterDisk    uint8 = 5
	CounterGroup   uint8 = 6
	CounterVolume  uint8 = 7
	// CounterID numbers inodes and layers together, in a volume's partition.
	CounterID uint8 = 8
)

// VolumePartition is the partition that new volumes are put in.
const VolumePartition ashlar.Partition = 1

const head = 3

func make0(kind Kind, n int) []byte { return makeIn(0, kind, n) }

func makeIn(p ashlar.Partition, kind Kind, n int) []byte {
	k := make([]byte, head, head+n)
	binary.BigEndian.PutUint16(k, uint16(p))
	k[2] = byte(kind)
	return k
}

func u32key[T ~uint32](kind Kind, id T) []byte {
	return binary.BigEndian.AppendUint32(make0(kind, 4), uint32(id))
}

func pair32[A, B ~uint32](kind Kind, a A, b B) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(make0(kind, 8), uint32(a)), uint32(b))
}

// u64key is for ids that carry their partition.
func u64key[T ~uint64](kind Kind, id T, extra int) []byte {
	return binary.BigEndian.AppendUint64(makeIn(ashlar.PartitionOf(id), kind, 8+extra), uint64(id))
}

// Cluster is the identity of the cluster.
func Cluster() []byte { return make0(KindCluster, 0) }

// Counter is the next id of a sort in a partition.
func Counter(p ashlar.Partition, which uint8) []byte {
	return append(makeIn(p, KindCounter, 1), which)
}

// Time is the last operation time.
func Time() []byte { return make0(KindTime, 0) }

// Master is a member of the consensus group.
func Master(id ashlar.MemberID) []byte {
	return binary.BigEndian.AppendUint64(make0(KindMaster, 8), uint64(id))
}

// Session is a session's record.
func Session(id ashlar.SessionID) []byte { return u64key(KindSession, id, 0) }

// SessionNonce finds the session that an open made, for its retries.
func SessionNonce(inc ashlar.Incarnation, nonce uint64) []byte {
	k := binary.BigEndian.AppendUint64(make0(KindSessionNonce, 16), uint64(inc))
	return binary.BigEndian.AppendUint64(k, nonce)
}

// Result is the kept result of an operation of a session.
func Result(id ashlar.SessionID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(u64key(KindResult, id, 8), seq)
}

// Fence is a lost session by the revision of its fence.
func Fence(revision uint64) []byte {
	return binary.BigEndian.AppendUint64(make0(KindFence, 8), revision)
}

// SessionEnd marks a session to be swept away.
func SessionEnd(id ashlar.SessionID) []byte { return u64key(KindSessionEnd, id, 0) }

// Pool is a pool's record.
func Pool(id uint32) []byte { return u32key(KindPool, id) }

// PoolName finds a pool by name.
func PoolName(name string) []byte { return append(make0(KindPoolName, len(name)), name...) }

// Node is a chunkserver's record.
func Node(id ashlar.NodeID) []byte { return u32key(KindNode, id) }

// NodeName finds a chunkserver by name.
func NodeName(name string) []byte { return append(make0(KindNodeName, len(name)), name...) }

// NodeUUID finds a chunkserver by the uuid of its data directory.
func NodeUUID(uuid [16]byte) []byte { return append(make0(KindNodeUUID, 16), uuid[:]...) }

// NodeDisk says that a disk belongs to a node.
func NodeDisk(n ashlar.NodeID, d ashlar.DiskID) []byte { return pair32(KindNodeDisk, n, d) }

// Disk is a disk's record.
func Disk(id ashlar.DiskID) []byte { return u32key(KindDisk, id) }

// DiskUUID finds a disk by its uuid.
func DiskUUID(uuid [16]byte) []byte { return append(make0(KindDiskUUID, 16), uuid[:]...) }

// Group is a placement group's record.
func Group(id ashlar.PGID) []byte { return u32key(KindGroup, id) }

// DiskGroup says that a group has a member on a disk.
func DiskGroup(d ashlar.DiskID, g ashlar.PGID) []byte { return pair32(KindDiskGroup, d, g) }

// PoolGroup says that a group belongs to a pool.
func PoolGroup(pool uint32, g ashlar.PGID) []byte { return pair32(KindPoolGroup, pool, g) }

// PoolVolume says that a volume uses a pool.
func PoolVolume(pool uint32, v ashlar.VolumeID) []byte { return pair32(KindPoolVolume, pool, v) }

// Placement is one of placement's own scalars.
func Placement(which uint8) []byte { return append(make0(KindPlacement, 1), which) }

// Volume is a volume's record.
func Volume(id ashlar.VolumeID) []byte { return u32key(KindVolume, id) }

// VolumeName finds a volume by name.
func VolumeName(name string) []byte { return append(make0(KindVolumeName, len(name)), name...) }

// Usage counts what a volume holds; p is the partition the volume lives in.
func Usage(p ashlar.Partition, v ashlar.VolumeID) []byte {
	return binary.BigEndian.AppendUint32(makeIn(p, KindUsage, 4), uint32(v))
}

// Inode is an inode's record.
func Inode(ino ashlar.Inode) []byte { return u64key(KindInode, ino, 0) }

// InodeOf returns whose record a key is of, false if it is of no inode's.
func InodeOf(k []byte) (ashlar.Inode, bool) {
	want := len(Inode(0))
	if len(k) != want || Kind(k[want-9]) != KindInode {
		return 0, false
	}
	return ashlar.Inode(binary.BigEndian.Uint64(k[want-8:])), true
}

// Dentry is a name in a directory.
func Dentry(dir ashlar.Inode, name string) []byte {
	return append(u64key(KindDentry, dir, len(name)), name...)
}

// Cookie is a name in a directory by its cookie.
func Cookie(dir ashlar.Inode, cookie uint64) []byte {
	return binary.BigEndian.AppendUint64(u64key(KindCookie, dir, 8), cookie)
}

// Link says that an inode has another name, found by directory and cookie.
func Link(ino, dir ashlar.Inode, cookie uint64) []byte {
	k := binary.BigEndian.AppendUint64(u64key(KindLink, ino, 16), uint64(dir))
	return binary.BigEndian.AppendUint64(k, cookie)
}

// Xattr is an extended attribute.
func Xattr(ino ashlar.Inode, name string) []byte {
	return append(u64key(KindXattr, ino, len(name)), name...)
}

// Orphan marks an inode without a name.
func Orphan(ino ashlar.Inode) []byte { return u64key(KindOrphan, ino, 0) }

// Deletion is a layer whose chunks are being removed.
func Deletion(layer ashlar.LayerID) []byte { return u64key(KindDeletion, layer, 0) }

// Cut is the cut of a layer that is under way.
func Cut(layer ashlar.LayerID) []byte { return u64key(KindCut, layer, 0) }

// Reaping marks a directory of a deleted volume.
func Reaping(dir ashlar.Inode) []byte { return u64key(KindReaping, dir, 0) }

// Lock is what one owner has locked of an inode.
func Lock(ino ashlar.Inode, class uint8, s ashlar.SessionID, owner uint64) []byte {
	k := append(u64key(KindLock, ino, 17), class)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(k, uint64(s)), owner)
}

// LockParts returns what follows the inode in a Lock key.
func LockParts(k []byte) (class uint8, s ashlar.SessionID, owner uint64) {
	k = k[head+8:]
	return k[0], ashlar.SessionID(binary.BigEndian.Uint64(k[1:])), binary.BigEndian.Uint64(k[9:])
}

// Locker says that a session holds a lock of an inode. It is in the inode's
// partition.
func Locker(s ashlar.SessionID, ino ashlar.Inode) []byte {
	k := binary.BigEndian.AppendUint64(makeIn(ashlar.PartitionOf(ino), KindLocker, 16), uint64(s))
	return binary.BigEndian.AppendUint64(k, uint64(ino))
}

// Lockers returns the bounds of a session's Locker keys in a partition.
func Lockers(p ashlar.Partition, s ashlar.SessionID) (lo, hi []byte) {
	lo = binary.BigEndian.AppendUint64(makeIn(p, KindLocker, 8), uint64(s))
	return lo, after(lo)
}

// Name is a named lock.
func Name(name string) []byte { return append(make0(KindName, len(name)), name...) }

// Namer says that a session holds a named lock.
func Namer(s ashlar.SessionID, name string) []byte {
	return append(binary.BigEndian.AppendUint64(make0(KindNamer, 8+len(name)), uint64(s)), name...)
}

// Range returns the bounds of all keys of a kind in a partition, for Scan.
func Range(p ashlar.Partition, kind Kind) (lo, hi []byte) {
	return makeIn(p, kind, 0), makeIn(p, kind+1, 0)
}

// Range32 returns the bounds of the keys of a kind in partition 0 that begin
// with a 32-bit id, such as the groups of one disk.
func Range32[T ~uint32](kind Kind, id T) (lo, hi []byte) {
	lo = u32key(kind, id)
	return lo, after(lo)
}

// Range64 returns the bounds of the keys of a kind that begin with a 64-bit
// id, such as the attributes of one inode.
func Range64[T ~uint64](kind Kind, id T) (lo, hi []byte) {
	lo = u64key(kind, id, 0)
	return lo, after(lo)
}

// after returns the least key above every key that begins with k.
func after(k []byte) []byte {
	n := append([]byte(nil), k...)
	for i := len(n) - 1; i >= 0; i-- {
		if n[i]++; n[i] != 0 {
			return n[:i+1]
		}
	}
	panic("key: partition and kind are never all ones")
}

// Tail returns what follows the partition and the kind: the parts of a key
// that Scan found.
func Tail(k []byte) []byte { return k[head:] }

// Tail32 returns the i-th 32-bit integer of a key made of them, from 0.
func Tail32(k []byte, i int) uint32 { return binary.BigEndian.Uint32(k[head+4*i:]) }

// Tail64 returns the i-th 64-bit integer of a key made of them, from 0.
func Tail64(k []byte, i int) uint64 { return binary.BigEndian.Uint64(k[head+8*i:]) }
