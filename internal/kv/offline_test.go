package kv_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// contents returns every file below dir.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	ok(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[name], err = os.ReadFile(name)
		return err
	}))
	return out
}

func TestReadReadsAllAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := kv.Open(kv.Options{Dir: filepath.Join(dir, "s"), Cluster: ashlar.ClusterID{3}})
	ok(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(300) {
		v := make([]byte, 100)
		for k := range v {
			v[k] = byte(rng.Uint32())
		}
		ok(t, s.Apply([]kv.Op{{Key: fmt.Appendf(nil, "%08d", i), Value: v}}, i+1))
	}
	_, err = s.Checkpoint(filepath.Join(dir, "c"))
	ok(t, err)
	ok(t, s.Close())
	for _, name := range []string{"s", "c"} {
		at := filepath.Join(dir, name)
		before := contents(t, at)
		keys := 0
		applied, unnamed, err := kv.Read(vfs.ReadOnly, at, func(_, _ []byte) error { keys++; return nil })
		if err != nil || applied != 300 || keys != 300 || len(unnamed) > 0 {
			t.Errorf("%s: %d keys, applied %d, unnamed %q, %v", name, keys, applied, unnamed, err)
		}
		after := contents(t, at)
		for f, b := range before {
			if !bytes.Equal(after[f], b) {
				t.Errorf("%s was changed", f)
			}
		}
		if len(after) != len(before) {
			t.Errorf("%d files became %d", len(before), len(after))
		}
	}
	damageIsFound(t, filepath.Join(dir, "c"), rng)
}

// damageIsFound flips bits in tables, cuts them short and takes them away.
func damageIsFound(t *testing.T, dir string, rng *rand.Rand) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	ok(t, err)
	for _, name := range tables {
		whole, err := os.ReadFile(name)
		ok(t, err)
		check := func(what string, b []byte) {
			t.Helper()
			// Checkpoints share their tables by hard link: a new file.
			ok(t, os.Remove(name))
			if b != nil {
				ok(t, os.WriteFile(name, b, 0o600))
			}
			if _, _, err := kv.Read(vfs.ReadOnly, dir, func(_, _ []byte) error { return nil }); ashlar.KindOf(err) != ashlar.Corrupt {
				t.Errorf("%s with %s: %v", name, what, err)
			}
			ok(t, os.WriteFile(name, whole, 0o600))
		}
		for range 40 {
			b := bytes.Clone(whole)
			at := rng.IntN(len(b) - 60) // what is before the footer
			b[at] ^= 1 << rng.IntN(8)
			check(fmt.Sprintf("a changed bit at %d of %d", at, len(b)), b)
		}
		check("its end missing", whole[:len(whole)/2])
		check("nothing in it", []byte{})
		check("no table", nil)
	}
	if _, _, err := kv.Read(vfs.ReadOnly, dir, func(_, _ []byte) error { return nil }); err != nil {
		t.Error(err)
	}
}
