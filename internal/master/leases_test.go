package master

import (
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// holder is a client with leases: it notes what is recalled, and returns only
// what it is told to.
type holder struct {
	*masterconn.Conn
	c   *cluster
	rpc *rpc.Client

	mu       sync.Mutex
	held     map[ashlar.Inode]ashlar.LeaseMode
	recalled map[ashlar.Inode]ashlar.LeaseMode // and what may be kept
}

func (c *cluster) holder(name string) *holder {
	c.t.Helper()
	h := &holder{c: c, held: map[ashlar.Inode]ashlar.LeaseMode{}, recalled: map[ashlar.Inode]ashlar.LeaseMode{}}
	cl := c.clientRPC(name)
	conn, err := masterconn.Dial(c.ctx(), masterconn.Config{
		RPC: cl, Masters: c.addrs(), Name: name, Logger: testLogger(name), Leases: h.leases, OnRecall: h.recall,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cl.Close() })
	h.Conn, h.rpc = conn, cl
	return h
}

func (h *holder) leases() (out []wire.HeldLease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ino, m := range h.held {
		out = append(out, wire.HeldLease{Inode: ino, Mode: m})
	}
	return out
}

func (h *holder) recall(r wire.Recall) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recalled[r.Inode] = r.Keep
}

// ask does an operation and checks the lease on what it answers with.
func (h *holder) ask(want ashlar.LeaseMode, m wire.Message) *wire.Entry {
	h.c.t.Helper()
	e := new(wire.Entry)
	h.c.do(h.Conn, m, e)
	if e.Lease != want {
		h.c.t.Fatalf("%T: a lease that is %v, want %v", m, e.Lease, want)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[e.Attr.Inode] = e.Lease; e.Lease == ashlar.LeaseNone {
		delete(h.held, e.Attr.Inode)
	}
	for _, a := range e.Also {
		if a.Lease != ashlar.LeaseNone {
			h.held[a.Attr.Inode] = a.Lease
		}
	}
	return e
}

// give waits for a recall and answers it.
func (h *holder) give(ino ashlar.Inode, keep ashlar.LeaseMode, open bool) {
	h.c.t.Helper()
	eventually(h.c.t, "the lease is recalled", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		_, ok := h.recalled[ino]
		return ok
	})
	h.mu.Lock()
	may := h.recalled[ino]
	delete(h.recalled, ino)
	if h.held[ino] = keep; keep == ashlar.LeaseNone {
		delete(h.held, ino)
	}
	h.mu.Unlock()
	if may != keep {
		h.c.t.Errorf("%v may be kept, want %v", may, keep)
	}
	h.c.do(h.Conn, &wire.ReturnLeases{Leases: []wire.HeldLease{{Inode: ino, Mode: keep, Open: open}}}, nil)
}

// begin begins an operation; the channel tells how it ended.
func (c *cluster) begin(conn *masterconn.Conn, m wire.Message, e *wire.Entry) <-chan error {
	ctx, done := c.ctx(), make(chan error, 1)
	go func() { done <- conn.Do(ctx, root, m, e) }()
	return done
}

// leased makes a cluster with a holder that has made a file and put it away, and
// somebody without leases.
func leased(t *testing.T) (c *cluster, h *holder, other *masterconn.Conn, dir ashlar.Inode, file *wire.Entry) {
	c = newCluster(t, 3, nil)
	c.startAll()
	c.fakeServer("s1", 1, 1)
	h, other = c.holder("holder"), c.dial("other")
	dir = c.makeVolume(other)
	file = h.ask(ashlar.LeaseExclusive, &wire.Make{Parent: dir, Name: "f", Type: ashlar.TypeFile, Mode: 0o644, Open: true})
	return c, h, other, dir, file
}

// What a holder may have written is with the leader before others are told of
// the file, and the holder may go on reading.
func TestALookAtAFileWaitsForItsWriter(t *testing.T) {
	c, h, other, dir, file := leased(t)
	var seen wire.Entry
	looking := c.begin(other, &wire.Lookup{Parent: dir, Name: "f"}, &seen)
	eventually(t, "the lease is recalled", func() bool { return len(h.asked()) > 0 })
	pending(t, "the look-up", looking)
	c.do(h.Conn, &wire.Commit{Inode: file.Attr.Inode, Layer: file.Object.Layer, Gen: file.Object.Gen, Size: 77}, &wire.Entry{})
	h.give(file.Attr.Inode, ashlar.LeaseShared, true)
	ended(t, "the look-up", looking)
	if seen.Attr.Size != 77 {
		t.Errorf("size %d, want what was committed", seen.Attr.Size)
	}
	c.do(other, &wire.GetAttr{Inode: file.Attr.Inode}, &seen) // shared leases stand in nobody's way
}

// asked returns what is recalled now.
func (h *holder) asked() map[ashlar.Inode]ashlar.LeaseMode {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[ashlar.Inode]ashlar.LeaseMode{}
	for ino, m := range h.recalled {
		out[ino] = m
	}
	return out
}

// A name is in nobody's cache when it is changed, nor is what it led to.
func TestAChangeWaitsForWhoMayHaveItCached(t *testing.T) {
	c, h, other, dir, _ := leased(t)
	d := h.ask(ashlar.LeaseShared, &wire.Make{Parent: dir, Name: "d", Type: ashlar.TypeDir, Mode: 0o755})
	if h.held[dir] != ashlar.LeaseShared {
		t.Fatal("no lease on the directory of a name that was made")
	}
	h.ask(ashlar.LeaseShared, &wire.Make{Parent: d.Attr.Inode, Name: "own", Type: ashlar.TypeDir, Mode: 0o755}) // it does not wait for itself
	var gone wire.Entry
	removing := c.begin(other, &wire.Rename{OldParent: dir, OldName: "d", NewParent: dir, NewName: "e"}, &gone)
	h.give(dir, ashlar.LeaseNone, false)
	pending(t, "before all is returned", removing)
	h.give(d.Attr.Inode, ashlar.LeaseNone, false)
	ended(t, "the rename", removing)
}

// I-7: a lost session's lease goes when it is fenced.
func TestALostSessionsLeaseGoesOnceItIsFenced(t *testing.T) {
	c, h, other, dir, file := leased(t)
	var e wire.Entry
	changing := c.begin(other, &wire.SetAttr{Inode: file.Attr.Inode, Valid: wire.SetMode, Mode: 0o600}, &e)
	eventually(t, "the lease is recalled", func() bool { return len(h.asked()) > 0 })
	began := time.Now()
	h.vanish()
	ended(t, "the change", changing)
	if waited := time.Since(began); waited < c.leader().master.cfg.Lease/2 {
		t.Errorf("changed %v after the holder fell silent: its lease still held", waited)
	}
	c.do(other, &wire.Lookup{Parent: dir, Name: "f"}, &e)
}

// vanish lets the holder fall silent, as a killed process does.
func (h *holder) vanish() { h.rpc.Close() }

// A new leader does nothing that an unknown lease might stand against before
// every session has said what it holds; and what was said is recalled.
func TestLeasesOutliveALeaderChange(t *testing.T) {
	c, h, other, _, file := leased(t)
	c.kill(c.leader().name)
	var e wire.Entry
	changing := c.begin(other, &wire.SetAttr{Inode: file.Attr.Inode, Valid: wire.SetMode, Mode: 0o600}, &e)
	h.give(file.Attr.Inode, ashlar.LeaseNone, false)
	ended(t, "the change", changing)
	if h.ask(ashlar.LeaseExclusive, &wire.AcquireLease{Inode: file.Attr.Inode, Mode: ashlar.LeaseExclusive}).Attr.Mode != 0o600 {
		t.Error("the lease came without the change")
	}
}

// A lease that is asked for waits for others', and for changes under way.
func TestALeaseIsWaitedFor(t *testing.T) {
	c, h, _, _, file := leased(t)
	second := c.holder("second")
	var e wire.Entry
	asking := c.begin(second.Conn, &wire.AcquireLease{Inode: file.Attr.Inode, Mode: ashlar.LeaseExclusive}, &e)
	h.give(file.Attr.Inode, ashlar.LeaseNone, false)
	ended(t, "the lease", asking)
	if e.Lease != ashlar.LeaseExclusive {
		t.Errorf("a lease that is %v", e.Lease)
	}
}

// Who has a file open that has lost its name may get leases on it, although the
// leader may not know that it is open.
func TestALeaseOnAFileWithoutANameIsGiven(t *testing.T) {
	c, h, _, dir, file := leased(t)
	c.do(h.Conn, &wire.Release{Inodes: []ashlar.Inode{file.Attr.Inode}}, nil)
	second := c.holder("second")
	looking := c.begin(second.Conn, &wire.Lookup{Parent: dir, Name: "f"}, new(wire.Entry))
	h.give(file.Attr.Inode, ashlar.LeaseShared, false)
	ended(t, "the look", looking)
	var e wire.Entry
	removing := c.begin(h.Conn, &wire.Remove{Parent: dir, Name: "f"}, &e)
	second.give(file.Attr.Inode, ashlar.LeaseNone, false)
	second.give(dir, ashlar.LeaseNone, false)
	ended(t, "the removal", removing)
	h.ask(ashlar.LeaseExclusive, &wire.AcquireLease{Inode: file.Attr.Inode, Mode: ashlar.LeaseExclusive})
}

// A file without a name stays for who may have it open under a lease.
func TestAFileStaysForItsLeaseholder(t *testing.T) {
	c, h, other, dir, file := leased(t)
	c.do(h.Conn, &wire.Release{Inodes: []ashlar.Inode{file.Attr.Inode}}, nil)
	var e wire.Entry
	removing := c.begin(other, &wire.Remove{Parent: dir, Name: "f"}, &e)
	h.give(dir, ashlar.LeaseNone, false)
	h.give(file.Attr.Inode, ashlar.LeaseNone, true) // it is open there again, which nobody knew
	ended(t, "the removal", removing)
	c.do(h.Conn, &wire.GetAttr{Inode: file.Attr.Inode}, &e)
	c.do(h.Conn, &wire.Release{Inodes: []ashlar.Inode{file.Attr.Inode}}, nil)
	eventually(t, "it is gone", func() bool {
		return ashlar.KindOf(other.Do(c.ctx(), root, &wire.GetAttr{Inode: file.Attr.Inode}, &e)) == ashlar.Stale
	})
}

// I-3: leases that were returned, and files that were closed, once more through a
// newer connection may be held and open again since: what was sent through the
// older one comes too late, wherever in this leader it was held up.
func TestWhatWasReturnedThroughAnOldConnectionStays(t *testing.T) {
	c, h, _, _, file := leased(t)
	l := c.leader().master.lead.Load()
	l.sessMu.Lock()
	old := l.sessions[h.Session()].generation - 1
	l.sessMu.Unlock()
	ino := file.Attr.Inode
	late := &wire.Operation{Session: h.Session(), Generation: old, Body: &wire.ReturnLeases{Leases: []wire.HeldLease{{Inode: ino}}}}
	if _, err := l.returnLeases(late); ashlar.KindOf(err) != ashlar.NoSession {
		t.Errorf("a late return: %v", err)
	}
	if _, err := l.release(late, &wire.Release{Inodes: []ashlar.Inode{ino}}); ashlar.KindOf(err) != ashlar.NoSession {
		t.Errorf("a late release: %v", err)
	}
	if !l.leases.Holds(ino) || !l.opens.OpenElsewhere(ino, 0) {
		t.Error("the lease is returned, or the file closed")
	}
}
