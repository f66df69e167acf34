package posix

import (
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// seen is what a tree looks like: by path, what stat(2) tells.
type seen map[string]unix.Stat_t

// snapshot looks at every file of the tree, as root, without touching access
// times. It runs on the worker's thread.
func (w *worker) snapshot() (seen, map[string]string, error) {
	was := w.now
	w.become(users["root"])
	defer w.become(was)
	s, targets := seen{}, map[string]string{}
	return s, targets, w.look(".", s, targets)
}

func (w *worker) look(p string, s seen, targets map[string]string) error {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return fmt.Errorf("lstat %s: %w", p, err)
	}
	s[p] = st
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFLNK:
		b := make([]byte, 5000)
		n, err := unix.Readlink(p, b)
		if err != nil {
			return fmt.Errorf("readlink %s: %w", p, err)
		}
		targets[p] = string(b[:n])
		return nil
	default:
		return nil
	}
	names, err := list(p)
	if err != nil {
		return fmt.Errorf("readdir %s: %w", p, err)
	}
	for _, n := range names {
		if err := w.look(path.Join(p, n), s, targets); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names in a directory, in order.
func list(p string) ([]string, error) {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

// state is a tree as last seen, and when its story began.
type state struct {
	seen    seen
	targets map[string]string
}

// describe says what is to be the same of a file, given what it was before:
// times that were set to a value, and of others whether they moved.
func describe(p string, st, before *unix.Stat_t, target string, how *comparison) string {
	began := how.began
	var b strings.Builder
	kind := st.Mode & unix.S_IFMT
	fmt.Fprintf(&b, "%06o nlink %d owner %d:%d", st.Mode, st.Nlink, st.Uid, st.Gid)
	switch kind {
	case unix.S_IFREG:
		fmt.Fprintf(&b, " size %d", st.Size)
	case unix.S_IFLNK:
		fmt.Fprintf(&b, " size %d -> %q", st.Size, target)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, " rdev %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	times := []struct {
		name     string
		now, was unix.Timespec
	}{{"atime", st.Atim, unix.Timespec{}}, {"mtime", st.Mtim, unix.Timespec{}}, {"ctime", st.Ctim, unix.Timespec{}}}
	if before != nil {
		times[0].was, times[1].was, times[2].was = before.Atim, before.Mtim, before.Ctim
	}
	for i, t := range times {
		if i == 0 && (kind == unix.S_IFLNK || !how.accessTimes) {
			continue // looking at it touches it
		}
		switch {
		case t.now.Nano() < began || t.now.Sec > began/1e9+3600:
			fmt.Fprintf(&b, " %s=%d.%09d", t.name, t.now.Sec, t.now.Nsec)
		case before == nil:
			fmt.Fprintf(&b, " %s new", t.name)
		case t.now != t.was:
			fmt.Fprintf(&b, " %s moved", t.name)
			if t.now.Nano() < t.was.Nano() && t.was.Nano() >= began && t.was.Sec <= began/1e9+3600 {
				b.WriteString(" back")
			}
		}
	}
	return b.String()
}

// comparison is how trees are compared.
type comparison struct {
	began       int64           // times before are compared to the nanosecond
	accessTimes bool            // those too
	told        map[string]bool // differences
}

// compare tells how two trees differ, nothing if they do not or it was told
// already.
func (c *comparison) compare(ref, got, refWas, gotWas *state) string {
	var b strings.Builder
	paths := map[string]bool{}
	for p := range ref.seen {
		paths[p] = true
	}
	for p := range got.seen {
		paths[p] = true
	}
	sorted := make([]string, 0, len(paths))
	for p := range paths {
		sorted = append(sorted, p)
	}
	sort.Strings(sorted)
	text := func(s, was *state, p string) string {
		st, ok := s.seen[p]
		if !ok {
			return "(none)"
		}
		if old, ok := was.seen[p]; ok && old.Ino == st.Ino {
			return describe(p, &st, &old, s.targets[p], c)
		}
		return describe(p, &st, nil, s.targets[p], c)
	}
	for _, p := range sorted {
		if want, have := text(ref, refWas, p), text(got, gotWas, p); want != have && !c.told[p+want+have] {
			c.told[p+want+have] = true
			fmt.Fprintf(&b, "  %q\n    reference %s\n    ashlar    %s\n", p, want, have)
		}
	}
	return b.String()
}
