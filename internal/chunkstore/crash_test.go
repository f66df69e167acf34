package chunkstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const block = ashlar.BlockSize

// history is every content that a block of a chunk may have after a crash.
type history struct {
	versions [][][]byte // by block, since its last sync, oldest first
	begun    []int      // by block: versions of the write that has not returned
}

func newHistory(blocks int) *history {
	h := &history{versions: make([][][]byte, blocks), begun: make([]int, blocks)}
	for i := range h.versions {
		h.versions[i] = [][]byte{make([]byte, block)}
	}
	return h
}

func (h *history) write(off int, data []byte) {
	for len(data) > 0 {
		b, at := off/block, off%block
		n := min(len(data), block-at)
		now := bytes.Clone(h.versions[b][len(h.versions[b])-1])
		copy(now[at:], data[:n])
		h.versions[b] = append(h.versions[b], now)
		h.begun[b]++
		off, data = off+n, data[n:]
	}
}

func (h *history) sync() {
	h.returned()
	for i, v := range h.versions {
		h.versions[i] = v[len(v)-1:]
	}
}

func (h *history) returned() { clear(h.begun) }

// current tells whether got has every write that returned.
func (h *history) current(b int, got []byte) bool {
	v := h.versions[b]
	return slices.ContainsFunc(v[len(v)-1-h.begun[b]:], func(x []byte) bool { return bytes.Equal(x, got) })
}

func (h *history) allows(b int, got []byte) bool {
	for _, v := range h.versions[b] {
		if bytes.Equal(v, got) {
			return true
		}
	}
	return false
}

// checkAfterCrash opens a disk that lost power and verifies I-8.
func checkAfterCrash(t *testing.T, m *vfs.Mem, at string, all map[chunkstore.Key]*history) {
	t.Helper()
	c := chunkstoretest.Place{FS: m, Dir: "/disk"}.Config()
	c.BootID = "the boot after the power loss"
	d, err := chunkstore.Open(c)
	if err != nil {
		t.Errorf("%s: %v", at, err)
		return
	}
	defer d.Close()
	for k, h := range all {
		// A chunk made since its last sync may be gone as a whole: comparing
		// lists of chunks finds it.
		_, there, _ := d.Info(k)
		for b := range h.versions {
			got, err := chunkstoretest.Read(d, k, uint32(b*block), block)
			switch {
			case d.IsSuspect(k) && errors.Is(err, ashlar.Corrupt):
				// It is compared with other members before it is served.
			case err != nil:
				t.Errorf("%s: %v block %d, suspect %v: %v", at, k, b, d.IsSuspect(k), err)
			case !h.allows(b, got):
				t.Errorf("%s: %v block %d, suspect %v: neither old nor new", at, k, b, d.IsSuspect(k))
			case there && !d.IsSuspect(k) && !h.current(b, got):
				t.Errorf("%s: %v block %d lacks a write and the chunk is not suspect", at, k, b)
			}
		}
	}
}

// TestAfterPowerLossEveryBlockIsOldOrNewOrSuspect crashes before every
// operation on the disk of a random run. I-8.
func TestAfterPowerLossEveryBlockIsOldOrNewOrSuspect(t *testing.T) {
	for seed := range uint64(3) {
		m := vfs.NewMem()
		p := chunkstoretest.Place{FS: m, Dir: "/disk"}
		all := map[chunkstore.Key]*history{}
		rng, dice := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
		crashes := 0
		var mu sync.Mutex // crashes happen in the background too
		locked := func(f func()) {
			mu.Lock()
			defer mu.Unlock()
			f()
		}
		p.FS = errfs.Wrap(m, func(op errfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind&errfs.Mutation != 0 && len(all) > 0 && !t.Failed() && dice.IntN(3) == 0 {
				crashes++
				checkAfterCrash(t, m.CrashClone(dice), fmt.Sprintf("seed %d crash %d before %b of %s", seed, crashes, op.Kind, op.Path), all)
			}
			return nil
		})
		c := p.Config()
		c.Handles = 2
		if err := chunkstore.Format(m, "/disk", chunkstoretest.Cluster); err != nil {
			t.Fatal(err)
		}
		d := chunkstoretest.Open(t, c)
		keys := []chunkstore.Key{{Group: 1, Layer: 1}, {Group: 1, Layer: 5000, Index: 3}, {Group: 2, Layer: 1}}
		for _, k := range keys {
			locked(func() { all[k] = newHistory(8) })
		}
		for range 25 {
			k := keys[rng.IntN(len(keys))]
			h := all[k]
			off, n := rng.IntN(7*block), 1+rng.IntN(block)
			switch rng.IntN(6) {
			case 0:
				if err := d.SyncLayer(k.Group, k.Layer); err != nil {
					t.Fatal(err)
				}
				locked(h.sync)
			case 1:
				locked(func() { h.write(off, make([]byte, n)) })
				if err := chunkstoretest.WriteZero(d, k, uint32(off), uint32(n), 1); err != nil {
					t.Fatal(err)
				}
			case 2:
				n = 8*block - off
				locked(func() { h.write(off, make([]byte, n)) })
				if err := d.Truncate(k, uint32(off), 1); err != nil {
					t.Fatal(err)
				}
				locked(h.sync)
			default:
				data := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, n)
				locked(func() { h.write(off, data) }) // allowed from the moment it begins
				if err := chunkstoretest.Write(d, k, uint32(off), data, 1); err != nil {
					t.Fatal(err)
				}
			}
			locked(h.returned)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			locked(h.sync)
		}
		checkAfterCrash(t, m.CrashClone(rng), "closed", all)
		if crashes < 6 {
			t.Fatalf("only %d crashes", crashes)
		}
	}
}

func powerLoss(m *vfs.Mem, seed uint64) chunkstore.Config {
	var rng *rand.Rand
	if seed > 0 {
		rng = rand.New(rand.NewPCG(seed, 1))
	}
	c := chunkstoretest.Place{FS: m.CrashClone(rng), Dir: "/disk"}.Config()
	c.BootID = "boot-2"
	return c
}

func TestWhatWasSyncedIsThereAfterPowerLoss(t *testing.T) {
	m := vfs.NewMem()
	d := chunkstoretest.Place{FS: m, Dir: "/disk"}.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9, Index: 2}
	data := bytes.Repeat([]byte{3}, 100000)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(chunkstoretest.Write(d, k, 777, data, 1))
	check(d.SyncLayer(1, 9))
	check(d.SetGroup(chunkstore.GroupRecord{Config: ashlar.Group{ID: 1, Epoch: 4}, LastInSync: 4}))
	check(d.SetGeneration(1, 9, 6))
	check(chunkstoretest.Write(d, chunkstore.Key{Group: 1, Layer: 10}, 0, data, 1))
	check(d.DeleteLayer(1, 10))
	for seed := range uint64(8) {
		after := chunkstoretest.Open(t, powerLoss(m, seed))
		got := chunkstoretest.MustRead(t, after, k, 0, 25*block)
		if !bytes.Equal(got[777:100777], data) {
			t.Fatal("synced data is gone")
		}
		if r, ok := after.Group(1); !ok || r.Config.Epoch != 4 || after.Generation(1, 9) != 6 {
			t.Fatalf("record %+v, generation %d", r, after.Generation(1, 9)) // I-4, I-10
		}
		if _, ok, err := after.Info(chunkstore.Key{Group: 1, Layer: 10}); ok || err != nil {
			t.Fatal("a deleted layer is back")
		}
	}
}

func TestAnUnsyncedOverwriteMakesItsChunkSuspectUntilCleared(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	clean := chunkstore.Key{Group: 1, Layer: 10}
	for _, x := range []chunkstore.Key{k, clean} {
		if err := chunkstoretest.Write(d, x, 0, []byte("old"), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = chunkstoretest.Open(t, p.Config())
	if err := chunkstoretest.Write(d, k, 0, []byte("new"), 2); err != nil {
		t.Fatal(err)
	}
	c := powerLoss(m, 0)
	after := chunkstoretest.Open(t, c)
	if s := after.Suspect(1); len(s) != 1 || s[0] != (wire.ChunkKey{Layer: 9}) || !after.BootChanged() {
		t.Fatalf("suspect %v, boot changed %v", s, after.BootChanged())
	}
	// Killed before anything was verified, the chunk is suspect still.
	if err := after.Abandon(); err != nil {
		t.Fatal(err)
	}
	after = chunkstoretest.Open(t, c)
	if s := after.Suspect(1); len(s) != 1 || after.BootChanged() {
		t.Fatalf("suspect %v after the process died too", s)
	}
	after.ClearSuspect(k)
	if err := after.Close(); err != nil {
		t.Fatal(err)
	}
	after = chunkstoretest.Open(t, c)
	if s := after.Suspect(1); len(s) != 0 {
		t.Fatalf("suspect %v after it was cleared", s)
	}
}

func TestAfterTheProcessDiedWhatItLeftDirtyIsSyncedOnDemand(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	if err := chunkstoretest.Write(d, k, 0, []byte("data"), 1); err != nil {
		t.Fatal(err)
	}
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	m.ReleaseLocks()
	d = chunkstoretest.Open(t, p.Config())
	if err := d.SyncLayer(1, 9); err != nil {
		t.Fatal(err)
	}
	after := chunkstoretest.Open(t, powerLoss(m, 0))
	if got := chunkstoretest.MustRead(t, after, k, 0, block); string(got[:4]) != "data" {
		t.Fatal("SyncLayer returned and the data of the process before is not durable")
	}
}

func TestAcceptTakesATornBlockAsRead(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	if err := chunkstoretest.Write(d, k, 0, bytes.Repeat([]byte{1}, 3*block), 1); err != nil {
		t.Fatal(err)
	}
	flip(t, m, d, k, block)
	_, err := chunkstoretest.Read(d, k, 0, 3*block)
	var damage *chunkstore.Damage
	if !errors.As(err, &damage) || fmt.Sprint(damage.Regions) != "[{4096 4096}]" || d.Damaged() == 0 {
		t.Fatalf("%v", err)
	}
	if n, err := d.Accept(k, 0, 3*block, 2); n != 1 || err != nil {
		t.Fatalf("accepted %d: %v", n, err)
	}
	if got := chunkstoretest.MustRead(t, d, k, 0, 3*block); got[block] != 0 || got[block+1] != 1 {
		t.Fatal("not as it is on the disk")
	}
}

// flip changes the first byte of a block behind the disk's back.
func flip(t *testing.T, m *vfs.Mem, d *chunkstore.Disk, k chunkstore.Key, off int64) {
	t.Helper()
	change(t, m, k, 64<<10+off)
}

func change(t *testing.T, m *vfs.Mem, k chunkstore.Key, at int64) {
	t.Helper()
	f, err := m.Open(fmt.Sprintf("/disk/chunks/%08x/%02X/%016x.%08x", k.Group, byte(k.Layer>>8), uint64(k.Layer), k.Index))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsFoundAndMendedByImport(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	data := bytes.Repeat([]byte{1}, 40*block)
	if err := chunkstoretest.Write(d, k, 0, data, 1); err != nil {
		t.Fatal(err)
	}
	states, sums, packed, err := d.Export(k, 0, 40*block, make([]byte, 40*block))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]struct {
		at   int64
		want string
	}{
		"data":   {64<<10 + 20*block, "[{81920 4096}]"},
		"record": {1152 + 128 + 5, "[{65536 65536}]"},
	} {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		change(t, m, k, damage.at)
		d = chunkstoretest.Open(t, p.Config())
		_, bad, err := d.Verify(k)
		if err != nil || fmt.Sprint(bad) != damage.want {
			t.Fatalf("%s: %v %v, want %s", name, bad, err, damage.want)
		}
		// Writing part of a damaged block would launder it.
		if err := chunkstoretest.Write(d, k, 20*block+1, []byte{9}, 2); !errors.Is(err, ashlar.Corrupt) {
			t.Fatalf("%s: %v", name, err)
		}
		if err := d.Import(k, &wire.Copy{ChunkSize: chunkstoretest.Size, States: states, Sums: sums, Data: packed}, 2); err != nil {
			t.Fatal(err)
		}
		if _, bad, err := d.Verify(k); err != nil || len(bad) > 0 {
			t.Fatalf("%s: %v %v", name, bad, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, m, k, 64) // the header
	d = chunkstoretest.Open(t, p.Config())
	var damage *chunkstore.Damage
	if _, err := chunkstoretest.Read(d, k, 0, block); !errors.Is(err, ashlar.Corrupt) || !errors.As(err, &damage) || !damage.Header {
		t.Fatalf("%v", err)
	}
	infos, err := d.List(1, wire.ChunkKey{}, 10)
	if err != nil || len(infos) != 1 || !infos[0].Damaged {
		t.Fatalf("%+v %v", infos, err)
	}
	if err := d.Import(k, &wire.Copy{ChunkSize: chunkstoretest.Size, States: states, Sums: sums, Data: packed, Replace: true}, 2); err != nil {
		t.Fatal(err)
	}
	if got := chunkstoretest.MustRead(t, d, k, 0, 40*block); !bytes.Equal(got, data) {
		t.Fatal("differs")
	}
}

func TestADamagedHeaderIsWrittenAnewAndNothingIsTakenForAbsent(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	d := p.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	data := bytes.Repeat([]byte{1}, 40*block) // regions 0 to 2 of 16
	for name, harm := range map[string]struct {
		zero bool
		kept bool
	}{"a bit flipped": {false, true}, "its page zeroed": {true, false}} {
		if err := chunkstoretest.Write(d, k, 0, data, 1); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if harm.zero {
			f, err := m.Open(fmt.Sprintf("/disk/chunks/%08x/%02X/%016x.%08x", k.Group, byte(k.Layer>>8), uint64(k.Layer), k.Index))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
				t.Fatal(err)
			}
		} else {
			change(t, m, k, 64)
		}
		d = chunkstoretest.Open(t, p.Config())
		part := bytes.Repeat([]byte{2}, block)
		in := &wire.Copy{ChunkSize: chunkstoretest.Size, Off: 20 * block, States: []byte{chunkstore.Data}, Sums: checksum.Append(nil, 0, part), Data: part}
		if err := d.Import(k, in, 2); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := chunkstoretest.Read(d, k, 20*block, block); err != nil || !bytes.Equal(got, part) {
			t.Fatalf("%s: what was imported can not be read: %v", name, err)
		}
		got, err := chunkstoretest.Read(d, k, 0, block)
		if harm.kept && (err != nil || !bytes.Equal(got, data[:block])) || !harm.kept && !errors.Is(err, ashlar.Corrupt) {
			t.Fatalf("%s: read beside it: %v", name, err)
		}
		if _, err := chunkstoretest.Read(d, k, 100*block, block); !errors.Is(err, ashlar.Corrupt) {
			t.Fatalf("%s: read of what never was written: %v, want damage: nobody knows that it was not", name, err)
		}
		if err := d.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnyWriteOrSyncErrorLosesTheDisk(t *testing.T) {
	k := chunkstore.Key{Group: 1, Layer: 9}
	for _, kinds := range []errfs.Kind{errfs.Sync, errfs.SyncDir, errfs.Write} {
		m := vfs.NewMem()
		fails := false
		p := chunkstoretest.Place{Dir: "/disk", FS: errfs.Wrap(m, func(op errfs.Op) error {
			if fails && op.Kind&kinds != 0 {
				fails = false // once: a retried fsync would succeed, and must not be tried
				return errors.New("injected")
			}
			return nil
		})}
		if err := chunkstore.Format(p.FS, p.Dir, chunkstoretest.Cluster); err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 2)
		c := p.Config()
		c.OnFail = func(err error) { told <- err }
		d := chunkstoretest.Open(t, c)
		if err := chunkstoretest.Write(d, k, 0, []byte("x"), 1); err != nil {
			t.Fatal(err)
		}
		fails = true
		err := chunkstoretest.Write(d, k, 4096, []byte("x"), 1)
		if err == nil {
			err = d.SyncLayer(1, 9)
		}
		if !errors.Is(err, ashlar.IO) {
			t.Fatalf("kind %b: %v", kinds, err)
		}
		if err := <-told; !errors.Is(err, ashlar.IO) {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"sync": d.SyncLayer(1, 9), "write": chunkstoretest.Write(d, k, 0, []byte("y"), 1), "group": d.SetGroup(chunkstore.GroupRecord{}),
			"delete": d.DeleteLayer(1, 9), "failed": d.Failed(),
		} {
			if !errors.Is(err, ashlar.IO) {
				t.Errorf("kind %b, then %s: %v", kinds, what, err)
			}
		}
		if _, err := chunkstoretest.Read(d, k, 0, block); !errors.Is(err, ashlar.IO) {
			t.Errorf("kind %b: it still serves: %v", kinds, err)
		}
	}
}

func TestAFullDiskTakesDeletesAndRepairsButNoNewData(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	m.SetCapacity(16 << 20)
	if err := chunkstore.Format(m, p.Dir, chunkstoretest.Cluster); err != nil {
		t.Fatal(err)
	}
	c := p.Config()
	c.Reserve = 4 << 20
	d := chunkstoretest.Open(t, c)
	data := bytes.Repeat([]byte{1}, 1<<20)
	var err error
	var k chunkstore.Key
	for i := 0; err == nil && i < 32; i++ {
		k = chunkstore.Key{Group: 1, Layer: ashlar.LayerID(i)}
		err = chunkstoretest.Write(d, k, 0, data, 1)
	}
	if !errors.Is(err, ashlar.NoSpace) {
		t.Fatal(err)
	}
	first := chunkstore.Key{Group: 1}
	if err := chunkstoretest.Write(d, first, 0, data, 2); err != nil {
		t.Fatalf("overwriting takes no room: %v", err)
	}
	states := bytes.Repeat([]byte{chunkstore.Data}, 256)
	in := &wire.Copy{ChunkSize: chunkstoretest.Size, States: states, Sums: checksum.Append(nil, 0, data), Data: data}
	if err := d.Import(k, in, 2); err != nil {
		t.Fatalf("a repair is refused: %v", err)
	}
	for i := range 3 {
		if err := d.DeleteLayer(1, ashlar.LayerID(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := chunkstoretest.Write(d, first, 0, data, 2); err != nil {
		t.Fatalf("after deletes: %v", err)
	}
}
