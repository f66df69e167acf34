package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var testCluster = ashlar.ClusterID{7, 7}

const testChunk = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openDisk makes and opens a disk.
func openDisk(t testing.TB, dir string) *chunkstore.Disk {
	t.Helper()
	ok, err := chunkstore.Formatted(vfs.OS, dir)
	must(t, err)
	if !ok {
		must(t, chunkstore.Format(vfs.OS, dir, testCluster))
	}
	d, err := chunkstore.Open(chunkstore.Config{FS: vfs.OS, Dir: dir, Cluster: testCluster, BootID: "b", Reserve: 1})
	must(t, err)
	return d
}

// put writes to a chunk.
func put(t testing.TB, d *chunkstore.Disk, k chunkstore.Key, off uint32, data []byte, e ashlar.Epoch, o wire.Origin) {
	t.Helper()
	must(t, d.Write(k, &chunkstore.Write{
		Off: off, Len: uint32(len(data)), Data: data, Sums: checksum.Append(nil, uint64(off), data), ChunkSize: testChunk, Origin: o, Epoch: e,
	}))
}

func inSync(t testing.TB, d *chunkstore.Disk, g ashlar.PGID, e ashlar.Epoch) {
	t.Helper()
	must(t, d.SetGroup(chunkstore.GroupRecord{Config: ashlar.Group{ID: g, Epoch: e}, LastInSync: e, Adopted: e}))
}

// makeTree makes a directory with every kind of thing in it.
func makeTree(t testing.TB) string {
	dir := t.TempDir()
	d := openDisk(t, dir+"/disk1")
	inSync(t, d, 1, 3)
	must(t, d.SetGeneration(1, 9, 4))
	put(t, d, chunkstore.Key{Group: 1, Layer: 9}, 5, bytes.Repeat([]byte("data"), 50000), 3, wire.Origin{Owner: 4, Hint: "main:/a"})
	put(t, d, chunkstore.Key{Group: 1, Layer: 10, Index: 2}, 0, []byte("x"), 3, wire.Origin{Owner: 5, Hint: "main:/b"})
	_, err := d.Inflight().Begin(1, 3, 1, &wire.Inflight{Session: 1, Seq: 2, Layer: 11, Len: 5, Gen: 1})
	must(t, err)
	must(t, d.Close())

	l, _, err := wal.Open(wal.Options{Dir: dir + "/log", FS: vfs.OS, Cluster: testCluster, SegmentBytes: 64 << 10})
	must(t, err)
	one := uint64(1)
	for i := uint64(1); i < 200; i++ {
		must(t, l.Append(wal.Batch{Hard: &wal.Hard{Term: 1, Vote: 1, Commit: i - 1}, Entries: []*raftpb.Entry{{Index: &i, Term: &one}}}))
	}
	must(t, l.Close())

	s, err := kv.Open(kv.Options{Dir: dir + "/store", Cluster: testCluster})
	must(t, err)
	for i := range uint64(500) {
		must(t, s.Apply([]kv.Op{{Key: []byte{0, 0, byte(i), byte(i >> 8)}, Value: bytes.Repeat([]byte{byte(i)}, 100)}}, i+1))
	}
	_, err = s.Flushed()
	must(t, err)
	_, err = s.Checkpoint(dir + "/checkpoint")
	must(t, err)
	must(t, s.Close())
	return dir
}

func walk(t testing.TB, name string, entries bool) (*Walker, []*Report) {
	t.Helper()
	var out []*Report
	w := &Walker{Options: Options{FS: vfs.ReadOnly, Entries: entries}, Each: func(r *Report) { out = append(out, r) }}
	must(t, w.Walk(context.Background(), name))
	return w, out
}

// contents is every file below a directory, to see that looking changes none.
func contents(t testing.TB, dir string) map[string]string {
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	}))
	return out
}

func TestEveryKindOfFileIsKnownAndVerified(t *testing.T) {
	dir := makeTree(t)
	before := contents(t, dir)
	w, reports := walk(t, dir, true)
	kinds := map[string]int{}
	for _, r := range reports {
		kinds[r.Kind]++
		if r.Status != OK {
			t.Errorf("%s: %s %v", r.Path, r.Status, r.Problems)
		}
		if r.Kind != "log" && r.Cluster != testCluster.String() {
			t.Errorf("%s (%s): cluster %q", r.Path, r.Kind, r.Cluster)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	}
	for _, k := range []string{"disk identity", "dirty marks", "group records", "writes in flight", "chunk", "log segment", "log", "store", "checkpoint"} {
		if kinds[k] == 0 {
			t.Errorf("no %s among %v", k, kinds)
		}
	}
	if w.Totals.Damaged+w.Totals.Foreign+w.Totals.Failed+w.Totals.Newer != 0 {
		t.Errorf("%+v", w.Totals)
	}
	after := contents(t, dir)
	if len(before) != len(after) {
		t.Fatalf("%d files before, %d after", len(before), len(after))
	}
	for p, b := range before {
		if after[p] != b {
			t.Errorf("looking at %s changed it", p)
		}
	}
}

// files lists what is below a directory, without what is meant to be ignored.
func files(t testing.TB, dir string) (out []string) {
	for p := range contents(t, dir) {
		if !ignored(filepath.Base(p)) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func TestDamageIsNamedWhereverItIs(t *testing.T) {
	dir := makeTree(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, p := range files(t, dir) {
		if strings.HasPrefix(filepath.Base(p), "OPTIONS") || strings.HasPrefix(filepath.Base(p), "marker") || strings.HasSuffix(p, ".log") {
			continue // the engine's own: without a checksum, or not used
		}
		b, err := os.ReadFile(p)
		must(t, err)
		if len(b) == 0 {
			continue
		}
		end := 64
		if strings.Contains(p, "disk1/chunks") {
			end = 128 // the hint after it is only a hint
		}
		at := rng.IntN(min(end, len(b)))
		if strings.HasSuffix(p, ".sst") {
			at = rng.IntN(len(b))
		}
		for what, change := range map[string]func() []byte{
			"a flipped bit":   func() []byte { c := bytes.Clone(b); c[at] ^= 1 << rng.IntN(8); return c },
			"cut short":       func() []byte { return b[:min(len(b)/2, 40)] },
			"emptied":         func() []byte { return nil },
			"other contents":  func() []byte { return bytes.Repeat([]byte("garbage!"), 1000) },
			"bits everywhere": func() []byte { return flipMany(rng, b) },
		} {
			must(t, os.WriteFile(p, change(), 0o600))
			w, reports := walk(t, dir, true)
			if w.Totals.Damaged+w.Totals.Newer == 0 {
				t.Errorf("%s of %s was not found in %d reports", what, p, len(reports))
			}
		}
		must(t, os.WriteFile(p, b, 0o600))
	}
	if w, _ := walk(t, dir, false); w.Totals.Damaged != 0 {
		t.Fatal("the files were not put back")
	}
}

func flipMany(rng *rand.Rand, b []byte) []byte {
	c := bytes.Clone(b)
	for i := 0; i < len(c); i += 1 + rng.IntN(20) {
		c[i] ^= byte(1 + rng.IntN(255))
	}
	return c
}

func TestForeignAndNewerFilesAreSaidToBeThat(t *testing.T) {
	dir := makeTree(t)
	name := dir + "/letter.txt"
	must(t, os.WriteFile(name, []byte("dear"), 0o600))
	if r := Look(Options{FS: vfs.ReadOnly}, name); r.Status != Foreign {
		t.Errorf("%+v", r)
	}
	p := dir + "/disk1/groups"
	b, err := os.ReadFile(p)
	must(t, err)
	b[8] = 99 // the version; its checksum made right
	sum := checksum.Of(b[:60])
	b[60], b[61], b[62], b[63] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	must(t, os.WriteFile(p, b, 0o600))
	if r := Look(Options{FS: vfs.ReadOnly}, p); r.Status != Newer || !strings.Contains(r.Problems[0], "version 99") {
		t.Errorf("%+v", r)
	}
	if r := Look(Options{FS: vfs.ReadOnly}, dir+"/nothing"); r.Status != Failed {
		t.Errorf("%+v", r)
	}
}

func TestATornChunkThatIsMarkedDirtyIsNoDamage(t *testing.T) {
	dir := t.TempDir() + "/disk"
	d := openDisk(t, dir)
	k := chunkstore.Key{Group: 1, Layer: 9}
	put(t, d, k, 0, bytes.Repeat([]byte("a"), 8192), 1, wire.Origin{})
	must(t, d.Abandon()) // as killed: the marks stay
	name := dir + "/chunks/00000001/00/0000000000000009.00000000"
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("b"), 64<<10+5000)
	must(t, errors.Join(err, f.Close()))
	w, reports := walk(t, dir, false)
	if w.Totals.Damaged != 0 || w.Totals.Notes == 0 {
		t.Fatalf("marked: %+v %+v", w.Totals, reports)
	}
	d = openDisk(t, dir)
	must(t, d.Close())
	if w, _ := walk(t, dir, false); w.Totals.Damaged != 1 {
		t.Fatalf("clean: %+v", w.Totals)
	}
	must(t, os.Rename(name, dir+"/chunks/00000001/00/0000000000000008.00000000"))
	if w, _ := walk(t, dir, false); w.Totals.Damaged != 1 {
		t.Fatalf("misplaced: %+v", w.Totals)
	}
}

func FuzzLook(f *testing.F) {
	dir := makeTree(f)
	for p, b := range contents(f, dir) {
		if len(b) < 256<<10 && !ignored(filepath.Base(p)) {
			f.Add(filepath.Base(p), []byte(b))
		}
	}
	out := f.TempDir()
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		p := filepath.Join(out, "f")
		if x := filepath.Base(name); expected(x) != "" && len(x) < 64 {
			p = filepath.Join(out, x)
		}
		must(t, os.WriteFile(p, b, 0o600))
		r := Look(Options{FS: vfs.ReadOnly, Entries: true}, p)
		if r.Status == Damaged && len(r.Problems) == 0 {
			t.Fatal("damage without a word")
		}
	})
}
