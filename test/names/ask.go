package names

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
)

// ask asks for one operation on what was met and notes it. fill puts what was
// answered into the operation. An error is one that is no answer.
func (w *Worker) ask(ctx context.Context, k *known, o *history.Op, cred ashlar.Cred, m, reply wire.Message, fill func(), of ...node) error {
	w.Notes.Begin(o)
	err := w.Ask.Do(ctx, cred, m, reply)
	if err == nil {
		fill()
	}
	w.Notes.End(o, err)
	if errors.Is(err, ashlar.Stale) {
		for _, n := range of {
			k.forget(n)
		}
	}
	if _, ok := history.Errno(err); ok {
		return nil
	}
	return err
}

func (w *Worker) make(ctx context.Context, k *known, o *history.Op, dir node, t ashlar.FileType) {
	o.Dir, o.Name, o.Value = dir.id, w.name(), w.NewID()
	var e wire.Entry
	_ = w.ask(ctx, k, o, ashlar.Cred{UID: uint32(o.Value), Checked: true}, // noted
		&wire.Make{Parent: dir.inode, Name: o.Name, Type: t, Mode: 0o755, Exclusive: true}, &e, func() {
			o.Links = e.Attr.Nlink
			k.meet(o.Value, e.Attr.Inode, t == ashlar.TypeDir)
		}, dir)
}

func (w *Worker) remove(ctx context.Context, k *known, o *history.Op, dir node) {
	o.Dir, o.Name = dir.id, w.name()
	var e wire.Entry
	_ = w.ask(ctx, k, o, root, &wire.Remove{Parent: dir.inode, Name: o.Name, Dir: o.Kind == history.Rmdir}, &e, func() { // noted
		o.Value, o.Links = uint64(e.Attr.UID), e.Attr.Nlink
		if e.Attr.Nlink == 0 {
			k.forget(node{o.Value, e.Attr.Inode})
		}
	}, dir)
}

func (w *Worker) rename(ctx context.Context, k *known, o *history.Op, dir, to node, flags uint32) {
	o.Dir, o.Name, o.ToDir, o.To = dir.id, w.name(), to.id, w.name()
	var e wire.Entry
	_ = w.ask(ctx, k, o, root, // noted
		&wire.Rename{OldParent: dir.inode, OldName: o.Name, NewParent: to.inode, NewName: o.To, Flags: flags}, &e, func() {
			o.Value, o.Links = uint64(e.Attr.UID), e.Attr.Nlink
			k.meet(o.Value, e.Attr.Inode, e.Attr.Type == ashlar.TypeDir)
		}, dir, to)
}

// link gives another name to a file that was met, or, for the refusal, to a
// directory.
func (w *Worker) link(ctx context.Context, k *known, o *history.Op, to node) {
	files := k.files
	if len(k.dirs) > 1 && (len(files) == 0 || w.Rand.IntN(8) == 0) {
		files = k.dirs[1:]
	}
	if len(files) == 0 {
		w.read(ctx, k, o)
		return
	}
	f := w.pick(files)
	o.Kind, o.Value, o.ToDir, o.To = history.Link, f.id, to.id, w.name()
	var e wire.Entry
	_ = w.ask(ctx, k, o, root, &wire.Link{Inode: f.inode, Parent: to.inode, Name: o.To}, &e, func() { o.Links = e.Attr.Nlink }, f, to) // noted
}

func (w *Worker) read(ctx context.Context, k *known, o *history.Op) {
	dir := w.pick(k.dirs)
	switch w.Rand.IntN(5) {
	case 0, 1:
		o.Kind, o.Name = history.Lookup, w.name()
		if dir.id != 0 && w.Rand.IntN(4) == 0 {
			o.Name = ".."
		}
		_ = w.lookup(ctx, k, o, dir) // noted
	case 2:
		w.stat(ctx, k, o)
	default:
		o.Kind = history.List
		_, _ = w.list(ctx, k, o, dir, w.Rand.IntN(2) == 0) // noted
	}
}

func (w *Worker) lookup(ctx context.Context, k *known, o *history.Op, dir node) error {
	o.Dir = dir.id
	var e wire.Entry
	return w.ask(ctx, k, o, root, &wire.Lookup{Parent: dir.inode, Name: o.Name}, &e, func() { w.found(k, o, &e) }, dir)
}

// found notes the attributes that a read was told.
func (w *Worker) found(k *known, o *history.Op, e *wire.Entry) {
	o.Value, o.Links, o.IsDir = uint64(e.Attr.UID), e.Attr.Nlink, e.Attr.Type == ashlar.TypeDir
	if o.Value != 0 {
		k.meet(o.Value, e.Attr.Inode, o.IsDir)
	}
}

func (w *Worker) stat(ctx context.Context, k *known, o *history.Op) {
	n := w.pick(slices.Concat(k.dirs, k.files))
	o.Kind, o.Value = history.Stat, n.id
	var e wire.Entry
	_ = w.ask(ctx, k, o, root, &wire.GetAttr{Inode: n.inode}, &e, func() { w.found(k, o, &e) }, n) // noted
}

// list lists a directory, with attributes or without.
func (w *Worker) list(ctx context.Context, k *known, o *history.Op, dir node, plus bool) ([]wire.DirEntry, error) {
	o.Dir = dir.id
	var rep wire.ReaddirReply
	err := w.ask(ctx, k, o, root, &wire.Readdir{Inode: dir.inode, Limit: listMax, Plus: plus}, &rep, func() {
		slices.SortFunc(rep.Entries, func(a, b wire.DirEntry) int { return strings.Compare(a.Name, b.Name) })
		o.Names = []string{}
		if plus {
			o.Values = []uint64{}
		}
		for i := range rep.Entries {
			e := &rep.Entries[i]
			o.Names = append(o.Names, e.Name)
			if plus {
				o.Values = append(o.Values, uint64(e.Attr.UID))
				k.meet(uint64(e.Attr.UID), e.Inode, e.Type == ashlar.TypeDir)
			}
		}
	}, dir)
	return rep.Entries, err
}
