package master

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// I-1, I-3: while leaders are killed, every exclusive create takes effect
// exactly once: none is answered EEXIST by its own retry, none is lost.
func TestAChangeTakesEffectOnceThroughLossesOfLeaders(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	admin := c.dial("admin")
	dir := c.makeVolume(admin)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	made := make([][]string, 6)
	for w := range made {
		conn := c.dial(fmt.Sprint("client ", w))
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("%d-%d", w, i)
				m := &wire.Make{Parent: dir, Name: name, Type: ashlar.TypeDir, Mode: 0o755, Exclusive: true}
				if err := conn.Do(c.ctx(), root, m, &wire.Entry{}); err != nil {
					t.Errorf("make %s: %v", name, err)
					return
				}
				made[w] = append(made[w], name)
			}
		})
	}
	for range 2 {
		name := c.leader().name
		<-time.After(150 * time.Millisecond) // let changes be under way
		c.kill(name)
		c.leader()
		c.start(c.peer(name))
	}
	c.leader()
	close(stop)
	wg.Wait()
	count := 0
	for _, names := range made {
		for _, name := range names {
			count++
			c.do(admin, &wire.Lookup{Parent: dir, Name: name}, &wire.Entry{})
		}
	}
	if count == 0 {
		t.Fatal("nothing was made")
	}
}

// I-2: a leader that is cut off does not answer from its old state once
// another has acknowledged a change.
func TestALeaderThatIsCutOffDoesNotAnswer(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	old := c.leader()
	eventually(t, "every master is part of the group", func() bool {
		for _, n := range c.nodes {
			if n.master.store.Applied() < old.master.store.Applied() {
				return false
			}
		}
		return true
	})
	read := &wire.Operation{Session: conn.Session(), Generation: 1 << 40, Body: &wire.Lookup{Parent: dir, Name: "x"}}
	client := c.clientRPC("reader")
	addr := c.peer(old.name).Addr
	if err := client.Call(c.ctx(), addr, read, &wire.Entry{}); ashlar.KindOf(err) != ashlar.NotExist {
		t.Fatalf("before: %v", err)
	}
	c.net.cut(old.name, true)
	c.do(conn, &wire.Make{Parent: dir, Name: "x", Type: ashlar.TypeDir, Mode: 0o755}, &wire.Entry{})
	for range 20 {
		ctx, cancel := context.WithTimeout(c.ctx(), 50*time.Millisecond)
		err := client.Call(ctx, addr, read, &wire.Entry{})
		cancel()
		if k := ashlar.KindOf(err); err == nil || k == ashlar.NotExist {
			t.Fatalf("the old leader answered: %v", err)
		}
	}
	c.net.cut(old.name, false)
	eventually(t, "the old leader follows", func() bool { return !old.master.Leads() })
}

func TestAStoppedMasterCatchesUpFromACheckpoint(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.SnapshotThresholdBytes = 64 << 10 })
	c.startAll()
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	var behind string
	for name, n := range c.nodes {
		if n != c.leader() {
			behind = name
		}
	}
	c.stop(behind)
	for i := range 40 {
		value := make([]byte, 16<<10)
		c.do(conn, &wire.SetXattr{Inode: dir, Name: fmt.Sprintf("user.%d", i%8), Value: value}, &wire.Empty{})
	}
	leader := c.leader()
	eventually(t, "the log is cut", func() bool {
		st, err := leader.master.node.Load().Status(c.ctx())
		return err == nil && st.First > 10
	})
	n := c.start(c.peer(behind))
	eventually(t, "the stopped master is at the leader's index", func() bool {
		return n.master.store.Applied() >= leader.master.store.Applied()
	})
	c.kill(leader.name)
	c.do(conn, &wire.GetXattr{Inode: dir, Name: "user.3"}, &wire.XattrReply{})
}

func TestAClusterThatWasStoppedStartsAgain(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	c.do(conn, &wire.Make{Parent: dir, Name: "kept", Type: ashlar.TypeDir, Mode: 0o755}, &wire.Entry{})
	for _, p := range c.peers {
		c.kill(p.Name)
	}
	c.startAll()
	conn = c.dial("another")
	c.do(conn, &wire.Lookup{Parent: dir, Name: "kept"}, &wire.Entry{})
}

func TestAMasterThatLostItsDataIsNotLetInUnderItsOldID(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	conn := c.dial("client")
	c.makeVolume(conn)
	var victim string
	eventually(t, "all masters are known to take part", func() bool {
		started := 0
		for name, n := range c.nodes {
			r, err := n.master.findLeader(c.ctx(), &rpc.Request{Msg: &wire.FindLeader{}})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range r.(*wire.FindLeaderReply).Masters {
				if m.Started {
					started++
				}
			}
			if n != c.leader() {
				victim = name
			}
		}
		return started == 9
	})
	c.kill(victim)
	old := c.dir
	c.dir = filepath.Join(t.TempDir(), "new")
	n := c.start(c.peer(victim))
	c.dir = old
	eventually(t, "it says why it waits", func() bool {
		id, why := n.master.place()
		return id == nil && why != "" && n.master.node.Load() == nil
	})
	// Removed and added again it is a new member.
	c.do(conn, &wire.RemoveMaster{Name: victim}, &wire.Empty{})
	c.do(conn, &wire.AddMaster{Name: victim, Addr: c.peer(victim).Addr}, &wire.Empty{})
	eventually(t, "it has a vote", func() bool {
		node := n.master.node.Load()
		if node == nil {
			return false
		}
		st, err := node.Status(c.ctx())
		if err != nil {
			return false
		}
		for _, m := range st.Members {
			if m.Name == victim && !m.Learner {
				return true
			}
		}
		return false
	})
}

func TestMastersAreAddedAndRemovedOnline(t *testing.T) {
	removed := make(chan struct{})
	c := newCluster(t, 1, func(cfg *Config) {
		if cfg.Name == "m1" {
			cfg.OnRemoved = func() { close(removed) }
		}
	})
	c.startAll()
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	for _, name := range []string{"m2", "m3"} {
		p := Peer{Name: name, Addr: freeAddr(t)}
		c.do(conn, &wire.AddMaster{Name: name, Addr: p.Addr}, &wire.Empty{})
		c.peers = append(c.peers, p)
		n := c.start(p)
		eventually(t, name+" leads or follows with a vote", func() bool {
			members := n.master.members.Load()
			if members == nil {
				return false
			}
			for _, m := range *members {
				if m.Name == name && !m.Learner {
					return true
				}
			}
			return false
		})
	}
	first := c.nodes["m1"]
	conn = c.dial("another")
	c.do(conn, &wire.TransferLeader{}, &wire.Empty{})
	eventually(t, "another leads", func() bool { return !first.master.Leads() })
	c.do(conn, &wire.RemoveMaster{Name: "m1"}, &wire.Empty{})
	select {
	case <-removed:
	case <-time.After(10 * time.Second):
		t.Fatal("the removed master did not stop")
	}
	c.do(conn, &wire.Make{Parent: dir, Name: "after", Type: ashlar.TypeDir, Mode: 0o755}, &wire.Entry{})
	if got := len(c.status().Masters); got != 2 {
		t.Fatalf("%d masters", got)
	}
}

// I-6: a primary that consented to yield, and whose leader died before it
// said what came of that, is told to go on by the next one.
func TestANewLeaderLetsPrimariesThatYieldedGoOn(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	f := c.fakeServer("s1", 1, 1)
	eventually(t, "it leads a group", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, g := range f.groups {
			if g.Primary() >= 0 {
				return true
			}
		}
		return false
	})
	f.mu.Lock()
	f.yields = nil
	f.mu.Unlock()
	c.kill(c.leader().name)
	eventually(t, "it is told to go on in every group", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		told := map[ashlar.PGID]bool{}
		for _, y := range f.yields {
			told[y.Group] = y.Resume && y.Epoch == f.groups[y.Group].Epoch
		}
		for id, g := range f.groups {
			if g.Primary() >= 0 && !told[id] {
				return false
			}
		}
		return true
	})
}

// Who lost the leader asks the others, and hears of the next one when there is
// one, not before.
func TestAQuestionForAnotherLeaderIsHeldUntilThereIsOne(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	lead := c.leader().name
	old := c.peer(lead).Addr
	other := c.peer("m1")
	if lead == "m1" {
		other = c.peer("m2")
	}
	cl := c.clientRPC("client")
	ask := func(hold time.Duration) (r wire.FindLeaderReply, took time.Duration) {
		began := time.Now()
		if err := cl.Call(c.ctx(), other.Addr, &wire.FindLeader{Not: old, HoldMs: uint32(hold / time.Millisecond)}, &r); err != nil {
			t.Fatal(err)
		}
		return r, time.Since(began)
	}
	eventually(t, "the follower knows its leader", func() bool { r, _ := ask(0); return r.Leader == old })
	if r, took := ask(200 * time.Millisecond); r.Leader == old && took < 200*time.Millisecond {
		t.Fatalf("answered after %v with the leader that was asked not for", took)
	}
	c.kill(lead)
	eventually(t, "it names the next", func() bool { r, _ := ask(findHoldMax); return r.Leader != "" && r.Leader != old })
}
