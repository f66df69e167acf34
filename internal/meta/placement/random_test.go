package placement

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// snapshot is what the rules compare before and after a step.
type snapshot struct {
	groups map[ashlar.PGID]*Group
	serves map[ashlar.DiskID]bool
}

func (w *world) snapshot() snapshot {
	v := w.view()
	s := snapshot{map[ashlar.PGID]*Group{}, map[ashlar.DiskID]bool{}}
	for _, g := range v.Groups {
		s.groups[g.ID] = g
	}
	for id := range v.Disks {
		s.serves[id] = v.Serves(id)
	}
	return s
}

// Whatever happens in whatever order: a group keeps an in-sync member (I-5),
// its epoch rises with every change of its members and never goes back (I-4),
// a member becomes in-sync only when its primary said so, and the role is not
// taken from a primary that serves without its consent (I-6).
func TestRandomEventsKeepTheRules(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := newWorld()
			if err := SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: uint8(1 + r.IntN(3))}); err != nil {
				t.Fatal(err)
			}
			w.mem.Commit()
			for step := range 150 {
				before := w.snapshot()
				what, touched := w.step(r)
				w.mem.Commit()
				w.check(t)
				if err := compare(before, w.snapshot(), what, touched); err != "" {
					t.Fatalf("step %d, %s: %s", step, what, err)
				}
			}
		})
	}
}

func compare(before, after snapshot, what string, touched ashlar.NodeID) string {
	for id, a := range after.groups {
		b := before.groups[id]
		if b == nil {
			continue
		}
		if a.Epoch < b.Epoch || a.Epoch == b.Epoch && !reflect.DeepEqual(a.Members, b.Members) && what != "register" {
			return fmt.Sprintf("pg %d: epoch %d after %d: %v after %v", id, a.Epoch, b.Epoch, a.Members, b.Members)
		}
		for _, m := range a.Members {
			if i := b.Index(m.Disk); m.State == ashlar.InSync && (i < 0 || b.Members[i].State != ashlar.InSync) && what != "synced" {
				return fmt.Sprintf("pg %d: disk %d became in-sync", id, m.Disk)
			}
		}
		was, is := b.Members[b.Primary()], a.Members[a.Primary()]
		if was.Disk != is.Disk && what != "rotate" && before.serves[was.Disk] && was.Node != touched && after.serves[was.Disk] {
			return fmt.Sprintf("pg %d: the role went from disk %d to %d", id, was.Disk, is.Disk)
		}
	}
	return ""
}

// step does something; touched is the node whose own word it was.
func (w *world) step(r *rand.Rand) (what string, touched ashlar.NodeID) {
	v := w.view()
	var g *Group
	if len(v.Groups) > 0 {
		g = v.Groups[r.IntN(len(v.Groups))]
	}
	name := fmt.Sprintf("n%d", 1+r.IntN(4))
	switch k := r.IntN(12); {
	case k < 2:
		return "register", w.randomRegister(r, name)
	case k == 2:
		if n := w.node(name); n != nil {
			_ = NodesDown(&w.mem, w.now, []Lost{{n.ID, n.Session}})
		}
		return "down", 0
	case k == 3 && g != nil:
		m := g.Members[r.IntN(len(g.Members))]
		p := g.Members[g.Group.Primary()]
		_, _ = MemberFailed(&w.mem, w.now, p.Node, g.ID, g.Epoch, m.Disk)
		if m.Disk == p.Disk {
			touched = p.Node
		}
		return "failed", touched
	case k == 4 && g != nil:
		m := g.Members[r.IntN(len(g.Members))]
		_, _ = DiskFailed(&w.mem, w.now, m.Node, m.Disk, "smoke")
		return "disk failed", m.Node
	case k < 8:
		for _, g := range v.Groups {
			_ = w.syncAll(g)
		}
		return "synced", 0
	case k == 8:
		_ = SetNode(&w.mem, &wire.SetNode{Name: name, Drain: r.IntN(2) == 0, Undrain: true})
		_ = SetNode(&w.mem, &wire.SetNode{Name: name, Undrain: r.IntN(2) == 0})
		return "drain", 0
	case k == 9 && g != nil:
		_, _ = Rotate(&w.mem, w.now, g.ID, g.Epoch, 0)
		return "rotate", 0
	}
	w.now += int64(time.Duration(r.IntN(200)) * time.Second)
	if err := w.tick(); err != nil {
		panic(err)
	}
	return "tick", 0
}

func (w *world) randomRegister(r *rand.Rand, name string) ashlar.NodeID {
	w.session++
	m := &wire.Register{Name: name, Addr: name, Incarnation: ashlar.Incarnation(w.session), UUID: wire.UUID{name[1]}}
	for i := range 1 + r.IntN(2) {
		m.Disks = append(m.Disks, wire.DiskInfo{UUID: wire.UUID{name[1], byte(i + 1)}, Owner: w.session})
	}
	got, err := Register(&w.mem, w.now, func(ashlar.NodeID) (ashlar.SessionID, error) { return ashlar.SessionID(w.session), nil }, m)
	if err != nil {
		panic(err)
	}
	return got.Node
}

func TestTableChoosesDistinctGroupsByRoom(t *testing.T) {
	w := newWorld()
	if err := SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	table := func() *Table { return NewTable(w.view(), w.facts()) }
	if _, err := table().Choose(1, 1, 1); ashlar.KindOf(err) != ashlar.NotReady {
		t.Fatalf("without groups: %v", err)
	}
	if _, err := table().Choose(9, 1, 1); ashlar.KindOf(err) != ashlar.NotExist {
		t.Fatalf("unknown pool: %v", err)
	}
	w.register1(t, "n1", 1)
	w.register1(t, "n2", 2)
	w.now += int64(time.Minute)
	if err := w.tick(); err != nil {
		t.Fatal(err)
	}
	w.free[1], w.free[2] = 90<<30, 10<<30
	v, tab := w.view(), table()
	hits := map[ashlar.DiskID]int{}
	for seed := range uint64(2000) {
		ids, err := tab.Choose(1, 8, seed)
		if err != nil || len(ids) != 8 {
			t.Fatalf("%v, %v", ids, err)
		}
		seen := map[ashlar.PGID]bool{}
		for _, id := range ids {
			if seen[id] {
				t.Fatalf("seed %d: %v", seed, ids)
			}
			seen[id] = true
		}
		hits[v.Group(ids[0]).Members[0].Disk]++
	}
	if hits[1] < 1600 || hits[2] < 100 {
		t.Fatalf("first choices by disk: %v, want about 9 to 1", hits)
	}
	w.free[1], w.free[2] = 0, 0
	if _, err := table().Choose(1, 1, 1); ashlar.KindOf(err) != ashlar.NoSpace {
		t.Fatalf("full: %v", err)
	}
}

func (w *world) register1(t *testing.T, name string, disk byte) {
	t.Helper()
	w.session++
	_, err := Register(&w.mem, w.now, func(ashlar.NodeID) (ashlar.SessionID, error) { return ashlar.SessionID(w.session), nil }, &wire.Register{
		Name: name, Addr: name, Incarnation: 1, UUID: wire.UUID{disk}, Disks: []wire.DiskInfo{{UUID: wire.UUID{disk}}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzRecords(f *testing.F) {
	g := &Group{Group: ashlar.Group{ID: 1, Pool: 1, Epoch: 2, Members: []ashlar.Member{{Disk: 1, Node: 1, State: ashlar.InSync}}}, Seats: make([]Seat, 1)}
	f.Add(byte(0), key.Encode(g))
	f.Add(byte(1), key.Encode(&Disk{ID: 1, Path: "/d", Labels: []string{"ssd"}}))
	f.Add(byte(2), key.Encode(&Node{ID: 1, Name: "n1"}))
	f.Add(byte(3), key.Encode(&Pool{ID: 1, Name: "default"}))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		make := []func() key.Record{
			func() key.Record { return new(Group) }, func() key.Record { return new(Disk) },
			func() key.Record { return new(Node) }, func() key.Record { return new(Pool) },
		}[which%4]
		r := make()
		if key.Decode(b, r) != nil {
			return
		}
		again := make()
		if err := key.Decode(key.Encode(r), again); err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v became %+v: %v", r, again, err)
		}
	})
}
