package master

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// whole is a lock of all of an inode.
func whole(ino ashlar.Inode, t wire.LockType) wire.Lock {
	return wire.Lock{Inode: ino, Class: wire.LockPOSIX, Type: t, Owner: 1, End: wire.LockEnd}
}

// set sets a lock at once and tells whether it was granted.
func (c *cluster) set(conn *masterconn.Conn, l wire.Lock) bool {
	c.t.Helper()
	var r wire.LockReply
	c.do(conn, &wire.SetLock{Lock: l}, &r)
	return r.Granted
}

// waits begins to wait for a lock; the channel tells how that ended.
func (c *cluster) waits(conn *masterconn.Conn, id uint64, l wire.Lock) <-chan error {
	c.t.Helper()
	ctx, done := c.ctx(), make(chan error, 1)
	before := c.waiters()
	go func() { done <- conn.Do(ctx, root, &wire.WaitLock{ID: id, Lock: l}, &wire.LockReply{}) }()
	eventually(c.t, "it waits", func() bool { return c.waiters() > before })
	return done
}

// waiters is how many wait at the leader.
func (c *cluster) waiters() (n int) {
	l := c.leader().master.lead.Load()
	if l != nil {
		l.inEvaluator(func() { n = l.locks.q.Len() })
	}
	return n
}

func pending(t *testing.T, what string, ch <-chan error) {
	t.Helper()
	select {
	case err := <-ch:
		t.Fatalf("%s: answered with %v", what, err)
	default:
	}
}

func ended(t *testing.T, what string, ch <-chan error) {
	t.Helper()
	select {
	case err := <-ch:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: not in time", what)
	}
}

// A lock held before a change of leader is held after it, who waited waits
// again, and it passes to one of them only when it is given up.
func TestLocksOutliveALeaderChange(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	a, b, third := c.dial("a"), c.dial("b"), c.dial("third")
	ino := c.makeVolume(a)
	if !c.set(a, whole(ino, wire.Exclusive)) {
		t.Fatal("not granted")
	}
	if c.set(b, whole(ino, wire.Shared)) {
		t.Fatal("granted twice")
	}
	waiting := c.waits(b, 1, whole(ino, wire.Exclusive))
	c.kill(c.leader().name)
	if c.set(third, whole(ino, wire.Shared)) {
		t.Fatal("granted to another after a change of leader")
	}
	var test wire.TestLockReply
	c.do(third, &wire.TestLock{Lock: whole(ino, wire.Shared)}, &test)
	if !test.Found || test.Session != a.Session() || test.Client != "a" {
		t.Fatalf("in the way: %+v", test)
	}
	eventually(t, "who waited waits again", func() bool { return c.waiters() == 1 })
	pending(t, "the waiter", waiting)
	c.set(a, whole(ino, wire.Unlocked))
	ended(t, "the waiter", waiting)
	if c.set(third, whole(ino, wire.Shared)) {
		t.Fatal("granted twice")
	}
}

// A lost session's locks are released when it is fenced, and not before: what
// it has under way must not be applied under another's lock. I-7
func TestALostSessionsLocksGoOnceItIsFenced(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	server := c.fakeServer("s1", 1, 1)
	server.snapshot(func() { server.autoAck = false })
	conn := c.dial("client")
	ino := c.makeVolume(conn)
	lost := c.abandoned("lost", func(gone *masterconn.Conn) {
		if !c.set(gone, whole(ino, wire.Exclusive)) {
			t.Fatal("not granted")
		}
		var r wire.NameReply
		c.do(gone, &wire.SetName{Name: "n", Mode: wire.EX}, &r)
	})
	var null wire.NameReply
	c.do(conn, &wire.SetName{Name: "n", Mode: wire.NL}, &null)
	waiting := c.waits(conn, 1, whole(ino, wire.Exclusive))
	eventually(t, "the chunkserver is told of the fence", func() (ok bool) {
		server.snapshot(func() {
			for _, f := range server.watched.Fences {
				ok = ok || f.Session == lost
			}
		})
		return ok
	})
	pending(t, "before the fence is acknowledged", waiting)
	if c.set(conn, whole(ino, wire.Shared)) {
		t.Fatal("granted before the fence is acknowledged")
	}
	server.ack(c.ctx())
	ended(t, "after it", waiting)
	eventually(t, "the name is free, and its value not valid", func() bool {
		var r wire.NameReply
		c.do(conn, &wire.SetName{Name: "n", Mode: wire.EX}, &r)
		return r.Granted && !r.Valid
	})
}

// The locks of ended sessions are released by a later leader too.
func TestANewLeaderReleasesWhatEndedSessionsHeld(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	conn := c.dial("client")
	ino := c.makeVolume(conn)
	c.abandoned("lost", func(gone *masterconn.Conn) { c.set(gone, whole(ino, wire.Exclusive)) })
	waiting := c.waits(conn, 1, whole(ino, wire.Exclusive))
	c.kill(c.leader().name)
	ended(t, "the waiter", waiting)
}

// What is closed in order holds nothing when that is answered.
func TestAClosedSessionHoldsNothing(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	a, b := c.dial("a"), c.dial("b")
	ino := c.makeVolume(a)
	c.set(a, whole(ino, wire.Exclusive))
	var r wire.NameReply
	c.do(a, &wire.SetName{Name: "n", Mode: wire.EX}, &r)
	if err := a.Close(c.ctx()); err != nil {
		t.Fatal(err)
	}
	c.do(b, &wire.SetName{Name: "n", Mode: wire.EX}, &r)
	if !c.set(b, whole(ino, wire.Exclusive)) || !r.Granted {
		t.Fatal("still held")
	}
}

// Who has gone is granted nothing: not one whose connection is lost, not one
// that has withdrawn.
func TestAWaiterThatIsGoneIsGrantedNothing(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	a, b, third := c.dial("a"), c.dial("b"), c.dial("third")
	ino := c.makeVolume(a)
	c.set(a, whole(ino, wire.Exclusive))
	cl := c.clientRPC("gone")
	gone, err := masterconn.Dial(c.ctx(), masterconn.Config{RPC: cl, Masters: c.addrs(), Name: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	c.waits(gone, 1, whole(ino, wire.Exclusive))
	ctx, cancel := context.WithCancel(c.ctx())
	withdrawn := make(chan error, 1)
	go func() {
		withdrawn <- b.Do(ctx, root, &wire.WaitLock{ID: 2, Lock: whole(ino, wire.Exclusive)}, &wire.LockReply{})
	}()
	eventually(t, "two wait", func() bool { return c.waiters() == 2 })
	cl.Close() // its process is gone
	cancel()
	if err := <-withdrawn; ashlar.KindOf(err) != ashlar.Canceled {
		t.Fatal(err)
	}
	var r wire.LockReply
	c.do(b, &wire.WaitLock{ID: 2, Cancel: true, Lock: whole(ino, wire.Exclusive)}, &r)
	if r.Granted {
		t.Fatal("granted while another held it")
	}
	eventually(t, "nobody waits", func() bool { return c.waiters() == 0 })
	l := c.leader().master.lead.Load()
	l.inEvaluator(func() {
		if len(l.locks.parked) != 0 {
			t.Errorf("%d requests are still to be answered", len(l.locks.parked))
		}
	})
	c.set(a, whole(ino, wire.Unlocked))
	if !c.set(third, whole(ino, wire.Exclusive)) {
		t.Fatal("somebody who has gone was granted the lock")
	}
}

// Two that wait for each other: the second is refused, across sessions.
func TestADeadlockAcrossSessionsIsRefused(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	a, b := c.dial("a"), c.dial("b")
	dir := c.makeVolume(a)
	var other wire.Entry
	c.do(a, &wire.Make{Parent: dir, Name: "d", Type: ashlar.TypeDir, Mode: 0o755}, &other)
	c.set(a, whole(dir, wire.Exclusive))
	c.set(b, whole(other.Attr.Inode, wire.Exclusive))
	waiting := c.waits(a, 1, whole(other.Attr.Inode, wire.Shared))
	err := b.Do(c.ctx(), root, &wire.WaitLock{ID: 1, Lock: whole(dir, wire.Shared)}, &wire.LockReply{})
	if ashlar.KindOf(err) != ashlar.Deadlock {
		t.Fatalf("the second: %v", err)
	}
	c.set(b, whole(other.Attr.Inode, wire.Unlocked))
	ended(t, "the first", waiting)
}

// A holder hears that its lock is in the way, and a conversion lets the waiter
// in.
func TestAHolderHearsThatItsLockIsWanted(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	a, b := c.dial("a"), c.dial("b")
	var held wire.NameReply
	c.do(a, &wire.SetName{Name: "n", Holder: 3, Mode: wire.PW}, &held)
	ctx, heard := c.ctx(), make(chan error, 1)
	var word wire.WatchNameReply
	go func() { heard <- a.Do(ctx, root, &wire.WatchName{Name: "n", Holder: 3}, &word) }()
	eventually(t, "it watches", func() (ok bool) {
		l := c.leader().master.lead.Load()
		l.inEvaluator(func() { ok = len(l.locks.watches) == 1 })
		return ok
	})
	got := make(chan error, 1)
	var granted wire.NameReply
	go func() {
		got <- b.Do(ctx, root, &wire.WaitName{ID: 1, Want: wire.SetName{Name: "n", Mode: wire.PR}}, &granted)
	}()
	ended(t, "the watch", heard)
	if word.Held != wire.PW || word.Wanted != wire.PR {
		t.Fatalf("told %+v", word)
	}
	pending(t, "the waiter", got)
	c.do(a, &wire.SetName{Name: "n", Holder: 3, Mode: wire.PR, SetValue: true, Value: []byte("v")}, &held)
	ended(t, "the waiter", got)
	if granted.Mode != wire.PR || string(granted.Value) != "v" || !granted.Valid {
		t.Fatalf("granted %+v", granted)
	}
	var list wire.ListLocksReply
	c.do(b, &wire.ListLocks{Limit: 10}, &list)
	if len(list.Locks) != 2 || list.Locks[0].Client != "a" || list.Locks[1].Client != "b" {
		t.Fatalf("listed %+v", list.Locks)
	}
}

// Several sessions pass one lock around while leaders die: never do two have it
// at once, and none is forgotten. I-3
func TestALockIsNeverHeldTwiceThroughLeaderChanges(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.startAll()
	ino := c.makeVolume(c.dial("maker"))
	var inside, rounds atomic.Int64
	var ids atomic.Uint64
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	const sessions, enough = 4, 400
	done := make(chan error, sessions)
	for i := range sessions {
		conn := c.dial(string(rune('a' + i)))
		go func() {
			for ctx.Err() == nil && rounds.Load() < enough {
				err := conn.Do(ctx, root, &wire.WaitLock{ID: ids.Add(1), Lock: whole(ino, wire.Exclusive)}, &wire.LockReply{})
				if err != nil {
					done <- err
					return
				}
				if inside.Add(1) != 1 {
					t.Error("held twice")
				}
				rounds.Add(1)
				inside.Add(-1)
				if err := conn.Do(ctx, root, &wire.SetLock{Lock: whole(ino, wire.Unlocked)}, &wire.LockReply{}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for _, at := range []int64{100, 250} {
		eventually(t, "some rounds", func() bool { return rounds.Load() >= at })
		name := c.leader().name
		c.kill(name)
		c.start(c.peer(name))
	}
	for range sessions {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
