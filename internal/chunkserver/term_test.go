package chunkserver

import (
	"context"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A leader is paused with requests on their way; another is elected and does
// the same, or undoes it; the first wakes. The epoch is the same all the while.
// I-6, I-10
func TestWhatADeposedLeaderStillAsksForIsRefused(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(64<<10, 1))
	g := c.groupNow(1)
	ask := func(m wire.Message) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return c.nodes[1].cli.Call(ctx, c.nodes[0].addr, m, nil)
	}
	// The new leader lets whoever yielded to the old one go on.
	if err := ask(&wire.Yield{Group: 1, Epoch: g.Epoch, Resume: true, Term: 7}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, ask(&wire.Yield{Group: 1, Epoch: g.Epoch, Term: 6}), ashlar.Stale)
	wantKind(t, ask(&wire.Cut{Group: 1, Epoch: g.Epoch, Layer: 5, Gen: 2, Truncate: true, Term: 6}), ashlar.Stale)
	wantKind(t, ask(&wire.DeleteLayers{Group: 1, Epoch: g.Epoch, Layers: []ashlar.LayerID{5}, Term: 6}), ashlar.Stale)
	c.mustWrite(1, 5, 0, 4096, pattern(4096, 2))
	c.mustRead(1, 5, 0, 0, append(pattern(64<<10, 1)[:4096:4096], pattern(4096, 2)...))
}
