package inspect

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// rebuild extracts what is on disks.
func rebuild(t *testing.T, stale bool, dirs ...string) (string, map[string]*File) {
	t.Helper()
	s, err := ScanDisks(context.Background(), vfs.ReadOnly, dirs, nil)
	must(t, err)
	out := t.TempDir()
	root, err := os.OpenRoot(out)
	must(t, err)
	defer root.Close()
	files := map[string]*File{}
	for _, f := range s.Files(stale) {
		s.Extract(context.Background(), Dir{root}, f, func(uint64) {})
		files[f.Place] = f
	}
	return out, files
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

// origin of a file of one group a chunk.
func origin(ino ashlar.Inode, hint string) wire.Origin {
	return wire.Origin{Owner: ino, UID: 1234, GID: 99, Mode: 0o640, Width: 1, Unit: testChunk, Hint: hint}
}

func TestFilesComeBackUnderTheirNamesByteForByte(t *testing.T) {
	a, b := t.TempDir()+"/a", t.TempDir()+"/b"
	da, db := openDisk(t, a), openDisk(t, b)
	inSync(t, da, 1, 5)
	inSync(t, db, 1, 5)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	data = data[:9999]
	for _, d := range []*chunkstore.Disk{da, db} {
		put(t, d, chunkstore.Key{Group: 1, Layer: 9}, 0, data, 5, origin(7, "main:/dir/file"))
		put(t, d, chunkstore.Key{Group: 1, Layer: 9, Index: 3}, 100, []byte("the end"), 5, origin(7, "main:/dir/file"))
		put(t, d, chunkstore.Key{Group: 1, Layer: 20}, 0, []byte("older"), 5, origin(8, "main:/same"))
		put(t, d, chunkstore.Key{Group: 1, Layer: 21}, 0, []byte("younger"), 5, origin(9, "main:/same"))
		put(t, d, chunkstore.Key{Group: 1, Layer: 22}, 0, []byte("emptied"), 5, origin(10, "main:/twice"))
		put(t, d, chunkstore.Key{Group: 1, Layer: 23}, 0, []byte("now"), 5, origin(10, "main:/twice"))
		put(t, d, chunkstore.Key{Group: 1, Layer: 24}, 0, []byte("nameless"), 5, wire.Origin{Owner: 11})
		put(t, d, chunkstore.Key{Group: 1, Layer: 25}, 0, []byte("evil"), 5, origin(12, "main:/../../etc/passwd"))
	}
	// One copy of a block is damaged: the other is taken.
	must(t, errors.Join(da.Close(), db.Close()))
	name := a + "/chunks/00000001/00/0000000000000009.00000000"
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("XXXX"), 64<<10)
	must(t, errors.Join(err, f.Close()))

	out, files := rebuild(t, false, a, b)
	got := read(t, out+"/main/dir/file")
	want := make([]byte, 3*testChunk+107)
	copy(want, data)
	copy(want[3*testChunk+100:], "the end")
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if f := files["main/dir/file"]; !f.Complete() || f.Result.Mended != 4096 || f.Absent != 2 {
		t.Errorf("%+v %+v", f, f.Result)
	}
	for place, want := range map[string]string{
		"main/same": "younger", "lost+found/8.14.same": "older", "main/twice": "now", "lost+found/a.16.twice": "emptied",
		"lost+found/b.18": "nameless", "lost+found/c.19": "evil",
	} {
		if got := read(t, filepath.Join(out, place)); string(got) != want {
			t.Errorf("%s: %q, want %q", place, got, want)
		}
		if (files[place].Why != "") != strings.HasPrefix(place, LostFound) {
			t.Errorf("%s: why %q", place, files[place].Why)
		}
	}
	st, err := os.Stat(out + "/main/dir/file")
	must(t, err)
	if st.Mode() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
	if sys := st.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (sys.Uid != 1234 || sys.Gid != 99) {
		t.Errorf("owner %d:%d", sys.Uid, sys.Gid)
	}
}

// I-5: what counts is who was in-sync longest, not who has the highest epoch.
func TestAStaleDiskIsBelievedOnlyForWhatNobodyElseHas(t *testing.T) {
	cur, old, filling := t.TempDir()+"/cur", t.TempDir()+"/old", t.TempDir()+"/filling"
	dc, do, df := openDisk(t, cur), openDisk(t, old), openDisk(t, filling)
	inSync(t, dc, 1, 8)
	inSync(t, do, 1, 4)
	must(t, df.SetGroup(chunkstore.GroupRecord{Config: ashlar.Group{ID: 1, Epoch: 8}})) // syncing
	k := chunkstore.Key{Group: 1, Layer: 9}
	put(t, do, k, 0, bytes.Repeat([]byte("o"), 2*65536), 4, origin(7, "main:/f"))
	put(t, dc, k, 0, bytes.Repeat([]byte("o"), 2*65536), 4, origin(7, "main:/f"))
	put(t, dc, k, 0, bytes.Repeat([]byte("n"), 4096), 6, origin(7, "main:/f"))
	// Cut while the old disk was away: its second chunk is no part of the file.
	put(t, do, chunkstore.Key{Group: 1, Layer: 9, Index: 1}, 0, []byte("cut"), 4, origin(7, "main:/f"))
	// The one being filled has emptied the chunk under a later epoch.
	put(t, df, k, 0, []byte("x"), 8, origin(7, "main:/f"))
	must(t, df.Truncate(k, 4096, 8))
	must(t, errors.Join(dc.Close(), do.Close(), df.Close()))

	want := append(bytes.Repeat([]byte("n"), 4096), bytes.Repeat([]byte("o"), 2*65536-4096)...)
	out, files := rebuild(t, false, filling, old, cur)
	if got := read(t, out+"/main/f"); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	if f := files["main/f"]; f.OnlyStale != 1 || f.Result.Stale != 0 {
		t.Errorf("%+v %+v", f, f.Result)
	}
	out, _ = rebuild(t, true, filling, old, cur)
	if got := read(t, out+"/main/f"); len(got) != testChunk+3 {
		t.Errorf("with stale chunks %d bytes", len(got))
	}
	// Alone, the old disk is the best there is.
	out, files = rebuild(t, false, old)
	if got := read(t, out+"/main/f"); len(got) != testChunk+3 || !files["main/f"].Complete() {
		t.Errorf("the old disk alone: %d bytes", len(got))
	}
}

func TestWhatNoCopyHasIsNamed(t *testing.T) {
	dir := t.TempDir() + "/d"
	d := openDisk(t, dir)
	inSync(t, d, 1, 1)
	put(t, d, chunkstore.Key{Group: 1, Layer: 9}, 0, bytes.Repeat([]byte("a"), 10000), 1, origin(7, "main:/f"))
	must(t, d.Close())
	f, err := os.OpenFile(dir+"/chunks/00000001/00/0000000000000009.00000000", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("XXXX"), 64<<10+4096)
	must(t, errors.Join(err, f.Close()))
	out, files := rebuild(t, false, dir)
	x := files["main/f"]
	if x.Complete() || len(x.Result.Lost) != 1 || x.Result.Lost[0] != (Range{4096, 4096}) {
		t.Fatalf("%+v", x.Result)
	}
	got := read(t, out+"/main/f")
	if len(got) != 10000 || got[0] != 'a' || got[4096] != 0 || got[9999] != 'a' {
		t.Fatal("the rest is not as it was")
	}
}

// A striped file's bytes go round its chunks: offsetOf undoes Layout.Locate.
func TestStripesAreUndone(t *testing.T) {
	l := ashlar.Layout{ChunkSize: testChunk, Segments: []ashlar.Segment{
		{First: 0, StripeUnit: testChunk, Groups: []ashlar.PGID{1}},
		{First: 1, StripeUnit: 65536, Groups: []ashlar.PGID{2, 3, 4}},
	}}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		at := rng.Uint64N(12 * testChunk)
		x, err := l.Locate(at, 1)
		must(t, err)
		s, _ := l.SegmentOf(x.Chunk)
		o := wire.Origin{Width: uint8(len(s.Groups)), Unit: s.StripeUnit, First: s.First}
		if got := offsetOf(&o, l.ChunkSize, x.Chunk, x.Off); got != at {
			t.Fatalf("byte %d is at %d of chunk %d, which is byte %d", at, x.Off, x.Chunk, got)
		}
	}
}

func TestDisksThatDoNotBelongTogetherAreRefused(t *testing.T) {
	a, b := t.TempDir()+"/a", t.TempDir()+"/b"
	must(t, openDisk(t, a).Close())
	must(t, chunkstore.Format(vfs.OS, b, ashlar.ClusterID{9}))
	for want, dirs := range map[ashlar.Kind][]string{
		ashlar.WrongCluster: {a, b}, ashlar.Invalid: {a, a}, ashlar.NotExist: {t.TempDir()},
	} {
		if _, err := ScanDisks(context.Background(), vfs.ReadOnly, dirs, nil); !errors.Is(err, want) {
			t.Errorf("%v: %v", dirs, err)
		}
	}
}

// Of a file's chunks the one that was told its name last knows it best; and a
// time that the masters told is the file's, not that of a copy.
func TestTheLastNameAndTheTimeThatWereToldCount(t *testing.T) {
	a := t.TempDir() + "/a"
	d := openDisk(t, a)
	inSync(t, d, 1, 5)
	keys := []chunkstore.Key{{Group: 1, Layer: 9}, {Group: 1, Layer: 9, Index: 1}}
	for _, k := range keys {
		put(t, d, k, 0, []byte("data"), 5, origin(7, "main:/old"))
	}
	now := origin(7, "main:/dir/new")
	now.Mode, now.Mtime = 0o600, 1e18+5
	must(t, d.SetOrigin(keys[0], &now))
	must(t, d.Close())
	past := time.Now().Add(-time.Hour) // the kernel's clock is coarse
	must(t, os.Chtimes(a+"/chunks/00000001/00/0000000000000009.00000001", past, past))
	_, files := rebuild(t, false, a)
	if f := files["main/dir/new"]; f == nil || f.Mode != 0o600 || !f.Complete() {
		t.Fatalf("%+v", files)
	}
	d = openDisk(t, a)
	must(t, d.SetOrigin(keys[1], &now))
	must(t, d.Close())
	out, _ := rebuild(t, false, a)
	if st, err := os.Stat(out + "/main/dir/new"); err != nil || st.ModTime().UnixNano() != now.Mtime {
		t.Errorf("changed at %v (%v), want %d", st.ModTime(), err, now.Mtime)
	}
}
