package key

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// shape tells how the parts of a kind's keys are written: 8 and 4 are
// integers of as many bytes, 1 a byte, u a uuid, s the rest as a string.
type shape struct{ name, parts string }

var shapes = map[Kind]shape{
	KindCluster: {"cluster", ""}, KindCounter: {"counter", "1"}, KindTime: {"time", ""},
	KindMaster: {"master", "8"}, KindSession: {"session", "8"}, KindSessionNonce: {"session-nonce", "88"},
	KindResult: {"result", "88"}, KindFence: {"fence", "8"}, KindSessionEnd: {"session-end", "8"},
	KindPool: {"pool", "4"}, KindPoolName: {"pool-name", "s"}, KindNode: {"node", "4"},
	KindNodeName: {"node-name", "s"}, KindDisk: {"disk", "4"}, KindDiskUUID: {"disk-uuid", "u"},
	KindGroup: {"group", "4"}, KindDiskGroup: {"disk-group", "44"}, KindPoolGroup: {"pool-group", "44"},
	KindPoolVolume: {"pool-volume", "44"}, KindNodeUUID: {"node-uuid", "u"}, KindNodeDisk: {"node-disk", "44"},
	KindPlacement: {"placement", "1"}, KindVolume: {"volume", "4"}, KindVolumeName: {"volume-name", "s"},
	KindUsage: {"usage", "4"}, KindInode: {"inode", "8"}, KindDentry: {"dentry", "8s"},
	KindCookie: {"cookie", "88"}, KindLink: {"link", "888"}, KindXattr: {"xattr", "8s"},
	KindOrphan: {"orphan", "8"}, KindDeletion: {"deletion", "8"}, KindCut: {"cut", "8"},
	KindReaping: {"reaping", "8"}, KindLock: {"lock", "8188"}, KindLocker: {"locker", "88"},
	KindName: {"name", "s"}, KindNamer: {"namer", "8s"},
}

// partitionMask takes the partition off an id, for reading.
const partitionMask = 1<<52 - 1

// String writes a key for people: 1/dentry/5/"name". Ids are shown without
// the partition that they carry.
func String(k []byte) string {
	if len(k) < head {
		return "key " + hex.EncodeToString(k)
	}
	kind, rest := Kind(k[2]), k[head:]
	sh, ok := shapes[kind]
	if !ok {
		return "key " + hex.EncodeToString(k)
	}
	out := []string{strconv.Itoa(int(binary.BigEndian.Uint16(k))), sh.name}
	for _, p := range sh.parts {
		switch {
		case p == '8' && len(rest) >= 8:
			n := binary.BigEndian.Uint64(rest)
			if kind != KindMaster && kind != KindSessionNonce && (kind != KindLock || len(rest) > 8) {
				n &= partitionMask
			}
			out, rest = append(out, strconv.FormatUint(n, 10)), rest[8:]
		case p == '4' && len(rest) >= 4:
			out, rest = append(out, strconv.FormatUint(uint64(binary.BigEndian.Uint32(rest)), 10)), rest[4:]
		case p == '1' && len(rest) >= 1:
			out, rest = append(out, strconv.Itoa(int(rest[0]))), rest[1:]
		case p == 'u' && len(rest) >= 16:
			out, rest = append(out, hex.EncodeToString(rest[:16])), rest[16:]
		case p == 's':
			out, rest = append(out, strconv.Quote(string(rest))), nil
		default:
			return "key " + hex.EncodeToString(k)
		}
	}
	if len(rest) != 0 {
		return "key " + hex.EncodeToString(k)
	}
	return strings.Join(out, "/")
}
