// Package vfstest is the conformance suite of vfs.FS: what every disk, real
// or in memory, must do. A package runs it with one call of Run.
package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"testing"

	"github.com/ashlarfs/ashlar/internal/vfs"
)

// Run checks the file systems that open returns; each call gives one with an
// empty directory to work in.
func Run(t *testing.T, open func(t *testing.T) (fsys vfs.FS, dir string)) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fsys, dir := open(t)
			c.check(t, fsys, dir)
		})
	}
}

var cases = []struct {
	name  string
	check func(t *testing.T, fsys vfs.FS, dir string)
}{
	{"a written file reads back", writtenFileReadsBack},
	{"a read past the end is EOF", readPastEnd},
	{"a gap reads as zeros", gapReadsAsZeros},
	{"create truncates and open does not", createTruncates},
	{"a punched hole reads as zeros and keeps the size", punchedHole},
	{"preallocate zeroes and sets the size", preallocateZeroes},
	{"truncate cuts and extends with zeros", truncateCuts},
	{"names are listed sorted and can be renamed over", names},
	{"errors match the io/fs sentinels and errnos", errorsMatch},
	{"a lock excludes a second holder until closed", lockExcludes},
	{"a region keeps stores across close", regionKeepsStores},
	{"an open file outlives its name", openOutlivesName},
	{"usage tells free bytes", usage},
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f vfs.File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(p, off); err != nil || n != len(p) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(p), err)
	}
}

func read(t *testing.T, f vfs.File, off int64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xEE}, n)
	if got, err := f.ReadAt(p, off); got != n {
		t.Fatalf("read %d of %d bytes at %d: %v", got, n, off, err)
	}
	return p
}

func size(t *testing.T, f vfs.File, want int64) {
	t.Helper()
	if got := must(f.Size())(t); got != want {
		t.Fatalf("size %d, want %d", got, want)
	}
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		i := 0
		for i < len(got) && i < len(want) && got[i] == want[i] {
			i++
		}
		t.Fatalf("contents differ at byte %d of %d", i, len(want))
	}
}

func writtenFileReadsBack(t *testing.T, fsys vfs.FS, dir string) {
	f := must(fsys.Create(path.Join(dir, "a")))(t)
	data := bytes.Repeat([]byte("0123456789"), 2000)
	write(t, f, data, 100)
	write(t, f, []byte("xyz"), 4095)
	ok(t, f.Sync())
	ok(t, f.Writeback(0, 4096))
	copy(data[3995:], "xyz")
	same(t, read(t, f, 100, len(data)), data)
	ok(t, f.Close())
	f = must(fsys.Open(path.Join(dir, "a")))(t)
	defer f.Close()
	same(t, read(t, f, 100, len(data)), data)
	size(t, f, int64(100+len(data)))
}

func readPastEnd(t *testing.T, fsys vfs.FS, dir string) {
	f := must(fsys.Create(path.Join(dir, "a")))(t)
	defer f.Close()
	write(t, f, []byte("abc"), 0)
	p := make([]byte, 8)
	if n, err := f.ReadAt(p, 1); n != 2 || err != io.EOF {
		t.Fatalf("short read: %d, %v", n, err)
	}
	if n, err := f.ReadAt(p, 3); n != 0 || err != io.EOF {
		t.Fatalf("read at the end: %d, %v", n, err)
	}
}

func gapReadsAsZeros(t *testing.T, fsys vfs.FS, dir string) {
	f := must(fsys.Create(path.Join(dir, "a")))(t)
	defer f.Close()
	write(t, f, []byte{1}, 20000)
	same(t, read(t, f, 0, 20000), make([]byte, 20000))
}

func createTruncates(t *testing.T, fsys vfs.FS, dir string) {
	name := path.Join(dir, "a")
	f, created, err := fsys.OpenOrCreate(name)
	if err != nil || !created {
		t.Fatalf("created %v: %v", created, err)
	}
	write(t, f, []byte("abc"), 0)
	ok(t, f.Close())
	f, created, err = fsys.OpenOrCreate(name)
	if err != nil || created {
		t.Fatalf("created %v: %v", created, err)
	}
	size(t, f, 3)
	ok(t, f.Close())
	f = must(fsys.Create(name))(t)
	defer f.Close()
	size(t, f, 0)
	write(t, f, []byte{1}, 5)
	same(t, read(t, f, 0, 6), []byte{0, 0, 0, 0, 0, 1})
}

func punchedHole(t *testing.T, fsys vfs.FS, dir string) {
	f := must(fsys.Create(path.Join(dir, "a")))(t)
	defer f.Close()
	data := bytes.Repeat([]byte{7}, 5*4096)
	write(t, f, data, 0)
	ok(t, f.PunchHole(4000, 9000))
	clear(data[4000:13000])
	same(t, read(t, f, 0, len(data)), data)
	ok(t, f.PunchHole(4*4096, 4*4096))
	clear(data[4*4096:])
	same(t, read(t, f, 0, len(data)), data)
	size(t, f, int64(len(data)))
}

func preallocateZeroes(t *testing.T, fsys vfs.FS, dir string) {
	f := must(fsys.Create(path.Join(dir, "a")))(t)
	defer f.Close()
	write(t, f, bytes.Repeat([]byte{7}, 6000), 0)
	ok(t, f.Preallocate(3<<20+5))
	size(t, f, 3<<20+5)
	same(t, read(t, f, 0, 3<<20+5), make([]byte, 3<<20+5))
}

func truncateCuts(t *testing.T, fsys vfs.FS, dir string) {
	f := must(fsys.Create(path.Join(dir, "a")))(t)
	defer f.Close()
	write(t, f, bytes.Repeat([]byte{7}, 9000), 0)
	ok(t, f.Truncate(5000))
	size(t, f, 5000)
	ok(t, f.Truncate(9000))
	same(t, read(t, f, 4990, 20), append(bytes.Repeat([]byte{7}, 10), make([]byte, 10)...))
}

func names(t *testing.T, fsys vfs.FS, dir string) {
	sub := path.Join(dir, "x/y")
	ok(t, fsys.MkdirAll(sub))
	ok(t, fsys.MkdirAll(sub))
	for _, n := range []string{"b", "a", "c"} {
		f := must(fsys.Create(path.Join(sub, n)))(t)
		write(t, f, []byte(n), 0)
		ok(t, f.Close())
	}
	ok(t, fsys.Rename(path.Join(sub, "a"), path.Join(sub, "b")))
	ok(t, fsys.SyncDir(sub))
	if got := must(fsys.List(sub))(t); !slices.Equal(got, []string{"b", "c"}) {
		t.Fatalf("listed %v", got)
	}
	f := must(fsys.Open(path.Join(sub, "b")))(t)
	same(t, read(t, f, 0, 1), []byte("a"))
	ok(t, f.Close())
	ok(t, fsys.Rename(path.Join(dir, "x"), path.Join(dir, "z")))
	if st := must(fsys.Stat(path.Join(dir, "z/y/c")))(t); st.Size() != 1 || st.IsDir() || st.Name() != "c" {
		t.Fatalf("stat: %v %v %v", st.Name(), st.Size(), st.IsDir())
	}
	ok(t, fsys.RemoveAll(path.Join(dir, "z")))
	ok(t, fsys.RemoveAll(path.Join(dir, "z")))
	if got := must(fsys.List(dir))(t); len(got) != 0 {
		t.Fatalf("left over: %v", got)
	}
}

func errorsMatch(t *testing.T, fsys vfs.FS, dir string) {
	want := func(err, target error) {
		t.Helper()
		if !errors.Is(err, target) {
			t.Errorf("got %v, want %v", err, target)
		}
	}
	_, err := fsys.Open(path.Join(dir, "none"))
	want(err, fs.ErrNotExist)
	_, err = fsys.Create(path.Join(dir, "none/a"))
	want(err, fs.ErrNotExist)
	_, err = fsys.Stat(path.Join(dir, "none"))
	want(err, fs.ErrNotExist)
	want(fsys.Remove(path.Join(dir, "none")), fs.ErrNotExist)
	want(fsys.Rename(path.Join(dir, "none"), path.Join(dir, "b")), fs.ErrNotExist)
	ok(t, fsys.MkdirAll(path.Join(dir, "d/e")))
	want(fsys.Remove(path.Join(dir, "d")), syscall.ENOTEMPTY)
	f := must(fsys.Create(path.Join(dir, "f")))(t)
	ok(t, f.Close())
	if _, err := f.WriteAt([]byte{1}, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write to a closed file: %v", err)
	}
	want(fsys.MkdirAll(path.Join(dir, "f/g")), syscall.ENOTDIR)
}

func lockExcludes(t *testing.T, fsys vfs.FS, dir string) {
	name := path.Join(dir, "LOCK")
	l := must(fsys.Lock(name))(t)
	if _, err := fsys.Lock(name); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatalf("second lock: %v", err)
	}
	ok(t, l.Close())
	l = must(fsys.Lock(name))(t)
	ok(t, l.Close())
}

func regionKeepsStores(t *testing.T, fsys vfs.FS, dir string) {
	name := path.Join(dir, "map")
	r := must(fsys.Region(name, 10000))(t)
	same(t, r.Bytes(), make([]byte, 10000))
	copy(r.Bytes()[5000:], "hello")
	ok(t, r.Sync())
	copy(r.Bytes()[6000:], "again")
	ok(t, r.Close())
	r = must(fsys.Region(name, 10000))(t)
	same(t, r.Bytes()[5000:5005], []byte("hello"))
	same(t, r.Bytes()[6000:6005], []byte("again"))
	f := must(fsys.Open(name))(t)
	same(t, read(t, f, 6000, 5), []byte("again"))
	size(t, f, 10000)
	ok(t, f.Close())
	ok(t, r.Close())
}

func openOutlivesName(t *testing.T, fsys vfs.FS, dir string) {
	name := path.Join(dir, "a")
	f := must(fsys.Create(name))(t)
	defer f.Close()
	write(t, f, []byte("abc"), 0)
	ok(t, fsys.Remove(name))
	same(t, read(t, f, 0, 3), []byte("abc"))
}

func usage(t *testing.T, fsys vfs.FS, dir string) {
	u := must(fsys.Usage(dir))(t)
	if u.Total == 0 || u.Free == 0 || u.Free > u.Total {
		t.Fatalf("usage %+v", u)
	}
}
