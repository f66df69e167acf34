package chunkstore

import (
	"bytes"
	"errors"
	"math"
	"path"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var testCluster = ashlar.ClusterID{7}

func TestAChunkHeaderReadsBack(t *testing.T) {
	h := chunkHeader{cluster: testCluster, key: Key{1, 2, 3}, size: 64 << 20, changed: 8,
		origin: wire.Origin{Owner: 9, UID: 1000, GID: 100, Mode: 0o644, Width: 4, Unit: 1 << 20, First: 5, Hint: "main:/x/y"}}
	b := make([]byte, recordsOff)
	h.encode(b)
	got, err := decodeChunkHeader(b, testCluster, "c")
	if err != nil || got != h {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := decodeChunkHeader(b, ashlar.ClusterID{8}, "c"); !errors.Is(err, ashlar.WrongCluster) {
		t.Errorf("another cluster's: %v", err)
	}
	for i := range b[:fixedEnd] {
		b[i] ^= 1
		if _, err := decodeChunkHeader(b, testCluster, "c"); err == nil {
			t.Errorf("a flipped bit at %d passed", i)
		}
		b[i] ^= 1
	}
	b[fixedEnd] ^= 1
	if got, err := decodeChunkHeader(b, testCluster, "c"); err != nil || got.origin.Hint != "" {
		t.Errorf("a damaged hint: %q %v", got.origin.Hint, err)
	}
}

func TestARecordIsBelievedOnlyInItsPlace(t *testing.T) {
	r := region{states: 0x12345678, epoch: 5}
	for i := range r.sums {
		r.sums[i] = uint32(i * 1000)
	}
	salt := recordSalt(Key{1, 2, 3})
	b := make([]byte, recordSize)
	r.encode(b, salt, 4)
	var got region
	if !got.decode(b, salt, 4) || got != r {
		t.Fatalf("%+v", got)
	}
	if got.decode(b, salt, 5) || got.decode(b, recordSalt(Key{1, 2, 4}), 4) || got.state(0) != Lost {
		t.Error("a record that strayed is believed")
	}
	for i := range b {
		b[i] ^= 1
		if got.decode(b, salt, 4) {
			t.Errorf("a flipped bit at %d passed", i)
		}
		b[i] ^= 1
	}
}

func TestNoRecordCrossesASector(t *testing.T) {
	for r := range regionsMost {
		page, slot := metaPageOf(r)
		at := int64(page)*pageSize + int64(slot)*recordSize
		if page == 0 {
			at += recordsOff
		}
		if at != recordOff(r) || at/512 != (at+recordSize-1)/512 {
			t.Fatalf("region %d at %d, page %d slot %d", r, recordOff(r), page, slot)
		}
	}
	for size, want := range map[uint32]int64{64 << 10: 64 << 10, 4 << 20: 64 << 10, 16 << 20: 64 << 10, 32 << 20: 128 << 10, 64 << 20: 192 << 10} {
		if got := dataOff(size); got != want {
			t.Errorf("data of a chunk of %d at %d, docs say %d", size, got, want)
		}
	}
}

func TestChunkNamesReadBack(t *testing.T) {
	k := Key{3, 0xfedcba9876543210, 0xffffffff}
	if got, ok := parseChunkName(3, chunkName(k)); !ok || got != k {
		t.Errorf("%v %v", got, ok)
	}
	for _, bad := range []string{"", "x", "0000000000000001.0000000", "0000000000000001_00000001", "+000000000000001.00000001", "000000000000000A.00000001"} {
		if _, ok := parseChunkName(3, bad); ok {
			t.Errorf("%q passed", bad)
		}
	}
}

func testJournal(m *vfs.Mem, name string) *journal {
	return newJournal(m, "/"+name, header.Header{Magic: marksMagic, Version: 1, Cluster: testCluster}, func(err error) error { return err })
}

func TestAJournalKeepsWhatWasWaitedFor(t *testing.T) {
	m := vfs.NewMem()
	j := testJournal(m, "log")
	if err := j.rewrite([][]byte{[]byte("first")}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := j.wait(j.add(bytes.Repeat([]byte{byte(i)}, 1+i))); err != nil {
			t.Fatal(err)
		}
	}
	j.add([]byte("never waited for"))
	bodies, damaged, err := testJournal(m.CrashClone(nil), "log").read()
	if err != nil || damaged || len(bodies) != 101 || len(bodies[100]) != 100 {
		t.Fatalf("%d records, damaged %v: %v", len(bodies), damaged, err)
	}
}

func TestAJournalDamagedInTheMiddleIsNotTakenForATornEnd(t *testing.T) {
	m := vfs.NewMem()
	j := testJournal(m, "log")
	if err := j.rewrite(nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := j.wait(j.add([]byte("0123456789"))); err != nil {
			t.Fatal(err)
		}
	}
	for frame, want := range []bool{true, true, false} {
		at := int64(journalStart + frame*32 + 24)
		if _, err := j.f.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
		bodies, damaged, err := j.read()
		if err != nil || damaged != want || len(bodies) != frame {
			t.Errorf("frame %d: %d records, damaged %v, %v", frame, len(bodies), damaged, err)
		}
		if _, err := j.f.WriteAt([]byte("4"), at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedMarksMakeEverythingSuspect(t *testing.T) {
	l, err := readMarks(nil, true, "b")
	if err != nil || l.sameBoot || len(l.ranges) != 1 || !l.ranges[0].has(0) || !l.ranges[0].has(math.MaxUint64) || !l.ranges[0].meetsSlot(77) {
		t.Fatalf("%+v %v", l, err)
	}
}

func TestMarksOfAnUnknownBootAreOfAnotherOne(t *testing.T) {
	boot := func(s string) [][]byte { return [][]byte{(&mark{kind: markBoot, boot: s}).encode()} }
	for _, c := range []struct {
		then, now string
		same      bool
	}{{"a", "a", true}, {"a", "b", false}, {"", "", false}, {"a", "", false}} {
		if l, err := readMarks(boot(c.then), false, c.now); err != nil || l.sameBoot != c.same {
			t.Errorf("%+v: %v %v", c, l.sameBoot, err)
		}
	}
}

func memDisk(t testing.TB, m *vfs.Mem) *Disk {
	t.Helper()
	if ok, _ := Formatted(m, "/d"); !ok {
		if err := Format(m, "/d", testCluster); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(Config{FS: m, Dir: "/d", Cluster: testCluster, BootID: "b", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func put(t testing.TB, d *Disk, k Key, data string) {
	t.Helper()
	w := &Write{Len: uint32(len(data)), Data: []byte(data), Sums: checksum.Append(nil, 0, []byte(data)), ChunkSize: 1 << 20, Epoch: 1}
	if err := d.Write(k, w); err != nil {
		t.Fatal(err)
	}
}

func TestMarksAreDroppedOnceEverythingIsSynced(t *testing.T) {
	d := memDisk(t, vfs.NewMem())
	for i := range uint32(50) {
		put(t, d, Key{1, 5, i}, "x")
	}
	if !d.marks.isMarked(Key{1, 5, 7}) {
		t.Fatal("not marked") // I-8
	}
	if err := d.SyncGroup(1); err != nil {
		t.Fatal(err)
	}
	d.maintain(true)
	d.maintain(true)
	if d.marks.isMarked(Key{1, 5, 7}) || d.unsynced.count() != 0 || d.marks.droppable() {
		t.Error("marked and clean")
	}
	put(t, d, Key{1, 5, 7}, "y")
	if !d.marks.isMarked(Key{1, 5, 7}) || d.marks.isMarked(Key{1, 5, 8}) {
		t.Error("an overwrite marks its chunk and no other")
	}
}

func TestCreatingFilesCostsFewMarks(t *testing.T) {
	d := memDisk(t, vfs.NewMem())
	for l := range ashlar.LayerID(2 * markGrain) {
		if l%16 == 0 {
			put(t, d, Key{1, l + 1, 0}, "x")
		}
	}
	_ = d.marks.j.waitAll()
	bodies, _, err := d.marks.j.read()
	if err != nil || len(bodies) > 5 {
		t.Fatalf("%d marks for 512 files: %v", len(bodies), err)
	}
}

func TestChunksLeftUnsyncedAreSyncedInTime(t *testing.T) {
	m := vfs.NewMem()
	d := memDisk(t, m)
	put(t, d, Key{1, 5, 0}, "x")
	for range syncTicks + 1 {
		d.maintain(true)
	}
	if n := d.unsynced.count(); n != 0 {
		t.Fatalf("%d chunks are unsynced after %d ticks", n, syncTicks+1)
	}
}

// A write that was synced here may be missing elsewhere as long as it is in
// flight, and the table that says so does not survive a power loss.
func TestAChunkStaysMarkedWhileAWriteToItIsInFlight(t *testing.T) {
	d := memDisk(t, vfs.NewMem())
	k, other := Key{1, 5, 7}, Key{1, 5, 8}
	put(t, d, other, "x")
	slot, err := d.inflight.Begin(k.Group, 1, 1, &wire.Inflight{Layer: k.Layer, Chunk: k.Index, Len: 1})
	if err != nil {
		t.Fatal(err)
	}
	put(t, d, k, "x")
	d.inflight.Applied(slot)
	if err := d.SyncLayer(1, 5); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.maintain(true)
	}
	if !d.marks.isMarked(k) || d.marks.isMarked(other) || d.marks.droppable() {
		t.Errorf("in flight: marked %v, another chunk %v, droppable %v, want true, false, false", d.marks.isMarked(k), d.marks.isMarked(other), d.marks.droppable())
	}
	d.inflight.Done(slot)
	d.maintain(true)
	if d.marks.isMarked(k) {
		t.Error("marked when the write is on every member")
	}
}

func TestHandlesStayWithinTheirLimit(t *testing.T) {
	m := vfs.NewMem()
	if err := Format(m, "/d", testCluster); err != nil {
		t.Fatal(err)
	}
	d, err := Open(Config{FS: m, Dir: "/d", Cluster: testCluster, BootID: "b", Reserve: 1, Handles: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range uint32(20) {
		put(t, d, Key{1, 5, i}, "x")
	}
	if n := len(d.handles.m); n > 4 {
		t.Errorf("%d handles", n)
	}
	for i := range uint32(20) {
		if _, _, err := d.Read(Key{1, 5, i}, 0, block, make([]byte, block)); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.handles.pages.Load(); n > 4 {
		t.Errorf("%d pages of records for 4 handles", n)
	}
}

func TestAGarbledRegionOfTheSameBootIsRefused(t *testing.T) {
	m := vfs.NewMem()
	d := memDisk(t, m)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := m.Region(path.Join("/d", inflightName), inflightSize)
	if err != nil {
		t.Fatal(err)
	}
	r.Bytes()[0] ^= 1
	c := Config{FS: m, Dir: "/d", Cluster: testCluster, BootID: "b", Reserve: 1}
	if _, err := Open(c); !errors.Is(err, ashlar.Corrupt) {
		t.Fatal(err)
	}
	c.BootID = "c" // after a power loss it is only garbage
	d, err = Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAFullTableForgetsTheOldestResultAndSaysSo(t *testing.T) {
	d := memDisk(t, vfs.NewMem())
	f := d.Inflight()
	rec := wire.Inflight{Session: 5, Layer: 1}
	for i := range uint64(slotCount) {
		rec.Seq = i + 1
		s, err := f.Begin(1, 1, i, &rec)
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			f.Done(s)
		}
	}
	if f.Horizon(5) != 0 || f.Room() != 0 {
		t.Fatalf("horizon %d, room %d", f.Horizon(5), f.Room())
	}
	for i := range uint64(3) {
		rec.Seq++
		if _, err := f.Begin(1, 1, 0, &rec); err != nil {
			t.Fatal(err)
		}
		if f.Horizon(5) != i+1 { // I-7
			t.Fatalf("horizon %d, want %d", f.Horizon(5), i+1)
		}
	}
	if _, err := f.Begin(1, 1, 0, &rec); !errors.Is(err, ashlar.Overloaded) {
		t.Fatal(err)
	}
	if h := f.Horizons(); len(h) != 1 || h[0] != (wire.Horizon{Session: 5, Seq: 3}) {
		t.Errorf("%v", h)
	}
}

func TestTooManyHorizonsShareOne(t *testing.T) {
	m := vfs.NewMem()
	d := memDisk(t, m)
	f := d.Inflight()
	for s := range uint64(HorizonsMax + 10) {
		f.RaiseHorizon(wire.Horizon{Session: ashlar.SessionID(s + 1), Seq: s})
	}
	check := func(f *Inflight) {
		t.Helper()
		if n := len(f.Horizons()); n > HorizonsMax {
			t.Errorf("%d horizons", n)
		}
		if f.Horizon(1) != math.MaxUint64 || f.Horizon(HorizonsMax+10) != HorizonsMax+9 {
			t.Errorf("%d %d", f.Horizon(1), f.Horizon(HorizonsMax+10))
		}
	}
	check(f)
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	m.ReleaseLocks()
	check(memDisk(t, m).Inflight())
}

func TestAfterPowerLossKeptResultsAreHorizons(t *testing.T) {
	m := vfs.NewMem()
	d := memDisk(t, m)
	if _, err := d.Inflight().Keep(1, 1, &wire.Inflight{Session: 4, Seq: 17}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Inflight().Begin(1, 1, 1, &wire.Inflight{Session: 4, Seq: 18}); err != nil {
		t.Fatal(err)
	}
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	m.ReleaseLocks()
	d, err := Open(Config{FS: m, Dir: "/d", Cluster: testCluster, BootID: "another", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if f := d.Inflight(); f.Horizon(4) != 17 || len(f.All()) != 1 || f.All()[0].Seq != 18 {
		t.Errorf("horizon %d, writes %+v", f.Horizon(4), f.All())
	}
}

func FuzzChunkHeader(f *testing.F) {
	b := make([]byte, recordsOff)
	(&chunkHeader{cluster: testCluster, key: Key{1, 2, 3}, size: 1 << 20, origin: wire.Origin{Hint: "/x"}}).encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeChunkHeader(b, testCluster, "c"); err == nil && (!validChunkSize(h.size) || len(h.origin.Hint) > HintMax) {
			t.Errorf("%+v", h)
		}
	})
}

func FuzzRegionRecord(f *testing.F) {
	b := make([]byte, recordSize)
	(&region{states: 1, epoch: 2}).encode(b, 3, 4)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < recordSize {
			return
		}
		var r region
		if !r.decode(b, 3, 4) && r.states != allLost {
			t.Error("a bad record has blocks")
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add((&identity{cluster: testCluster, owner: 3}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := decodeIdentity(b, testCluster, "disk"); err == nil && id.cluster != testCluster {
			t.Error(id)
		}
	})
}

func FuzzJournal(f *testing.F) {
	h := header.Header{Magic: marksMagic, Version: 1, Cluster: testCluster}
	b := make([]byte, journalStart)
	copy(b, h.Encode())
	sealJournal(b, 0, 1)
	b, _ = appendFrame(b, [][]byte{(&mark{kind: markChunk}).encode()}, 0, 1, frameMax)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		bodies, _, err := decodeJournal(b, h, "log")
		if err != nil {
			return
		}
		n := 0
		for _, b := range bodies {
			n += len(b)
		}
		if n > len(b) {
			t.Errorf("%d bytes of records in %d", n, len(b))
		}
	})
}

func FuzzMark(f *testing.F) {
	for _, k := range []byte{markBoot, markChunk, markLayers, markSuspect, markUnsuspect} {
		f.Add((&mark{kind: k, key: Key{1, 2, 3}, last: 4, boot: "x"}).encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMark(b)
		if err != nil {
			return
		}
		again, err := decodeMark(m.encode())
		if err != nil || again != m {
			t.Errorf("%+v %+v %v", m, again, err)
		}
	})
}

func FuzzGroupEntry(f *testing.F) {
	for _, k := range []byte{groupSet, groupDrop, groupGen, groupNoGen} {
		b, _ := groupEntry{kind: k, rec: GroupRecord{Config: ashlar.Group{ID: 1, Members: []ashlar.Member{{Disk: 1}}}}, group: 2, layer: 3, gen: 4}.encode()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeGroupEntry(b)
		if err != nil {
			return
		}
		if again, err := e.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x %x %v", b, again, err)
		}
	})
}

func FuzzInflightSlot(f *testing.F) {
	b := make([]byte, slotSize)
	encodeSlot(b, &InflightEntry{Group: 1}, 3)
	b[0] = slotApplied
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < slotSize {
			return
		}
		if e, _, state, ok := decodeSlot(b); ok && (state > slotDone || e.Done && !e.Applied) {
			t.Errorf("%+v", e)
		}
		_, _, _ = decodeHorizon(b)
	})
}
