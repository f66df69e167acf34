package chunkstore_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// span is a number that was raised durably to min and is being raised to max.
type span struct{ min, max uint64 }

// workload is a disk under a random load and everything that may be found on
// it after a power loss.
type workload struct {
	t     *testing.T
	fs    *crashtest.FS
	rng   *rand.Rand
	d     *chunkstore.Disk
	c     chunkstore.Config
	keys  []chunkstore.Key
	all   map[chunkstore.Key]*history
	group map[ashlar.PGID]*span
	gen   map[ashlar.LayerID]*span // of group 1
	epoch ashlar.Epoch
}

func newWorkload(t *testing.T, seed uint64) *workload {
	w := &workload{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), all: map[chunkstore.Key]*history{},
		group: map[ashlar.PGID]*span{1: {}, 2: {}}, gen: map[ashlar.LayerID]*span{}, epoch: 1,
		keys: []chunkstore.Key{{Group: 1, Layer: 1}, {Group: 1, Layer: 1, Index: 1}, {Group: 1, Layer: 5000, Index: 3}, {Group: 2, Layer: 1}},
	}
	m := vfs.NewMem()
	w.fs = crashtest.New(m, seed, func(clone *vfs.Mem, at string) {
		if !t.Failed() {
			w.crashed(clone, at)
		}
	})
	w.fs.Pause(true)
	for _, k := range w.keys {
		w.all[k] = newHistory(8)
	}
	w.must(chunkstore.Format(m, "/disk", chunkstoretest.Cluster))
	w.fs.Pause(false)
	w.c = chunkstoretest.Place{FS: w.fs, Dir: "/disk"}.Config()
	w.c.Handles = 2
	w.open()
	return w
}

func (w *workload) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *workload) open() {
	d, err := chunkstore.Open(w.c)
	w.must(err)
	w.d = d
}

// crashed verifies what a power loss left. Now and then the power fails again
// while the disk is being opened.
func (w *workload) crashed(clone *vfs.Mem, at string) {
	checkAfterCrash(w.t, clone, at, w.all)
	c := chunkstoretest.Place{FS: clone, Dir: "/disk"}.Config()
	c.BootID = "and the one after that"
	d, err := chunkstore.Open(c)
	if err != nil {
		w.t.Errorf("%s: opened twice: %v", at, err)
		return
	}
	for g, s := range w.group {
		r, _ := d.Group(g)
		if e := uint64(r.Config.Epoch); e < s.min || e > s.max { // I-4
			w.t.Errorf("%s: group %d has epoch %d, recorded %d, being recorded %d", at, g, e, s.min, s.max)
		}
	}
	for l, s := range w.gen {
		if g := uint64(d.Generation(1, l)); g < max(s.min, 1) || g > max(s.max, 1) { // I-10
			w.t.Errorf("%s: layer %d has generation %d, recorded %d, being recorded %d", at, l, g, s.min, s.max)
		}
	}
	_ = d.Abandon()
	clone.ReleaseLocks()
}

// raise is a span's change, durable once the returned function is called.
func (w *workload) raise(s *span, to uint64) func() {
	w.fs.Do(func() { s.max = to })
	return func() { w.fs.Do(func() { s.min = to }) }
}

// step does one thing.
func (w *workload) step() {
	k := w.keys[w.rng.IntN(len(w.keys))]
	h := w.all[k]
	off, n := w.rng.IntN(7*block), 1+w.rng.IntN(block)
	switch w.rng.IntN(14) {
	case 0:
		w.must(w.d.SyncLayer(k.Group, k.Layer))
		w.fs.Do(func() { w.synced(func(x chunkstore.Key) bool { return x.Group == k.Group && x.Layer == k.Layer }) })
	case 1:
		w.must(w.d.SyncGroup(k.Group))
		w.fs.Do(func() { w.synced(func(x chunkstore.Key) bool { return x.Group == k.Group }) })
	case 2:
		w.fs.Do(func() { h.write(off, make([]byte, n)) })
		w.must(chunkstoretest.WriteZero(w.d, k, uint32(off), uint32(n), w.epoch))
	case 3:
		w.fs.Do(func() { h.write(off, make([]byte, 8*block-off)) })
		w.must(w.d.Truncate(k, uint32(off), w.epoch))
		w.fs.Do(h.sync)
	case 4:
		w.deleteLayer(k)
	case 5:
		w.importCopy(k)
	case 6:
		w.epoch++
		for g, s := range w.group {
			done := w.raise(s, uint64(w.epoch))
			w.must(w.d.SetGroup(chunkstore.GroupRecord{Config: ashlar.Group{ID: g, Epoch: w.epoch}, LastInSync: w.epoch}))
			done()
		}
	case 7:
		w.generations()
	case 8:
		w.reopen()
	default:
		data := bytes.Repeat([]byte{byte(1 + w.rng.IntN(255))}, n)
		w.fs.Do(func() { h.write(off, data) })
		w.must(chunkstoretest.Write(w.d, k, uint32(off), data, w.epoch))
	}
	w.fs.Do(func() {
		for _, h := range w.all {
			h.returned()
		}
	})
}

// synced says that chunks are durable as they are. w.fs.Do must be running.
func (w *workload) synced(which func(chunkstore.Key) bool) {
	for k, h := range w.all {
		if which(k) {
			h.sync()
		}
	}
}

func (w *workload) deleteLayer(k chunkstore.Key) {
	of := func(x chunkstore.Key) bool { return x.Group == k.Group && x.Layer == k.Layer }
	w.fs.Do(func() {
		for x, h := range w.all {
			if of(x) {
				h.write(0, make([]byte, 8*block))
			}
		}
		if s := w.gen[k.Layer]; s != nil && k.Group == 1 {
			s.min = 0
		}
	})
	w.must(w.d.DeleteLayer(k.Group, k.Layer))
	w.fs.Do(func() {
		w.synced(of)
		if s := w.gen[k.Layer]; s != nil && k.Group == 1 {
			*s = span{}
		}
	})
}

// importCopy is what a catch-up does: a part of a chunk, or all of it.
func (w *workload) importCopy(k chunkstore.Key) {
	h := w.all[k]
	first, blocks := w.rng.IntN(4), 1+w.rng.IntN(4)
	in := &wire.Copy{ChunkSize: chunkstoretest.Size, Off: uint32(first * block), Replace: w.rng.IntN(2) == 0}
	full := make([]byte, blocks*block)
	for b := range blocks {
		state := chunkstore.State(w.rng.IntN(3))
		in.States = append(in.States, state)
		if state != chunkstore.Data {
			continue
		}
		p := bytes.Repeat([]byte{byte(1 + w.rng.IntN(255))}, block)
		copy(full[b*block:], p)
		in.Data = append(in.Data, p...)
		in.Sums = append(in.Sums, checksum.Of(p))
	}
	w.fs.Do(func() {
		if in.Replace {
			h.write(0, make([]byte, 8*block))
		}
		h.write(first*block, full)
	})
	w.must(w.d.Import(k, in, w.epoch))
}

// generations records many at once, which also makes the log of groups long
// enough to be rewritten.
func (w *workload) generations() {
	var gens []wire.ObjectGen
	var done []func()
	for i := range ashlar.LayerID(1500) {
		l := 100000 + i
		if i == 0 {
			l = 1
		}
		w.fs.Do(func() {
			if w.gen[l] == nil && i < 5 {
				w.gen[l] = &span{}
			}
		})
		to := uint64(w.d.Generation(1, l)) + 1
		if s := w.gen[l]; s != nil {
			done = append(done, w.raise(s, to))
		}
		gens = append(gens, wire.ObjectGen{Layer: l, Gen: ashlar.Generation(to)})
	}
	w.must(w.d.SetGenerations(1, gens))
	for _, f := range done {
		f()
	}
}

// reopen ends the process, in order or not, and begins the next one.
func (w *workload) reopen() {
	if w.rng.IntN(2) == 0 {
		w.must(w.d.Close())
		w.fs.Do(func() { w.synced(func(chunkstore.Key) bool { return true }) })
	} else {
		w.must(w.d.Abandon())
	}
	w.open()
}

// TestPowerMayFailBeforeEveryStep cuts the power before every write, sync,
// rename, removal and directory sync of a workload with everything a disk does.
// I-8, I-4, I-10.
func TestPowerMayFailBeforeEveryStep(t *testing.T) {
	var kinds errfs.Kind
	for seed := range crashtest.Seeds(t, 1) {
		w := newWorkload(t, seed)
		for range 40 {
			w.step()
			if t.Failed() {
				return
			}
		}
		w.must(w.d.Close())
		n, k := w.fs.Steps()
		kinds |= k
		if n < 50 {
			t.Fatalf("seed %d: only %d steps", seed, n)
		}
	}
	const want = errfs.Create | errfs.Write | errfs.Sync | errfs.SyncDir | errfs.PunchHole | errfs.Rename | errfs.Remove | errfs.Preallocate
	if kinds&want != want {
		t.Fatalf("kinds of step %b, want %b: the workload lacks something", kinds, want)
	}
}

// TestPowerMayFailWhileRecovering cuts the power at every step of opening a
// disk that lost power before.
func TestPowerMayFailWhileRecovering(t *testing.T) {
	for seed := range crashtest.Seeds(t, 1) {
		w := newWorkload(t, seed)
		w.fs.Pause(true)
		for range 30 {
			w.step()
		}
		var left *vfs.Mem
		w.fs.Do(func() { left = w.fs.Clone(seed) })
		again := crashtest.New(left, seed, func(clone *vfs.Mem, at string) {
			if !t.Failed() {
				w.crashed(clone, "recovering, "+at)
			}
		})
		c := w.c
		c.FS, c.BootID = again, "boot-2"
		d, err := chunkstore.Open(c)
		w.must(err)
		w.must(d.Close())
		if n, _ := again.Steps(); n < 5 {
			t.Fatalf("opening took %d steps", n)
		}
		_ = w.d.Abandon()
	}
}

// A process is killed after it made the table of writes in flight and before it
// wrote its header.
func TestATableThatWasNeverBegunIsBegun(t *testing.T) {
	m := vfs.NewMem()
	p := chunkstoretest.Place{FS: m, Dir: "/disk"}
	if err := p.Format(t).Abandon(); err != nil {
		t.Fatal(err)
	}
	m.ReleaseLocks()
	if err := m.Remove("/disk/inflight"); err != nil {
		t.Fatal(err)
	}
	r, err := m.Region("/disk/inflight", chunkstore.InflightFileSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := chunkstore.Open(p.Config())
	if err != nil {
		t.Fatalf("refused for good: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
