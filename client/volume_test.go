package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

// newVolume opens a volume in memory.
func newVolume(c *filetest.Cluster) *Volume {
	cl := c.Client()
	f := file.New(file.Options{Meta: cl, Data: cl, Volume: c.Volume(), Lease: func() time.Duration { return time.Minute }})
	cl.Attach(f)
	return &Volume{fs: f, root: f.Root(), ctx: context.Background()}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAVolumePassesTheSuiteOfIOFS(t *testing.T) {
	v := newVolume(filetest.New())
	ok(t, v.MkdirAll("a/b/c", 0o755))
	ok(t, v.WriteFile("a/hello", []byte("hello"), 0o644))
	ok(t, v.WriteFile("a/b/empty", nil, 0o600))
	ok(t, v.WriteFile("big", bytes.Repeat([]byte("x"), 70_000), 0o644))
	ok(t, v.Symlink("hello", "a/link"))
	ok(t, fstest.TestFS(v, "a/hello", "a/b/empty", "big", "a/b/c", "a/link"))
	sub, err := v.Sub("a")
	ok(t, err)
	ok(t, fstest.TestFS(sub, "hello", "b/empty"))
}

func TestErrorsAnswerToThoseOfIOFS(t *testing.T) {
	v := newVolume(filetest.New())
	ok(t, v.WriteFile("f", nil, 0o644))
	ok(t, v.Mkdir("d", 0o755))
	_, open := v.Open("none")
	_, excl := v.OpenFile("f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	_, below := v.Stat("f/below")
	_, write := v.OpenFile("d", os.O_WRONLY, 0)
	_, long := v.Stat(strings.Repeat("n", 256))
	for name, c := range map[string]struct{ err, want error }{
		"open":   {open, fs.ErrNotExist},
		"excl":   {excl, fs.ErrExist},
		"mkdir":  {v.Mkdir("d", 0o755), fs.ErrExist},
		"below":  {below, ashlar.NotDir},
		"write":  {write, ashlar.IsDir},
		"long":   {long, ashlar.NameTooLong},
		"rooted": {v.Remove("/f"), fs.ErrInvalid},
		"root":   {v.Remove("."), ashlar.Busy},
	} {
		var pe *fs.PathError
		if !errors.Is(c.err, c.want) || !errors.As(c.err, &pe) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
}

func TestSymbolicLinksAreFollowedWithinTheVolume(t *testing.T) {
	v := newVolume(filetest.New())
	ok(t, v.MkdirAll("a/b", 0o755))
	ok(t, v.WriteFile("a/f", []byte("f"), 0o644))
	for name, target := range map[string]string{
		"a/b/up": "../f", "rooted": "/a/f", "out": "../../../a/f", "dir": "a/b", "chain": "dir/up", "loop": "loop", "new": "a/made",
	} {
		ok(t, v.Symlink(target, name))
	}
	for _, name := range []string{"a/b/up", "rooted", "out", "dir/up", "chain"} {
		if b, err := v.ReadFile(name); err != nil || string(b) != "f" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := v.Stat("loop"); !errors.Is(err, ashlar.TooManySymlinks) {
		t.Error(err)
	}
	if st, err := v.Lstat("loop"); err != nil || st.Mode().Type() != fs.ModeSymlink {
		t.Error(err)
	}
	ok(t, v.WriteFile("new", []byte("through the link"), 0o644))
	if b, err := v.ReadFile("a/made"); err != nil || string(b) != "through the link" {
		t.Error(string(b), err)
	}
	sub, err := v.SubVolume("a/b")
	ok(t, err)
	if _, err := sub.ReadFile("up"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a link led out of a subtree", err)
	}
}

func TestFilesSeekReadWriteAndAppend(t *testing.T) {
	v := newVolume(filetest.New())
	f, err := v.Create("f")
	ok(t, err)
	_, err = io.WriteString(f, "0123456789")
	ok(t, err)
	pos, err := f.Seek(-4, io.SeekEnd)
	if err != nil || pos != 6 {
		t.Fatal(pos, err)
	}
	b, err := io.ReadAll(f)
	if err != nil || string(b) != "6789" {
		t.Fatal(string(b), err)
	}
	_, err = f.WriteAt([]byte("AB"), 1)
	ok(t, err)
	ok(t, f.Truncate(5))
	ok(t, f.Sync())
	st, err := f.Stat()
	if err != nil || st.Size() != 5 {
		t.Fatal(st, err)
	}
	ok(t, f.Close())
	if _, err := f.Write(nil); !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
	for k := range 3 {
		a, err := v.OpenFile("f", os.O_WRONLY|os.O_APPEND, 0)
		ok(t, err)
		_, err = fmt.Fprint(a, k)
		ok(t, err)
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Fatal("a file open for writing alone was read")
		}
		ok(t, a.Close())
	}
	if b, err := v.ReadFile("f"); err != nil || string(b) != "0AB34012" {
		t.Fatal(string(b), err)
	}
}

func TestAttributesAreSetAndShown(t *testing.T) {
	v := newVolume(filetest.New()).WithCred(ashlar.Cred{UID: 7, GID: 8})
	ok(t, v.WriteFile("f", []byte("x"), 0o4751))
	ok(t, v.Chmod("f", fs.ModeSetgid|0o640))
	ok(t, v.Chown("f", -1, 9))
	when := time.Unix(1234567890, 42)
	ok(t, v.Chtimes("f", time.Time{}, when))
	ok(t, v.Truncate("f", 100))
	ok(t, v.Link("f", "g"))
	st, err := v.Stat("g")
	ok(t, err)
	a := st.Sys().(*ashlar.Attr)
	if st.Mode() != fs.ModeSetgid|0o640 || a.UID != 7 || a.GID != 9 || a.Size != 100 || a.Nlink != 2 {
		t.Fatalf("%v %+v", st, a)
	}
	ok(t, v.SetXattr("f", "user.k", []byte("v"), 0))
	if names, err := v.ListXattr("g"); err != nil || len(names) != 1 || names[0] != "user.k" {
		t.Fatal(names, err)
	}
	if b, err := v.GetXattr("g", "user.k"); err != nil || string(b) != "v" {
		t.Fatal(b, err)
	}
	ok(t, v.RemoveXattr("g", "user.k"))
	s, err := v.StatFS()
	if err != nil || s.Total == 0 {
		t.Fatal(s, err)
	}
}

func TestTreesAreMovedAndRemoved(t *testing.T) {
	v := newVolume(filetest.New())
	ok(t, v.MkdirAll("a/b/c", 0o755))
	for k := range 30 {
		ok(t, v.WriteFile(fmt.Sprint("a/b/", k), nil, 0o644))
	}
	ok(t, v.Rename("a/b", "moved"))
	entries, err := v.ReadDir("moved")
	if err != nil || len(entries) != 31 || entries[0].Name() != "0" || entries[30].Name() != "c" {
		t.Fatal(len(entries), err)
	}
	if err := v.Remove("moved"); !errors.Is(err, ashlar.NotEmpty) {
		t.Fatal(err)
	}
	ok(t, v.RemoveAll("moved"))
	ok(t, v.RemoveAll("moved"))
	if _, err := v.Stat("moved"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestCleanMakesNamesOfPaths(t *testing.T) {
	for in, want := range map[string]string{"": ".", "/": ".", "/a//b/": "a/b", "a/../b": "b", "../..": ".", "./a": "a"} {
		if got := Clean(in); got != want || !fs.ValidPath(got) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
