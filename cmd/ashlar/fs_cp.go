package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
)

// copyBuffer is how many bytes are copied at a time.
const copyBuffer = 1 << 20

type cpOptions struct {
	recursive bool
	archive   bool
}

func newFSCpCmd(g *global) *cobra.Command {
	var o cpOptions
	c := &cobra.Command{
		Use: "cp FROM... TO", Short: "copy files into, out of or within volumes",
		Long: `Copies files between this machine and volumes, or between volumes. A path in a
volume is VOLUME:/path. With more than one FROM, or if TO is a directory, what
is copied goes into it.

Modes are kept; -a also keeps owners, times and symbolic links and implies -r.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar fs cp ./report.pdf main:/docs/
  ashlar fs cp -a main:/src ./backup`,
		Args: args(2, -1),
		RunE: func(c *cobra.Command, a []string) error { return runCp(c.Context(), g, o, a[:len(a)-1], a[len(a)-1]) },
	}
	c.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "directories with all that is in them")
	c.Flags().BoolVarP(&o.archive, "archive", "a", false, "keep owners, times and symbolic links; implies -r")
	return c
}

// tree is what cp needs of a place to copy from or to: a volume, or this
// machine.
type tree interface {
	Stat(name string) (fs.FileInfo, error)
	Lstat(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]fs.DirEntry, error)
	ReadLink(name string) (string, error)
	Open(name string) (fs.File, error)
	create(name string, mode fs.FileMode) (io.WriteCloser, error)
	Mkdir(name string, mode fs.FileMode) error
	Symlink(target, name string) error
	Remove(name string) error
	Lchown(name string, uid, gid int) error
	Chmod(name string, mode fs.FileMode) error
	Chtimes(name string, atime, mtime time.Time) error
}

// remoteTree is a volume.
type remoteTree struct{ *client.Volume }

func (t remoteTree) create(name string, mode fs.FileMode) (io.WriteCloser, error) {
	return t.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
}

// localTree is this machine.
type localTree struct{}

func (localTree) Stat(n string) (fs.FileInfo, error)      { return os.Stat(n) }
func (localTree) Lstat(n string) (fs.FileInfo, error)     { return os.Lstat(n) }
func (localTree) ReadDir(n string) ([]fs.DirEntry, error) { return os.ReadDir(n) }
func (localTree) ReadLink(n string) (string, error)       { return os.Readlink(n) }
func (localTree) Open(n string) (fs.File, error)          { return os.Open(n) }
func (localTree) Mkdir(n string, m fs.FileMode) error     { return os.Mkdir(n, m) }
func (localTree) Symlink(target, n string) error          { return os.Symlink(target, n) }
func (localTree) Remove(n string) error                   { return os.Remove(n) }
func (localTree) Lchown(n string, uid, gid int) error     { return os.Lchown(n, uid, gid) }
func (localTree) Chmod(n string, m fs.FileMode) error     { return os.Chmod(n, m) }
func (localTree) Chtimes(n string, a, m time.Time) error  { return os.Chtimes(n, a, m) }
func (localTree) create(n string, m fs.FileMode) (io.WriteCloser, error) {
	return os.OpenFile(n, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, m)
}

// spot is a path in a tree.
type spot struct {
	tree tree
	name string
	text string
}

func (s spot) join(name string) spot {
	return spot{s.tree, path.Join(s.name, name), path.Join(s.text, name)}
}

// spot finds what an argument names.
func (f *files) spot(ctx context.Context, arg string) (spot, error) {
	r, ok := parseRemote(arg)
	if !ok {
		return spot{localTree{}, filepath.Clean(arg), arg}, nil
	}
	v, err := f.volume(ctx, r)
	return spot{remoteTree{v}, r.name, r.text}, err
}

func runCp(ctx context.Context, g *global, o cpOptions, from []string, to string) error {
	remotes := 0
	for _, a := range append(from[:len(from):len(from)], to) {
		if _, ok := parseRemote(a); ok {
			remotes++
		}
	}
	if remotes == 0 {
		return usagef("neither side is in a volume; write VOLUME:/path for one")
	}
	return g.files(ctx, func(f *files) error {
		dst, err := f.spot(ctx, to)
		if err != nil {
			return err
		}
		fi, err := dst.tree.Stat(dst.name)
		into := err == nil && fi.IsDir()
		if len(from) > 1 && !into {
			return usagef("%s is not a directory, and there is more than one thing to copy", to)
		}
		c := &copier{ctx: ctx, o: o}
		for _, a := range from {
			src, err := f.spot(ctx, a)
			if err != nil {
				return err
			}
			if err := c.measure(src, true); err != nil {
				return err
			}
		}
		c.bar = newBar(g, "copying", c.total, true)
		err = c.all(f, from, dst, into)
		c.bar.done(err)
		return err
	})
}

// copier copies trees.
type copier struct {
	ctx   context.Context
	o     cpOptions
	bar   *bar
	total uint64
}

func (c *copier) all(f *files, from []string, dst spot, into bool) error {
	for _, a := range from {
		src, err := f.spot(c.ctx, a)
		if err != nil {
			return err
		}
		target := dst
		if base := path.Base(src.name); into && base != "." && base != "/" {
			target = dst.join(base)
		}
		if err := c.copy(src, target); err != nil {
			return err
		}
	}
	return nil
}

// stat looks at a source: -a keeps symbolic links, otherwise they are followed.
func (c *copier) stat(s spot) (fs.FileInfo, error) {
	if c.o.archive {
		return s.tree.Lstat(s.name)
	}
	return s.tree.Stat(s.name)
}

// measure adds up what is to be copied, and refuses a directory without -r.
func (c *copier) measure(s spot, top bool) error {
	fi, err := c.stat(s)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		if fi.Mode().IsRegular() {
			c.total += uint64(fi.Size())
		}
		return nil
	}
	if top && !c.o.recursive && !c.o.archive {
		return hintf(ashlar.E("cp", ashlar.IsDir, s.text, nil), "copy it with all that is in it: ashlar fs cp -r")
	}
	ds, err := s.tree.ReadDir(s.name)
	if err != nil {
		return err
	}
	for _, d := range ds {
		if err := c.measure(s.join(d.Name()), false); err != nil {
			return err
		}
	}
	return nil
}

// copy copies one name and what is below it.
func (c *copier) copy(src, dst spot) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	fi, err := c.stat(src)
	if err != nil {
		return err
	}
	switch {
	case fi.IsDir():
		err = c.dir(src, dst, fi)
	case fi.Mode()&fs.ModeSymlink != 0:
		err = link(src, dst)
	case fi.Mode().IsRegular():
		err = c.file(src, dst, fi)
	default:
		err = ashlar.E("cp", ashlar.Unsupported, src.text, errors.New("it is neither file, directory nor symbolic link"))
	}
	if err != nil {
		return err
	}
	return c.attributes(src, dst, fi)
}

func (c *copier) dir(src, dst spot, fi fs.FileInfo) error {
	const mine = 0o700 // until what is in it is copied
	if err := dst.tree.Mkdir(dst.name, fi.Mode().Perm()|mine); err != nil {
		if have, serr := dst.tree.Stat(dst.name); serr != nil || !have.IsDir() {
			return err
		}
	}
	ds, err := src.tree.ReadDir(src.name)
	if err != nil {
		return err
	}
	for _, d := range ds {
		if err := c.copy(src.join(d.Name()), dst.join(d.Name())); err != nil {
			return err
		}
	}
	return nil
}

func link(src, dst spot) error {
	target, err := src.tree.ReadLink(src.name)
	if err != nil {
		return err
	}
	if fi, err := dst.tree.Lstat(dst.name); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		if err := dst.tree.Remove(dst.name); err != nil {
			return err
		}
	}
	return dst.tree.Symlink(target, dst.name)
}

func (c *copier) file(src, dst spot, fi fs.FileInfo) error {
	c.bar.say(path.Base(src.name))
	in, err := src.tree.Open(src.name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := dst.tree.create(dst.name, fi.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = copyData(out, in, c.bar)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("%s to %s: %w", src.text, dst.text, err)
	}
	return nil
}

// copyData copies in large pieces and moves the bar.
func copyData(w io.Writer, r io.Reader, b *bar) (n int64, err error) {
	buf := make([]byte, copyBuffer)
	for {
		got, err := r.Read(buf)
		if got > 0 {
			if _, werr := w.Write(buf[:got]); werr != nil {
				return n, werr
			}
			n += int64(got)
			b.add(got)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// attributes gives the copy what -a keeps.
func (c *copier) attributes(_, dst spot, fi fs.FileInfo) error {
	if !c.o.archive {
		return nil
	}
	uid, gid, atime := owner(fi)
	if err := dst.tree.Lchown(dst.name, uid, gid); err != nil && os.Geteuid() == 0 {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	const bits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if err := dst.tree.Chmod(dst.name, fi.Mode()&bits); err != nil {
		return err
	}
	return dst.tree.Chtimes(dst.name, atime, fi.ModTime())
}

// owner tells owner and access time of a file, local or in a volume.
func owner(fi fs.FileInfo) (uid, gid int, atime time.Time) {
	switch s := fi.Sys().(type) {
	case *ashlar.Attr:
		return int(s.UID), int(s.GID), time.Unix(0, s.Atime)
	case *syscall.Stat_t:
		return int(s.Uid), int(s.Gid), time.Unix(s.Atim.Unix())
	}
	return -1, -1, fi.ModTime()
}
