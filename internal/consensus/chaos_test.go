package consensus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar/internal/consensus/wal"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// Cuts, kills, power losses and transfers at random, while one evaluator
// proposes wherever it can and readers trust the lease: nothing acknowledged
// is lost (I-1), no lease read is stale (I-2), all members agree.
func TestNothingAcknowledgedIsLostAndNoLeaseReadIsStale(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	g := newGroup(t, 3, func(c *Config) { c.SnapshotThresholdBytes = 64 << 10 })
	var (
		mu    sync.Mutex // of the group's maps
		acked sync.Map   // index → data
		top   atomic.Uint64
		stop  = make(chan struct{})
		wg    sync.WaitGroup
		stale atomic.Pointer[string]
		reads atomic.Int64
	)
	member := func(id uint64) (*Node, *machine) {
		mu.Lock()
		defer mu.Unlock()
		return g.nodes[id], g.machines[id]
	}
	for id := uint64(1); id <= 3; id++ {
		wg.Go(func() { // evaluator
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n, m := member(id)
				if n == nil || !ackOne(n, m, fmt.Sprintf("%d/%d %0200d", id, i, i), &acked, &top, stop) {
					pause(stop)
				}
			}
		})
		wg.Go(func() { // reader
			for {
				select {
				case <-stop:
					return
				default:
				}
				n, m := member(id)
				before := top.Load()
				if n == nil {
					pause(stop)
					continue
				}
				at := m.AppliedIndex()
				if n.LeaseValid() {
					if reads.Add(1); at < before {
						s := fmt.Sprintf("member %d read index %d under its lease, %d was acknowledged", id, at, before)
						stale.Store(&s)
					}
				}
				pause(stop)
			}
		})
	}
	for range 12 {
		id := 1 + rng.Uint64N(3)
		switch rng.IntN(4) {
		case 0:
			g.net.isolate(id, true)
			wait(150 * time.Millisecond)
			g.net.isolate(id, false)
		case 1, 2:
			clone := g.disks[id]
			if rng.IntN(2) == 0 {
				clone = clone.CrashClone(rng)
			}
			mu.Lock()
			g.kill(id)
			mu.Unlock()
			g.disks[id] = clone
			wait(100 * time.Millisecond)
			mu.Lock()
			g.start(id, nil)
			mu.Unlock()
		case 3:
			n, _ := member(id)
			_ = n.TransferLeadership(within(t)) // if it leads
		}
		wait(100 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	if s := stale.Load(); s != nil {
		t.Fatal(*s)
	}
	var lead uint64
	eventually(t, "the group takes changes again", func() bool {
		lead = g.leader()
		return g.put(lead, "end") == nil
	})
	n := len(g.machines[lead].data())
	g.agree(n, 1, 2, 3)
	count := 0
	acked.Range(func(index, data any) bool {
		count++
		if e, there := g.machines[lead].at(index.(uint64)); !there || string(e.Data) != data {
			t.Errorf("acknowledged at %d: %v, there is %q", index, data, e.Data)
		}
		return true
	})
	t.Logf("%d acknowledged, %d lease reads", count, reads.Load())
	if count == 0 || reads.Load() == 0 {
		t.Fatal("nothing was tested")
	}
}

// ackOne proposes once and waits until it is applied in its place.
func ackOne(n *Node, m *machine, data string, acked *sync.Map, top *atomic.Uint64, stop chan struct{}) bool {
	term, index, ready := n.NextIndex()
	if !ready || n.Propose(term, index, []byte(data)) != nil {
		return false
	}
	for {
		if e, there := m.at(index); there {
			if e.Term == term && string(e.Data) == data {
				acked.Store(index, data)
				for old := top.Load(); old < index && !top.CompareAndSwap(old, index); old = top.Load() {
				}
			}
			return true
		}
		if _, now, ready := n.NextIndex(); !ready || now <= index {
			return false
		}
		select {
		case <-stop:
			return false
		default:
			pause(stop)
		}
	}
}

// pause lets a millisecond of the schedule pass.
func pause(stop chan struct{}) {
	select {
	case <-stop:
	case <-time.After(time.Millisecond):
	}
}

// wait is how long a fault lasts.
func wait(d time.Duration) { <-time.After(d) }

func TestARestartedFollowerKeepsItsPromiseNotToVote(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	eventually(t, "lease", g.nodes[lead].LeaseValid)
	follower := lead%3 + 1
	g.net.isolate(follower, true)
	g.kill(follower)
	g.start(follower, nil)
	n := g.nodes[follower]
	var term uint64
	ok(t, n.do(t.Context(), func() { term = n.rn.BasicStatus().GetTerm() + 5 }))
	candidate := follower%3 + 1
	vote := message{&raftpb.Message{Type: raftpb.MsgVote.Enum(), Term: &term, Index: new(uint64(1 << 20)), LogTerm: &term}, 0, 1}
	ok(t, n.Receive(candidate, encodePackets(candidate, follower, []message{vote})[0]))
	var now uint64
	ok(t, n.do(t.Context(), func() { now = n.rn.BasicStatus().GetTerm() }))
	if now >= term {
		t.Fatal("it took part in an election while an old leader may count on it")
	}
}

func TestAWitnessedDeathIsFollowedByAnElectionAtOnce(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.ElectionTicks = 2000 }) // ten seconds
	lead := g.leader()
	ok(t, g.put(lead, "a"))
	g.agree(1, 1, 2, 3)
	g.kill(lead)
	begin := time.Now()
	for _, n := range g.nodes {
		n.LeaderIsDead(lead, 1)
	}
	ok(t, g.put(g.leader(lead), "b"))
	if took := time.Since(begin); took > 5*time.Second {
		t.Fatalf("took %v", took)
	}
}

func TestProofOfDeathSaysNothingOfALaterLife(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.ElectionTicks = 2000 })
	lead := g.leader()
	ok(t, g.put(lead, "a"))
	g.agree(1, 1, 2, 3)
	follower := lead%3 + 1
	n := g.nodes[follower]
	follows := func() (f bool) {
		ok(t, n.do(t.Context(), func() { f = n.rn.BasicStatus().Lead == lead && n.patience > n.cfg.ElectionTicks }))
		return f
	}
	n.LeaderIsDead(lead, 0) // the life before this one
	if !follows() {
		t.Fatal("a live leader was given up because an earlier life of it is over")
	}
	n.LeaderIsDead(follower%3+1, 1) // not the leader
	if !follows() {
		t.Fatal("the leader was given up because another member is dead")
	}
	n.LeaderIsDead(lead, 1)
	if follows() {
		t.Fatal("proof of the leader's death did nothing")
	}
}

func TestAFailedTransferGivesTheLeaseBack(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	n := g.nodes[lead]
	eventually(t, "lease", n.LeaseValid)
	// The call to take over is lost: the heir hears nothing for a while.
	var heir uint64
	ok(t, n.do(t.Context(), func() {
		for id := uint64(1); id <= 3; id++ {
			if id != lead {
				g.net.isolate(id, true)
			}
		}
		ok(t, n.beginTransfer(make(chan struct{})))
		heir = n.transfer.to
		n.drainReady()
	}))
	if heir == 0 || n.LeaseValid() {
		t.Fatal("the lease was kept")
	}
	for id := uint64(1); id <= 3; id++ {
		g.net.isolate(id, false)
	}
	eventually(t, "somebody leads with a lease", func() bool {
		for _, n := range g.nodes {
			if n.LeaseValid() {
				return true
			}
		}
		return false
	})
}

// A crash between the store and the log, while a checkpoint is installed, is
// finished at the next start; one before the store is undone.
func TestACrashInsideAnInstallationIsResolved(t *testing.T) {
	for _, inStore := range []bool{false, true} {
		disk := vfs.NewMem()
		g := &group{t: t, net: newNetwork(t), disks: map[uint64]*vfs.Mem{1: disk}, machines: map[uint64]*machine{}, nodes: map[uint64]*Node{}}
		members := []Member{testMember(1)}
		g.start(1, members)
		ok(t, g.put(g.leader(), "a"))
		g.kill(1)
		l, st, err := wal.Open(wal.Options{Dir: "/raft/log", FS: disk, Cluster: testCluster, SegmentBytes: 64 << 10})
		ok(t, err)
		m, err := newMembership(members)
		ok(t, err)
		pending := &wal.Mark{Index: 500, Term: st.Hard.Term, Data: m.encode()}
		ok(t, l.Append(wal.Batch{Pending: pending}))
		ok(t, l.Close())
		want := 2
		if inStore {
			restored := &machine{t: t, fs: disk, dir: "/state", index: 500}
			_, err := restored.Flush()
			ok(t, err)
			want = 1
		}
		g.start(1, nil)
		ok(t, g.put(g.leader(), "b"))
		g.agree(want, 1)
		g.kill(1)
	}
}

// A checkpoint that came to nothing, because the log was sent after all, does
// not cost what is above its place, should the store be there after a crash
// (I-1).
func TestACheckpointThatCameToNothingCutsNoLog(t *testing.T) {
	disk := vfs.NewMem()
	g := &group{t: t, net: newNetwork(t), disks: map[uint64]*vfs.Mem{1: disk}, machines: map[uint64]*machine{}, nodes: map[uint64]*Node{}}
	members := []Member{testMember(1)}
	g.start(1, members)
	for _, data := range []string{"a", "b", "c"} {
		ok(t, g.put(g.leader(), data))
	}
	g.kill(1)
	l, st, err := wal.Open(wal.Options{Dir: "/raft/log", FS: disk, Cluster: testCluster, SegmentBytes: 64 << 10})
	ok(t, err)
	m, err := newMembership(members)
	ok(t, err)
	place := st.Entries[1] // "a", after the entry that began the term
	ok(t, l.Append(wal.Batch{Pending: &wal.Mark{Index: place.GetIndex(), Term: place.GetTerm(), Data: m.encode()}}))
	ok(t, l.Close())
	flushed := &machine{t: t, fs: disk, dir: "/state", index: place.GetIndex()}
	_, err = flushed.Flush()
	ok(t, err)
	g.start(1, nil)
	ok(t, g.put(g.leader(), "d"))
	g.agree(3, 1) // "b", "c" and "d" came after what the store had
	g.kill(1)
}

// An error of a sync is final: the member stops and the others go on.
func TestAMemberWhoseLogCanNotSyncStops(t *testing.T) {
	var broken atomic.Bool
	g := newGroup(t, 3, func(c *Config) {
		if c.ID == 2 {
			c.FS = errfs.Wrap(c.FS, func(op errfs.Op) error {
				if broken.Load() && op.Kind == errfs.Sync && strings.HasPrefix(op.Path, "/raft/log") {
					return syscall.EIO
				}
				return nil
			})
		}
	})
	ok(t, g.put(g.leader(), "a"))
	n := g.nodes[2]
	broken.Store(true)
	if lead := g.leader(); lead != 2 {
		ok(t, g.put(lead, "b"))
	} else if term, index, ready := n.NextIndex(); ready {
		ok(t, n.Propose(term, index, []byte("b")))
	}
	<-n.Done()
	if !errors.Is(n.Err(), syscall.EIO) {
		t.Fatal(n.Err())
	}
	if n.LeaseValid() {
		t.Fatal("it kept its lease")
	}
	ok(t, g.put(g.leader(2), "c"))
	g.agree(len(g.machines[g.leader(2)].data()), 1, 3)
	ok(t, n.Kill())
	delete(g.nodes, 2)
}

func FuzzDecodePacket(f *testing.F) {
	e := &raftpb.Entry{Term: new(uint64(2)), Index: new(uint64(4)), Data: []byte("data")}
	app := message{&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(2)), Index: new(uint64(3)), Entries: []*raftpb.Entry{e}, Context: []byte("c")}, 77, 300}
	f.Add(encodePackets(1, 2, []message{app, app})[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		from, to, messages, err := decodePacket(b)
		if err != nil || len(messages) == 0 {
			return
		}
		again := encodePackets(from, to, messages)
		var count int
		for _, p := range again {
			_, _, ms, err := decodePacket(p)
			if err != nil {
				t.Fatalf("does not read back: %v", err)
			}
			count += len(ms)
		}
		if count != len(messages) {
			t.Fatalf("%d messages, then %d", len(messages), count)
		}
	})
}

func FuzzReadCheckpoint(f *testing.F) {
	disk := vfs.NewMem()
	ok(f, disk.MkdirAll("/ck"))
	ok(f, writeFile(disk, "/ck", "state", []byte("hello")))
	m, err := newMembership([]Member{testMember(1)})
	ok(f, err)
	var b writerTo
	ok(f, writeCheckpoint(&b, disk, "/ck", testCluster, meta{from: 1, to: 2, leaderTerm: 3, index: 5, term: 2, members: m.encode()}))
	f.Add([]byte(b))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := vfs.NewMem()
		r := writerTo(b)
		_, members, err := readCheckpoint(&r, d, "/in/ck", testCluster)
		if err == nil && len(members.voters()) == 0 {
			t.Fatal("accepted a checkpoint without members")
		}
	})
}

// writerTo is a byte string that is written at its end and read from its
// beginning.
type writerTo []byte

func (w *writerTo) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }

func (w *writerTo) Read(p []byte) (int, error) {
	if len(*w) == 0 {
		return 0, fmt.Errorf("the stream ends")
	}
	n := copy(p, *w)
	*w = (*w)[n:]
	return n, nil
}
