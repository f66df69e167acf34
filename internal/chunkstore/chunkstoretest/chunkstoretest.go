// Package chunkstoretest holds chunk stores to their contract: one suite, run
// over every file system that a disk may stand on. It is used by tests alone,
// keeps no state and locks nothing.
package chunkstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Cluster is the cluster of every disk in the suite.
var Cluster = ashlar.ClusterID{1, 2, 3}

// Place is a directory to make a disk in.
type Place struct {
	FS  vfs.FS
	Dir string
}

// Config returns a configuration that suits small disks.
func (p Place) Config() chunkstore.Config {
	return chunkstore.Config{FS: p.FS, Dir: p.Dir, Cluster: Cluster, BootID: "boot-1", Reserve: 1}
}

// Format formats and opens the disk; it is closed with the test.
func (p Place) Format(t testing.TB) *chunkstore.Disk {
	t.Helper()
	if err := chunkstore.Format(p.FS, p.Dir, Cluster); err != nil {
		t.Fatal(err)
	}
	return Open(t, p.Config())
}

// Open opens a disk and closes it with the test, if it still is open.
func Open(t testing.TB, c chunkstore.Config) *chunkstore.Disk {
	t.Helper()
	d, err := chunkstore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// Size is the chunk size in the suite: enough for records on two pages.
const Size = 2 << 20

// Write writes data to a chunk.
func Write(d *chunkstore.Disk, k chunkstore.Key, off uint32, data []byte, e ashlar.Epoch) error {
	return d.Write(k, &chunkstore.Write{
		Off: off, Len: uint32(len(data)), Data: data, Sums: checksum.Append(nil, uint64(off), data),
		ChunkSize: Size, Origin: wire.Origin{Owner: 77, Hint: "/a/b"}, Epoch: e,
	})
}

// WriteZero zeroes a range of a chunk.
func WriteZero(d *chunkstore.Disk, k chunkstore.Key, off, n uint32, e ashlar.Epoch) error {
	return d.Write(k, &chunkstore.Write{Off: off, Len: n, Zero: true, ChunkSize: Size, Origin: wire.Origin{Owner: 77, Hint: "/a/b"}, Epoch: e})
}

// Read reads blocks and checks the sums that come with them.
func Read(d *chunkstore.Disk, k chunkstore.Key, off, n uint32) ([]byte, error) {
	p := bytes.Repeat([]byte{0xee}, int(n))
	sums, zero, err := d.Read(k, off, n, p)
	if err != nil {
		return nil, err
	}
	if zero {
		return make([]byte, n), nil
	}
	if bad := checksum.Verify(sums, 0, p); bad >= 0 {
		return nil, fmt.Errorf("block %d does not match its sum", bad)
	}
	return p, nil
}

// MustRead is Read that fails the test.
func MustRead(t testing.TB, d *chunkstore.Disk, k chunkstore.Key, off, n uint32) []byte {
	t.Helper()
	p, err := Read(d, k, off, n)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Run runs the suite; place makes a fresh place.
func Run(t *testing.T, place func(t *testing.T) Place) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, p Place)
	}{
		{"WhatIsWrittenIsRead", writtenIsRead},
		{"RandomWritesEqualAModel", randomWrites},
		{"AHoleReadsAsZeros", holes},
		{"DataWithAWrongChecksumIsNotStored", wrongSum},
		{"ACutChunkGrowsBackWithZeros", truncate},
		{"CutRemovesTheChunksBehindIt", cut},
		{"DeletedLayersAreGone", deleteLayers},
		{"AnExportedChunkImportsEqual", exportImport},
		{"ListIsOrderedAndPaged", list},
		{"ChangedRegionsFollowEpochs", changed},
		{"GroupRecordsAndGenerationsSurvive", groups},
		{"ADeletedGroupIsForgotten", deleteGroup},
		{"InflightSurvivesTheProcess", inflight},
		{"EverythingSurvivesTheProcess", survives},
		{"TheSameDiskIsNotOpenedTwice", twice},
		{"AForeignDiskIsRefused", foreign},
		{"TheChunksAreCounted", counted},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, place(t)) })
	}
}

var key = chunkstore.Key{Group: 3, Layer: 0x1234, Index: 5}

func fill(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, k ashlar.Kind) {
	t.Helper()
	if !errors.Is(err, k) {
		t.Fatalf("got %v, want kind %v", err, k)
	}
}

func writtenIsRead(t *testing.T, p Place) {
	d := p.Format(t)
	data := fill(newRand(), 1<<20)
	must(t, Write(d, key, 0, data, 1))
	if !bytes.Equal(MustRead(t, d, key, 0, 1<<20), data) {
		t.Fatal("differs")
	}
	must(t, d.SyncLayer(key.Group, key.Layer))
	must(t, Write(d, key, 1<<20, data[:100], 1))
	got := MustRead(t, d, key, 1<<20, 4096)
	if !bytes.Equal(got[:100], data[:100]) || !bytes.Equal(got[100:], make([]byte, 3996)) {
		t.Fatal("a short block is not padded with zeros")
	}
	info, ok, err := d.Info(key)
	must(t, err)
	if !ok || info.Owner != 77 || info.Hint != "/a/b" || info.ChunkSize != Size || info.ChangedEpoch != 1 {
		t.Fatalf("info %+v", info)
	}
}

func randomWrites(t *testing.T, p Place) {
	d := p.Format(t)
	rng := newRand()
	model := make([]byte, Size)
	reopen := 0
	for range 150 {
		off := uint32(rng.IntN(Size))
		n := uint32(min(1+rng.IntN(1<<(1+rng.IntN(19))), int(Size-off)))
		if rng.IntN(3) == 0 {
			off &^= 4095
		}
		switch rng.IntN(10) {
		case 0:
			must(t, WriteZero(d, key, off, n, 1))
			clear(model[off : off+n])
		case 1:
			must(t, d.Truncate(key, off, 1))
			clear(model[off:])
		case 2:
			if reopen++; reopen%4 == 0 {
				must(t, d.Close())
				d = Open(t, p.Config())
			}
		default:
			data := fill(rng, int(n))
			must(t, Write(d, key, off, data, 1))
			copy(model[off:], data)
		}
		from := off &^ 4095
		size := (n + 2*4096) &^ 4095
		if from+size > Size {
			size = Size - from
		}
		size = min(size, 1<<20)
		if !bytes.Equal(MustRead(t, d, key, from, size), model[from:from+size]) {
			t.Fatalf("differs around %d+%d", off, n)
		}
	}
	for off := uint32(0); off < Size; off += 1 << 20 {
		if !bytes.Equal(MustRead(t, d, key, off, 1<<20), model[off:off+1<<20]) {
			t.Fatal("differs")
		}
	}
	_, bad, err := d.Verify(key)
	must(t, err)
	if len(bad) > 0 {
		t.Fatalf("damaged: %v", bad)
	}
}

func holes(t *testing.T, p Place) {
	d := p.Format(t)
	if _, zero, err := d.Read(key, 0, 8192, make([]byte, 8192)); err != nil || !zero {
		t.Fatalf("a chunk that is not there: zero %v, %v", zero, err)
	}
	must(t, Write(d, key, 8192, []byte{1}, 1))
	if _, zero, err := d.Read(key, 0, 8192, make([]byte, 8192)); err != nil || !zero {
		t.Fatalf("before the data: zero %v, %v", zero, err)
	}
	dst := bytes.Repeat([]byte{9}, 3*4096)
	sums, zero, err := d.Read(key, 4096, 3*4096, dst)
	must(t, err)
	want := make([]byte, 3*4096)
	want[4096] = 1
	if zero || !bytes.Equal(dst, want) || sums[0] != checksum.Zero || sums[2] != checksum.Zero {
		t.Fatalf("zero %v sums %x", zero, sums)
	}
	must(t, WriteZero(d, key, 8192, 4096, 2))
	states, _, err := d.Sums(key)
	must(t, err)
	if !bytes.Equal(states, []byte{chunkstore.Absent, chunkstore.Absent, chunkstore.Zero}) {
		t.Fatalf("states %v", states)
	}
}

func wrongSum(t *testing.T, p Place) {
	d := p.Format(t)
	must(t, Write(d, key, 0, []byte("old"), 1))
	w := &chunkstore.Write{Off: 0, Len: 3, Data: []byte("new"), Sums: []uint32{1}, ChunkSize: Size, Epoch: 2}
	wantKind(t, d.Write(key, w), ashlar.Corrupt)
	w.Sums = nil
	wantKind(t, d.Write(key, w), ashlar.Corrupt)
	if got := MustRead(t, d, key, 0, 4096); string(got[:3]) != "old" {
		t.Fatalf("it was stored: %q", got[:3])
	}
	w.ChunkSize = 2 * Size
	w.Sums = checksum.Append(nil, 0, w.Data)
	wantKind(t, d.Write(key, w), ashlar.Invalid)
}

func truncate(t *testing.T, p Place) {
	d := p.Format(t)
	data := bytes.Repeat([]byte{7}, 1<<20)
	must(t, Write(d, key, 0, data, 1))
	must(t, Write(d, key, 1<<20, data, 1))
	must(t, d.Truncate(key, 5000, 2))
	got := MustRead(t, d, key, 0, 8192)
	if !bytes.Equal(got[:5000], data[:5000]) || !bytes.Equal(got[5000:], make([]byte, 8192-5000)) {
		t.Fatal("the edge is wrong")
	}
	if _, zero, err := d.Read(key, 8192, 1<<20, make([]byte, 1<<20)); err != nil || !zero {
		t.Fatalf("behind the cut: zero %v, %v", zero, err)
	}
	states, _, err := d.Sums(key)
	must(t, err)
	if len(states) != 2 {
		t.Fatalf("%d blocks are left", len(states))
	}
	must(t, d.Truncate(key, 0, 3))
	if _, ok, err := d.Info(key); ok || err != nil {
		t.Fatalf("still there: %v", err)
	}
	must(t, Write(d, key, 4096, []byte("again"), 4))
	if got := MustRead(t, d, key, 4096, 4096); string(got[:5]) != "again" {
		t.Fatal("written after the cut and lost")
	}
}

func cut(t *testing.T, p Place) {
	d := p.Format(t)
	k := key
	for i := range uint32(6) {
		k.Index = i
		must(t, Write(d, k, 0, bytes.Repeat([]byte{byte(i + 1)}, 8192), 1))
	}
	must(t, d.Cut(key.Group, key.Layer, 3, []wire.ChunkCut{{Chunk: 1, Len: 10}, {Chunk: 4, Len: 4096}}, 2))
	for i, want := range []int{8192, 10, 8192, 0, 4096, 0} {
		k.Index = uint32(i)
		got := MustRead(t, d, k, 0, 8192)
		if n := bytes.Count(got, []byte{byte(i + 1)}); n != want {
			t.Errorf("chunk %d has %d bytes, want %d", i, n, want)
		}
	}
}

func deleteLayers(t *testing.T, p Place) {
	d := p.Format(t)
	for l := range ashlar.LayerID(600) {
		must(t, Write(d, chunkstore.Key{Group: 1, Layer: l, Index: uint32(l % 3)}, 0, []byte{1}, 1))
	}
	must(t, d.SetGeneration(1, 5, 9))
	var layers []ashlar.LayerID
	for l := ashlar.LayerID(1); l < 600; l += 2 {
		layers = append(layers, l)
	}
	must(t, d.DeleteLayers(1, layers))
	must(t, d.DeleteLayer(1, 0))
	must(t, d.DeleteLayer(1, 100000))
	keys, err := d.Keys(1, wire.ChunkKey{}, 1000)
	must(t, err)
	if len(keys) != 299 || keys[0] != (wire.ChunkKey{Layer: 2, Index: 2}) {
		t.Fatalf("%d chunks, first %v", len(keys), keys[0])
	}
	if d.Generation(1, 5) != 1 {
		t.Error("the generation of a deleted object is kept")
	}
}

func exportImport(t *testing.T, p Place) {
	d := p.Format(t)
	data := fill(newRand(), 40000)
	must(t, Write(d, key, 4096, data, 1))
	must(t, WriteZero(d, key, 65536, 65536, 1))
	states, sums, packed, err := d.Export(key, 0, 1<<18, make([]byte, 1<<18))
	must(t, err)
	other := chunkstore.Key{Group: 9, Layer: 1, Index: 0}
	must(t, Write(d, other, 0, bytes.Repeat([]byte{5}, 1<<20), 1))
	in := &wire.Copy{ChunkSize: Size, Origin: wire.Origin{Owner: 1}, Off: 0, States: states, Sums: sums, Data: packed, Replace: true}
	must(t, d.Import(other, in, 4))
	s1, sums1, err := d.Sums(key)
	must(t, err)
	s2, sums2, err := d.Sums(other)
	must(t, err)
	if !bytes.Equal(s1, s2) || fmt.Sprint(sums1) != fmt.Sprint(sums2) {
		t.Fatalf("states %v and %v", s1, s2)
	}
	if !bytes.Equal(MustRead(t, d, key, 0, 1<<20), MustRead(t, d, other, 0, 1<<20)) {
		t.Fatal("contents differ")
	}
	in.Sums[0]++
	wantKind(t, d.Import(other, in, 4), ashlar.Corrupt)
	in.Sums = in.Sums[1:]
	wantKind(t, d.Import(other, in, 4), ashlar.Invalid)
}

func list(t *testing.T, p Place) {
	d := p.Format(t)
	rng := newRand()
	want := map[wire.ChunkKey]bool{}
	for range 200 {
		k := chunkstore.Key{Group: 1, Layer: ashlar.LayerID(rng.IntN(1 << 20)), Index: uint32(rng.IntN(4))}
		must(t, Write(d, k, 0, []byte{1}, 1))
		want[wire.ChunkKey{Layer: k.Layer, Index: k.Index}] = true
	}
	must(t, Write(d, chunkstore.Key{Group: 2, Layer: 1}, 0, []byte{1}, 1))
	var from, last wire.ChunkKey
	seen := 0
	for {
		infos, err := d.List(1, from, 7)
		must(t, err)
		if len(infos) == 0 {
			break
		}
		for _, i := range infos {
			k := wire.ChunkKey{Layer: i.Key.Layer, Index: i.Key.Index}
			if !want[k] || k.Layer < last.Layer || k.Layer == last.Layer && k.Index <= last.Index && seen > 0 {
				t.Fatalf("%v after %v", k, last)
			}
			last, seen = k, seen+1
		}
		from = wire.ChunkKey{Layer: last.Layer, Index: last.Index + 1}
	}
	if seen != len(want) {
		t.Fatalf("%d of %d", seen, len(want))
	}
}

func changed(t *testing.T, p Place) {
	d := p.Format(t)
	must(t, Write(d, key, 0, []byte{1}, 1))
	must(t, Write(d, key, 65536, []byte{1}, 2))
	must(t, Write(d, key, 131072, []byte{1}, 3))
	must(t, Write(d, key, 30*65536, []byte{1}, 3))
	must(t, d.Close())
	d = Open(t, p.Config())
	for since, want := range []string{"[{0 196608} {1966080 65536}]", "[{65536 131072} {1966080 65536}]", "[{131072 65536} {1966080 65536}]", "[]"} {
		got, err := d.ChangedRegions(key, ashlar.Epoch(since))
		must(t, err)
		if fmt.Sprint(got) != want {
			t.Errorf("since %d: %v, want %s", since, got, want)
		}
	}
	info, _, err := d.Info(key)
	must(t, err)
	if info.ChangedEpoch != 3 {
		t.Errorf("changed in epoch %d, want 3", info.ChangedEpoch)
	}
}
