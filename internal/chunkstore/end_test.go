package chunkstore_test

import (
	"testing"

	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A file's length is put together from the ends of what was written.
func TestAChunkKnowsTheEndOfWhatWasWritten(t *testing.T) {
	d := chunkstoretest.Place{FS: vfs.NewMem(), Dir: "/disk"}.Format(t)
	k, other := chunkstore.Key{Group: 1, Layer: 9}, chunkstore.Key{Group: 1, Layer: 10}
	want := func(what string, k chunkstore.Key, want uint32) {
		t.Helper()
		got, err := d.End(k, 0, chunkstoretest.Size)
		if err != nil || got != want {
			t.Errorf("%s: the end is %d (%v), want %d", what, got, err, want)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want("no chunk", k, 0)
	check(chunkstoretest.Write(d, k, 0, make([]byte, 100), 1))
	want("a short write", k, 100)
	check(chunkstoretest.Write(d, k, 10, make([]byte, 20), 1))
	want("a write inside", k, 100)
	check(chunkstoretest.Write(d, k, 100000, make([]byte, 77777), 1))
	want("a long write", k, 177777)
	check(d.Truncate(k, 150001, 1))
	want("a cut", k, 150001)
	check(d.Truncate(k, 70000, 1))
	want("a cut into what was never written", k, 100)
	check(chunkstoretest.Write(d, k, 65536, make([]byte, 5), 1))
	check(d.Truncate(k, 65000, 1))
	want("a cut of the region before", k, 100)
	check(chunkstoretest.Write(d, k, 1<<20, make([]byte, 4097), 1))
	want("a write far on", k, 1<<20+4097)
	states, sums, data, err := d.Export(k, 0, chunkstoretest.Size, make([]byte, chunkstoretest.Size))
	check(err)
	end, err := d.End(k, 0, chunkstoretest.Size)
	check(err)
	check(d.Import(other, &wire.Copy{ChunkSize: chunkstoretest.Size, States: states, Sums: sums, Data: data, End: end}, 2))
	want("a copy", other, 1<<20+4097)
	check(chunkstoretest.WriteZero(d, other, 1<<20, 8192, 2))
	want("zeros", other, 1<<20+8192)
}
