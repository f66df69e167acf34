package chunkserver

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Power may fail before every step of making a chunkserver's identity: it is
// whole or not there, and one that was told to others stays.
func TestAnIdentityOnceMadeStays(t *testing.T) {
	for seed := range crashtest.Seeds(t, 4) {
		var made wire.UUID
		fs := crashtest.New(vfs.NewMem(), seed, func(clone *vfs.Mem, at string) {
			id, err := openIdentity(clone, "/data/cs", testCluster)
			if err != nil {
				t.Errorf("%s: %v", at, err)
				return
			}
			if made != (wire.UUID{}) && id.uuid != made {
				t.Errorf("%s: another identity", at)
			}
			_ = id.lock.Close()
		})
		for range 2 {
			id, err := openIdentity(fs, "/data/cs", testCluster)
			if err != nil {
				t.Fatal(err)
			}
			fs.Do(func() { made = id.uuid })
			if err := id.lock.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzReadIdentityFile(f *testing.F) {
	m := vfs.NewMem()
	id, err := openIdentity(m, "/d", ashlar.ClusterID{1})
	if err != nil {
		f.Fatal(err)
	}
	_ = id.lock.Close()
	file, err := m.Open("/d/chunkserver")
	if err != nil {
		f.Fatal(err)
	}
	b := make([]byte, identitySize)
	if _, err := file.ReadAt(b, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := ReadIdentityFile(b, "f"); err == nil && len(b) < identitySize {
			t.Fatal("too short, and taken")
		}
	})
}
