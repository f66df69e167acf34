package file_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func newBehind(c *filetest.Cluster) (*file.FS, *filetest.Client) {
	cl := c.Client()
	lease := func() time.Duration { return time.Minute }
	fs := file.New(file.Options{Meta: cl, Data: cl, Volume: c.Volume(), Lease: lease, WriteBehind: true})
	cl.Attach(fs)
	return fs, cl
}

func TestNewSmallFilesAreWrittenBehindTheirClose(t *testing.T) {
	c := filetest.New()
	a, cl := newBehind(c)
	b, _ := newFS(c)
	gate := make(chan struct{})
	var held atomic.Bool
	held.Store(true)
	cl.Fault = func(op string) error {
		if op == "write" && held.Load() {
			<-gate
		}
		return nil
	}
	for k := range 10 {
		h := create(t, a, fmt.Sprint("f", k))
		ok(t, h.WriteAt(ctx, []byte("contents"), 0))
		ok(t, h.Close(ctx)) // nothing can be written yet
		if at, err := a.GetAttr(ctx, root, h.Inode()); err != nil || at.Size != 8 {
			t.Fatalf("size %d after the close: %v", at.Size, err)
		}
	}
	if got := contents(t, open(t, a, "f1", file.Read)); string(got) != "contents" {
		t.Fatalf("read %q here", got)
	}
	seen := make(chan string)
	go func() { seen <- string(contents(t, open(t, b, "f2", file.Read))) }()
	held.Store(false)
	close(gate)
	if got := <-seen; got != "contents" {
		t.Fatalf("read %q elsewhere", got)
	}
	waitFor(t, "all are written and released", func() bool { return !a.Pending(c.Inode("f9")) && c.Open(c.Inode("f9")) == 0 })
	if n := c.Count("Commit"); n > 2 {
		t.Errorf("10 files took %d commits of one file", n)
	}
	before := c.Count("Commit")
	h := create(t, a, "big")
	ok(t, h.WriteAt(ctx, make([]byte, file.BehindSize+1), 0))
	ok(t, h.Close(ctx))
	if n := c.Count("Commit") - before; n != 1 {
		t.Errorf("a large file was closed with %d commits", n)
	}
	ok(t, a.Close(ctx))
}

// A file that takes the place of another has its data first.
func TestAFileThatReplacesAnotherIsWrittenFirst(t *testing.T) {
	c := filetest.New()
	a, _ := newBehind(c)
	ok(t, create(t, a, "f").Close(ctx))
	h := create(t, a, "new")
	ok(t, h.WriteAt(ctx, []byte("contents"), 0))
	ok(t, h.Close(ctx))
	_, err := a.Rename(ctx, root, &wire.Rename{OldParent: filetest.Root, OldName: "new", NewParent: filetest.Root, NewName: "f"})
	ok(t, err)
	if c.Count("Commit") != 1 {
		t.Error("the name was there before the data")
	}
	ok(t, a.Close(ctx))
}

// Times of a new file go to the leader with its first commit, and are seen as they
// were set, here and elsewhere, whatever else is set.
func TestTimesOfANewFileAreSetWithItsCommit(t *testing.T) {
	c := filetest.New()
	a, _ := newBehind(c)
	b, _ := newFS(c)
	set := func(ino ashlar.Inode, m wire.SetAttr) {
		t.Helper()
		m.Inode = ino
		_, err := a.SetAttr(ctx, root, &m)
		ok(t, err)
	}
	both := func(ino ashlar.Inode) (here, there ashlar.Attr) {
		t.Helper()
		here, err := a.GetAttr(ctx, root, ino)
		ok(t, err)
		there, err = b.GetAttr(ctx, root, ino)
		ok(t, err)
		return here, there
	}
	h := create(t, a, "f")
	ok(t, h.WriteAt(ctx, []byte("contents"), 0))
	set(h.Inode(), wire.SetAttr{Valid: wire.SetAtime | wire.SetMtime, Atime: 5, Mtime: 7})
	if n := c.Count("SetAttr") + c.Count("Commit"); n != 0 {
		t.Errorf("asked %d times", n)
	}
	set(h.Inode(), wire.SetAttr{Valid: wire.SetUID | wire.SetGID, UID: 11, GID: 12})
	set(h.Inode(), wire.SetAttr{Valid: wire.SetMode, Mode: 0o640})
	ok(t, h.Close(ctx))
	if n := c.Count("Commit"); n != 0 {
		t.Errorf("committed %d times before others look", n)
	}
	here, there := both(h.Inode())
	for _, at := range []ashlar.Attr{here, there} {
		if at.Mode != 0o640 || at.UID != 11 || at.GID != 12 || at.Atime != 5 || at.Mtime != 7 || at.Size != 8 || at.Ctime < at.Btime {
			t.Errorf("%+v", at)
		}
	}
	if here.Ctime != there.Ctime {
		t.Errorf("ctime %d here and %d there", here.Ctime, there.Ctime)
	}
	g := create(t, a, "g")
	set(g.Inode(), wire.SetAttr{Valid: wire.SetMtime, Mtime: 7})
	ok(t, g.WriteAt(ctx, []byte("later"), 0))
	if here, there = both(g.Inode()); here.Mtime == 7 || there.Mtime == 7 {
		t.Error("a write left the time that was set before")
	}
	e := create(t, a, "empty")
	set(e.Inode(), wire.SetAttr{Valid: wire.SetAtime, Atime: 5})
	ok(t, e.Truncate(ctx, 100))
	if here, there = both(e.Inode()); here.Atime != 5 || there.Atime != 5 || there.Size != 100 {
		t.Errorf("atime %d and %d, size %d", here.Atime, there.Atime, there.Size)
	}
	ok(t, a.Close(ctx))
}

// What can not be written after the close is told to who opens the file next;
// and the next close does not return before its data is written.
func TestAnErrorBehindACloseIsTold(t *testing.T) {
	c := filetest.New()
	a, cl := newBehind(c)
	var full atomic.Bool
	full.Store(true)
	var refused atomic.Int32
	cl.Fault = func(op string) error {
		if op == "write" && full.Load() {
			refused.Add(1)
			return ashlar.E("write", ashlar.NoSpace, "", nil)
		}
		return nil
	}
	h := create(t, a, "f")
	keep := open(t, a, "f", file.Read) // its state stays
	ok(t, h.WriteAt(ctx, []byte("contents"), 0))
	ok(t, h.Close(ctx))
	waitFor(t, "the first is refused", func() bool { return refused.Load() > 0 })
	waitFor(t, "who opens it next is told", func() bool {
		h := open(t, a, "f", rw)
		defer h.Close(ctx)
		return errors.Is(h.Sync(ctx, false), ashlar.NoSpace)
	})
	k := 0
	waitFor(t, "a close reports it", func() bool {
		k++
		h := create(t, a, fmt.Sprint("g", k))
		ok(t, h.WriteAt(ctx, []byte("contents"), 0))
		return errors.Is(h.Close(ctx), ashlar.NoSpace)
	})
	full.Store(false)
	if err := keep.Close(ctx); !errors.Is(err, ashlar.NoSpace) {
		t.Errorf("close of a descriptor that was open then: %v", err)
	}
	ok(t, a.Close(ctx))
}
