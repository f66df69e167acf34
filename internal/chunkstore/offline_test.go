package chunkstore

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// diskFiles makes a small disk and returns what is in its files.
func diskFiles(t testing.TB) (files map[string][]byte, chunk []byte) {
	t.Helper()
	m := vfs.NewMem()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(Format(m, "/d", testCluster))
	d, err := Open(Config{FS: m, Dir: "/d", Cluster: testCluster, BootID: "b", Reserve: 1})
	must(err)
	must(d.SetGroup(GroupRecord{Config: ashlar.Group{ID: 1, Epoch: 7}, LastInSync: 6, Adopted: 7}))
	must(d.SetGeneration(1, 9, 3))
	data := bytes.Repeat([]byte("x"), 9000)
	w := &Write{Len: 9000, Data: data, Sums: checksum.Append(nil, 0, data), ChunkSize: 1 << 16, Epoch: 7, Origin: wire.Origin{Owner: 4, Hint: "v:/f"}}
	must(d.Write(Key{1, 9, 2}, w))
	_, err = d.Inflight().Begin(1, 7, 1, &wire.Inflight{Session: 5, Seq: 6, Layer: 9, Gen: 1, Len: 10})
	must(err)
	must(d.Abandon())
	files = map[string][]byte{}
	read := func(name string) []byte {
		f, err := m.Open(name)
		must(err)
		n, err := f.Size()
		must(err)
		b := make([]byte, n)
		if got, _ := f.ReadAt(b, 0); int64(got) != n {
			t.Fatalf("%s: %d of %d bytes", name, got, n)
		}
		return b
	}
	for _, n := range []string{identityName, marksName, groupsName, inflightName} {
		files[n] = read("/d/" + n)
	}
	return files, read("/d/chunks/00000001/00/0000000000000009.00000002")
}

func TestFilesOfAKilledDiskAreReadOffline(t *testing.T) {
	files, chunk := diskFiles(t)
	id, err := ReadIdentityFile(files[identityName], "disk")
	if err != nil || id.Cluster != testCluster || id.Owner != 1 {
		t.Errorf("%+v %v", id, err)
	}
	m, err := ReadMarksFile(files[marksName], "marks")
	if err != nil || m.Boot != "b" || m.Missing || len(m.Ranges) == 0 {
		t.Errorf("%+v %v", m, err)
	}
	g, err := ReadGroupsFile(files[groupsName], "groups")
	if err != nil || len(g.Groups) != 1 || g.Groups[0].LastInSync != 6 || g.Generations[1][9] != 3 {
		t.Errorf("%+v %v", g, err)
	}
	i, err := ReadInflightFile(files[inflightName], "inflight")
	if err != nil || len(i.Entries) != 1 || i.Entries[0].Session != 5 || i.Broken != 0 {
		t.Errorf("%+v %v", i, err)
	}
	c, err := OpenChunkFile(bytes.NewReader(chunk), "chunk")
	if err != nil || c.Info.Key != (Key{1, 9, 2}) || c.Info.Hint != "v:/f" {
		t.Fatalf("%+v %v", c, err)
	}
	if v := c.Verify(); v.Data != 3 || len(v.Bad) != 0 {
		t.Errorf("%+v", v)
	}
	if e, end, ok := c.Region(0); e != 7 || end != 9000 || !ok {
		t.Errorf("epoch %d end %d %v", e, end, ok)
	}
	chunk[64<<10+5000] ^= 1
	if v := c.Verify(); len(v.Bad) != 1 || v.Bad[0] != (Region{4096, 4096}) {
		t.Errorf("%+v", v)
	}
	if _, err := OpenChunkFile(bytes.NewReader(make([]byte, 70000)), "c"); !errors.Is(err, ErrUnborn) {
		t.Errorf("%v", err)
	}
}

func FuzzReadMarksFile(f *testing.F) {
	files, _ := diskFiles(f)
	f.Add(files[marksName][:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ReadMarksFile(b, "f"); err == nil && m.Records > len(b) {
			t.Fatal("more records than bytes")
		}
	})
}

func FuzzReadGroupsFile(f *testing.F) {
	files, _ := diskFiles(f)
	f.Add(files[groupsName][:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := ReadGroupsFile(b, "f"); err == nil && len(g.Groups) > g.Records {
			t.Fatal("more groups than records")
		}
	})
}

func FuzzReadInflightFile(f *testing.F) {
	files, _ := diskFiles(f)
	f.Add(files[inflightName][slotsOff : slotsOff+4*slotSize])
	f.Fuzz(func(t *testing.T, slots []byte) {
		b := bytes.Clone(files[inflightName])
		copy(b[slotsOff:], slots)
		if i, err := ReadInflightFile(b, "f"); err != nil || len(i.Entries) > slotCount {
			t.Fatal(err)
		}
	})
}

func FuzzOpenChunkFile(f *testing.F) {
	_, chunk := diskFiles(f)
	f.Add(chunk[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := OpenChunkFile(bytes.NewReader(b), "f")
		if err != nil {
			return
		}
		if v := c.Verify(); v.Data > c.Regions()*perRegion {
			t.Fatalf("%+v", v)
		}
	})
}
