package master

import (
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// abandoned dials a session whose process then is gone.
func (c *cluster) abandoned(name string, first func(*masterconn.Conn)) ashlar.SessionID {
	cl := c.clientRPC(name)
	conn, err := masterconn.Dial(c.ctx(), masterconn.Config{RPC: cl, Masters: c.addrs(), Name: name, Logger: testLogger(name)})
	if err != nil {
		c.t.Fatal(err)
	}
	first(conn)
	id := conn.Session()
	cl.Close()
	return id
}

// I-7: what a lost session had open is kept until its fence is acknowledged,
// and then released: its orphan's chunks are deleted.
func TestALostSessionIsFencedBeforeItsFilesAreReleased(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	server := c.fakeServer("s1", 1, 1)
	server.snapshot(func() { server.autoAck = false })
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	var e *wire.Entry
	lost := c.abandoned("lost", func(gone *masterconn.Conn) {
		e = c.makeFile(gone, dir, "f")
	})
	c.do(conn, &wire.Remove{Parent: dir, Name: "f"}, &wire.Entry{})
	eventually(t, "the chunkserver is told of the fence", func() (ok bool) {
		server.snapshot(func() {
			for _, f := range server.watched.Fences {
				ok = ok || f.Session == lost
			}
		})
		return ok
	})
	c.do(conn, &wire.GetAttr{Inode: e.Attr.Inode}, &wire.Entry{}) // still there
	server.ack(c.ctx())
	eventually(t, "the orphan's chunks are deleted", func() (ok bool) {
		server.snapshot(func() {
			for _, d := range server.deleted {
				for _, l := range d.Layers {
					ok = ok || l == e.Object.Layer
				}
			}
		})
		return ok
	})
	err := conn.Do(c.ctx(), root, &wire.GetAttr{Inode: e.Attr.Inode}, &wire.Entry{})
	if k := ashlar.KindOf(err); k != ashlar.Stale && k != ashlar.NotExist {
		t.Fatalf("the orphan: %v", err)
	}
	for _, s := range c.status().Sessions {
		if s.ID == uint64(lost) {
			t.Fatal("the session is still listed")
		}
	}
}

// A new leader keeps an unlinked file that is open, because the hello says so.
func TestOpenFilesOutliveALeaderChange(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	c.fakeServer("s1", 1, 1)
	var e wire.Entry
	holder, err := masterconn.Dial(c.ctx(), masterconn.Config{
		RPC: c.clientRPC("holder"), Masters: c.addrs(), Name: "holder", Logger: testLogger("holder"),
		Opens: func() []ashlar.Inode { return []ashlar.Inode{e.Attr.Inode} },
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := c.makeVolume(holder)
	c.do(holder, &wire.Make{Parent: dir, Name: "f", Type: ashlar.TypeFile, Mode: 0o644, Open: true}, &e)
	c.do(holder, &wire.Remove{Parent: dir, Name: "f"}, &wire.Entry{})
	c.kill(c.leader().name)
	leader := c.leader()
	eventually(t, "every hello is in", func() bool {
		l := leader.master.lead.Load()
		return l != nil && l.opens.complete()
	})
	c.do(holder, &wire.GetAttr{Inode: e.Attr.Inode}, &wire.Entry{})
	c.do(holder, &wire.Release{Inodes: []ashlar.Inode{e.Attr.Inode}}, &wire.Empty{})
	eventually(t, "the released orphan is gone", func() bool {
		return holder.Do(c.ctx(), root, &wire.GetAttr{Inode: e.Attr.Inode}, &wire.Entry{}) != nil
	})
	if err := holder.Close(c.ctx()); err != nil {
		t.Fatal(err)
	}
}

// I-10: a truncate is answered only after the group's primary has cut.
func TestATruncateIsCutInEveryGroupFirst(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	server := c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	e := c.makeFile(conn, dir, "f")
	c.do(conn, &wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: 10000}, e)
	c.do(conn, &wire.SetAttr{Inode: e.Attr.Inode, Valid: wire.SetSize, Size: 5000}, e)
	if e.Attr.Size != 5000 || e.Object.Gen != 2 {
		t.Fatalf("size %d, generation %d", e.Attr.Size, e.Object.Gen)
	}
	server.snapshot(func() {
		if len(server.cuts) == 0 || server.cuts[0].Gen != 2 || server.cuts[0].Epoch == 0 || !server.cuts[0].Truncate {
			t.Fatalf("cuts: %+v", server.cuts)
		}
	})
}

func TestAChunkserverThatFallsSilentLosesItsSeats(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Replicas = 2 })
	c.startAll()
	s1, s2 := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	c.makeFile(conn, dir, "first")
	eventually(t, "all is redundant", func() bool { s := c.status(); return s.Redundant && len(s.Groups) == 16 })
	s2.stop()
	eventually(t, "the other is told that it is alone", func() (ok bool) {
		s1.snapshot(func() {
			ok = len(s1.groups) == 16
			for _, g := range s1.groups {
				ok = ok && g.Count(ashlar.InSync) == 1 && g.Members[g.Primary()].Disk == s1.reg.Disks[0]
			}
		})
		return ok
	})
	s := c.status()
	if s.Health != atRisk || s.Redundant || len(s.Problems) == 0 || s.Problems[0].Severity != atRisk {
		t.Fatalf("health %q, problems %+v", s.Health, s.Problems)
	}
	// It returns as a new incarnation and is caught up.
	c.fakeServer("s2", 2, 2)
	eventually(t, "all is redundant again", func() bool { s := c.status(); return s.Redundant && s.Health != atRisk })
	// Through a change of leader nobody is lost.
	c.kill(c.leader().name)
	c.do(conn, &wire.Make{Parent: dir, Name: "after", Type: ashlar.TypeFile, Mode: 0o644}, &wire.Entry{})
	<-time.After(1200 * time.Millisecond) // longer than the dead threshold
	s1.snapshot(func() {
		if s1.lost {
			t.Fatal("a live chunkserver was declared lost")
		}
	})
	if s := c.status(); !s.Redundant {
		t.Fatalf("problems: %+v", s.Problems)
	}
}

func TestAPoolBelowItsWriteMinSaysThatItTakesNoWrites(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Replicas = 2 })
	c.startAll()
	s1, s2 := c.fakeServer("s1", 1, 1), c.fakeServer("s2", 1, 2)
	eventually(t, "all is redundant", func() bool { s := c.status(); return s.Redundant && len(s.Groups) == 16 })
	c.do(c.dial("admin"), &wire.SetPool{Name: "default", Update: true, WriteMin: 2}, nil)
	eventually(t, "the chunkservers know", func() (ok bool) {
		s1.snapshot(func() { ok = len(s1.watched.Rules) == 1 && s1.watched.Rules[0].Copies == 2 })
		return ok
	})
	if s := c.status(); s.Health != healthy {
		t.Fatalf("health %q, problems %+v", s.Health, s.Problems)
	}
	s2.stop()
	eventually(t, "it says so", func() bool {
		s := c.status()
		return s.Health == unavailable && s.Groups[0].State == readOnly && strings.Contains(s.Problems[0].What, "take no writes")
	})
}

func TestDrainingMovesPrimariesByConsent(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	s1 := c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	c.makeFile(conn, dir, "first")
	c.fakeServer("s2", 1, 2)
	c.do(conn, &wire.SetNode{Name: "s1", Drain: true}, &wire.Empty{})
	eventually(t, "the drained node is empty", func() bool {
		for _, d := range c.status().Disks {
			if d.State == "drained" && d.Groups == 0 {
				return true
			}
		}
		return false
	})
	s1.snapshot(func() {
		if len(s1.yields) == 0 {
			t.Fatal("no primary was asked")
		}
	})
}

func TestStatusNamesWhatHelps(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.dial("client")
	s := c.status()
	if s.Leader != "m1" || len(s.Masters) != 1 || !strings.Contains(s.Problems[0].Next, "ashlar node add") {
		t.Fatalf("%+v", s)
	}
}

func TestAClientMayNotSpeakAsANode(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.leader()
	client := c.clientRPC("intruder")
	for _, m := range []wire.Message{
		&wire.Register{Name: "x"}, &wire.ServerRenew{}, &wire.Watch{}, &wire.Fenced{}, &wire.ReportMember{},
		&wire.ReportSynced{}, &wire.ReportDisk{}, &wire.SnapshotBegin{}, &wire.SnapshotData{}, &wire.SnapshotEnd{}, &wire.Raft{},
	} {
		if err := client.Call(c.ctx(), c.peers[0].Addr, m, nil); ashlar.KindOf(err) != ashlar.Auth {
			t.Errorf("%T: %v", m, err)
		}
	}
}

// A session that is unknown, speaks through an old connection, or has not said
// hello is not served.
func TestOnlyTheNewestConnectionOfALiveSessionIsServed(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.leader()
	client, addr := c.clientRPC("raw"), c.peers[0].Addr
	var open wire.SessionOpenReply
	eventually(t, "a session", func() bool {
		return client.Call(c.ctx(), addr, &wire.SessionOpen{Name: "raw", Incarnation: 5, Nonce: 6}, &open) == nil
	})
	var again wire.SessionOpenReply
	if err := client.Call(c.ctx(), addr, &wire.SessionOpen{Name: "raw", Incarnation: 5, Nonce: 6}, &again); err != nil || again.Session != open.Session {
		t.Fatalf("a retry opened %d after %d: %v", again.Session, open.Session, err)
	}
	find := func(s ashlar.SessionID, generation uint64) ashlar.Kind {
		o := &wire.Operation{Session: s, Generation: generation, Body: &wire.FindVolume{Name: "none"}}
		return ashlar.KindOf(client.Call(c.ctx(), addr, o, &wire.VolumeReply{}))
	}
	hello := &wire.SessionHello{Session: open.Session, Incarnation: 5, Generation: 3}
	if err := client.Call(c.ctx(), addr, hello, &wire.SessionRenewReply{}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		session    ashlar.SessionID
		generation uint64
		want       ashlar.Kind
	}{
		{open.Session, 3, ashlar.NotExist}, {open.Session, 2, ashlar.NoSession}, {open.Session + 99, 3, ashlar.NoSession},
	} {
		if got := find(x.session, x.generation); got != x.want {
			t.Errorf("session %d generation %d: %v, want %v", x.session, x.generation, got, x.want)
		}
	}
	if err := client.Call(c.ctx(), addr, &wire.SessionRenew{Session: open.Session, Incarnation: 4}, &wire.SessionRenewReply{}); ashlar.KindOf(err) != ashlar.NoSession {
		t.Errorf("renewed by another incarnation: %v", err)
	}
	if err := client.Call(c.ctx(), addr, &wire.SessionClose{Session: open.Session}, &wire.Empty{}); err != nil {
		t.Fatal(err)
	}
	if got := find(open.Session, 3); got != ashlar.NoSession {
		t.Errorf("closed: %v", got)
	}
}

// More sessions are lost than the list of fences holds: the rest waits, is not
// served and keeps what it had, and nothing breaks. I-7
func TestLostSessionsWaitForRoomInTheListOfFences(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	l := c.leader().master.lead.Load()
	l.sessMu.Lock()
	l.fencesMax = 1
	l.sessMu.Unlock()
	server := c.fakeServer("s1", 1, 1)
	c.makeVolume(c.dial("client"))
	ids := []ashlar.SessionID{c.abandoned("a", func(*masterconn.Conn) {}), c.abandoned("b", func(*masterconn.Conn) {})}
	fenced := func() (n int) {
		server.snapshot(func() { n = len(server.watched.Fences) })
		return n
	}
	eventually(t, "both are lost, and one is fenced", func() bool {
		l.sessMu.Lock()
		defer l.sessMu.Unlock()
		logged := 0
		for _, id := range ids {
			if s := l.sessions[id]; s != nil && !s.losing {
				return false
			} else if s == nil || s.fence != 0 {
				logged++
			}
		}
		return fenced() == 1 && logged > 0
	})
	waiting := 0
	for _, id := range ids {
		l.sessMu.Lock()
		_, err := l.live(id)
		if s := l.sessions[id]; s != nil && s.fence == 0 {
			waiting++
		}
		l.sessMu.Unlock()
		if err == nil {
			t.Fatalf("session %d is served", id)
		}
	}
	if waiting != 1 {
		t.Fatalf("%d wait", waiting)
	}
	l.sessMu.Lock()
	l.fencesMax = 2
	l.sessMu.Unlock()
	eventually(t, "the other is fenced", func() bool { return fenced() == 2 })
}
