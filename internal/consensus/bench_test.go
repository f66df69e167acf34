package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/vfs"
)

// countingMachine tells how far it has applied and keeps nothing.
type countingMachine struct {
	machine
	at   atomic.Uint64
	mu   sync.Mutex
	wake chan struct{} // closed at each Apply
}

func (m *countingMachine) Apply(entries []Entry) error {
	m.at.Store(entries[len(entries)-1].Index)
	m.mu.Lock()
	close(m.wake)
	m.wake = make(chan struct{})
	m.mu.Unlock()
	return nil
}

func (m *countingMachine) AppliedIndex() uint64       { return m.at.Load() }
func (m *countingMachine) Flush() (uint64, error)     { return m.at.Load(), nil }
func (m *countingMachine) LeaderChanged(l Leadership) {}

func (m *countingMachine) waitFor(index uint64) {
	for {
		m.mu.Lock()
		wake := m.wake
		m.mu.Unlock()
		if m.at.Load() >= index {
			return
		}
		<-wake
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprint("inflight=", inFlight), func(b *testing.B) { benchmarkPropose(b, inFlight) })
	}
}

func benchmarkPropose(b *testing.B, inFlight int) {
	net := newNetwork(b)
	var members []Member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, testMember(id))
	}
	nodes, machines := map[uint64]*Node{}, map[uint64]*countingMachine{}
	for _, m := range members {
		machines[m.ID] = &countingMachine{wake: make(chan struct{})}
		n, err := Start(Config{
			ID: m.ID, Cluster: testCluster, Dir: b.TempDir(), FS: vfs.OS, Bootstrap: members,
			Transport: port{net, m.ID}, Machine: machines[m.ID],
		})
		ok(b, err)
		nodes[m.ID] = n
		net.mu.Lock()
		net.nodes[m.ID] = n
		net.mu.Unlock()
		defer n.Kill()
	}
	var lead uint64
	eventually(b, "a leader", func() bool {
		for id, n := range nodes {
			if _, _, ready := n.NextIndex(); ready {
				lead = id
			}
		}
		return lead != 0
	})
	data := bytes.Repeat([]byte{7}, 300)
	n, m := nodes[lead], machines[lead]
	var latency atomic.Int64
	var evaluator sync.Mutex // proposals are one at a time, as a leader's are
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			for range work {
				begin := time.Now()
				evaluator.Lock()
				term, index, _ := n.NextIndex()
				err := n.Propose(term, index, data)
				evaluator.Unlock()
				if err != nil && !errors.Is(err, ErrMoved) {
					b.Error(err)
				}
				m.waitFor(index)
				latency.Add(int64(time.Since(begin)))
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(latency.Load())/float64(b.N)/1e3, "µs/op-latency")
}
