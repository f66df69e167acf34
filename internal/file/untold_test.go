package file_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// refusing returns a view that writes behind, on disks that are full for as long
// as full says so, and what counts refused requests of an operation.
func refusing(c *filetest.Cluster, op string) (a *file.FS, full *atomic.Bool, refused *atomic.Int32) {
	a, cl := newBehind(c)
	full, refused = new(atomic.Bool), new(atomic.Int32)
	full.Store(true)
	cl.Fault = func(o string) error {
		if o == op && full.Load() {
			refused.Add(1)
			return ashlar.E(op, ashlar.NoSpace, "", nil)
		}
		return nil
	}
	return a, full, refused
}

// A file whose data could not be written behind its close has no size that tells
// of it, and the error stays when nobody has it open any more.
func TestAnErrorOfAFileThatIsNotOpenIsToldToWhoOpensIt(t *testing.T) {
	for _, op := range []string{"write", "Commit"} { // no room, or a quota
		t.Run(op, func(t *testing.T) { tellsWhoOpensIt(t, op) })
	}
}

func tellsWhoOpensIt(t *testing.T, op string) {
	c := filetest.New()
	a, _, refused := refusing(c, op)
	h := create(t, a, "f")
	ok(t, h.WriteAt(ctx, []byte("contents"), 0))
	ok(t, h.Close(ctx))
	waitFor(t, "it is refused and released", func() bool { return refused.Load() > 0 && c.Open(h.Inode()) == 0 })
	at, err := a.GetAttr(ctx, root, h.Inode())
	if err != nil || at.Size != 0 {
		t.Errorf("size %d of a file without data: %v", at.Size, err)
	}
	r := open(t, a, "f", file.Read) // and tells nobody
	w := open(t, a, "f", rw)
	if err := w.Sync(ctx, false); !errors.Is(err, ashlar.NoSpace) {
		t.Errorf("fsync after the next open: %v", err)
	}
	ok(t, w.Close(ctx))
	if err := r.Close(ctx); !errors.Is(err, ashlar.NoSpace) {
		t.Errorf("close of a descriptor that was opened before it was told: %v", err)
	}
	w = open(t, a, "f", rw)
	ok(t, w.Sync(ctx, false))
	ok(t, w.Close(ctx))
}

// The last close of a mount's descriptor, which reports nothing, may be where
// data is written, too.
func TestAnErrorOfARelease(t *testing.T) {
	c := filetest.New()
	a, _, _ := refusing(c, "write")
	h := create(t, a, "f")
	ok(t, h.WriteAt(ctx, make([]byte, file.BehindSize+1), 0))
	if err := h.Release(ctx); !errors.Is(err, ashlar.NoSpace) {
		t.Fatal(err)
	}
	h = open(t, a, "f", rw)
	if err := h.Sync(ctx, false); !errors.Is(err, ashlar.NoSpace) {
		t.Errorf("fsync after the next open: %v", err)
	}
	ok(t, h.Close(ctx))
}

func TestAFileThatCanNotBeWrittenReplacesNothing(t *testing.T) {
	for _, when := range []string{"before it is written", "after it was refused"} {
		c := filetest.New()
		a, full, refused := refusing(c, "write")
		full.Store(false)
		h := create(t, a, "f")
		ok(t, h.WriteAt(ctx, []byte("old"), 0))
		ok(t, h.Sync(ctx, false))
		ok(t, h.Close(ctx))
		full.Store(true)
		h = create(t, a, "new")
		ok(t, h.WriteAt(ctx, []byte("contents"), 0))
		ok(t, h.Close(ctx))
		if when != "before it is written" {
			waitFor(t, "it is refused and released", func() bool { return refused.Load() > 0 && c.Open(h.Inode()) == 0 })
		}
		m := &wire.Rename{OldParent: filetest.Root, OldName: "new", NewParent: filetest.Root, NewName: "f"}
		if _, err := a.Rename(ctx, root, m); !errors.Is(err, ashlar.NoSpace) {
			t.Errorf("%s: renamed: %v", when, err)
		}
		if got := contents(t, open(t, a, "f", file.Read)); string(got) != "old" {
			t.Errorf("%s: the old file has %q", when, got)
		}
	}
}

// Another mount may have taken the directory's names away between the close and
// the rename.
func TestARenameOfWhatIsNotKnownByNameWaitsForItsData(t *testing.T) {
	c := filetest.New()
	a, cl := newBehind(c)
	b, _ := newFS(c)
	ok(t, create(t, a, "f").Close(ctx))
	gate, waits := make(chan struct{}), make(chan struct{}, 8)
	early := false
	cl.Fault = func(op string) error {
		switch op {
		case "write":
			waits <- struct{}{}
			<-gate
		case "Rename":
			n, _ := c.Requests()
			early = n == 0
		}
		return nil
	}
	h := create(t, a, "new")
	ok(t, h.WriteAt(ctx, []byte("contents"), 0))
	ok(t, h.Close(ctx))
	ok(t, create(t, b, "other").Close(ctx))
	done := make(chan error)
	go func() {
		_, err := a.Rename(ctx, root, &wire.Rename{OldParent: filetest.Root, OldName: "new", NewParent: filetest.Root, NewName: "f"})
		done <- err
	}()
	<-waits
	close(gate)
	ok(t, <-done)
	if early {
		t.Error("the name was there before the data")
	}
}

// A file that was closed and not written when its session was lost is written
// under the next; unless somebody else came first, of which who opens it is told.
func TestAClosedFileIsWrittenAgainUnderTheNextSession(t *testing.T) {
	for _, touched := range []bool{false, true} {
		c := filetest.New()
		a, cl := newBehind(c)
		b, _ := newFS(c)
		gate := make(chan struct{})
		var tries atomic.Int32
		cl.Fault = func(op string) error {
			if op == "write" && tries.Add(1) == 1 {
				<-gate
			}
			return nil
		}
		h := create(t, a, "f")
		ok(t, h.WriteAt(ctx, []byte("contents"), 0))
		ok(t, h.WriteAt(ctx, []byte("more"), 100))
		ok(t, h.Close(ctx))
		waitFor(t, "its write is under way", func() bool { return tries.Load() > 0 })
		resume := cl.Hang()
		cl.Lose()
		want := "contents" + string(make([]byte, 92)) + "more"
		if touched {
			want = ""
			ok(t, open(t, b, "f", rw).Truncate(ctx, 0))
		}
		resume()
		close(gate)
		if touched {
			waitFor(t, "who opens it is told", func() bool {
				w := open(t, a, "f", rw)
				defer w.Close(ctx)
				return errors.Is(w.Sync(ctx, false), ashlar.IO)
			})
		}
		waitFor(t, "it has what it should", func() bool { return string(contents(t, open(t, b, "f", file.Read))) == want })
		if !touched {
			w := open(t, a, "f", rw)
			ok(t, w.Sync(ctx, false))
			ok(t, w.Close(ctx))
		}
	}
}
