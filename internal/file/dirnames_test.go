package file_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// list returns the names of a directory, read in parts.
func list(t *testing.T, fs *file.FS, dir ashlar.Inode) (names []string) {
	t.Helper()
	m := &wire.Readdir{Inode: dir, Limit: 7, Plus: true}
	for {
		r, err := fs.Readdir(ctx, ashlar.Cred{Checked: true}, m)
		ok(t, err)
		for _, e := range r.Entries {
			names = append(names, e.Name)
			m.Cookie = e.Cookie
		}
		if r.EOF {
			return names
		}
	}
}

// What is in a directory is known here once it was listed, or made, under a
// lease: what is not there, too. Changes here are seen at once, and one made
// elsewhere at the next look.
func TestADirectoryIsKnownUnderItsLease(t *testing.T) {
	c := filetest.New()
	a, _ := newFS(c)
	b, _ := newFS(c)
	cred := ashlar.Cred{Checked: true}
	d, err := a.Make(ctx, cred, &wire.Make{Parent: filetest.Root, Name: "d", Type: ashlar.TypeDir, Mode: 0o755})
	ok(t, err)
	asked := func() int { return c.Count("Lookup") + c.Count("GetAttr") + c.Count("Readdir") }
	missing := func(fs *file.FS, name string) {
		t.Helper()
		if _, err := fs.Lookup(ctx, cred, d.Inode, name); !errors.Is(err, ashlar.NotExist) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	before := asked()
	for k := range 30 {
		name := fmt.Sprint("f", k)
		missing(a, name)
		_, err := a.Make(ctx, cred, &wire.Make{Parent: d.Inode, Name: name, Type: ashlar.TypeFile, Exclusive: true})
		ok(t, err)
		_, err = a.Lookup(ctx, cred, d.Inode, name)
		ok(t, err)
	}
	if n := asked() - before; n > 0 {
		t.Errorf("%d questions about a directory that was made here", n)
	}
	if got := list(t, b, d.Inode); len(got) != 30 {
		t.Fatalf("%d names", len(got))
	}
	before = asked()
	if got := list(t, b, d.Inode); len(got) != 30 {
		t.Fatalf("%d names", len(got))
	}
	missing(b, "g")
	if up, err := b.Lookup(ctx, cred, d.Inode, ".."); err != nil || up.Inode != filetest.Root {
		t.Errorf("the parent is %d: %v", up.Inode, err)
	}
	before++
	if n := asked() - before; n > 0 {
		t.Errorf("%d questions about a directory that was listed", n)
	}
	_, err = b.Remove(ctx, cred, d.Inode, "f3", false)
	ok(t, err)
	missing(b, "f3")
	if got := list(t, b, d.Inode); len(got) != 29 {
		t.Fatalf("%d names after one was removed", len(got))
	}
	missing(a, "f3")
	_, err = a.Rename(ctx, cred, &wire.Rename{OldParent: d.Inode, OldName: "f4", NewParent: d.Inode, NewName: "g"})
	ok(t, err)
	for _, fs := range []*file.FS{a, b} {
		if got := list(t, fs, d.Inode); len(got) != 29 {
			t.Fatalf("%d names", len(got))
		}
		missing(fs, "f4")
		_, err = fs.Lookup(ctx, cred, d.Inode, "g")
		ok(t, err)
	}
}
