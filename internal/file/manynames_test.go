package file

import (
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func dirAttr(ino ashlar.Inode, version uint64) ashlar.Attr {
	return ashlar.Attr{Inode: ino, Type: ashlar.TypeDir, Nlink: 2, Version: version, Ctime: int64(version)}
}

// feed lists a directory of n files in parts, under a lease.
func feed(fs *FS, dir ashlar.Inode, n int) {
	for at := 0; at < n; {
		m := &wire.Readdir{Inode: dir, Cookie: uint64(at), Limit: 1024}
		r := &wire.ReaddirReply{Dir: wire.Leased{Attr: dirAttr(dir, 5), Lease: ashlar.LeaseShared}, Parent: 1}
		for k := 0; k < 1024 && at < n; k++ {
			at++
			r.Entries = append(r.Entries, wire.DirEntry{
				Name: fmt.Sprint("f", at), Inode: ashlar.Inode(1000 + at), Type: ashlar.TypeFile, Cookie: uint64(at),
			})
		}
		r.EOF = at == n
		fs.learnDir(fs.leases.ask(), m, r)
	}
}

// knownRight fails if what is known of a directory of n files is not so, and
// tells whether a listing is known.
func knownRight(t *testing.T, fs *FS, dir ashlar.Inode, n int) bool {
	t.Helper()
	r, listed := fs.cachedDir(&wire.Readdir{Inode: dir})
	if listed && len(r.Entries) != n {
		t.Fatalf("directory %d has %d of %d entries", dir, len(r.Entries), n)
	}
	for _, k := range []int{1, n/2 + 1, n} {
		if ino, ok := fs.cachedName(dir, fmt.Sprint("f", k)); ok && ino == 0 {
			t.Fatalf("f%d of directory %d is said not to be there", k, dir)
		}
	}
	return listed
}

// countedRight fails if the count of names is not that of those remembered.
func countedRight(t *testing.T, fs *FS) {
	t.Helper()
	l := &fs.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, x := range l.m {
		n += len(x.names) + len(x.listed)
	}
	if n != l.names || n > NamesMax {
		t.Fatalf("%d names are remembered and %d counted", n, l.names)
	}
}

// Names are forgotten for want of room, some of the very directory that is being
// listed among them: what is left is not taken for all.
func TestADirectoryWhoseNamesHaveNoRoomIsNotKnownWhole(t *testing.T) {
	for _, n := range []int{NamesMax/2 - 100, NamesMax/2 + 100, NamesMax * 3 / 4, NamesMax + 100} {
		fs := leasedFS(t, &granting{}, hour(), nil)
		feed(fs, 7, n)
		knownRight(t, fs, 7, n)
		countedRight(t, fs)
	}
}

func TestDirectoriesThatPushOthersOutLeaveNoneKnownInPart(t *testing.T) {
	fs := leasedFS(t, &granting{}, hour(), nil)
	listed := 0
	for d := ashlar.Inode(7); d < 300; d++ {
		feed(fs, d, 1000)
		countedRight(t, fs)
	}
	for d := ashlar.Inode(7); d < 300; d++ {
		if knownRight(t, fs, d, 1000) {
			listed++
		}
	}
	if listed < NamesMax/2000/4 {
		t.Errorf("%d directories are known", listed)
	}
}

// What may have changed a directory and answered nothing makes it unknown; that
// its version is still the same does not make it known again.
func TestADirectoryIsNotKnownAfterAChangeOfUnknownOutcome(t *testing.T) {
	fs := leasedFS(t, &granting{}, hour(), nil)
	feed(fs, 7, 10)
	if !knownRight(t, fs, 7, 10) {
		t.Fatal("not known after it was listed")
	}
	fs.doubt(&wire.Remove{Parent: 7, Name: "f1"})
	a := dirAttr(7, 5)
	fs.learn(fs.leases.ask(), &a, nil, ashlar.LeaseShared)
	if knownRight(t, fs, 7, 10) {
		t.Error("known although a removal may have happened")
	}
}
