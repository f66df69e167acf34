package replication

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

type noSlots struct{}

func (noSlots) Begin(ashlar.Epoch, uint64, *wire.Inflight) (Slot, error) { return 1, nil }
func (noSlots) Applied(Slot)                                             {}
func (noSlots) Done(Slot)                                                {}
func (noSlots) Free(Slot)                                                {}

// BenchmarkWrite is one write through a primary with two other members.
func BenchmarkWrite(b *testing.B) {
	g := New(1, Options{Slots: noSlots{}, Gate: func(*Op) error { return nil }})
	cfg := ashlar.Group{ID: 1, Epoch: 1}
	for d := range ashlar.DiskID(3) {
		cfg.Members = append(cfg.Members, ashlar.Member{Disk: d + 1, State: ashlar.InSync})
	}
	g.Configure(cfg)
	g.Recorded(1)
	for d := range ashlar.DiskID(2) {
		g.HandedOver(d+2, 1, &wire.Handover{})
	}
	for d := range ashlar.DiskID(2) {
		g.Resolved(d+2, 1)
	}
	if g.Phase() != Serving {
		b.Fatal(g)
	}
	g.Actions()
	w := &wire.Write{Address: wire.Address{Epoch: 1, Session: 7, Layer: 1, Gen: 1}, Len: 4096}
	b.ReportAllocs()
	for i := range b.N {
		w.Seq, w.Lowest, w.Off = uint64(i+1), uint64(i+1), uint32(i%16)*4096
		op := &Op{Write: w}
		if v, _, err := g.Order(op); v != Taken {
			b.Fatal(v, err)
		}
		g.Actions()
		g.Applied(op, 1, nil)
		g.Acked(op, 2, 1)
		g.Acked(op, 3, 1)
		if !op.Over() {
			b.Fatal("not over")
		}
		g.Actions()
	}
}
