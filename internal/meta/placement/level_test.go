package placement

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// grown is a world whose groups hold data, so that the use of disks follows
// from who has which seats.
type grown struct {
	*world
	total map[ashlar.DiskID]uint64
	bytes map[ashlar.PGID]uint64
}

func (w *grown) register(t *testing.T, node string, disks ...ashlar.DiskID) {
	t.Helper()
	m := &wire.Register{Name: node, Addr: node + ":1", Incarnation: 1}
	copy(m.UUID[:], node)
	for _, d := range disks {
		in := wire.DiskInfo{Path: fmt.Sprint("/", d), Owner: 1}
		copy(in.UUID[:], fmt.Sprint("disk ", d))
		m.Disks = append(m.Disks, in)
	}
	open := func(ashlar.NodeID) (ashlar.SessionID, error) { w.session++; return ashlar.SessionID(w.session), nil }
	if _, err := Register(&w.mem, w.now, open, m); err != nil {
		t.Fatal(err)
	}
	w.mem.Commit()
}

func (w *grown) usage(d ashlar.DiskID) (Usage, bool) {
	used := uint64(0)
	for _, g := range w.view().Groups {
		if g.Index(d) >= 0 {
			used += w.bytes[g.ID]
		}
	}
	return Usage{Total: w.total[d], Free: w.total[d] - min(used, w.total[d])}, true
}

// settle runs until nothing changes, and returns how many seats moved.
func (w *grown) settle(t *testing.T) (moves int) {
	t.Helper()
	idle := 0
	for range 3000 {
		w.now += int64(SettleTime)
		before := w.groups(true)
		f := &Facts{Now: w.now, Usage: w.usage, Size: func(g ashlar.PGID) (uint64, bool) { return w.bytes[g], true }}
		yields, err := Tick(&w.mem, f)
		if err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
		for _, g := range w.view().Groups {
			if g.Count(ashlar.Syncing) > 0 {
				moves++
			}
			if err := w.syncAll(g); err != nil {
				t.Fatal(err)
			}
		}
		for _, y := range yields {
			if _, err := Rotate(&w.mem, w.now, y.Group, y.Epoch, y.To); err != nil {
				t.Fatal(err)
			}
			w.mem.Commit()
		}
		if before != w.groups(true) {
			idle = 0
		} else if idle++; idle > 2 {
			return moves
		}
	}
	t.Fatalf("it never settles\n%s", w.groups(true))
	return 0
}

// spread is how far the disks differ in use, of their size.
func (w *grown) spread() float64 {
	least, most := 1.0, 0.0
	for d, total := range w.total {
		u, _ := w.usage(d)
		use := float64(total-u.Free) / float64(total)
		least, most = min(least, use), max(most, use)
	}
	return most - least
}

func TestDisksAreEvenInUseAfterOneJoins(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := &grown{world: newWorld(), total: map[ashlar.DiskID]uint64{}, bytes: map[ashlar.PGID]uint64{}}
		if err := SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: 2}); err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
		nodes := 3 + rng.IntN(3)
		for i := range nodes {
			d := ashlar.DiskID(i + 1)
			w.total[d] = uint64(100+rng.IntN(60)) << 30
			w.register(t, fmt.Sprint("n", i+1), d)
		}
		w.settle(t)
		// Fill to about half; groups differ in size by a factor of up to two.
		all := uint64(0)
		for _, b := range w.total {
			all += b
		}
		n := uint64(len(w.view().Groups))
		for _, g := range w.view().Groups {
			share := all / 4 / n
			w.bytes[g.ID] = share*2/3 + rng.Uint64N(share*2/3)
		}
		w.settle(t)
		full := w.spread()
		d := ashlar.DiskID(nodes + 1)
		w.total[d] = uint64(100+rng.IntN(60)) << 30
		w.register(t, fmt.Sprint("n", nodes+1), d)
		if before := w.spread(); before < 0.3 {
			t.Fatalf("seed %d: the new disk made a difference of %.2f", seed, before)
		}
		moves := w.settle(t)
		if got := w.spread(); got > 0.05 {
			t.Errorf("seed %d: %d nodes differ by %.3f of their size (%.3f before the last joined), after %d moves", seed, nodes+1, got, full, moves)
		}
	}
}

func TestADiskWithGrowingDamageIsDrained(t *testing.T) {
	w := newWorld()
	g := &grown{world: w}
	if err := SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	w.mem.Commit()
	for i := range 3 {
		g.register(t, fmt.Sprint("n", i+1), ashlar.DiskID(i+1))
	}
	damaged := uint64(DamagedMax - 1)
	tick := func() *Disk {
		f := w.facts()
		f.Damaged = func(d ashlar.DiskID) uint64 {
			if d == 2 {
				return damaged
			}
			return 0
		}
		if _, err := Tick(&w.mem, f); err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
		return w.view().Disks[2]
	}
	if d := tick(); d.Drain {
		t.Fatalf("drained for %d damaged blocks", damaged)
	}
	damaged++
	if d := tick(); !d.Drain || d.Why != "32 damaged blocks were found on it" {
		t.Fatalf("drain %v, why %q", d.Drain, d.Why)
	}
	// An operator knows better, until as much is found again.
	if err := SetDisk(&w.mem, w.now, &wire.SetDisk{Disk: 2, Undrain: true}); err != nil {
		t.Fatal(err)
	}
	w.mem.Commit()
	if d := tick(); d.Drain {
		t.Error("drained again for the same blocks")
	}
	damaged += DamagedMax
	if d := tick(); !d.Drain {
		t.Error("not drained for new ones")
	}
}

func TestNothingMovesInAPausedPool(t *testing.T) {
	w := newWorld()
	g := &grown{world: w}
	if err := SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	w.mem.Commit()
	for i := range 3 {
		g.register(t, fmt.Sprint("n", i+1), ashlar.DiskID(i+1))
	}
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	set := func(m *wire.SetPool) {
		m.Name, m.Update = DefaultPool, true
		if err := SetPool(&w.mem, m); err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
	}
	set(&wire.SetPool{Pause: true})
	if err := SetNode(&w.mem, &wire.SetNode{Name: "n3", Drain: true}); err != nil {
		t.Fatal(err)
	}
	w.mem.Commit()
	before := w.groups(true)
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := w.groups(true); got != before {
		t.Errorf("moved while paused:\n%s", got)
	}
	set(&wire.SetPool{Resume: true})
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if n := w.view().Seats(3); n != 0 {
		t.Errorf("%d seats left on the drained node after it was resumed", n)
	}
}
