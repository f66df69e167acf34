package chunkserver

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func (c *testbed) runs(id ashlar.PGID, layer ashlar.LayerID, chunk uint32) (out string) {
	c.tb.Helper()
	var rep wire.RunsReply
	err := c.hard(id, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		return c.client.Call(ctx, addr, &wire.Runs{Address: c.address(g, layer, chunk), Len: testChunk}, &rep)
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	for i := range rep.Starts {
		out += fmt.Sprintf("%d-%d ", rep.Starts[i]/4096, rep.Ends[i]/4096)
	}
	if len(rep.Starts) == 0 {
		out = fmt.Sprint("next ", int32(rep.Next))
	}
	return out
}

func (c *testbed) zero(id ashlar.PGID, layer ashlar.LayerID, chunk, off, n uint32) {
	c.tb.Helper()
	seq := c.nextSeq()
	err := c.hard(id, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		w := c.makeWrite(g, layer, chunk, off, nil, seq)
		w.Flags, w.Len, w.Sums = wire.WriteZero, n, nil
		return c.client.Call(ctx, addr, w, nil)
	})
	if err != nil {
		c.tb.Fatal(err)
	}
}

func TestAPrimaryTellsWhereDataIs(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	want := func(chunk uint32, s string) {
		t.Helper()
		if got := c.runs(1, 5, chunk); got != s {
			t.Errorf("chunk %d: %q, want %q", chunk, got, s)
		}
	}
	want(0, "next -1")
	c.mustWrite(1, 5, 7, 0, pattern(1, 1))
	c.mustWrite(1, 5, 3, 20*4096+5, pattern(10, 1))
	c.mustWrite(1, 6, 2, 0, pattern(1, 1)) // of another layer
	want(0, "next 3")
	want(3, "20-21 ")
	want(4, "next 7")
	c.mustWrite(1, 5, 3, 0, pattern(testChunk, 2))
	want(3, "0-256 ")
	c.zero(1, 5, 3, 4096, 10*4096)
	want(3, "0-1 11-256 ")
	c.zero(1, 5, 3, 100, 4096) // what is cut by an edge keeps the rest
	want(3, "0-1 11-256 ")
	c.zero(1, 5, 3, 0, testChunk)
	want(3, "next 7")
	c.mustRead(1, 5, 3, 0, make([]byte, testChunk))
	c.wantEqual(t)
}

// A copy is a write like any other: it takes effect once, on every member,
// whether the source is the primary's own or another server's. I-7
func TestARangeIsCopiedBetweenGroups(t *testing.T) {
	c := newTestbed(t, 3)
	c.makeGroup(1, 0, 1)
	c.makeGroup(2, 1, 2) // another primary
	c.makeGroup(3, 0, 2) // the same
	data := pattern(200_000, 1)
	c.mustWrite(1, 5, 0, 0, data)
	for _, to := range []ashlar.PGID{1, 2, 3} {
		src, dst := c.groupNow(1), c.groupNow(to)
		m := &wire.CopyRange{
			Address: c.address(&dst, 9, 1), Seq: c.nextSeq(), Off: 1000, Len: 150_000, ChunkSize: testChunk,
			Source: c.address(&src, 5, 0), SourceAddr: src.Members[src.Primary()].Addr, SourceOff: 777,
		}
		send := func() error {
			return c.hard(to, func(ctx context.Context, g *ashlar.Group, addr string, again bool) error {
				return c.client.Call(ctx, addr, m, nil)
			})
		}
		if err := send(); err != nil {
			t.Fatalf("to group %d: %v", to, err)
		}
		want := slices.Concat(make([]byte, 1000), data[777:150_777], make([]byte, 4096*37-151_000))
		c.mustRead(to, 9, 1, 0, want)
		// A retry of it does not bring back what was written since.
		c.mustWrite(to, 9, 1, 5000, pattern(100, 9))
		copy(want[5000:], pattern(100, 9))
		m.Flags |= wire.WriteRetry
		if err := send(); err != nil {
			t.Fatalf("again: %v", err)
		}
		c.mustRead(to, 9, 1, 0, want)
		// Holes stay holes.
		m.Seq, m.Flags, m.SourceOff, m.Off, m.Len = c.nextSeq(), 0, 300_000, 0, testChunk/2
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if got := c.runs(to, 9, 1); got != "next -1" {
			t.Errorf("a hole became data at %q", got)
		}
		// What can not be read is for the client to find out.
		m.Seq, m.Source.Epoch = c.nextSeq(), 99
		if err := send(); ashlar.KindOf(err) != ashlar.Unsupported {
			t.Errorf("a source of another epoch: %v", err)
		}
		m.Seq, m.Source.Session = c.nextSeq(), 8
		if err := send(); ashlar.KindOf(err) != ashlar.Invalid {
			t.Errorf("a source of another session: %v", err)
		}
	}
	c.wantEqual(t)
}
