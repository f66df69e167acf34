package consensus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
)

func TestThreeMembersElectALeaderAndAgree(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	for i := range 20 {
		ok(t, g.put(lead, fmt.Sprint("v", i)))
	}
	g.agree(20, 1, 2, 3)
	eventually(t, "the lease is valid", g.nodes[lead].LeaseValid)
	st, err := g.nodes[lead].Status(within(t))
	ok(t, err)
	if st.Leader != lead || len(st.Members) != 3 || st.Members[2].Addr != "10.0.0.3" || !st.Lease {
		t.Fatalf("%+v", st)
	}
}

func TestAGroupOfOneLeadsItself(t *testing.T) {
	g := newGroup(t, 1, nil)
	ok(t, g.put(g.leader(), "a"))
	if !g.nodes[1].LeaseValid() {
		t.Fatal("no lease")
	}
	ok(t, g.nodes[1].ReadIndex(within(t)))
	g.kill(1)
	g.start(1, nil)
	ok(t, g.put(g.leader(), "b"))
	g.agree(2, 1)
}

func TestAKilledLeaderIsReplacedAndComesBack(t *testing.T) {
	g := newGroup(t, 3, nil)
	old := g.leader()
	ok(t, g.put(old, "a"))
	g.kill(old)
	next := g.leader(old)
	ok(t, g.put(next, "b"))
	g.start(old, nil)
	g.agree(2, 1, 2, 3)
}

func TestAFollowerRestartsFromItsLog(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	follower := lead%3 + 1
	ok(t, g.put(lead, "a"))
	g.agree(1, follower)
	g.kill(follower)
	ok(t, g.put(lead, "b"))
	g.start(follower, nil)
	if got := g.nodes[follower].Incarnation(); got != 2 {
		t.Fatalf("incarnation %d", got)
	}
	g.agree(2, 1, 2, 3)
}

// I-1: what was acknowledged survives power loss of every member at once.
func TestAcknowledgedEntriesSurvivePowerLossOfAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	g := newGroup(t, 3, nil)
	var want []string
	for round := range 3 {
		lead := g.leader()
		for i := range 10 {
			v := fmt.Sprint(round, "/", i)
			ok(t, g.put(lead, v))
			want = append(want, v)
		}
		for id := uint64(1); id <= 3; id++ {
			clone := g.disks[id].CrashClone(rng)
			g.kill(id)
			g.disks[id] = clone
		}
		for id := uint64(1); id <= 3; id++ {
			g.start(id, nil)
		}
	}
	g.leader()
	g.agree(len(want), 1, 2, 3)
	if got := fmt.Sprint(g.machines[1].data()); got != fmt.Sprint(want) {
		t.Fatalf("holds %s, acknowledged %v", got, want)
	}
}

func TestAFollowerThatFellBehindGetsACheckpoint(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.SnapshotThresholdBytes = 32 << 10 })
	lead := g.leader()
	behind := lead%3 + 1
	g.kill(behind)
	n := 0
	eventually(t, "the log is cut", func() bool {
		for range 20 {
			ok(t, g.put(lead, fmt.Sprintf("%0900d", n)))
			n++
		}
		st, err := g.nodes[lead].Status(within(t))
		ok(t, err)
		return st.First > 100
	})
	g.start(behind, nil)
	ok(t, g.put(lead, "last"))
	g.agree(n+1, 1, 2, 3)
	if len(g.machines[behind].events) == 0 {
		t.Fatal("no checkpoint was installed")
	}
	g.kill(behind)
	g.start(behind, nil)
	ok(t, g.put(lead, "after"))
	g.agree(n+2, 1, 2, 3)
}

func TestMembersAreAddedAndRemovedOnline(t *testing.T) {
	g := newGroup(t, 1, nil)
	ok(t, g.put(g.leader(), "a"))
	for id := uint64(2); id <= 3; id++ {
		g.start(id, nil)
		ok(t, g.nodes[1].AddMember(within(t), testMember(id)))
		ok(t, g.put(1, fmt.Sprint("with ", id)))
	}
	g.agree(3, 1, 2, 3)
	st, err := g.nodes[1].Status(within(t))
	ok(t, err)
	if len(st.Members) != 3 || st.Members[1].Learner || st.Members[1].Addr != "10.0.0.2" {
		t.Fatalf("%+v", st.Members)
	}
	ok(t, g.nodes[1].UpdateMember(within(t), Member{ID: 3, Name: "m3", Addr: "10.9.9.9"}))
	ok(t, g.nodes[1].RemoveMember(within(t), 2))
	g.kill(2)
	ok(t, g.put(1, "without 2"))
	g.agree(4, 1, 3)
	st, err = g.nodes[3].Status(within(t))
	ok(t, err)
	if len(st.Members) != 2 || st.Members[1].Addr != "10.9.9.9" {
		t.Fatalf("%+v", st.Members)
	}
	// What a member knows of the group it knows after a restart.
	g.kill(3)
	g.start(3, nil)
	ok(t, g.put(1, "restarted"))
	g.agree(5, 1, 3)
	if err := g.nodes[1].RemoveMember(within(t), 9); !errors.Is(err, ashlar.NotExist) {
		t.Fatal(err)
	}
}

func TestALeaderThatRemovesItselfNoLongerLeads(t *testing.T) {
	g := newGroup(t, 3, nil)
	old := g.leader()
	ok(t, g.put(old, "a"))
	ok(t, g.nodes[old].RemoveMember(within(t), old))
	g.kill(old)
	next := g.leader(old)
	ok(t, g.put(next, "b"))
	st, err := g.nodes[next].Status(within(t))
	ok(t, err)
	if len(st.Members) != 2 {
		t.Fatalf("%+v", st.Members)
	}
}

func TestASecondChangeOfMembersIsRefusedWhileOneIsUnderWay(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	for id := uint64(1); id <= 3; id++ {
		if id != lead {
			g.net.isolate(id, true) // the first can not be committed
		}
	}
	n := g.nodes[lead]
	first := make(chan error, 1)
	go func() { first <- n.RemoveMember(t.Context(), lead%3+1) }()
	eventually(t, "the first is proposed", func() bool {
		st, err := n.Status(within(t))
		ok(t, err)
		return st.Last > st.Applied
	})
	if err := n.RemoveMember(within(t), lead%3+1); !errors.Is(err, ashlar.Busy) && !errors.Is(err, ErrNotLeader) {
		t.Fatal(err)
	}
}

// A packet that is not what it says never reaches raft.
func TestForeignPacketsAreRefused(t *testing.T) {
	g := newGroup(t, 1, nil)
	g.leader()
	beat := message{&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(9))}, 0, 1}
	good := encodePackets(2, 1, []message{beat})[0]
	for name, c := range map[string]struct {
		from   uint64
		packet []byte
	}{
		"another sender":    {3, good},
		"another recipient": {2, encodePackets(2, 7, []message{beat})[0]},
		"itself":            {1, encodePackets(1, 1, []message{beat})[0]},
		"cut short":         {2, good[:len(good)-1]},
		"too long":          {2, append(append([]byte(nil), good...), 0)},
		"a local message":   {2, encodePackets(2, 1, []message{{&raftpb.Message{Type: raftpb.MsgProp.Enum(), Term: new(uint64(9))}, 0, 1}})[0]},
		"a checkpoint":      {2, encodePackets(2, 1, []message{{&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(9))}, 0, 1}})[0]},
	} {
		if err := g.nodes[1].Receive(c.from, c.packet); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	ok(t, g.put(1, "a"))
}

func TestALearnerFollowsWithoutAVote(t *testing.T) {
	g := newGroup(t, 1, nil)
	ok(t, g.put(g.leader(), "a"))
	g.start(2, nil)
	learner := testMember(2)
	learner.Learner = true
	ok(t, g.nodes[1].AddMember(within(t), learner))
	ok(t, g.put(1, "b"))
	g.agree(2, 1, 2)
	g.net.isolate(2, true)
	ok(t, g.put(1, "c")) // needs nobody
}

func TestLeadershipIsHandedOnAtACleanStop(t *testing.T) {
	g := newGroup(t, 3, nil)
	old := g.leader()
	ok(t, g.put(old, "a"))
	eventually(t, "lease", g.nodes[old].LeaseValid)
	ok(t, g.nodes[old].TransferLeadership(within(t)))
	if g.nodes[old].LeaseValid() {
		t.Fatal("the old leader kept its lease")
	}
	next := g.leader(old)
	ok(t, g.put(next, "b"))
	ok(t, g.nodes[next].Stop(within(t)))
	if _, err := g.nodes[next].Status(within(t)); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	g.net.mu.Lock()
	delete(g.net.nodes, next)
	g.net.mu.Unlock()
	delete(g.nodes, next)
	ok(t, g.put(g.leader(next), "c"))
}

func TestAProposalForAnotherPlaceIsRefused(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	n := g.nodes[lead]
	term, index, _ := n.NextIndex()
	for _, c := range []struct {
		term, index uint64
		want        error
	}{{term, index + 1, ErrMoved}, {term, index - 1, ErrMoved}, {term + 1, index, ErrNotLeader}, {term - 1, index, ErrNotLeader}} {
		if err := n.Propose(c.term, c.index, []byte("x")); err != c.want {
			t.Errorf("propose (%d, %d): %v, want %v", c.term, c.index, err, c.want)
		}
	}
	if err := g.nodes[lead%3+1].Propose(term, index, []byte("x")); err != ErrNotLeader {
		t.Errorf("propose at a follower: %v", err)
	}
	ok(t, n.Propose(term, index, []byte("a")))
	if err := n.Propose(term, index, []byte("b")); err != ErrMoved {
		t.Errorf("propose at a taken place: %v", err)
	}
	ok(t, n.Propose(term, index+1, []byte("b")))
	g.agree(2, 1, 2, 3)
	if e, _ := g.machines[lead].at(index); string(e.Data) != "a" || e.Term != term {
		t.Fatalf("%+v stands at %d", e, index)
	}
}

func TestDroppedProposalsStopTheEvaluator(t *testing.T) {
	dropped := make(chan uint64, 16)
	g := newGroup(t, 3, func(c *Config) { c.Dropped = func(_, from uint64) { dropped <- from } })
	lead := g.leader()
	n := g.nodes[lead]
	// While leadership is being handed on raft takes no proposals.
	for id := uint64(1); id <= 3; id++ {
		if id != lead {
			g.net.isolate(id, true)
		}
	}
	ok(t, n.do(t.Context(), func() { ok(t, n.beginTransfer(make(chan struct{}))) }))
	term, index, ready := n.NextIndex()
	if !ready {
		t.Skip("leadership was lost first")
	}
	ok(t, n.Propose(term, index, []byte("x")))
	if from := <-dropped; from != index && from != 0 {
		t.Fatalf("dropped from %d, want %d", from, index)
	}
	if err := n.Propose(term, index, []byte("y")); err != ErrDropped && err != ErrNotLeader {
		t.Fatalf("propose after a drop: %v", err)
	}
}

// I-2: with the leader cut off, its lease is over before another can have
// acknowledged anything.
func TestALeaseReadIsNeverStaleUnderPartition(t *testing.T) {
	g := newGroup(t, 3, nil)
	for round := range 3 {
		old := g.leader()
		ok(t, g.put(old, fmt.Sprint("before ", round)))
		eventually(t, "lease", g.nodes[old].LeaseValid)
		g.net.isolate(old, true)
		var next uint64
		eventually(t, "another leader", func() bool {
			for id, n := range g.nodes {
				if _, _, ready := n.NextIndex(); ready && id != old {
					next = id
				}
			}
			return next != 0
		})
		if g.nodes[old].LeaseValid() {
			t.Fatalf("round %d: %d leads while %d still has its lease", round, next, old)
		}
		if err := g.nodes[old].Propose(1, 1, []byte("x")); err == nil {
			t.Fatal("the old leader took a proposal for a term long over")
		}
		ok(t, g.put(next, fmt.Sprint("after ", round)))
		g.net.isolate(old, false)
		g.agree(2*(round+1), 1, 2, 3)
	}
}

func TestAReadBarrierSeesWhatWasAcknowledged(t *testing.T) {
	g := newGroup(t, 3, nil)
	lead := g.leader()
	for i := range 5 {
		ok(t, g.put(lead, fmt.Sprint(i)))
		ok(t, g.nodes[lead].ReadIndex(within(t)))
	}
	if err := g.nodes[lead%3+1].ReadIndex(within(t)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("read at a follower: %v", err)
	}
}

func TestADirectoryOfAnotherMemberOrClusterIsRefused(t *testing.T) {
	g := newGroup(t, 1, nil)
	g.leader()
	c := g.config(1, nil)
	if _, err := Start(c); !errors.Is(err, ashlar.Busy) {
		t.Fatalf("started twice: %v", err)
	}
	g.kill(1)
	c.ID = 2
	if _, err := Start(c); !errors.Is(err, ashlar.Invalid) {
		t.Fatalf("as another member: %v", err)
	}
	c = g.config(1, nil)
	c.Cluster = ashlar.ClusterID{9}
	if _, err := Start(c); !errors.Is(err, ashlar.WrongCluster) {
		t.Fatalf("in another cluster: %v", err)
	}
	ok(t, g.disks[1].RemoveAll("/raft/log"))
	ok(t, g.disks[1].MkdirAll("/raft/log"))
	g.start(2, []Member{testMember(2)}) // for cleanup to have one
	c = g.config(1, nil)
	_, err := g.machines[1].Flush()
	ok(t, err)
	if _, err := Start(c); !errors.Is(err, ashlar.Corrupt) {
		t.Fatalf("without its log: %v", err)
	}
}
