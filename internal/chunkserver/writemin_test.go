package chunkserver

import (
	"context"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestNothingIsAcknowledgedOnFewerCopiesThanWriteMin(t *testing.T) {
	c := newTestbed(t, 2)
	c.leader.mu.Lock()
	c.leader.rules = []wire.PoolRule{{Pool: 0, Copies: 2}}
	c.leader.mu.Unlock()
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(8192, 1))
	c.nodes[1].kill()
	// One that is under way when the other dies, and its retries, are not
	// acknowledged either.
	seq := c.nextSeq()
	refused := func() bool {
		g := c.groupNow(1)
		w := c.makeWrite(&g, 5, 0, 0, pattern(4096, 2), seq)
		w.Flags = wire.WriteRetry
		err := c.once(1, w, nil)
		if err == nil {
			t.Fatal("a write was acknowledged on one copy")
		}
		return c.inSync(1) == 1 && ashlar.KindOf(err) == ashlar.NotReady
	}
	c.eventually("it is alone, and refuses", refused)
	c.mustRead(1, 5, 0, 4096, pattern(8192, 1)[4096:]) // what there is can be read
	g := c.groupNow(1)
	wantKind(t, c.once(1, &wire.Sync{Address: c.address(&g, 5, 0)}, nil), ashlar.NotReady)
	c.nodes[1].start()
	c.eventually("in-sync again", func() bool { return c.inSync(1) == 2 })
	err := c.hard(1, func(ctx context.Context, g *ashlar.Group, addr string, _ bool) error {
		w := c.makeWrite(g, 5, 0, 0, pattern(4096, 2), seq)
		w.Flags = wire.WriteRetry
		return c.client.Call(ctx, addr, w, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.wantEqual(t)
}
