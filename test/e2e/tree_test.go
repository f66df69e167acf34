package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// copiers is how many files are copied or compared at a time.
const copiers = 8

// entry is one name of a tree.
type entry struct {
	rel  string
	mode fs.FileMode
}

// list walks a tree, parents before what is in them.
func list(top string) ([]entry, error) {
	var out []entry
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		out = append(out, entry{rel, d.Type()})
		return nil
	})
	return out, err
}

// copyTree copies a tree with modes, owners and times; files counts what is
// done, as it is done.
func copyTree(ctx context.Context, from, to string, files *atomic.Int64) error {
	all, err := list(from)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.mode.IsDir() {
			if err := os.MkdirAll(filepath.Join(to, e.rel), 0o755); err != nil {
				return err
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copiers)
	for _, e := range all {
		if e.mode.IsDir() || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			defer files.Add(1)
			return copyOne(filepath.Join(from, e.rel), filepath.Join(to, e.rel))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := len(all) - 1; i >= 0; i-- { // times of directories last, inside out
		if all[i].mode.IsDir() {
			if err := copyAttr(filepath.Join(from, all[i].rel), filepath.Join(to, all[i].rel)); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyOne copies a file or symbolic link.
func copyOne(from, to string) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{in})
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return copyAttr(from, to)
}

func copyAttr(from, to string) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return errors.Join(
		os.Lchown(to, int(st.Uid), int(st.Gid)),
		os.Chmod(to, fi.Mode()),
		os.Chtimes(to, time.Unix(st.Atim.Unix()), fi.ModTime()),
	)
}

// differences compares every byte and attribute of two trees and describes
// what differs, at most maxDifferences of them.
func differences(want, got string) ([]string, error) {
	a, err := list(want)
	if err != nil {
		return nil, err
	}
	b, err := list(got)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var out []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if len(out) < maxDifferences {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	if len(a) != len(b) {
		note("%d names in %s, %d in %s", len(a), want, len(b), got)
	}
	there := map[string]bool{}
	for _, e := range b {
		there[e.rel] = true
	}
	var g errgroup.Group
	g.SetLimit(copiers)
	for _, e := range a {
		if !there[e.rel] {
			note("%s is missing", e.rel)
			continue
		}
		g.Go(func() error {
			what, err := compare(filepath.Join(want, e.rel), filepath.Join(got, e.rel))
			if what != "" {
				note("%s: %s", e.rel, what)
			}
			return err
		})
	}
	return out, g.Wait()
}

const maxDifferences = 20

// compare tells how two files differ, "" if they do not.
func compare(want, got string) (string, error) {
	a, err := os.Lstat(want)
	if err != nil {
		return "", err
	}
	b, err := os.Lstat(got)
	if err != nil {
		return "", err
	}
	sa, sb := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
	switch {
	case a.Mode() != b.Mode():
		return fmt.Sprintf("mode %v, want %v", b.Mode(), a.Mode()), nil
	case sa.Uid != sb.Uid || sa.Gid != sb.Gid:
		return fmt.Sprintf("owner %d:%d, want %d:%d", sb.Uid, sb.Gid, sa.Uid, sa.Gid), nil
	}
	if a.Mode()&fs.ModeSymlink != 0 {
		la, err := os.Readlink(want)
		if err != nil {
			return "", err
		}
		lb, err := os.Readlink(got)
		if err != nil || la != lb {
			return fmt.Sprintf("link to %q, want %q", lb, la), err
		}
		return "", nil
	}
	if !a.ModTime().Equal(b.ModTime()) {
		return fmt.Sprintf("mtime %v, want %v", b.ModTime(), a.ModTime()), nil
	}
	if a.IsDir() {
		return "", nil
	}
	if a.Size() != b.Size() {
		return fmt.Sprintf("size %d, want %d", b.Size(), a.Size()), nil
	}
	da, err := os.ReadFile(want)
	if err != nil {
		return "", err
	}
	db, err := os.ReadFile(got)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(da, db) {
		i := 0
		for i < len(da) && i < len(db) && da[i] == db[i] {
			i++
		}
		return fmt.Sprintf("content differs from byte %d on", i), nil
	}
	return "", nil
}
