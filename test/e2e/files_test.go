package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/wire"
)

// source is the tree that is copied: about ten thousand files, or what
// ASHLAR_E2E_TREE names, for trying the test out on a smaller one.
func source(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("ASHLAR_E2E_TREE"); dir != "" {
		return dir
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

// same fails unless two trees are equal in every byte and attribute.
func (c *cluster) same(want, got string) {
	c.t.Helper()
	diff, err := differences(want, got)
	if err != nil {
		c.t.Error(err)
	}
	for _, d := range diff {
		c.t.Error(d)
	}
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// TestFilesSurviveWhateverIsKilled is the promise in one test: every
// acknowledged write and file operation survives any single failure, and the
// death of all processes at once.
func TestFilesSurviveWhateverIsKilled(t *testing.T) {
	c := start(t)
	src := source(t)
	one, two := filepath.Join(c.mnt, "one"), filepath.Join(c.mnt, "two")

	var files atomic.Int64
	step(t, "a source tree is copied in", func() {
		if err := copyTree(c.ctx, src, one, &files); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d files", files.Load())
	})
	total := files.Load()

	step(t, "the leader's node and then another die during a second copy", func() {
		var second atomic.Int64
		done := make(chan error, 1)
		go func() { done <- copyTree(c.ctx, src, two, &second) }()
		c.poll("a part is copied", func() bool { return second.Load() > total/10 })
		first := c.leader()
		c.dev("kill", first)
		t.Logf("killed %s, the leader, after %d files", first, second.Load())
		c.poll("another leads", func() bool { l := c.devStatus().Leader; return l != "" && l != first })
		c.restart(first)
		c.redundant()
		other := other(first, mathrand.IntN(2))
		c.dev("kill", other)
		t.Logf("killed %s after %d files", other, second.Load())
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.restart(other)
	})
	step(t, "redundancy comes back by itself", c.redundant)
	step(t, "every byte and attribute is there", func() {
		c.freshMount(func(dir string) {
			c.same(src, filepath.Join(dir, "one"))
			c.same(src, filepath.Join(dir, "two"))
		})
	})
	step(t, "scrub finds no damage", c.scrub)

	step(t, "all nodes die at once and start in any order", func() {
		c.killAll()
		for _, i := range mathrand.Perm(3) {
			c.dev("start", "n"+string(rune('1'+i)))
		}
		c.redundant()
		c.freshMount(func(dir string) {
			c.same(src, filepath.Join(dir, "one"))
			c.same(src, filepath.Join(dir, "two"))
		})
	})
	step(t, "the first mount lived through all of it", func() {
		name := filepath.Join(c.mnt, "after")
		if err := os.WriteFile(name, []byte("all is well"), 0o644); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != "all is well" {
			t.Fatalf("read %q, %v", b, err)
		}
	})
}

// step logs what a part of a long test is about and how long it took.
func step(t *testing.T, what string, fn func()) {
	t.Helper()
	began := time.Now()
	fn()
	t.Logf("%s: %.1fs", what, time.Since(began).Seconds())
}

// other returns one of the two nodes that name is not.
func other(name string, i int) string {
	rest := []string{}
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest[i]
}

// scrub verifies every chunk and fails if any block is damaged.
func (c *cluster) scrub() {
	c.t.Helper()
	var passes []struct {
		Node    string `json:"node"`
		Chunks  uint64 `json:"chunks"`
		Damaged uint64 `json:"blocks_damaged"`
	}
	if err := json.Unmarshal(c.ashlar("disk", "scrub", "--wait", "-json"), &passes); err != nil {
		c.t.Fatal(err)
	}
	var chunks uint64
	for _, p := range passes {
		chunks += p.Chunks
		if p.Damaged > 0 {
			c.t.Errorf("%s: %d damaged blocks", p.Node, p.Damaged)
		}
	}
	if want := len(c.devStatus().Nodes); len(passes) != want || chunks == 0 {
		c.t.Errorf("%d of %d nodes verified %d chunks", len(passes), want, chunks)
	}
}

// TestAReturningNodeResyncsOnlyWhatChanged keeps a node away for longer than
// the dead threshold while a little is written, and counts the bytes that
// bring it up to date.
func TestAReturningNodeResyncsOnlyWhatChanged(t *testing.T) {
	const (
		files = 64
		each  = 2 << 20
		fresh = 16 // files, so that some are in groups of the node that is away
		small = 64 << 10
		// slack is for regions of 64 KiB being the unit, metadata aside.
		slack = 16 << 20
	)
	c := start(t)
	data := make([]byte, each)
	rand.Read(data)
	write := func(name string, n int) {
		t.Helper()
		f, err := os.Create(filepath.Join(c.mnt, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		write("old-"+string(rune('A'+i)), each)
	}
	c.redundant()
	node := other(c.leader(), 1)
	c.dev("kill", node)
	var before wire.Status
	c.poll("the masters have given up the node", func() bool {
		var ok bool
		before, ok = c.status()
		return ok && givenUp(&before, node)
	})
	for i := range fresh {
		write("new-"+string(rune('A'+i)), small)
	}
	c.restart(node)
	c.redundant()
	// The disk of the returned node holds about two thirds of all data. What
	// was sent is told with the next renewal.
	var moved int64
	c.poll("bytes were moved", func() bool {
		after, ok := c.status()
		moved = int64(after.Synced) - int64(before.Synced)
		return ok && moved > 0
	})
	t.Logf("%s was away; %d MiB are in the volume, %d KiB changed, %d KiB were moved", node, files*each>>20, fresh*small>>10, moved>>10)
	if moved > fresh*small+slack {
		t.Errorf("%d bytes moved; want at most %d", moved, fresh*small+slack)
	}
	c.freshMount(func(dir string) {
		for i := range fresh {
			b, err := os.ReadFile(filepath.Join(dir, "new-"+string(rune('A'+i))))
			if err != nil || !bytes.Equal(b, data[:small]) {
				t.Errorf("new file %d differs (%v)", i, err)
			}
		}
	})
	c.scrub()
}

// givenUp tells whether no group counts on a node.
func givenUp(st *wire.Status, node string) bool {
	for _, n := range st.Nodes {
		if n.Name == node && n.Alive {
			return false
		}
	}
	for _, g := range st.Groups {
		for _, m := range g.Members {
			if m.Node == node && m.State == "in-sync" {
				return false
			}
		}
	}
	return len(st.Groups) > 0
}
