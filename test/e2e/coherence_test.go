package e2e

import (
	le "encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// file opens a file of a mount, made if it is not there.
func (c *cluster) file(dir, name string, flags int) *os.File {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), flags|os.O_CREATE, 0o644)
	c.must(err)
	c.closers = append(c.closers, func() { f.Close() })
	return f
}

// closeFiles closes what file and mapping have opened, so that nobody is left to
// unmount for.
func (c *cluster) closeFiles() {
	for _, fn := range c.closers {
		fn()
	}
	c.closers = nil
}

// holds fails unless a file reads as want, and stat says so too.
func (c *cluster) holds(name, want string) {
	c.t.Helper()
	st, err := os.Stat(name)
	c.must(err)
	if st.Size() != int64(len(want)) {
		c.t.Fatalf("%s: stat says %d bytes, want %d", name, st.Size(), len(want))
	}
	b, err := os.ReadFile(name)
	if err != nil || string(b) != want {
		c.t.Fatalf("%s: %.40q, want %.40q: %v", name, b, want, err)
	}
}

// What a call on one mount did is there for every call that begins on the other
// after it returned: nothing is closed or synced in between.
func TestCoherenceOfTwoMounts(t *testing.T) {
	c := start(t)
	c.freshMount(func(other string) {
		defer c.closeFiles()
		in := func(dir, name string) string { return filepath.Join(dir, name) }
		both := [2]string{c.mnt, other}
		step(t, "data, size and mtime", func() {
			a, b := c.file(c.mnt, "f", os.O_RDWR), c.file(other, "f", os.O_RDWR)
			for k := range 20 {
				w, dir := a, other
				if k%2 == 1 {
					w, dir = b, c.mnt
				}
				c.must(w.Truncate(0))
				want := strings.Repeat(fmt.Sprint("contents ", k, ". "), 1+k*100)
				_, err := w.WriteAt([]byte(want), 0)
				c.must(err)
				c.holds(in(dir, "f"), want)
				own, err := w.Stat()
				c.must(err)
				seen, err := os.Stat(in(dir, "f"))
				c.must(err)
				if !own.ModTime().Equal(seen.ModTime()) {
					t.Fatalf("mtime %v, elsewhere %v", own.ModTime(), seen.ModTime())
				}
			}
		})
		step(t, "names and attributes", func() {
			for k := range 20 {
				here, there := both[k%2], both[1-k%2]
				n := fmt.Sprint("n", k)
				c.refused("before it is made", unix.Access(in(there, n), unix.F_OK), unix.ENOENT)
				c.must(os.WriteFile(in(here, n), nil, 0o644))
				c.holds(in(there, n), "")
				c.must(os.Chmod(in(here, n), 0o600))
				if st, err := os.Stat(in(there, n)); err != nil || st.Mode() != 0o600 {
					t.Fatalf("%v: %v", st.Mode(), err)
				}
				c.must(unix.Setxattr(in(here, n), "user.k", []byte(n), 0))
				if got := make([]byte, 9); true {
					l, err := unix.Getxattr(in(there, n), "user.k", got)
					if err != nil || string(got[:l]) != n {
						t.Fatalf("%q: %v", got[:max(l, 0)], err)
					}
				}
				c.must(os.Rename(in(here, n), in(here, n+"r")))
				c.refused("after its rename", unix.Access(in(there, n), unix.F_OK), unix.ENOENT)
				c.must(os.Link(in(here, n+"r"), in(here, n+"l")))
				c.must(os.Remove(in(here, n+"r")))
				c.refused("after its removal", unix.Access(in(there, n+"r"), unix.F_OK), unix.ENOENT)
				var st unix.Stat_t
				c.must(unix.Stat(in(there, n+"l"), &st))
				if st.Nlink != 1 {
					t.Fatalf("%d links", st.Nlink)
				}
				list, err := os.ReadDir(there)
				c.must(err)
				c.must(os.Remove(in(there, n+"l")))
				after, err := os.ReadDir(here)
				c.must(err)
				if len(after) != len(list)-1 {
					t.Fatalf("%d entries, then %d", len(list), len(after))
				}
			}
		})
		step(t, "a file that is removed elsewhere while it is open", func() {
			a, b := c.file(c.mnt, "gone", os.O_RDWR), c.file(other, "gone", os.O_RDWR)
			_, err := a.WriteString("still here")
			c.must(err)
			c.must(os.Remove(in(other, "gone")))
			for _, f := range []*os.File{a, b} {
				got := make([]byte, 10)
				if _, err := f.ReadAt(got, 0); err != nil || string(got) != "still here" {
					t.Fatalf("%q: %v", got, err)
				}
			}
			_, err = b.WriteAt([]byte("STILL"), 0)
			c.must(err)
			got := make([]byte, 10)
			if _, err := a.ReadAt(got, 0); err != nil || string(got) != "STILL here" {
				t.Fatalf("%q: %v", got, err)
			}
			c.must(a.Close())
			c.must(b.Close())
		})
		step(t, "shared mappings", func() {
			a, b := c.mapping(c.mnt, "m"), c.mapping(other, "m")
			for k := range uint32(20) {
				le.LittleEndian.PutUint32(a, k) // of page 0
				c.must(unix.Msync(a, unix.MS_SYNC))
				le.LittleEndian.PutUint32(b[4096:], k)
				c.must(unix.Msync(b, unix.MS_SYNC))
				if x, y := le.LittleEndian.Uint32(b), le.LittleEndian.Uint32(a[4096:]); x != k || y != k {
					t.Fatalf("%d and %d, want %d", x, y, k)
				}
			}
		})
		step(t, "appends through both", func() { c.appends("log", both[:], nil) })
		step(t, "appends through one are followed on the other", func() { c.appends("followed", both[:1], both[1:]) })
		step(t, "a race", func() { c.race(both) })
	})
}

// mapping maps two pages of a file.
func (c *cluster) mapping(dir, name string) []byte {
	c.t.Helper()
	f := c.file(dir, name, os.O_RDWR)
	c.must(f.Truncate(8192))
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.must(err)
	c.closers = append(c.closers, func() { unix.Munmap(m) })
	return m
}

// appends has eight writers append lines to one file through some mounts, while
// readers follow it on others: no line is lost, torn, or out of its writer's
// order.
func (c *cluster) appends(name string, dirs, followers []string) {
	const writers, lines = 8, 200
	var done sync.WaitGroup
	var ended atomic.Bool
	follow := func(dir string, f *os.File) {
		var seen []byte
		for last := false; ; {
			buf := make([]byte, 64<<10)
			n, _ := f.ReadAt(buf, int64(len(seen)))
			if seen = append(seen, buf[:n]...); n == 0 && last {
				break
			}
			last = n == 0 && ended.Load()
		}
		if err := inOrder(string(seen), writers, lines); err != nil {
			c.t.Errorf("as followed on %s: %v", dir, err)
		}
	}
	var following sync.WaitGroup
	for _, d := range followers {
		f := c.file(d, name, os.O_RDONLY)
		following.Go(func() { follow(d, f) })
	}
	for w := range writers {
		done.Go(func() {
			f, err := os.OpenFile(filepath.Join(dirs[w%len(dirs)], name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			if err != nil {
				c.t.Error(err)
				return
			}
			defer f.Close()
			for k := range lines {
				if _, err := fmt.Fprintf(f, "%d %d %s\n", w, k, strings.Repeat(".", k)); err != nil {
					c.t.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	ended.Store(true)
	following.Wait()
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, name))
		if err == nil {
			err = inOrder(string(b), writers, lines)
		}
		if err != nil {
			c.t.Errorf("%s: %v", d, err)
		}
	}
}

// inOrder checks a log.
func inOrder(log string, writers, lines int) error {
	next := make([]int, writers)
	for line := range strings.Lines(log) {
		var w, k int
		var dots string
		if _, err := fmt.Sscanf(line, "%d %d %s", &w, &k, &dots); err != nil && k > 0 {
			return fmt.Errorf("a torn line %q: %w", line, err)
		}
		if w < 0 || w >= writers || k != next[w] || dots != strings.Repeat(".", k) {
			return fmt.Errorf("%q, want line %d", line, next[w])
		}
		next[w]++
	}
	for w, n := range next {
		if n != lines {
			return fmt.Errorf("%d lines of writer %d, want %d", n, w, lines)
		}
	}
	return nil
}

// race has writers and readers on both mounts at once. A writer tells the
// readers of the same process what it wrote when the call has returned; what a
// reader then begins to read may not be older.
func (c *cluster) race(dirs [2]string) {
	const rounds = 60
	var number, size, made atomic.Int64 // what was written, and has returned
	// While a write through a mount is under way that is to make a file longer, the
	// kernel takes in no size of that file, and shows the one that it knew before
	// (docs/posix.md). So one file has its size from the beginning, and the other is
	// not looked at through a mount that is making it longer; growing is odd then.
	var growing [2]atomic.Int64
	var turn sync.Mutex // of writers
	var stop atomic.Bool
	var readers, writers sync.WaitGroup
	if _, err := c.file(dirs[0], "number", os.O_RDWR).WriteAt(make([]byte, 8), 8192); err != nil {
		c.t.Fatal(err)
	}
	for at, d := range dirs {
		growing := &growing[at]
		f := c.file(d, "number", os.O_RDWR)
		grown := c.file(d, "grown", os.O_RDWR)
		for range 2 {
			readers.Go(func() {
				buf := make([]byte, 8)
				for !stop.Load() && !c.t.Failed() {
					want := number.Load()
					n, err := f.ReadAt(buf, 8192)
					if got := int64(le.LittleEndian.Uint64(buf)); want > 0 && (n < 8 || got < want) {
						c.t.Errorf("read %d bytes, %d, after %d was written: %v", n, got, want, err)
					}
					turn := growing.Load()
					want = size.Load()
					st, err := os.Stat(filepath.Join(d, "grown"))
					if err != nil || turn%2 == 0 && growing.Load() == turn && st.Size() < want {
						c.t.Errorf("stat says %d bytes after %d were written: %v", st.Size(), want, err)
					}
					want = made.Load()
					if _, err := os.Stat(filepath.Join(d, fmt.Sprint("made", want))); want > 0 && err != nil && made.Load() <= want+1 {
						c.t.Errorf("made: %v", err)
					}
				}
			})
		}
		writers.Go(func() {
			buf := make([]byte, 8)
			for k := int64(1); k < rounds; k++ {
				turn.Lock()
				n := number.Load() + 1
				le.LittleEndian.PutUint64(buf, uint64(n))
				_, err := f.WriteAt(buf, 8192)
				number.Store(n)
				if err == nil {
					growing.Add(1)
					_, err = grown.WriteAt([]byte{1}, n*100)
					growing.Add(1)
					size.Store(n*100 + 1)
				}
				if err == nil {
					err = os.WriteFile(filepath.Join(d, fmt.Sprint("made", n)), nil, 0o644)
					made.Store(n)
				}
				if err == nil && n > 2 {
					err = os.Remove(filepath.Join(d, fmt.Sprint("made", n-2)))
				}
				turn.Unlock()
				if err != nil {
					c.t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
}

// What was synced outlives its mount, whose leases go when it is fenced; and
// leases outlive the leader.
func TestCoherenceOutlivesLeaderAndMount(t *testing.T) {
	c := start(t)
	dir, cmd, _ := c.secondMount()
	b := c.file(dir, "f", os.O_RDWR)
	step(t, "a change of leader", func() {
		_, err := b.WriteString("before")
		c.must(err)
		first := c.leader()
		c.dev("kill", first)
		_, err = b.WriteAt([]byte("BE"), 0) // under the lease
		c.must(err)
		c.holds(filepath.Join(c.mnt, "f"), "BEfore")
		a := c.file(c.mnt, "f", os.O_RDWR)
		_, err = a.WriteAt([]byte("after!"), 0)
		c.must(err)
		c.holds(filepath.Join(dir, "f"), "after!")
		c.restart(first)
		c.redundant()
	})
	step(t, "a mount is killed", func() {
		_, err := b.WriteAt([]byte("synced"), 0)
		c.must(err)
		c.must(b.Sync())
		_, err = b.WriteAt([]byte("what"), 0) // may be lost, whole
		c.must(err)
		c.must(cmd.Process.Kill())
		_ = cmd.Wait() // killed
		killed := time.Now()
		got, err := os.ReadFile(filepath.Join(c.mnt, "f"))
		if s := string(got); err != nil || s != "synced" && s != "whated" {
			t.Fatalf("%q: %v", got, err)
		}
		t.Logf("read %v after its holder was killed", time.Since(killed).Round(time.Millisecond))
		c.must(os.WriteFile(filepath.Join(c.mnt, "f"), []byte("mine"), 0o644))
		c.holds(filepath.Join(c.mnt, "f"), "mine")
	})
	c.closeFiles()
	if err := b.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	c.must(syscall.Unmount(dir, syscall.MNT_DETACH))
}
