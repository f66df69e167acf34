package chunkstore_test

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A chunk notes the name that its file had when it was last written, or that
// the masters told since; the time they told is over with the next write.
func TestAChunkNotesThePresentNameOfItsFile(t *testing.T) {
	place := chunkstoretest.Place{FS: vfs.NewMem(), Dir: "/disk"}
	d := place.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(off uint32, o wire.Origin, e ashlar.Epoch) {
		t.Helper()
		b := []byte("data")
		check(d.Write(k, &chunkstore.Write{
			Off: off, Len: 4, Data: b, Sums: checksum.Append(nil, uint64(off), b), ChunkSize: chunkstoretest.Size, Origin: o, Epoch: e,
		}))
	}
	// want compares what is noted, also once it was closed and opened.
	want := func(what string, want wire.Origin) {
		t.Helper()
		for range 2 {
			info, ok, err := d.Info(k)
			if err != nil || !ok || info.Origin != want {
				t.Fatalf("%s: noted %+v (%v), want %+v", what, info.Origin, err, want)
			}
			check(d.Close())
			d = chunkstoretest.Open(t, place.Config())
		}
	}
	o := wire.Origin{Owner: 77, UID: 1, GID: 2, Mode: 0o640, Width: 2, Unit: 65536, First: 1, Hint: "main:/a"}
	write(0, o, 1)
	want("made", o)
	renamed := wire.Origin{Owner: 77, UID: 3, GID: 2, Mode: 0o600, Hint: "main:/b"}
	write(1<<20+1, renamed, 1) // beyond the first page of records, in the same epoch
	o.UID, o.Mode, o.Hint = 3, 0o600, "main:/b"
	want("written under a new name", o)
	write(0, wire.Origin{Owner: 77}, 1)
	want("written by somebody who knows no name", o)
	check(d.SetOrigin(k, &wire.Origin{Owner: 77, UID: 3, GID: 4, Mode: 0o600, Hint: "main:/dir/c", Mtime: 123}))
	o.GID, o.Hint, o.Mtime = 4, "main:/dir/c", 123
	want("told by the masters", o)
	check(d.Truncate(k, 1<<20, 1))
	o.Mtime = 0
	want("cut", o)
	check(d.SetOrigin(k, &wire.Origin{Hint: "main:/dir/c", UID: 3, GID: 4, Mode: 0o600, Mtime: 124}))
	write(8192, o, 1)
	want("written again", o)
	if b, err := chunkstoretest.Read(d, k, 0, 4096); err != nil || string(b[:4]) != "data" {
		t.Errorf("read %q, %v", b[:4], err)
	}
	if err := d.SetOrigin(chunkstore.Key{Group: 1, Layer: 10}, &o); err != nil {
		t.Errorf("of no chunk: %v", err)
	}
	if _, ok, _ := d.Info(chunkstore.Key{Group: 1, Layer: 10}); ok {
		t.Error("it made a chunk")
	}
}
