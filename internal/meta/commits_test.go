package meta_test

import (
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/google/go-cmp/cmp"
)

// Several commits are one change: all are made or none, a retry makes none
// again (I-3), and what is used is counted for each.
func TestSeveralCommitsAreOneChange(t *testing.T) {
	w := newWorld(t)
	seq := uint64(1)
	do := func(body wire.Message) (wire.Message, error) {
		seq++
		return w.change(seq, seq, body)
	}
	m := &wire.Commits{}
	for _, name := range []string{"a", "b", "c"} {
		r, err := do(w.file(name))
		if err != nil {
			t.Fatal(err)
		}
		e := r.(*wire.Entry)
		m.List = append(m.List, wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: uint64(100 * len(m.List)), Mtime: 77})
	}
	for what, spoil := range map[string]func(*wire.Commits){
		"another generation": func(m *wire.Commits) { m.List[2].Gen++ },
		"a file twice":       func(m *wire.Commits) { m.List[2] = m.List[1] },
		"a directory":        func(m *wire.Commits) { m.List[2].Inode = w.root },
		"one too large":      func(m *wire.Commits) { m.List[2].Size = ashlar.FileSizeMax + 1 },
	} {
		bad := &wire.Commits{List: append([]wire.Commit(nil), m.List...)}
		spoil(bad)
		if _, err := do(bad); err == nil {
			t.Errorf("%s is taken", what)
		}
		for _, c := range m.List {
			if i := w.load(c.Inode); i.Attr.Version != 1 || i.Attr.Size != 0 {
				t.Fatalf("%s: it was refused and changed something", what)
			}
		}
	}
	bad := &wire.Commits{List: append([]wire.Commit(nil), m.List...)}
	bad.List[1].Set = wire.Behind{Valid: wire.SetSize}
	if _, err := do(bad); err == nil {
		t.Error("a size is set behind")
	}
	m.List[1].Set = wire.Behind{Valid: wire.SetBehind, Atime: 7, Mtime: 77, Ctime: 1 << 40}
	first, err := do(m)
	if err != nil {
		t.Fatal(err)
	}
	if a := first.(*wire.CommitsReply).Attrs[1]; a.Atime != 7 || a.Ctime != 1<<40 {
		t.Errorf("set behind: %+v", a)
	}
	for k, a := range first.(*wire.CommitsReply).Attrs {
		if a.Inode != m.List[k].Inode || a.Size != m.List[k].Size || a.Mtime != 77 || a.Version != 2 {
			t.Errorf("file %d: %+v", k, a)
		}
		is := w.load(a.Inode).Attr
		is.Blocks = 1 // of whatever size
		if a.Blocks = min(a.Blocks, 1); k == 0 {
			is.Blocks = 0
		}
		if d := cmp.Diff(is, a); d != "" {
			t.Errorf("told otherwise than it is:\n%s", d)
		}
	}
	again, err := w.change(seq, seq, m)
	if err != nil || cmp.Diff(first, again) != "" {
		t.Errorf("the retry is answered otherwise: %v", err)
	}
	r, err := do(&wire.StatFS{Inode: w.root})
	if err != nil || r.(*wire.StatFSReply).Used != 300 {
		t.Errorf("used: %+v %v", r, err)
	}
	if _, err := do(&wire.Commits{List: m.List[:1]}); errors.Is(err, ashlar.Exist) {
		t.Error(err)
	}
}
