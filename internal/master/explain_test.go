package master

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// says waits until status has a problem that begins and goes on like this.
func (c *cluster) says(severity, what, next string) {
	c.t.Helper()
	var last *wire.Status
	defer func() {
		if c.t.Failed() {
			c.t.Logf("health %q, problems %+v", last.Health, last.Problems)
		}
	}()
	eventually(c.t, "status says "+severity+": "+what+"; "+next, func() bool {
		last = c.status()
		for _, p := range last.Problems {
			if p.Severity == severity && strings.Contains(p.What, what) && strings.Contains(p.Next, next) {
				return true
			}
		}
		return false
	})
}

// well waits until there is nothing to say of chunkservers and disks.
func (c *cluster) well() {
	c.t.Helper()
	eventually(c.t, "all is well", func() bool {
		s := c.status()
		ok := s.Health == healthy && s.Redundant && len(s.Groups) == 16
		for _, n := range s.Nodes {
			ok = ok && n.State == nodeUp
		}
		for _, d := range s.Disks {
			ok = ok && d.State == healthy && d.Age >= 0 && d.Total > 0
		}
		return ok
	})
}

func (c *cluster) explain(q *wire.Explain) (*wire.Explanation, error) {
	l := masterconn.NewLeader(c.clientRPC("why"), c.addrs(), clock.Real, testLogger("why"))
	var r wire.ExplainReply
	if err := l.Call(c.ctx(), q, &r); err != nil {
		return nil, err
	}
	return r.Get()
}

// report makes a fake chunkserver say something of its first disk.
func (f *fakeServer) report(fn func(*wire.DiskInfo)) {
	f.snapshot(func() { fn(&f.disks[0]) })
}

func TestStatusSaysWhatIsWrongAndWhenItIsOver(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Replicas = 2 })
	c.startAll()
	s1, s2 := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	c.well()

	s2.report(func(d *wire.DiskInfo) { d.Free = 0 })
	c.says(degraded, "disk 2 (/disk on s2) is full", "ashlar why disk 2")
	if s := c.status(); s.Disks[1].State != diskFull {
		t.Errorf("a full disk is %q", s.Disks[1].State)
	}
	s2.report(func(d *wire.DiskInfo) { d.Free = d.Total / 2 })
	c.well()

	s2.report(func(d *wire.DiskInfo) { d.Damaged = 3 })
	c.says(degraded, "disk 2 (/disk on s2) has 3 damaged blocks", "ashlar why disk 2")
	s2.report(func(d *wire.DiskInfo) { d.Repaired = 3 })
	c.well()

	// Both are lost: nobody is the last to have written, so both are waited for.
	s1.stop()
	s2.stop()
	c.says(unavailable, "placement groups have no copy that can be reached", "they wait for node s")
	s := c.status()
	if s.Health != unavailable || s.Total != 0 {
		t.Errorf("health %q, %d bytes in reach", s.Health, s.Total)
	}
	for _, d := range s.Disks {
		if d.State != diskOffline || d.Total == 0 || d.Age <= 0 {
			t.Errorf("a disk out of reach: %+v; want its last figures and their age", d)
		}
	}
	e, err := c.explain(&wire.Explain{Node: "s2"})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Groups) != 16 || e.Nodes[len(e.Nodes)-1].State != nodeDown || len(e.Groups[0].Moves) == 0 {
		t.Errorf("why node s2: %+v", e)
	}
	c.fakeServer("s1", 2, 1)
	c.fakeServer("s2", 2, 2)
	c.well()
}

func TestADiskThatFailedOrIsNotAttachedIsNamed(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Replicas = 2 })
	c.startAll()
	s1, s2 := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	c.well()
	s2.report(func(d *wire.DiskInfo) { d.Error = "smoke" })
	c.says(warning, "disk 2 (/disk on s2) failed: smoke", "ashlar disk remove 2")
	c.says(atRisk, "16 of 16 placement groups have one copy left", "for instance: ashlar why pg 1")
	s1.stop()
	c.says(warning, "node s1 is down for", "ashlar why node s1")
	c.fakeServer("s1", 2, 3) // another disk was put in
	c.says(warning, "disk 1 (/disk on s1) is not attached, though its node is up", "ashlar why disk 1")
	if s := c.status(); s.Disks[0].State != diskOffline {
		t.Errorf("a disk that is not there is %+v", s.Disks[0])
	}
}

func TestANodeNotHeardOfIsNotCalledUp(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Replicas, cfg.Dead = 2, 2*time.Second })
	c.startAll()
	c.fakeServer("s1", 1, 1)
	s2 := c.fakeServer("s2", 1, 2)
	c.well()
	s2.cancel() // it renews no more, and its connection stands
	c.says(degraded, "node s2 has been silent for", "it counts as down if it is not heard of for")
	c.says(warning, "node s2 is down for", "ashlar why node s2")
}

func TestExplanationsArePagedAndRefuseWhatIsNotThere(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Replicas = 2 })
	c.startAll()
	c.fakeServer("s1", 1, 1)
	c.fakeServer("s2", 1, 2)
	c.well()
	e, err := c.explain(&wire.Explain{After: 10, LostNodes: []string{"s1", c.leader().name}})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Groups) != 6 || e.Groups[0].ID != 11 || e.More {
		t.Errorf("after 10: %d groups from %d, more %v", len(e.Groups), e.Groups[0].ID, e.More)
	}
	l := e.Lost
	if l.Groups != 16 || l.AtRisk != 16 || l.Homeless != 16 || l.Voters != 3 || l.Left != 2 || !l.Majority || l.HasLeader {
		t.Errorf("the loss of s1 and of the leader: %+v", l)
	}
	for _, q := range []*wire.Explain{{Disk: 9}, {Node: "s9"}, {Groups: []ashlar.PGID{99}}, {LostNodes: []string{"s9"}}, {LostDisks: []ashlar.DiskID{9}}} {
		if _, err := c.explain(q); !errors.Is(err, ashlar.NotExist) || !strings.Contains(err.Error(), "1") {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
