package chunkstore

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func benchDisk(b *testing.B) *Disk {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "disk")
	if err := Format(vfs.OS, dir, testCluster); err != nil {
		b.Fatal(err)
	}
	d, err := Open(Config{FS: vfs.OS, Dir: dir, Cluster: testCluster, BootID: "b", Reserve: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Abandon() })
	return d
}

func benchWrite(b *testing.B, d *Disk, k Key, w *Write) {
	b.Helper()
	if err := d.Write(k, w); err != nil {
		b.Fatal(err)
	}
}

func dataWrite(off uint32, data []byte) *Write {
	return &Write{Off: off, Len: uint32(len(data)), Data: data, Sums: checksum.Append(nil, uint64(off), data), ChunkSize: 64 << 20, Epoch: 1, Origin: wire.Origin{Hint: "/some/file"}}
}

// Two system calls: data, record. No allocation. About 3 µs.
func BenchmarkWrite4KiBRandom(b *testing.B) {
	d := benchDisk(b)
	w := dataWrite(0, make([]byte, 4096))
	rng := rand.New(rand.NewPCG(1, 1))
	k := Key{1, 1, 0}
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		w.Off = uint32(rng.IntN(16384)) * 4096
		benchWrite(b, d, k, w)
	}
}

// Two system calls: data, 16 records; every eighth write a third that starts
// writing back.
func BenchmarkWrite1MiBSequential(b *testing.B) {
	d := benchDisk(b)
	w := dataWrite(0, make([]byte, 1<<20))
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	i := uint32(0)
	for b.Loop() {
		w.Off = i % 64 << 20
		benchWrite(b, d, Key{1, 1, i / 64 % 4}, w)
		i++
	}
}

// Four system calls: open (fails), create, data, header with records.
func BenchmarkNewFile16KiB(b *testing.B) {
	d := benchDisk(b)
	w := dataWrite(0, make([]byte, 16<<10))
	b.SetBytes(16 << 10)
	b.ReportAllocs()
	l := ashlar.LayerID(0)
	for b.Loop() {
		l++
		benchWrite(b, d, Key{1, l, 0}, w)
	}
}

// One system call; the sums are allocated. About 1.2 µs.
func BenchmarkRead4KiB(b *testing.B) {
	d := benchDisk(b)
	k := Key{1, 1, 0}
	for off := uint32(0); off < 16<<20; off += 1 << 20 {
		benchWrite(b, d, k, dataWrite(off, make([]byte, 1<<20)))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	dst := make([]byte, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := d.Read(k, uint32(rng.IntN(4096))*4096, 4096, dst); err != nil {
			b.Fatal(err)
		}
	}
}

// No system call, no allocation.
func BenchmarkInflight(b *testing.B) {
	d := benchDisk(b)
	f := d.Inflight()
	e := InflightEntry{}
	b.ReportAllocs()
	for b.Loop() {
		s, err := f.Begin(1, 1, 1, &e.Inflight)
		if err != nil {
			b.Fatal(err)
		}
		f.Applied(s)
		f.Done(s)
		f.Free(s)
	}
}
