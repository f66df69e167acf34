package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// verify looks whether all is well after the workers.
func (c *cluster) verify(ctx context.Context) error {
	late, err := c.mount(ctx)
	if err != nil {
		return err
	}
	var trees [][]string
	for _, m := range c.mounts {
		t, err := tree(m.dir)
		if err != nil {
			return fmt.Errorf("tree of %s: %w", m.dir, err)
		}
		trees = append(trees, t)
	}
	fmt.Printf("soak: %d names in the tree\n", len(trees[0]))
	for i, t := range trees[1:] {
		if d := difference(trees[0], t); d != "" {
			return fmt.Errorf("%s and %s show different trees: %s", c.mounts[0].dir, c.mounts[i+1].dir, d)
		}
	}
	if len(trees[0]) == 0 {
		return errors.New("nothing is in the tree: the workers did nothing")
	}
	out, err := exec.CommandContext(ctx, c.bin, "disk", "scrub", "--wait", "--cluster", c.up.ClientFile()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("scrub: %w\n%s", err, out)
	}
	fmt.Print(string(out))
	// The third mount was not there before.
	c.mounts = slices.DeleteFunc(c.mounts, func(m *mount) bool { return m == late })
	defer func() { c.mounts = append(c.mounts, late) }()
	return await(ctx, settleTime, c.leaks)
}

// leaks compares what processes hold with what they held at first.
func (c *cluster) leaks() error {
	now, err := c.usage()
	if err != nil {
		return err
	}
	var errs []error
	for i, u := range now {
		was := c.early[i]
		fmt.Printf("soak: %s: %v, after a tenth of the time %v\n", u.name, u.held, was.held)
		errs = append(errs, u.above(&was))
	}
	return errors.Join(errs...)
}

// usage is what a process holds.
type usage struct {
	name string
	held
}

type held struct{ files, routines, mib int }

func (h held) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d MiB", h.files, h.routines, h.mib)
}

// Bounds of growth: caches and pools may be fuller than early on. A leak of one
// thing an operation is thousands.
const (
	moreFiles    = 64
	moreRoutines = 64
	moreMiB      = 128
)

func (u *usage) above(was *usage) error {
	if u.files > was.files+moreFiles || u.routines > was.routines+moreRoutines || u.mib > was.mib+moreMiB {
		return fmt.Errorf("%s holds more than it did: %v, and then %v", u.name, was.held, u.held)
	}
	return nil
}

// usage looks at all processes: mounts, then nodes.
func (c *cluster) usage() (out []usage, err error) {
	for _, m := range c.mounts[:2] {
		u, err := look(filepath.Base(m.dir), m.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		if u.routines, err = routines(m.pprof); err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	for i, pid := range c.nodes {
		u, err := look(fmt.Sprintf("n%d", i+1), pid)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// look counts what /proc tells of a process.
func look(name string, pid int) (usage, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return usage{}, fmt.Errorf("process of %s: %w", name, err)
	}
	fds = slices.DeleteFunc(fds, func(d fs.DirEntry) bool {
		// Files of chunks are kept open, up to a limit.
		to, err := os.Readlink(filepath.Join(dir, d.Name()))
		return err != nil || strings.Contains(to, "/chunks/")
	})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	u := usage{name, held{files: len(fds)}}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				return usage{}, err
			}
			u.mib = kib / 1024
		}
	}
	return u, nil
}

// routines asks a process for how many goroutines it has.
func routines(addr string) (n int, err error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var first bytes.Buffer
	if _, err := first.ReadFrom(resp.Body); err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(first.String(), "goroutine profile: total %d", &n)
	return n, err
}

// tree is a line for each name: what it is, and what is in it.
func tree(root string) (out []string, err error) {
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%q inode %d mode %o links %d", rel, st.Ino, st.Mode, st.Nlink)
		switch {
		case d.Type().IsRegular():
			x := make([]byte, 256)
			if n, err := unix.Lgetxattr(p, "user.soak", x); err == nil {
				line += fmt.Sprintf(" xattr %x", x[:n])
			} else if !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("%s: xattr: %w", p, err)
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if int64(len(b)) != st.Size {
				return fmt.Errorf("%s: %d bytes were read, its size is %d", p, len(b), st.Size)
			}
			line += fmt.Sprintf(" mtime %d.%09d size %d %x", st.Mtim.Sec, st.Mtim.Nsec, st.Size, sha256.Sum256(b))
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		out = append(out, line)
		return nil
	})
	return out, err
}

// difference is the first line in which trees differ, "" if they do not.
func difference(a, b []string) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return "only the second has " + b[i]
		case i >= len(b):
			return "only the first has " + a[i]
		case a[i] != b[i]:
			return fmt.Sprintf("%s\n%s", a[i], b[i])
		}
	}
	return ""
}
