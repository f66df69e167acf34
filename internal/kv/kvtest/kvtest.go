// Package kvtest is the conformance suite of the ordered store: what it must
// do on any disk. A package runs it with one call of Run.
package kvtest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// Run checks stores on the disks that open returns; each call gives one with
// an empty directory.
func Run(t *testing.T, open func(t *testing.T) (fsys vfs.FS, dir string)) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fsys, dir := open(t)
			e := &env{t: t, fs: fsys, dir: dir}
			e.open()
			defer e.close()
			c.check(t, e)
		})
	}
}

var cases = []struct {
	name  string
	check func(t *testing.T, e *env)
}{
	{"a batch is applied whole with its index", batchIsApplied},
	{"an index is applied once", indexIsAppliedOnce},
	{"scans go both ways within bounds", scansGoBothWays},
	{"a view does not change", viewDoesNotChange},
	{"what was flushed is there after reopening", flushedSurvivesReopen},
	{"a checkpoint restores into another store", checkpointRestores},
	{"a view outlives a restore", viewOutlivesRestore},
	{"a bad checkpoint is refused and changes nothing", badCheckpointRefused},
	{"a directory of another cluster is refused", otherClusterRefused},
	{"a second opener is refused", secondOpenerRefused},
	{"a callback may use the store", callbackMayUseStore},
	{"bad keys are refused", badKeysRefused},
}

type env struct {
	t   *testing.T
	fs  vfs.FS
	dir string
	s   *kv.Store
}

var cluster = ashlar.ClusterID{1, 2, 3}

func (e *env) open() { e.s = e.openAt(path.Join(e.dir, "store")) }

func (e *env) openAt(dir string) *kv.Store {
	e.t.Helper()
	s, err := kv.Open(kv.Options{Dir: dir, FS: e.fs, Cluster: cluster, CacheBytes: 1 << 20})
	ok(e.t, err)
	return s
}

func (e *env) close() {
	e.t.Helper()
	ok(e.t, e.s.Close())
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func set(k, v string) kv.Op { return kv.Op{Key: []byte(k), Value: []byte(v)} }
func del(k string) kv.Op    { return kv.Op{Key: []byte(k), Delete: true} }

func (e *env) apply(index uint64, ops ...kv.Op) {
	e.t.Helper()
	ok(e.t, e.s.Apply(ops, index))
}

type reader interface {
	Get(key []byte) ([]byte, bool, error)
	Scan(lo, hi []byte, reverse bool, fn func(k, v []byte) bool) error
}

func want(t *testing.T, r reader, content ...string) {
	t.Helper()
	var got []string
	ok(t, r.Scan(nil, nil, false, func(k, v []byte) bool {
		got = append(got, string(k)+"="+string(v))
		return true
	}))
	if !slices.Equal(got, content) {
		t.Fatalf("holds %v, want %v", got, content)
	}
}

func batchIsApplied(t *testing.T, e *env) {
	e.apply(5, set("a", "1"), set("b", "2"), set("a", "3"), del("b"), set("c", ""))
	want(t, e.s, "a=3", "c=")
	if v, found, err := e.s.Get([]byte("a")); err != nil || !found || string(v) != "3" {
		t.Fatalf("get a: %q %v %v", v, found, err)
	}
	if _, found, err := e.s.Get([]byte("b")); err != nil || found {
		t.Fatalf("get b: %v %v", found, err)
	}
	if got := e.s.Applied(); got != 5 {
		t.Fatalf("applied %d", got)
	}
	e.apply(6)
	if got := e.s.Applied(); got != 6 {
		t.Fatalf("applied %d after an empty batch", got)
	}
}

func indexIsAppliedOnce(t *testing.T, e *env) {
	e.apply(5, set("a", "1"))
	for _, i := range []uint64{5, 4, 0} {
		if err := e.s.Apply([]kv.Op{set("a", "2")}, i); !errors.Is(err, ashlar.Invalid) {
			t.Fatalf("applied %d again: %v", i, err)
		}
	}
	want(t, e.s, "a=1")
}

func scansGoBothWays(t *testing.T, e *env) {
	e.apply(1, set("a", ""), set("b", ""), set("ba", ""), set("c", ""), set("\xff", ""))
	for _, c := range []struct {
		lo, hi  string
		reverse bool
		max     int
		want    string
	}{
		{"a", "c", false, 9, "[a b ba]"},
		{"a", "c", true, 9, "[ba b a]"},
		{"b", "", false, 9, "[b ba c \xff]"},
		{"", "", true, 2, "[\xff c]"},
		{"b", "b", false, 9, "[]"},
	} {
		var got []string
		var hi []byte
		if c.hi != "" {
			hi = []byte(c.hi)
		}
		ok(t, e.s.Scan([]byte(c.lo), hi, c.reverse, func(k, _ []byte) bool {
			got = append(got, string(k))
			return len(got) < c.max
		}))
		if fmt.Sprint(got) != c.want {
			t.Errorf("scan %q-%q reverse %v: %q, want %q", c.lo, c.hi, c.reverse, got, c.want)
		}
	}
}

func viewDoesNotChange(t *testing.T, e *env) {
	e.apply(1, set("a", "1"))
	v, err := e.s.Snapshot()
	ok(t, err)
	defer v.Close()
	e.apply(2, set("a", "2"), set("b", "2"))
	want(t, v, "a=1")
	want(t, e.s, "a=2", "b=2")
	if at, err := v.Applied(); err != nil || at != 1 {
		t.Fatalf("view as of %d: %v", at, err)
	}
	ok(t, v.Close())
	ok(t, v.Close())
}

func flushedSurvivesReopen(t *testing.T, e *env) {
	e.apply(1, set("a", "1"))
	e.apply(2, set("b", "2"))
	at, err := e.s.Flushed()
	ok(t, err)
	if at != 2 {
		t.Fatalf("flushed %d", at)
	}
	e.close()
	e.open()
	want(t, e.s, "a=1", "b=2")
	if got := e.s.Applied(); got != 2 {
		t.Fatalf("applied %d", got)
	}
}

func checkpointRestores(t *testing.T, e *env) {
	e.apply(7, set("a", "7"))
	ck := path.Join(e.dir, "ck")
	at, err := e.s.Checkpoint(ck)
	ok(t, err)
	if at != 7 {
		t.Fatalf("checkpoint as of %d", at)
	}
	e.apply(8, set("a", "8"))

	other := e.openAt(path.Join(e.dir, "other"))
	ok(t, other.Apply([]kv.Op{set("z", "1")}, 1))
	at, err = other.Restore(ck)
	ok(t, err)
	if at != 7 || other.Applied() != 7 {
		t.Fatalf("restored %d, applied %d", at, other.Applied())
	}
	want(t, other, "a=7")
	ok(t, other.Apply([]kv.Op{set("b", "8")}, 8))
	_, err = other.Flushed()
	ok(t, err)
	ok(t, other.Close())
	other = e.openAt(path.Join(e.dir, "other"))
	want(t, other, "a=7", "b=8")
	ok(t, other.Close())
	want(t, e.s, "a=8")
}

func viewOutlivesRestore(t *testing.T, e *env) {
	e.apply(1, set("a", "1"))
	ck := path.Join(e.dir, "ck")
	_, err := e.s.Checkpoint(ck)
	ok(t, err)
	e.apply(2, set("a", "2"))
	v, err := e.s.Snapshot()
	ok(t, err)
	_, err = e.s.Restore(ck)
	ok(t, err)
	want(t, v, "a=2")
	want(t, e.s, "a=1")
	ok(t, v.Close())
}

func badCheckpointRefused(t *testing.T, e *env) {
	e.apply(1, set("a", "1"))
	if _, err := e.s.Restore(path.Join(e.dir, "none")); err == nil {
		t.Fatal("restored from nothing")
	}
	ok(t, e.fs.MkdirAll(path.Join(e.dir, "empty")))
	if _, err := e.s.Restore(path.Join(e.dir, "empty")); err == nil {
		t.Fatal("restored from an empty directory")
	}
	want(t, e.s, "a=1")
}

func otherClusterRefused(t *testing.T, e *env) {
	e.close()
	_, err := kv.Open(kv.Options{Dir: path.Join(e.dir, "store"), FS: e.fs, Cluster: ashlar.ClusterID{9}})
	if !errors.Is(err, ashlar.WrongCluster) {
		t.Fatalf("opened with another cluster: %v", err)
	}
	e.open()
}

func secondOpenerRefused(t *testing.T, e *env) {
	_, err := kv.Open(kv.Options{Dir: path.Join(e.dir, "store"), FS: e.fs, Cluster: cluster})
	if !errors.Is(err, ashlar.Busy) {
		t.Fatalf("opened twice: %v", err)
	}
}

func callbackMayUseStore(t *testing.T, e *env) {
	e.apply(1, set("a", "1"), set("b", "2"))
	ok(t, e.s.Scan(nil, nil, false, func(k, _ []byte) bool {
		ok(t, e.s.Apply([]kv.Op{set("z"+string(k), "3")}, e.s.Applied()+1))
		return true
	}))
	want(t, e.s, "a=1", "b=2", "za=3", "zb=3")
}

func badKeysRefused(t *testing.T, e *env) {
	for _, k := range []string{"", "\xff\xffapplied", string(make([]byte, kv.KeyMax+1))} {
		if err := e.s.Apply([]kv.Op{set("good", "1"), set(k, "x")}, 1); !errors.Is(err, ashlar.Invalid) {
			t.Errorf("key of %d bytes: %v", len(k), err)
		}
	}
	want(t, e.s)
}
