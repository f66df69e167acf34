package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/inspect"
)

const (
	// rebuildMark is an extended attribute of a file that is being put into a
	// volume: its value says of which one. It is removed when the file is there
	// whole, so that a file with it is written again by the next run, and one
	// without it is never touched.
	rebuildMark = "user.ashlar.rebuild"
	// rebuildParallel is how many files are put into a volume at once.
	rebuildParallel = 8
)

// volumeTarget is a volume of a running cluster that files are put into.
type volumeTarget struct {
	v *client.Volume
	// from is the volume of the lost cluster whose files they are.
	from string
}

// name is where a file goes.
func (t *volumeTarget) name(f *inspect.File) string {
	return strings.TrimPrefix(f.Place, t.from+"/")
}

// Create implements inspect.Target. What another run has finished is left as
// it is, what it has begun is begun again, and what somebody else has put
// there is not touched, unless it is empty.
func (t *volumeTarget) Create(f *inspect.File) (inspect.Output, error) {
	name := t.name(f)
	if dir := path.Dir(name); dir != "." {
		if err := t.v.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	mark := f.Inode + "." + f.Layer
	w, err := t.v.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		w, err = t.again(f, name, mark)
	}
	if err != nil {
		return nil, err
	}
	if err := t.v.SetXattr(name, rebuildMark, []byte(mark), 0); err != nil {
		_ = w.Close() // nothing was written
		return nil, err
	}
	return &volumeFile{w, t.v, name}, nil
}

// again opens a file that is there.
func (t *volumeTarget) again(f *inspect.File, name, mark string) (*client.File, error) {
	st, err := t.v.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is there and no file; move it away, and run this again", name)
	}
	// Without a mark the answer is an error; any other is one of writing, too.
	begun, _ := t.v.GetXattr(name, rebuildMark)
	switch {
	case string(begun) == mark, st.Size() == 0:
		return t.v.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	case len(begun) > 0:
		return nil, fmt.Errorf("%s was begun as another file (%s); move it away, and run this again", name, begun)
	case st.Size() == int64(f.Size) && st.ModTime().Equal(f.ModTime()):
		return nil, inspect.ErrThere
	}
	return nil, fmt.Errorf("%s is there and was not put there by this; move it away, and run this again", name)
}

// volumeFile is one of its files being written.
type volumeFile struct {
	*client.File
	v    *client.Volume
	name string
}

// Finish implements inspect.Output. The file is on stable storage before it
// counts as being there; one that is incomplete stays marked, because other
// disks may have what it lacks.
func (w *volumeFile) Finish(f *inspect.File) error {
	err := w.Truncate(int64(f.Size))
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	owner := errors.Join(w.v.Chown(w.name, int(f.UID), int(f.GID)), w.v.Chmod(w.name, f.FileMode()))
	if owner != nil {
		f.Result.Owner = owner.Error()
	}
	if err := w.v.Chtimes(w.name, f.ModTime(), f.ModTime()); err != nil || !f.Complete() {
		return err
	}
	return w.v.RemoveXattr(w.name, rebuildMark)
}

// Abort implements inspect.Output.
func (w *volumeFile) Abort() { _ = w.Close() } // it is told already why

// pick divides what was found into what goes into the volume and the names of
// other volumes, whose files do not.
func (t *volumeTarget) pick(files []*inspect.File) (mine []*inspect.File, others []string) {
	for _, f := range files {
		switch {
		case f.Volume == t.from || f.Volume == "":
			mine = append(mine, f)
		case !slices.Contains(others, f.Volume):
			others = append(others, f.Volume)
		}
	}
	slices.Sort(others)
	return mine, others
}

// intoVolume puts files into a volume of the cluster that --cluster names. It
// returns those it was about; the others are of other volumes.
func (g *global) intoVolume(ctx context.Context, o rebuildOptions, scan *inspect.Scan, found []*inspect.File) (mine []*inspect.File, others []string, err error) {
	t := &volumeTarget{from: o.from}
	if t.from == "" {
		t.from = o.volume
	}
	mine, others = t.pick(found)
	err = g.files(ctx, func(f *files) error {
		v, err := f.volume(ctx, remote{volume: o.volume, text: o.volume})
		if err != nil {
			return err
		}
		t.v = v
		return extractAll(ctx, g, scan, t, mine, rebuildParallel)
	})
	return mine, others, err
}

// extractAll writes files to a target, some at once.
func extractAll(ctx context.Context, g *global, scan *inspect.Scan, to inspect.Target, files []*inspect.File, parallel int) error {
	var total uint64
	for _, f := range files {
		total += f.Size
	}
	b := newBar(g, "writing files", total, true)
	var next atomic.Int64
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(files)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				scan.Extract(ctx, to, files[i], func(n uint64) { b.add(int(n)) })
			}
		})
	}
	all.Wait()
	b.done(ctx.Err())
	return ctx.Err()
}
