package chunkserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fence loses a session and waits until every chunkserver has acknowledged it.
func (c *testbed) fence(id ashlar.SessionID) {
	c.tb.Helper()
	f := c.leader
	f.mu.Lock()
	f.rev++
	rev := f.rev
	f.fences = append(f.fences, wire.Fence{Session: id, Revision: rev})
	f.bump()
	f.mu.Unlock()
	c.eventually("the fence is acknowledged by all", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		n := 0
		for _, r := range f.fenced {
			if r >= rev {
				n++
			}
		}
		return n == len(c.nodes)
	})
}

// writeBy makes one write at the primary under a session.
func (c *testbed) writeBy(cli *rpc.Client, sid ashlar.SessionID, data []byte, seq uint64) error {
	g := c.groupNow(1)
	w := c.makeWrite(&g, 5, 0, 0, data, seq)
	w.Session = sid
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return cli.Call(ctx, g.Members[g.Primary()].Addr, w, nil)
}

// wantBlock checks the first block under a session, and that members agree.
func (c *testbed) wantBlock(t *testing.T, cli *rpc.Client, sid ashlar.SessionID, want []byte) {
	t.Helper()
	var rep wire.ReadReply
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		a := c.address(g, 5, 0)
		a.Session = sid
		return cli.Call(ctx, addr, &wire.Read{Address: a, Len: uint32(len(want))}, &rep)
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(rep.Data) != string(want) {
		t.Fatal("a late write has landed on a later one")
	}
	c.wantEqual(t)
}

// A client is paused with a write in flight. Its session is lost, another
// client writes the same block, the first wakes. I-7
func TestAWriteOfAPausedClientNeverLandsOnceItsSessionIsFenced(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	var r relay
	paused, other := c.newClientThrough(8, &r), c.newClient(9)
	defer other.Close()
	defer paused.Close()
	if err := c.writeBy(paused, 8, pattern(8192, 1), 1); err != nil {
		t.Fatal(err)
	}
	r.hold()
	answer := make(chan error, 1)
	go func() { answer <- c.writeBy(paused, 8, pattern(8192, 2), 2) }()
	c.eventually("the write is in flight", func() bool { return r.bytes() > 8192 })
	c.fence(8)
	if err := c.writeBy(other, 9, pattern(8192, 3), 1); err != nil {
		t.Fatal(err)
	}
	r.release()
	wantKind(t, <-answer, ashlar.NoSession)
	c.wantBlock(t, other, 9, pattern(8192, 3))
}

// A client is killed, and what it had sent is in its socket still. I-7
func TestBytesLeftInAKilledWritersSocketAreHarmless(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	var r relay
	killed, other := c.newClientThrough(8, &r), c.newClient(9)
	defer other.Close()
	if err := c.writeBy(killed, 8, pattern(8192, 1), 1); err != nil {
		t.Fatal(err)
	}
	r.hold()
	answer := make(chan error, 1)
	go func() { answer <- c.writeBy(killed, 8, pattern(8192, 2), 2) }()
	c.eventually("the write is sent", func() bool { return r.bytes() > 8192 })
	killed.Close()
	if err := <-answer; err == nil {
		t.Fatal("answered by nobody")
	}
	c.fence(8)
	if err := c.writeBy(other, 9, pattern(8192, 3), 1); err != nil {
		t.Fatal(err)
	}
	r.release() // returns when the server has taken all of it
	c.wantBlock(t, other, 9, pattern(8192, 3))
}

// A primary is paused with a write on its way to the members. Another becomes
// primary and takes a write of the same block, the first wakes: the members
// refuse what it had sent, and it answers nobody. I-4, I-6, I-7
func TestAPausedPrimaryNeitherAnswersNorReplicatesWhenItWakes(t *testing.T) {
	var r relay
	c := newTestbedWith(t, 3, func(n *node) {
		if n.name == "n1" {
			n.out = &r
		}
	})
	c.makeGroup(1, 0, 1, 2)
	c.mustWrite(1, 5, 0, 0, pattern(8192, 1))
	old := c.groupNow(1)
	asleep := c.nodes[0].cs.life.Load()
	r.hold()
	c.leader.mu.Lock()
	c.leader.deaf["n1"] = true // it hears nothing of the masters
	c.leader.mu.Unlock()
	wctx, give := context.WithCancel(t.Context())
	defer give()
	answer := make(chan error, 1)
	late := c.makeWrite(&old, 5, 0, 0, pattern(8192, 2), c.nextSeq())
	go func() { answer <- c.client.Call(wctx, old.Members[0].Addr, late, nil) }()
	c.eventually("the write is on its way to both members", func() bool { return r.bytes() > 2*8192 })
	// Its lease is over, and the masters make another primary.
	c.eventually("the lease is over", func() bool { asleep.lease.until.Store(0); return !asleep.lease.valid() })
	c.change(1, func(g *ashlar.Group) { g.Members[0].State = ashlar.Offline })
	other := c.newClient(9)
	defer other.Close()
	if err := c.hard(1, func(context.Context, *ashlar.Group, string, bool) error {
		return c.writeBy(other, 9, pattern(8192, 3), 1)
	}); err != nil {
		t.Fatal(err)
	}
	r.release()
	// It wakes: reads and writes of those who still believe in it.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	wantKind(t, c.client.Call(ctx, old.Members[0].Addr, &wire.Read{Address: c.address(&old, 5, 0), Len: 8192}, &wire.ReadReply{}), ashlar.NoLease)
	wantKind(t, c.client.Call(ctx, old.Members[0].Addr, c.makeWrite(&old, 5, 0, 0, pattern(8192, 4), c.nextSeq()), nil), ashlar.NoLease)
	give()
	if err := <-answer; err == nil || errors.Is(err, ashlar.Invalid) {
		t.Fatalf("the write in flight was answered with %v", err)
	}
	c.leader.mu.Lock()
	c.leader.deaf["n1"] = false
	c.leader.mu.Unlock()
	c.wantBlock(t, other, 9, pattern(8192, 3))
}
