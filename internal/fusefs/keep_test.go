package fusefs

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// served is a file system that no kernel has mounted.
func served(t *testing.T, c *filetest.Cluster) *filesystem {
	t.Helper()
	n := New(Options{AttrTimeout: time.Minute, EntryTimeout: time.Minute})
	cl := c.Client()
	fs := file.New(file.Options{
		Meta: cl, Data: cl, Volume: c.Volume(), Drop: n.Drop,
		Lease: func() time.Duration { return time.Hour },
	})
	cl.Attach(fs)
	n.f.fs = fs
	t.Cleanup(func() {
		if err := fs.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return n.f
}

// An answer that took its time comes under another lease than it was given under:
// the kernel keeps nothing of it that has changed between the two.
func TestAnAnswerIsNotKeptUnderALaterLease(t *testing.T) {
	c := filetest.New()
	f, other := served(t, c), served(t, c)
	cred := ashlar.Cred{Checked: true}
	ctx := t.Context()
	lookup := func(name string) ashlar.Attr {
		t.Helper()
		a, err := f.fs.Lookup(ctx, cred, filetest.Root, name)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	answer := func(name string, a ashlar.Attr) (out fuse.EntryOut) {
		f.entry("lookup", filetest.Root, name, &out, a, nil)
		return out
	}
	for _, name := range []string{"moved", "changed"} {
		if _, err := f.fs.Make(ctx, cred, &wire.Make{Parent: filetest.Root, Name: name, Type: ashlar.TypeFile, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	moved, changed := lookup("moved"), lookup("changed")
	if out := answer("moved", moved); out.EntryTimeout() == 0 || out.AttrTimeout() == 0 {
		t.Fatal("an answer that is right is not kept")
	}
	if _, err := other.fs.Rename(ctx, cred, &wire.Rename{
		OldParent: filetest.Root, OldName: "moved", NewParent: filetest.Root, NewName: "new",
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.fs.SetAttr(ctx, cred, &wire.SetAttr{Inode: changed.Inode, Valid: wire.SetMode, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	lookup("new")
	now := lookup("changed")
	if f.fs.Keep(filetest.Root) == 0 || f.fs.Keep(changed.Inode) == 0 {
		t.Fatal("there is no later lease")
	}
	if out := answer("moved", moved); out.EntryTimeout() != 0 {
		t.Error("a name is kept that it has no more")
	}
	if out := answer("changed", changed); out.AttrTimeout() != 0 {
		t.Error("attributes are kept that it has no more")
	}
	if out := answer("changed", now); out.EntryTimeout() == 0 || out.AttrTimeout() == 0 {
		t.Error("what is right is not kept")
	}
}
