package master

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// BenchmarkCreates makes files from 64 goroutines over 8 sessions against
// three masters on the real disk, all in this process.
func BenchmarkCreates(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) {
		cfg.Lease, cfg.Dead, cfg.ConsensusTick = LeaseDefault, DeadDefault, 0
	})
	c.startAll()
	c.fakeServer("s1", 1, 1)
	admin := c.dial("admin")
	root := c.makeVolume(admin)
	c.makeFile(admin, root, "first")
	const sessions, workers = 8, 64
	var conns []*masterconn.Conn
	for i := range sessions {
		conns = append(conns, c.dial(fmt.Sprintf("client %d", i)))
	}
	var dirs []ashlar.Inode
	for i := range workers {
		var e wire.Entry
		c.do(admin, &wire.Make{Parent: root, Name: fmt.Sprint(i), Type: ashlar.TypeDir, Mode: 0o755}, &e)
		dirs = append(dirs, e.Attr.Inode)
	}
	var worker, n atomic.Int64
	b.SetParallelism(workers / 2) // times GOMAXPROCS, which is 2 where this is measured
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		w := int(worker.Add(1))
		conn, dir := conns[w%sessions], dirs[w%workers]
		ctx := b.Context()
		for pb.Next() {
			var e wire.Entry
			m := &wire.Make{Parent: dir, Name: fmt.Sprint(n.Add(1)), Type: ashlar.TypeFile, Mode: 0o644, Exclusive: true}
			if err := conn.Do(ctx, ashlar.Cred{}, m, &e); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

// makeFile makes a file that has a place for its first chunk, which needs a
// placement group.
func (c *cluster) makeFile(conn *masterconn.Conn, dir ashlar.Inode, name string) *wire.Entry {
	c.t.Helper()
	e := new(wire.Entry)
	c.do(conn, &wire.Make{Parent: dir, Name: name, Type: ashlar.TypeFile, Mode: 0o644, Open: true}, e)
	c.do(conn, &wire.Grow{Inode: e.Attr.Inode, Layer: e.Object.Layer, Chunk: 0}, e)
	return e
}
