package master

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
)

// Power may fail before every step of writing MASTER: it is the one before, the
// new one, or not there if it never was.
func TestMasterIsOldOrNewAfterPowerLoss(t *testing.T) {
	for seed := range crashtest.Seeds(t, 4) {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("/m"); err != nil {
			t.Fatal(err)
		}
		if err := mem.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		written, begun := uint64(0), uint64(0)
		at := func(fs vfs.FS) *Master {
			return &Master{cfg: Config{Dir: "/m", FS: fs, Cluster: ashlar.ClusterID{1}}}
		}
		fs := crashtest.New(mem, seed, func(clone *vfs.Mem, where string) {
			got, err := at(clone).readIdentity()
			if err != nil {
				t.Errorf("%s: %v", where, err)
				return
			}
			id := uint64(0)
			if got != nil {
				id = got.ID
			}
			if id != written && id != begun {
				t.Errorf("%s: member %d, written %d, being written %d", where, id, written, begun)
			}
		})
		for id := uint64(1); id < 6; id++ {
			fs.Do(func() { begun = id })
			err := at(fs).writeIdentity(&identity{ID: id, First: []consensus.Member{{ID: id, Name: "n", Addr: "a:1"}}})
			if err != nil {
				t.Fatal(err)
			}
			fs.Do(func() { written = id })
		}
	}
}

func FuzzReadIdentityFile(f *testing.F) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("/m"); err != nil {
		f.Fatal(err)
	}
	m := &Master{cfg: Config{Dir: "/m", FS: mem, Cluster: ashlar.ClusterID{1}}}
	if err := m.writeIdentity(&identity{ID: 3, First: []consensus.Member{{ID: 3, Name: "n", Addr: "a:1"}}}); err != nil {
		f.Fatal(err)
	}
	file, err := mem.Open("/m/MASTER")
	if err != nil {
		f.Fatal(err)
	}
	b := make([]byte, 200)
	n, _ := file.ReadAt(b, 0)
	f.Add(b[:n])
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := ReadIdentityFile(b, "f"); err == nil && len(id.First) > bootstrapMax {
			t.Fatal("too many members")
		}
	})
}
