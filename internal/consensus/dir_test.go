package consensus

import (
	"testing"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
)

// Power may fail before every step of a member's start: its IDENTITY is whole,
// and no incarnation that was begun is begun again.
func TestAnIncarnationIsNeverBegunTwice(t *testing.T) {
	for seed := range crashtest.Seeds(t, 4) {
		m := vfs.NewMem()
		begun := uint64(0)
		fs := crashtest.New(m, seed, func(clone *vfs.Mem, at string) {
			c := &Config{ID: 5, Cluster: testCluster, Dir: "/raft", FS: clone}
			lock, n, _, err := openDir(c)
			if err != nil {
				t.Errorf("%s: %v", at, err)
				return
			}
			if n <= begun {
				t.Errorf("%s: incarnation %d after %d", at, n, begun)
			}
			_ = lock.Close()
		})
		for range 5 {
			lock, n, _, err := openDir(&Config{ID: 5, Cluster: testCluster, Dir: "/raft", FS: fs})
			if err != nil {
				t.Fatal(err)
			}
			fs.Do(func() { begun = n })
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzReadIdentityFile(f *testing.F) {
	m := vfs.NewMem()
	c := &Config{ID: 5, Cluster: testCluster, Dir: "/raft", FS: m}
	if _, _, _, err := openDir(c); err != nil {
		f.Fatal(err)
	}
	file, err := m.Open("/raft/IDENTITY")
	if err != nil {
		f.Fatal(err)
	}
	b := make([]byte, identitySize)
	if _, err := file.ReadAt(b, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := ReadIdentityFile(b, "f"); err == nil && len(b) < identitySize {
			t.Fatalf("%+v from %d bytes", id, len(b))
		}
	})
}

func FuzzReadMembers(f *testing.F) {
	m, err := newMembership([]Member{{ID: 1, Name: "n1", Addr: "a:1"}, {ID: 2, Name: "n2", Addr: "b:2", Learner: true}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := ReadMembers(b); err == nil && len(list) > membersMax {
			t.Fatalf("%d members", len(list))
		}
	})
}
