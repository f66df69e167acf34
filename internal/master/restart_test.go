package master

import (
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
)

// killedTogether is a cluster whose master and two chunkservers, which hold all
// copies between them, ended at once; the master is back.
func killedTogether(t *testing.T, dead time.Duration) (c *cluster, addrs [2]string) {
	c = newCluster(t, 1, func(cfg *Config) { cfg.Replicas, cfg.Dead = 2, dead })
	c.startAll()
	s1, s2 := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	c.makeVolume(c.dial("client"))
	eventually(t, "all is redundant", func() bool { s := c.status(); return s.Redundant && len(s.Groups) == 16 })
	addrs = [2]string{s1.addr, s2.addr}
	c.kill("m1")
	s1.stop()
	s2.stop()
	c.start(c.peers[0])
	c.leader()
	return c, addrs
}

// inSync counts the groups in which a fake chunkserver is in-sync.
func inSync(f *fakeServer) (n int) {
	f.snapshot(func() {
		for _, g := range f.groups {
			if i := g.Index(f.reg.Disks[0]); i >= 0 && g.Members[i].State == ashlar.InSync {
				n++
			}
		}
	})
	return n
}

// All nodes are killed at once and one never comes back. What was acknowledged
// is on the other, which must not leave the in-sync sets for the sake of one
// that merely was not missed yet. I-5
func TestTheLastCopyStaysWhenAllWereKilledAndOneIsLost(t *testing.T) {
	c, addrs := killedTogether(t, 800*time.Millisecond)
	s1 := c.fakeServerAt("s1", addrs[0], 2, 1)
	eventually(t, "it serves every group", func() bool { return inSync(s1) == 16 })
}

func TestNodesThatWereKilledTogetherDoNotWaitForEachOther(t *testing.T) {
	c, addrs := killedTogether(t, time.Hour)
	done := make(chan *fakeServer, 2)
	go func() { done <- c.fakeServerAt("s1", addrs[0], 2, 1) }()
	go func() { done <- c.fakeServerAt("s2", addrs[1], 2, 2) }()
	<-done
	<-done
	eventually(t, "all is redundant again", func() bool { return c.status().Redundant })
}

// A member beside which another serves leaves the in-sync set at its restart,
// as ever, and does not wait.
func TestARestartBesideALiveMemberIsNotDelayed(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Replicas, cfg.Dead = 2, time.Hour })
	c.startAll()
	s1, s2 := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	s2.autoAck = false
	eventually(t, "all is redundant", func() bool { s := c.status(); return s.Redundant && len(s.Groups) == 16 })
	s1.stop()
	s1 = c.fakeServerAt("s1", s1.addr, 2, 1)
	if n := inSync(s1); n != 0 {
		t.Fatalf("in-sync in %d groups at once", n)
	}
}
