package consensus

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// storeMachine is a state machine on the masters' real store: entry i sets
// key "i" to its data.
type storeMachine struct {
	t testing.TB
	s *kv.Store
}

func newStoreMachine(t testing.TB, fsys vfs.FS) *storeMachine {
	s, err := kv.Open(kv.Options{Dir: "/store", FS: fsys, Cluster: testCluster, CacheBytes: 1 << 20})
	ok(t, err)
	return &storeMachine{t, s}
}

func (m *storeMachine) Apply(entries []Entry) error {
	var b kv.Batch
	for _, e := range entries {
		if e.Data != nil {
			b.Set(fmt.Appendf(nil, "%08d", e.Index), e.Data)
		}
	}
	return m.s.Apply(b.Ops(), entries[len(entries)-1].Index)
}

func (m *storeMachine) AppliedIndex() uint64                  { return m.s.Applied() }
func (m *storeMachine) Flush() (uint64, error)                { return m.s.Flushed() }
func (m *storeMachine) Checkpoint(dir string) (uint64, error) { return m.s.Checkpoint(dir) }
func (m *storeMachine) Restore(dir string) (uint64, error)    { return m.s.Restore(dir) }
func (m *storeMachine) LeaderChanged(Leadership)              {}

// The log and the store together: what is acknowledged is in the store again
// after power loss, and a member far behind gets the store by checkpoint.
func TestLogAndStoreRecoverTogether(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	stores := map[uint64]*storeMachine{}
	var g *group
	g = newGroup(t, 3, func(c *Config) {
		stores[c.ID] = newStoreMachine(t, c.FS)
		c.Machine, c.SnapshotThresholdBytes = stores[c.ID], 64<<10
	})
	g.adjustKill = func(id uint64) { ok(t, stores[id].s.Close()) }
	lead := func() (id uint64) {
		eventually(t, "a leader", func() bool {
			for i, n := range g.nodes {
				if _, _, ready := n.NextIndex(); ready {
					id = i
					return true
				}
			}
			return false
		})
		return id
	}
	acked := map[string]string{}
	put := func(count int) {
		id := lead()
		for range count {
			term, index, _ := g.nodes[id].NextIndex()
			data := fmt.Sprintf("%d %0500d", term, index)
			ok(t, g.nodes[id].Propose(term, index, []byte(data)))
			eventually(t, "applied", func() bool { return stores[id].s.Applied() >= index })
			acked[fmt.Sprintf("%08d", index)] = data
		}
	}
	put(50)
	behind := lead()%3 + 1
	g.kill(behind)
	put(400) // more than the log keeps
	g.start(behind, nil)
	at := stores[lead()].s.Applied()
	eventually(t, "it has caught up", func() bool { return stores[behind].s.Applied() >= at })
	for range 3 {
		put(20)
		for id := uint64(1); id <= 3; id++ {
			clone := g.disks[id].CrashClone(rng)
			g.kill(id)
			g.disks[id] = clone
		}
		for id := uint64(1); id <= 3; id++ {
			g.start(id, nil)
		}
	}
	put(1)
	at = stores[lead()].s.Applied()
	for id, m := range stores {
		eventually(t, "all have caught up", func() bool { return m.s.Applied() >= at })
		for k, v := range acked {
			if got, _, err := m.s.Get([]byte(k)); err != nil || string(got) != v {
				t.Fatalf("member %d: key %s holds %.20q, want %.20q: %v", id, k, got, v, err)
			}
		}
	}
}
