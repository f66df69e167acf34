package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sort"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Volume is a tree of files. It implements fs.FS, fs.ReadDirFS, fs.StatFS,
// fs.ReadFileFS, fs.SubFS and fs.ReadLinkFS, and has the writing calls of
// package os.
type Volume struct {
	c    *Client
	fs   *file.FS
	root ashlar.Inode
	cred ashlar.Cred
	ctx  context.Context // of calls that take none, as io/fs demands
}

var (
	_ fs.ReadDirFS  = (*Volume)(nil)
	_ fs.StatFS     = (*Volume)(nil)
	_ fs.ReadFileFS = (*Volume)(nil)
	_ fs.SubFS      = (*Volume)(nil)
	_ fs.ReadLinkFS = (*Volume)(nil)
)

// Name returns the volume's name.
func (v *Volume) Name() string { return v.fs.Volume().Name }

// WithContext returns the same volume with calls that end with ctx.
func (v *Volume) WithContext(ctx context.Context) *Volume {
	w := *v
	w.ctx = ctx
	return &w
}

// WithCred returns the same volume used on somebody else's behalf.
func (v *Volume) WithCred(c ashlar.Cred) *Volume {
	w := *v
	w.cred = c
	return &w
}

// Sub returns the tree below a directory. Symbolic links do not lead out of
// it.
func (v *Volume) Sub(dir string) (fs.FS, error) {
	w, err := v.SubVolume(dir)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// SubVolume is Sub with the type that it returns.
func (v *Volume) SubVolume(dir string) (*Volume, error) {
	a, err := v.find(v.ctx, dir, true)
	if err == nil && a.Type != ashlar.TypeDir {
		err = refuse(ashlar.NotDir)
	}
	if err != nil {
		return nil, pathError("sub", dir, err)
	}
	w := *v
	w.root = a.Inode
	return &w, nil
}

// Stat describes what a name leads to.
func (v *Volume) Stat(name string) (fs.FileInfo, error) { return v.stat("stat", name, true) }

// Lstat describes a name, a symbolic link itself.
func (v *Volume) Lstat(name string) (fs.FileInfo, error) { return v.stat("lstat", name, false) }

func (v *Volume) stat(op, name string, follow bool) (fs.FileInfo, error) {
	a, err := v.find(v.ctx, name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return &fileInfo{last(name), a}, nil
}

func last(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[i+1:]
		}
	}
	return name
}

// ReadLink returns the target of a symbolic link.
func (v *Volume) ReadLink(name string) (string, error) {
	a, err := v.find(v.ctx, name, false)
	if err == nil && a.Type != ashlar.TypeSymlink {
		err = refuse(ashlar.Invalid)
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	target, err := v.fs.Readlink(v.ctx, v.cred, a.Inode)
	return target, pathError("readlink", name, err)
}

// readdirBatch is how many entries are asked for at once.
const readdirBatch = 1024

// list returns all entries of a directory, in the leader's order.
func (v *Volume) list(dir ashlar.Inode) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	for m := (&wire.Readdir{Inode: dir, Limit: readdirBatch, Plus: true}); ; {
		r, err := v.fs.Readdir(v.ctx, v.cred, m)
		if err != nil {
			return out, err
		}
		for k := range r.Entries {
			out = append(out, &dirEntry{r.Entries[k]})
			m.Cookie = r.Entries[k].Cookie
		}
		if r.EOF {
			return out, nil
		}
	}
}

// ReadDir lists a directory, sorted by name.
func (v *Volume) ReadDir(name string) ([]fs.DirEntry, error) {
	a, err := v.find(v.ctx, name, true)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	out, err := v.list(a.Inode)
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out, pathError("readdir", name, err)
}

// ReadFile returns the contents of a file.
func (v *Volume) ReadFile(name string) ([]byte, error) {
	f, err := v.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, f.size()+1) // one more, to see the end at once
	n := 0
	for {
		k, err := f.Read(b[n:])
		n += k
		if errors.Is(err, io.EOF) {
			return b[:n], nil
		}
		if err != nil {
			return b[:n], err
		}
		if n == len(b) {
			b = append(b, 0)
			b = b[:cap(b)]
		}
	}
}

// WriteFile makes or empties a file and writes data to it.
func (v *Volume) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := v.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// make makes something that is not a regular file.
func (v *Volume) make(op, name string, m *wire.Make) error {
	dir, base, err := v.parent(v.ctx, name)
	if err == nil {
		m.Parent, m.Name, m.Exclusive = dir, base, true
		_, err = v.fs.Make(v.ctx, v.cred, m)
	}
	return pathError(op, name, err)
}

// Mkdir makes a directory. perm is taken as it is: there is no umask.
func (v *Volume) Mkdir(name string, perm fs.FileMode) error {
	return v.make("mkdir", name, &wire.Make{Type: ashlar.TypeDir, Mode: unixMode(perm)})
}

// MkdirAll makes a directory and those that lead to it, if they are not there.
func (v *Volume) MkdirAll(name string, perm fs.FileMode) error {
	a, err := v.find(v.ctx, name, true)
	if err == nil {
		if a.Type != ashlar.TypeDir {
			return pathError("mkdir", name, refuse(ashlar.NotDir))
		}
		return nil
	}
	if ashlar.KindOf(err) != ashlar.NotExist {
		return pathError("mkdir", name, err)
	}
	if up := name[:len(name)-len(last(name))]; up != "" {
		if err := v.MkdirAll(up[:len(up)-1], perm); err != nil {
			return err
		}
	}
	if err = v.Mkdir(name, perm); errors.Is(err, fs.ErrExist) { // somebody else was faster
		if a, ferr := v.find(v.ctx, name, true); ferr == nil && a.Type == ashlar.TypeDir {
			return nil
		}
	}
	return err
}

// Symlink makes a symbolic link to target, which is kept as it is.
func (v *Volume) Symlink(target, name string) error {
	return v.make("symlink", name, &wire.Make{Type: ashlar.TypeSymlink, Mode: 0o777, Target: target})
}

// Link gives a file another name.
func (v *Volume) Link(old, name string) error {
	a, err := v.find(v.ctx, old, false)
	if err == nil {
		var dir ashlar.Inode
		var base string
		if dir, base, err = v.parent(v.ctx, name); err == nil {
			_, err = v.fs.Link(v.ctx, v.cred, a.Inode, dir, base)
		}
	}
	return pathError("link", name, err)
}

// Remove removes a file or an empty directory.
func (v *Volume) Remove(name string) error {
	dir, base, err := v.parent(v.ctx, name)
	if err == nil {
		_, err = v.fs.Remove(v.ctx, v.cred, dir, base, false)
		if ashlar.KindOf(err) == ashlar.IsDir {
			_, err = v.fs.Remove(v.ctx, v.cred, dir, base, true)
		}
	}
	return pathError("remove", name, err)
}

// RemoveAll removes a name and everything below it; one that is not there is
// no error.
func (v *Volume) RemoveAll(name string) error {
	a, err := v.find(v.ctx, name, false)
	switch {
	case ashlar.KindOf(err) == ashlar.NotExist:
		return nil
	case err != nil:
		return pathError("remove", name, err)
	case a.Type == ashlar.TypeDir:
		entries, err := v.list(a.Inode)
		if err != nil {
			return pathError("remove", name, err)
		}
		for _, e := range entries {
			if err := v.RemoveAll(name + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	if err := v.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Rename moves a name, replacing what is at the new one.
func (v *Volume) Rename(old, name string) error {
	from, fromBase, err := v.parent(v.ctx, old)
	if err == nil {
		var to ashlar.Inode
		var toBase string
		if to, toBase, err = v.parent(v.ctx, name); err == nil {
			_, err = v.fs.Rename(v.ctx, v.cred, &wire.Rename{
				OldParent: from, OldName: fromBase, NewParent: to, NewName: toBase,
			})
		}
	}
	return pathError("rename", old, err)
}

func (v *Volume) set(op, name string, follow bool, m *wire.SetAttr) error {
	a, err := v.find(v.ctx, name, follow)
	if err == nil {
		m.Inode = a.Inode
		_, err = v.fs.SetAttr(v.ctx, v.cred, m)
	}
	return pathError(op, name, err)
}

// Chmod changes permission, setuid, setgid and sticky bits.
func (v *Volume) Chmod(name string, m fs.FileMode) error {
	return v.set("chmod", name, true, &wire.SetAttr{Valid: wire.SetMode, Mode: unixMode(m)})
}

// Chown changes owner and group; -1 leaves one as it is.
func (v *Volume) Chown(name string, uid, gid int) error { return v.chown(name, uid, gid, true) }

// Lchown is Chown of a symbolic link itself.
func (v *Volume) Lchown(name string, uid, gid int) error { return v.chown(name, uid, gid, false) }

func (v *Volume) chown(name string, uid, gid int, follow bool) error {
	m := &wire.SetAttr{UID: uint32(uid), GID: uint32(gid)}
	if uid != -1 {
		m.Valid |= wire.SetUID
	}
	if gid != -1 {
		m.Valid |= wire.SetGID
	}
	return v.set("chown", name, follow, m)
}

// Chtimes changes access and modification times; a zero time leaves one as it
// is.
func (v *Volume) Chtimes(name string, atime, mtime time.Time) error {
	m := new(wire.SetAttr)
	if !atime.IsZero() {
		m.Valid, m.Atime = m.Valid|wire.SetAtime, atime.UnixNano()
	}
	if !mtime.IsZero() {
		m.Valid, m.Mtime = m.Valid|wire.SetMtime, mtime.UnixNano()
	}
	return v.set("chtimes", name, true, m)
}

// Truncate changes the size of a file.
func (v *Volume) Truncate(name string, size int64) error {
	if size < 0 {
		return pathError("truncate", name, refuse(ashlar.Invalid))
	}
	return v.set("truncate", name, true, &wire.SetAttr{Valid: wire.SetSize, Size: uint64(size)})
}

// Space is how full a volume is, in bytes of user data.
type Space struct {
	Total, Free, Used uint64
	Inodes            uint64
}

// StatFS tells how full the volume is.
func (v *Volume) StatFS() (Space, error) {
	r, err := v.fs.StatFS(v.ctx, v.cred)
	return Space{r.Total, r.Free, r.Used, r.Inodes}, err
}
