package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/inspect"
)

// wrote is what a file must come back as.
type wrote struct {
	data     []byte
	uid, gid int
	mode     os.FileMode
	mtime    time.Time // zero: whatever it is
}

// hardNames are hard to place.
var hardNames = []string{
	"new\nline", "-rf", "end ", " begin", `back\slash`, "quote'\"quote", "$(reboot)", "*?[a]", "\u6f22\u5b57 \u00fc", ".hidden", "a:b", "..more",
	strings.Repeat("n", 255), "lost+found",
}

// TestFilesComeBackFromDisksAlone is docs/operations/rebuild-from-disks.md:
// its commands, taken from the page, on a cluster that loses all masters and
// on a new one.
func TestFilesComeBackFromDisksAlone(t *testing.T) {
	lost := start(t)
	want := map[string]wrote{}
	step(t, "a tree is written", func() { lost.tree(want) })

	fresh := prepare(t)
	fresh.args = []string{"--volume", "scratch"}
	step(t, "a new cluster is made elsewhere", func() { fresh.run(); fresh.well() })
	p := lost.rebuildPage(fresh)

	step(t, "1: every node is stopped, and every master is lost", func() {
		p.run("systemctl stop ashlar", 0)
		for _, d := range lost.disks() {
			if out, err := lost.try("inspect", d); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		lost.loseMasters()
		lost.spoil("main:/dir0/one copy is bad", false, 192<<10+4096*3+5)
		lost.spoil("main:/dir1/no copy is good", true, 192<<10+5)
		lost.spoil("main:/dir2/without its name", true, 140)
	})
	step(t, "2, 3, 4: the disks are looked at", func() {
		if out := p.run("ashlar inspect", 6); !strings.Contains(out, "damaged") {
			t.Errorf("of damage it said\n%s", out)
		}
		p.run("mkdir -p /mnt/disk1", 0)
		if out := p.run("ashlar inspect rebuild", 0); !strings.Contains(out, "main/dir0/sub/file 3") || !strings.Contains(out, inspect.LostFound) {
			t.Errorf("found was\n%s", out)
		}
	})
	step(t, "5: the new cluster is well", func() { p.run("ashlar status --wait", 0) })
	step(t, "6: the files are put into it, at the second try", func() {
		fresh.freshMount(func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, "taken"), []byte("somebody else's"), 0o644); err != nil {
				t.Fatal(err)
			}
			fresh.interrupted(lost, dir)
		})
		out := p.run("ashlar inspect rebuild --into-volume", 6)
		for _, s := range []string{"bytes lost", "there already", "was not put there by this", "2 files are incomplete"} {
			if !strings.Contains(out+p.said, s) {
				t.Errorf("it does not say %q:\n%s\n%s", s, out, p.said)
			}
		}
		fresh.freshMount(func(dir string) {
			checkTree(t, dir, want, "taken", "dir1/no copy is good")
			if b, err := os.ReadFile(filepath.Join(dir, "taken")); string(b) != "somebody else's" {
				t.Errorf("what somebody else wrote is %q (%v)", b, err)
			}
			marked(t, dir, "dir1/no copy is good")
		})
	})
	step(t, "7: all is well", func() { p.run("ashlar status --wait", 0) })
	step(t, "or they are extracted, and copied in", func() {
		fresh.freshMount(func(dir string) { empty(t, dir) })
		// The drill goes on although two files are incomplete.
		p.blocks[0] = strings.Replace(p.blocks[0], "\nmkdir", " || [ $? = 6 ]\nmkdir", 1)
		p.run("ashlar inspect rebuild --out", 0)
		fresh.freshMount(func(dir string) { checkTree(t, dir, want, "dir1/no copy is good") })
	})
	p.over()
}

// tree writes files of many sorts through the mount.
func (c *cluster) tree(want map[string]wrote) {
	c.t.Helper()
	rng := rand.New(rand.NewPCG(3, 3))
	made := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	put := func(name string, size int) {
		n := len(want)
		w := wrote{make([]byte, size), 1000 + n, 2000 + n, os.FileMode(0o600 + n%0o200), made.Add(time.Duration(n) * time.Hour)}
		for k := range w.data {
			w.data[k] = byte(rng.Uint32())
		}
		c.create(name, w)
		c.synced(name)
		want[name] = w
	}
	for i, size := range []int{1, 4095, 4096, 4097, 65536, 100_001, 1 << 20, 5_000_003, 70 << 20} {
		put(fmt.Sprintf("dir%d/sub/file %d", i%3, i), size)
	}
	for i, n := range hardNames {
		put(fmt.Sprintf("dir%d/hard/%s", i%3, n), 5000+i)
	}
	for _, n := range []string{"dir0/one copy is bad", "dir1/no copy is good", "dir2/without its name", "taken"} {
		put(n, 20_000)
	}
	put("dir2/written to a temporary file", 30_000)
	rename := func(from, to string) {
		if err := os.Rename(filepath.Join(c.mnt, from), filepath.Join(c.mnt, to)); err != nil {
			c.t.Fatal(err)
		}
	}
	rename("dir2/written to a temporary file", "dir2/and renamed")
	want["dir2/and renamed"] = want["dir2/written to a temporary file"]
	delete(want, "dir2/written to a temporary file")
	c.redundant()
	c.scrub() // names and times are as of now

	// Renamed after it: it comes back under the old name, as the page says.
	put("old", 100)
	rename("old", "new")
	// Written under its new name after it.
	put("older", 100)
	rename("older", "newer")
	w := want["older"]
	w.data, w.mtime = bytes.Repeat([]byte("again"), 1000), time.Time{}
	if err := os.WriteFile(filepath.Join(c.mnt, "newer"), w.data, 0); err != nil {
		c.t.Fatal(err)
	}
	c.synced("newer")
	want["newer"] = w
	delete(want, "older")
	// Written over and cut.
	put("cut", 50_000)
	if err := os.Truncate(filepath.Join(c.mnt, "cut"), 12_345); err != nil {
		c.t.Fatal(err)
	}
	c.synced("cut")
	w = want["cut"]
	w.data = w.data[:12_345]
	want["cut"] = w
	// Of these the time is their chunks': with the name of one its time is lost.
	for _, n := range []string{"old", "cut", "dir2/without its name"} {
		w := want[n]
		w.mtime = time.Time{}
		want[n] = w
	}
}

// synced puts a file on the disks: what was written and closed lately may be in
// the mount alone, and chunks note the name that a file has when they are written.
func (c *cluster) synced(name string) {
	c.t.Helper()
	f, err := os.Open(filepath.Join(c.mnt, name))
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// rebuildPage is the drill from the lost cluster to the new one.
func (c *cluster) rebuildPage(fresh *cluster) *page {
	c.t.Helper()
	dir, bin := c.t.TempDir(), c.t.TempDir()
	shim := fmt.Sprintf("#!/bin/sh\n[ \"$*\" = 'stop ashlar' ] && exec ashlar dev down --dir %s\n", c.dir)
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(shim), 0o755); err != nil {
		c.t.Fatal(err)
	}
	places := []string{
		"/var/lib/ashlar", filepath.Join(c.dir, "n1"), "/srv/ashlar", filepath.Join(c.dir, "n2"),
		"/etc/ashlar/client.toml", filepath.Join(fresh.dir, "client.toml"), "/mnt/", dir + "/mnt/", "/backup/", dir + "/backup/",
	}
	for i, d := range c.disks() {
		places = append(places, fmt.Sprintf("-o ro /dev/sd%c1", 'b'+i), "-o bind,ro "+d)
		at := fmt.Sprintf("%s/mnt/disk%d", dir, i+1)
		c.t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) }) // it may not have been mounted
	}
	p := openPage(c.t, "rebuild-from-disks.md", bin, places...)
	p.env = append(p.env, "ASHLAR_CLUSTER="+filepath.Join(fresh.dir, "client.toml"))
	return p
}

func (c *cluster) disks() []string {
	c.t.Helper()
	disks, err := filepath.Glob(filepath.Join(c.dir, "n*", "disk*"))
	if err != nil || len(disks) != 3 {
		c.t.Fatalf("disks %v %v", disks, err)
	}
	return disks
}

// loseMasters destroys what the masters have, which verified until then.
func (c *cluster) loseMasters() {
	c.t.Helper()
	masters, err := filepath.Glob(filepath.Join(c.dir, "n*", "*", "master"))
	if err != nil || len(masters) != 3 {
		c.t.Fatalf("masters %v %v", masters, err)
	}
	for _, m := range masters {
		if out, err := c.try("inspect", m); err != nil {
			c.t.Fatalf("%v\n%s", err, out)
		}
		if err := os.RemoveAll(m); err != nil {
			c.t.Fatal(err)
		}
	}
}

// spoil flips a bit at an offset of the chunk of a file, in one copy or all.
func (c *cluster) spoil(hint string, all bool, at int64) {
	c.t.Helper()
	spoiled := 0
	for _, disk := range c.disks() {
		err := filepath.WalkDir(filepath.Join(disk, "chunks"), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || spoiled > 0 && !all {
				return err
			}
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			head := make([]byte, 1152)
			if _, err := f.ReadAt(head, 0); err != nil || !bytes.Contains(head, []byte(hint)) {
				return err
			}
			spoiled++
			var b [1]byte
			if _, err := f.ReadAt(b[:], at); err != nil {
				return err
			}
			b[0] ^= 4
			_, err = f.WriteAt(b[:], at)
			return err
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if spoiled == 0 || all && spoiled != 2 {
		c.t.Fatalf("%d chunks of %s are spoiled", spoiled, hint)
	}
}

// interrupted begins to put files into the new cluster, whose volume is
// mounted at dir, and is killed when some are there.
func (c *cluster) interrupted(lost *cluster, dir string) {
	c.t.Helper()
	cmd := exec.Command(binary, append([]string{"inspect", "rebuild", "--into-volume", "main"}, lost.disks()...)...)
	cmd.Env = append(os.Environ(), "ASHLAR_CLUSTER="+filepath.Join(c.dir, "client.toml"))
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.poll("some files are there whole", func() bool {
		whole := 0
		names, _ := filepath.Glob(filepath.Join(dir, "dir*", "hard", "*"))
		for _, n := range names {
			st, err := os.Stat(n)
			if _, xerr := syscall.Getxattr(n, "user.ashlar.rebuild", nil); err == nil && xerr != nil && st.Size() > 0 {
				whole++
			}
		}
		return whole >= 3
	})
	_ = cmd.Process.Kill() // it may be done
	_ = cmd.Wait()
}

// checkTree compares files with what was written, but for some. What has no
// name is under another.
func checkTree(t *testing.T, dir string, want map[string]wrote, but ...string) {
	t.Helper()
	for name, w := range want {
		skip := false
		for _, b := range but {
			skip = skip || b == name
		}
		at := filepath.Join(dir, name)
		if name == "dir2/without its name" {
			at = nameless(t, dir, w)
		}
		if err := w.is(at); err != nil && !skip {
			t.Errorf("%q: %v", name, err)
		}
	}
	found := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found++
		}
		return err
	})
	if err != nil || found != len(want) {
		t.Errorf("%d files came back, %d were written (%v)", found, len(want), err)
	}
}

// nameless finds the file in lost+found that holds what was written.
func nameless(t *testing.T, dir string, w wrote) string {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, inspect.LostFound, "*"))
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil && bytes.Equal(b, w.data) {
			return n
		}
	}
	t.Errorf("not in lost+found, where there are %q", names)
	return dir
}

// marked fails unless just this file is marked as incomplete.
func marked(t *testing.T, dir, name string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, xerr := syscall.Getxattr(p, "user.ashlar.rebuild", make([]byte, 100))
		if has := xerr == nil && n > 0; has != (p == filepath.Join(dir, name)) {
			t.Errorf("%s: marked as incomplete: %v (%v)", p, has, xerr)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// empty removes all that is in a directory.
func empty(t *testing.T, dir string) {
	t.Helper()
	ds, err := os.ReadDir(dir)
	for _, d := range ds {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, d.Name())))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// create writes a file through the mount.
func (c *cluster) create(name string, w wrote) {
	c.t.Helper()
	p := filepath.Join(c.mnt, name)
	err := os.MkdirAll(filepath.Dir(p), 0o755)
	if err == nil { // as the user's own program would: owned and moded before it is written
		err = os.WriteFile(p, nil, 0o600)
	}
	if err == nil {
		err = errors.Join(os.Chown(p, w.uid, w.gid), os.Chmod(p, w.mode))
	}
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(p, os.O_WRONLY, 0); err == nil {
			_, err = f.Write(w.data)
			err = errors.Join(err, f.Sync(), f.Close())
		}
	}
	if err == nil {
		err = os.Chtimes(p, w.mtime, w.mtime)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// is compares a file with what was written.
func (w wrote) is(name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	if int(sys.Uid) != w.uid || int(sys.Gid) != w.gid || st.Mode() != w.mode {
		return fmt.Errorf("owner %d:%d mode %v, want %d:%d %v", sys.Uid, sys.Gid, st.Mode(), w.uid, w.gid, w.mode)
	}
	if !w.mtime.IsZero() && !st.ModTime().Equal(w.mtime) {
		return fmt.Errorf("changed at %v, want %v", st.ModTime(), w.mtime)
	}
	b, err := os.ReadFile(name)
	if err == nil && !bytes.Equal(b, w.data) {
		err = fmt.Errorf("%d bytes differ from the %d written", len(b), len(w.data))
	}
	return err
}
