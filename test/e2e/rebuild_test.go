package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ashlarfs/ashlar/internal/inspect"
)

// wrote is what a file must come back as.
type wrote struct {
	data     []byte
	uid, gid int
	mode     os.FileMode
}

// TestFilesComeBackFromDisksAlone is the drill of
// docs/operations/rebuild-from-disks.md, step by step.
func TestFilesComeBackFromDisksAlone(t *testing.T) {
	c := start(t)
	want := map[string]wrote{}
	step(t, "a tree is written through the mount", func() {
		rng := rand.New(rand.NewPCG(3, 3))
		for i, size := range []int{1, 4095, 4096, 4097, 65536, 100_001, 1 << 20, 5_000_003, 70 << 20} {
			name := fmt.Sprintf("dir%d/sub/file %d", i%3, i)
			w := wrote{make([]byte, size), 1000 + i, 2000 + i, os.FileMode(0o600 + i)}
			for k := range w.data {
				w.data[k] = byte(rng.Uint32())
			}
			c.create(name, w)
			want["main/"+name] = w
		}
		// Renamed: it comes back under the old name, as the page says.
		w := wrote{[]byte("renamed"), 0, 0, 0o644}
		c.create("old", w)
		if err := os.Rename(filepath.Join(c.mnt, "old"), filepath.Join(c.mnt, "new")); err != nil {
			t.Fatal(err)
		}
		want["main/old"] = w
		// Written over and cut.
		w = wrote{bytes.Repeat([]byte("x"), 50_000), 0, 0, 0o644}
		c.create("cut", w)
		if err := os.Truncate(filepath.Join(c.mnt, "cut"), 12_345); err != nil {
			t.Fatal(err)
		}
		w.data = w.data[:12_345]
		want["main/cut"] = w
		c.redundant()
	})

	var disks []string
	step(t, "all nodes die and all masters are destroyed (step 1)", func() {
		c.killAll()
		masters, err := filepath.Glob(filepath.Join(c.dir, "n*", "*", "master"))
		if err != nil || len(masters) != 3 {
			t.Fatalf("masters %v %v", masters, err)
		}
		c.inspected(masters...) // before: everything of theirs verifies
		for _, m := range masters {
			if err := os.RemoveAll(m); err != nil {
				t.Fatal(err)
			}
		}
		if disks, err = filepath.Glob(filepath.Join(c.dir, "n*", "disk*")); err != nil || len(disks) != 3 {
			t.Fatalf("disks %v %v", disks, err)
		}
	})
	step(t, "the disks verify (step 2)", func() { c.inspected(disks...) })
	step(t, "what is there is listed, then extracted (steps 4 and 5)", func() {
		out := filepath.Join(c.dir, "rescued")
		var listed, got struct{ Files []*inspect.File }
		c.json(&listed, append([]string{"inspect", "rebuild", "-json"}, disks...)...)
		c.json(&got, append([]string{"inspect", "rebuild", "-json", "--out", out}, disks...)...)
		if len(listed.Files) != len(got.Files) {
			t.Errorf("%d listed, %d extracted", len(listed.Files), len(got.Files))
		}
		for _, f := range got.Files {
			if !f.Complete() {
				t.Errorf("%s: %+v", f.Place, f.Result)
			}
		}
		for name, w := range want {
			if err := w.is(filepath.Join(out, name)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(got.Files) != len(want) {
			t.Errorf("%d files came back, %d were written", len(got.Files), len(want))
		}
		if _, err := c.try(append([]string{"inspect", "rebuild", "--out", out}, disks...)...); err == nil {
			t.Error("a directory that is not empty was taken")
		}
	})
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
	b, err := os.ReadFile(name)
	if err == nil && !bytes.Equal(b, w.data) {
		err = fmt.Errorf("%d bytes differ from the %d written", len(b), len(w.data))
	}
	return err
}

// inspected verifies directories and everything in them.
func (c *cluster) inspected(dirs ...string) {
	c.t.Helper()
	out, err := c.try(append([]string{"inspect"}, dirs...)...)
	var e *exec.ExitError
	if errors.As(err, &e) || err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
}

// json runs a command and decodes what it prints.
func (c *cluster) json(v any, args ...string) {
	c.t.Helper()
	if err := json.Unmarshal(c.ashlar(args...), v); err != nil {
		c.t.Fatal(err)
	}
}
