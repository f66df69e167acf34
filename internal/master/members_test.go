package master

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// With one of three dead no live one is given up, the dead one is, and another
// takes its name at an address that the others' configuration does not know.
func TestADeadMasterIsReplacedAtAnotherAddress(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	conn := c.dial("client")
	c.makeVolume(conn)
	lead := c.leader().name
	var others []string
	for _, p := range c.peers {
		if p.Name != lead {
			others = append(others, p.Name)
		}
	}
	dead, live := others[0], others[1]
	c.kill(dead)
	eventually(t, "the leader misses the dead one", func() bool {
		st, err := c.nodes[lead].master.node.Load().Status(c.ctx())
		missed := false
		for _, mem := range st.Members {
			missed = missed || mem.Name == dead && !mem.Active
		}
		return err == nil && missed
	})
	err := conn.Do(c.ctx(), root, &wire.RemoveMaster{Name: live}, &wire.Empty{})
	if ashlar.KindOf(err) != ashlar.Invalid {
		t.Fatalf("removing the live one of two: %v", err)
	}
	c.do(conn, &wire.RemoveMaster{Name: dead}, &wire.Empty{})
	if err := os.RemoveAll(filepath.Join(c.dir, dead)); err != nil {
		t.Fatal(err)
	}
	p := Peer{Name: dead, Addr: freeAddr(t)}
	for i := range c.peers {
		if c.peers[i].Name == dead {
			c.peers[i] = p
		}
	}
	c.do(conn, &wire.AddMaster{Name: p.Name, Addr: p.Addr}, &wire.Empty{})
	n := c.start(p)
	eventually(t, "the new one has a vote", func() bool {
		members := n.master.members.Load()
		if members == nil {
			return false
		}
		mem, ok := findMember(*members, n.master.id.Load())
		return ok && !mem.Learner
	})
}
