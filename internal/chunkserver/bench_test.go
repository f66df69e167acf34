package chunkserver

import (
	"context"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func benchmarkWrite(b *testing.B, size int) {
	c := newTestbed(b, 2)
	c.makeGroup(1, 0, 1)
	data := pattern(size, 1)
	c.mustWrite(1, 5, 0, 0, data)
	g := c.groupNow(1)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	w := c.makeWrite(&g, 5, 0, 0, data, 0)
	for i := range b.N {
		w.Seq = c.nextSeq()
		w.Lowest = w.Seq
		w.Off = uint32(i*size) % testChunk
		if err := c.client.Call(context.Background(), g.Members[0].Addr, w, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite4KiB(b *testing.B) { benchmarkWrite(b, 4<<10) }
func BenchmarkWrite1MiB(b *testing.B) { benchmarkWrite(b, 1<<20) }

func BenchmarkRead4KiB(b *testing.B) {
	c := newTestbed(b, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(1<<20, 1))
	g := c.groupNow(1)
	b.SetBytes(4096)
	b.ReportAllocs()
	b.ResetTimer()
	m := &wire.Read{Address: c.address(&g, 5, 0), Len: 4096}
	var rep wire.ReadReply
	for i := range b.N {
		m.Off = uint32(i*ashlar.BlockSize) % testChunk
		if err := c.client.Call(context.Background(), g.Members[0].Addr, m, &rep); err != nil {
			b.Fatal(err)
		}
	}
}
