package key_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var ino = ashlar.InPartition[ashlar.Inode](1, 5)

// every has one key of each kind and how it reads.
var every = map[string][]byte{
	"0/cluster": key.Cluster(), "1/counter/8": key.Counter(1, key.CounterID), "0/time": key.Time(),
	"0/master/18446744073709551615": key.Master(1<<64 - 1), "0/session/3": key.Session(3),
	"0/session-nonce/9/8": key.SessionNonce(9, 8), "0/result/3/12": key.Result(3, 12), "0/fence/4": key.Fence(4),
	"0/session-end/3": key.SessionEnd(3), "0/pool/1": key.Pool(1), `0/pool-name/"p"`: key.PoolName("p"),
	"0/node/2": key.Node(2), `0/node-name/"n1"`: key.NodeName("n1"),
	"0/node-uuid/01000000000000000000000000000000": key.NodeUUID([16]byte{1}), "0/node-disk/2/7": key.NodeDisk(2, 7),
	"0/disk/7": key.Disk(7), "0/disk-uuid/02000000000000000000000000000000": key.DiskUUID([16]byte{2}),
	"0/group/6": key.Group(6), "0/disk-group/7/6": key.DiskGroup(7, 6), "0/pool-group/1/6": key.PoolGroup(1, 6),
	"0/pool-volume/1/2": key.PoolVolume(1, 2), "0/placement/3": key.Placement(3), "0/volume/2": key.Volume(2),
	`0/volume-name/"main"`: key.VolumeName("main"), "1/usage/2": key.Usage(1, 2), "1/inode/5": key.Inode(ino),
	`1/dentry/5/"a\xff"`: key.Dentry(ino, "a\xff"), "1/cookie/5/3": key.Cookie(ino, 3),
	"1/link/5/6/7": key.Link(ino, ino+1, 7), `1/xattr/5/"user.x"`: key.Xattr(ino, "user.x"), "1/orphan/5": key.Orphan(ino),
	"1/deletion/5": key.Deletion(ashlar.LayerID(ino)), "1/cut/5": key.Cut(ashlar.LayerID(ino)), "1/reaping/5": key.Reaping(ino),
	"1/lock/5/1/3/18446744073709551615": key.Lock(ino, 1, 3, 1<<64-1), "1/locker/3/5": key.Locker(3, ino),
	`0/name/"n"`: key.Name("n"), `0/namer/3/"n"`: key.Namer(3, "n"),
}

func TestKeysReadAsTheyAreWritten(t *testing.T) {
	seen := map[string]string{}
	for want, k := range every {
		if got := key.String(k); got != want {
			t.Errorf("%x reads %s, want %s", k, got, want)
		}
		if other, dup := seen[string(k)]; dup {
			t.Errorf("%s and %s are one key", want, other)
		}
		seen[string(k)] = want
		if got := key.String(k[:len(k)-1]); len(k) <= 3 && got == want {
			t.Errorf("%s without its last byte reads the same", want)
		}
	}
}

func TestRangesHoldTheirKeysAndNoOthers(t *testing.T) {
	within := func(lo, hi, k []byte) bool { return bytes.Compare(lo, k) <= 0 && bytes.Compare(k, hi) < 0 }
	lo, hi := key.Range(1, key.KindInode)
	if !within(lo, hi, key.Inode(ino)) || within(lo, hi, key.Dentry(ino, "")) || within(lo, hi, key.Usage(1, 1)) {
		t.Error("Range of inodes")
	}
	lo, hi = key.Range64(key.KindXattr, ino)
	if !within(lo, hi, key.Xattr(ino, "")) || !within(lo, hi, key.Xattr(ino, "\xff\xff\xff\xff\xff\xff\xff\xff\xff")) ||
		within(lo, hi, key.Xattr(ino+1, "")) || within(lo, hi, key.Xattr(ino-1, "\xff")) {
		t.Error("Range64 of attributes")
	}
	last := ashlar.InPartition[ashlar.Inode](0xfff, 1<<52-1)
	lo, hi = key.Range64(key.KindXattr, last)
	if !within(lo, hi, key.Xattr(last, "x")) || within(lo, hi, key.Orphan(last)) {
		t.Error("Range64 of the last inode")
	}
	lo, hi = key.Range32(key.KindDiskGroup, ashlar.DiskID(7))
	if !within(lo, hi, key.DiskGroup(7, 1<<32-1)) || within(lo, hi, key.DiskGroup(8, 0)) {
		t.Error("Range32 of groups")
	}
	if k := key.Link(ino, 6, 7); key.Tail64(k, 0) != uint64(ino) || key.Tail64(k, 1) != 6 || key.Tail64(k, 2) != 7 {
		t.Error("Tail64")
	}
	if k := key.DiskGroup(7, 6); key.Tail32(k, 0) != 7 || key.Tail32(k, 1) != 6 {
		t.Error("Tail32")
	}
}

func TestCountersGiveEachNumberOnce(t *testing.T) {
	var m metatest.Mem
	var got []uint64
	for _, n := range []uint64{1, 3, 1} {
		id, err := key.NextN(&m, 1, key.CounterID, n)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	other, err := key.Next(&m, 0, key.CounterID)
	if err != nil || other != 1 || got[0] != 1 || got[1] != 2 || got[2] != 5 {
		t.Errorf("%v, other partition %d, %v", got, other, err)
	}
	m.Set(key.Counter(1, key.CounterID), []byte{2})
	if _, err := key.Next(&m, 1, key.CounterID); !errors.Is(err, ashlar.Corrupt) {
		t.Errorf("a damaged counter: %v", err)
	}
}

type tooLong struct{ s string }

func (r *tooLong) Fields(c *wire.Codec) { key.Version(c, 1); wire.Text(c, &r.s, 3) }

func TestARecordBeyondItsLimitsIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("written all the same")
		}
	}()
	key.Encode(&tooLong{"long"})
}

func FuzzString(f *testing.F) {
	for _, k := range every {
		f.Add(k)
	}
	f.Fuzz(func(_ *testing.T, k []byte) { key.String(k) })
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range []key.Record{new(key.Number), &key.Mark{}} {
			if key.Decode(b, r) == nil && !bytes.Equal(key.Encode(r), b) {
				t.Errorf("%T: %x reads otherwise than it writes", r, b)
			}
		}
	})
}
