package placement

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// moves returns what is said of the members of all groups, once each.
func (w *world) moves(prefix func(*wire.GroupWhy) bool) string {
	x := NewExplainer(w.view(), w.facts())
	seen := map[string]bool{}
	var out []string
	for _, g := range w.view().Groups {
		why := x.Group(g)
		if prefix != nil && !prefix(&why) {
			continue
		}
		for _, m := range why.Moves {
			if line := fmt.Sprintf("%s (%s): %s", m.What, m.Why, m.Text); !seen[line] {
				seen[line] = true
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "\n")
}

// plant makes a pool of two copies on nodes n1 to n3 with a disk each.
func plant(t *testing.T) (*grown, func(error)) {
	t.Helper()
	g := &grown{world: newWorld()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		g.mem.Commit()
	}
	must(SetPool(&g.mem, &wire.SetPool{Name: DefaultPool, Replicas: 2}))
	for i := range 3 {
		g.register(t, fmt.Sprint("n", i+1), ashlar.DiskID(i+1))
	}
	must(g.world.settle())
	if got := g.moves(nil); got != "" {
		t.Fatalf("all is well, and yet: %s", got)
	}
	return g, must
}

func (w *world) lose(name string) error {
	return NodesDown(&w.mem, w.now, []Lost{{Node: w.node(name).ID, Session: w.node(name).Session}})
}

func TestEveryCopyThatComesOrGoesHasAReason(t *testing.T) {
	g, must := plant(t)
	w := g.world
	expect := func(when string, want ...string) {
		t.Helper()
		got := w.moves(nil)
		for _, x := range want {
			if !strings.Contains(got, x) {
				t.Errorf("%s: %q is not said in:\n%s", when, x, got)
			}
		}
	}
	must(w.lose("n3"))
	w.now += int64(time.Minute)
	expect("a node is down", "waiting (lost): node n3 is down for 1m0s; another copy is made in 9m0s unless it returns")
	w.now += int64(10 * time.Minute)
	expect("for long", "missing (repair): another copy is about to be made")
	must(w.tick())
	expect("it is replaced", "copying (repair): it takes the place of disk 3: it is away for 11m0s", "waiting (lost): node n3 is down for 11m0s")
	must(w.settle())

	must(w.lose("n2"))
	w.now += int64(11 * time.Minute)
	must(w.tick())
	expect("nobody is left to take its place", "missing (room): no disk is fit for another copy: it takes one that is up")
	g.register(t, "n2", 2) // the same incarnation again is refused elsewhere; here it is back
	must(w.tick())
	expect("it returns", "copying (return): its node came back 0s ago")
	must(SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Update: true, Pause: true}))
	expect("repair is paused", "waiting (paused)")
	must(SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Update: true, Resume: true}))
	must(w.settle())

	g.register(t, "n4", 4)
	must(SetDisk(&w.mem, w.now, &wire.SetDisk{Disk: 2, Drain: true}))
	must(w.tick())
	expect("a disk is drained", "copying (drain): it takes the place of disk 2: an operator is emptying it",
		"leaving (drain): it stays until another has its data: an operator is emptying it")
	must(w.settle())
	must(SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Update: true, Replicas: 1}))
	expect("fewer copies are asked for", "leaving (replicas): the pool asks for 1 copies")
	must(w.settle())

	n1 := w.node("n1")
	_, err := DiskFailed(&w.mem, w.now, n1.ID, 1, "smoke")
	must(err)
	expect("a disk with a last copy failed", "waiting (lost): it has all that was acknowledged, and is waited for; the disk failed: smoke")
}

func TestTheStateOfAGroupFollowsFromWhoIsReached(t *testing.T) {
	in, sync, off := ashlar.InSync, ashlar.Syncing, ashlar.Offline
	for _, c := range []struct {
		name     string
		states   []ashlar.MemberState // of disks 1, 2, 3 ...
		away     string               // disks that do not serve
		want     uint8
		least    uint8
		state    string
		copies   int
		if1, all string // if disk 1 is lost; "gone" with all its copies
	}{
		{"whole", []ashlar.MemberState{in, in}, "", 2, 1, StateOK, 2, StateAtRisk, ""},
		{"whole of three", []ashlar.MemberState{in, in, in}, "", 3, 1, StateOK, 3, StateDegraded, ""},
		{"one more on its way", []ashlar.MemberState{in, in, sync}, "", 2, 1, StateMoving, 2, StateAtRisk, ""},
		{"one offline", []ashlar.MemberState{in, off}, "2", 2, 1, StateAtRisk, 1, StateUnavailable, "gone"},
		{"one syncing", []ashlar.MemberState{in, sync}, "", 2, 1, StateAtRisk, 1, StateUnavailable, "gone"},
		{"two of three", []ashlar.MemberState{in, in, off}, "3", 3, 1, StateDegraded, 2, StateAtRisk, ""},
		{"below write-min", []ashlar.MemberState{in, off}, "2", 2, 2, StateReadOnly, 1, StateUnavailable, "gone"},
		{"nobody reached", []ashlar.MemberState{in, in}, "1,2", 2, 1, StateUnavailable, 0, StateUnavailable, ""},
		{"the primary not reached", []ashlar.MemberState{in, in}, "1", 2, 1, StateUnavailable, 1, StateAtRisk, ""},
		{"no in-sync member", []ashlar.MemberState{off, off}, "", 2, 1, StateUnavailable, 0, StateUnavailable, "gone"},
		{"one copy asked for", []ashlar.MemberState{in}, "", 1, 1, StateOK, 1, StateUnavailable, "gone"},
	} {
		v := &View{Nodes: map[ashlar.NodeID]*Node{}, Disks: map[ashlar.DiskID]*Disk{}, seats: map[ashlar.DiskID]int{}}
		p := &Pool{ID: 1, Name: "p", Replicas: c.want, WriteMin: c.least}
		v.Pools = []*Pool{p}
		g := &Group{Group: ashlar.Group{ID: 7, Pool: 1, Epoch: 3}}
		for i, s := range c.states {
			id := ashlar.DiskID(i + 1)
			up := !strings.Contains(c.away, fmt.Sprint(i+1))
			v.Nodes[ashlar.NodeID(id)] = &Node{ID: ashlar.NodeID(id), Name: fmt.Sprint("n", id), Up: up}
			v.Disks[id] = &Disk{ID: id, Node: ashlar.NodeID(id), Attached: true}
			g.Members = append(g.Members, ashlar.Member{Disk: id, Node: ashlar.NodeID(id), State: s})
			g.Seats = append(g.Seats, Seat{})
		}
		v.Groups = []*Group{g}
		x := NewExplainer(v, &Facts{})
		if err := x.Suppose(nil, []ashlar.DiskID{1}, nil); err != nil {
			t.Fatal(err)
		}
		why := x.Group(g)
		gone := ""
		if why.IfLosesAll {
			gone = "gone"
		}
		if why.State != c.state || why.Copies != c.copies || why.IfLost != c.if1 || gone != c.all {
			t.Errorf("%s: %s with %d copies, then %s %q; want %s with %d, then %s %q",
				c.name, why.State, why.Copies, why.IfLost, gone, c.state, c.copies, c.if1, c.all)
		}
		l := x.Loss(v.Groups)
		if sum := l.Gone + l.Unavailable + l.ReadOnly + l.AtRisk + l.Degraded + l.Whole; sum != l.Touched || l.Touched != 1 {
			t.Errorf("%s: the parts of %+v make no whole", c.name, l)
		}
	}
}

func TestALossIsSummedOverAllGroups(t *testing.T) {
	g, _ := plant(t)
	sum := func(nodes []string, disks ...ashlar.DiskID) *wire.LossWhy {
		t.Helper()
		x := NewExplainer(g.view(), g.facts())
		if err := x.Suppose(nodes, disks, []string{"m"}); err != nil {
			t.Fatal(err)
		}
		return x.Loss(g.view().Groups)
	}
	all := len(g.view().Groups)
	if l := sum([]string{"n1"}); l.Groups != all || l.Touched == 0 || l.AtRisk != l.Touched || l.Gone != 0 || l.Homeless != 0 {
		t.Errorf("one node of three: %+v", l)
	}
	if l := sum([]string{"n1", "n2"}); l.Gone == 0 || l.AtRisk == 0 || l.Gone+l.AtRisk != all || l.Homeless != l.AtRisk {
		t.Errorf("two nodes of three: %+v", l)
	}
	if a, b := sum([]string{"n1"}), sum(nil, 1); a.AtRisk != b.AtRisk || a.Touched != b.Touched {
		t.Errorf("a node with one disk is lost like its disk: %+v, %+v", a, b)
	}
	if l := sum([]string{"m"}); l.Touched != 0 {
		t.Errorf("a node that is only a master holds data: %+v", l)
	}
	x := NewExplainer(g.view(), g.facts())
	err := errors.Join(x.Suppose([]string{"n7"}, nil, []string{"m"}), x.Suppose(nil, []ashlar.DiskID{9}, nil))
	if !errors.Is(err, ashlar.NotExist) || !strings.Contains(err.Error(), "there are m, n1, n2, n3") || !strings.Contains(err.Error(), "there are 1, 2, 3") {
		t.Errorf("unknown names: %v", err)
	}
}

func TestAQuestionChoosesItsGroups(t *testing.T) {
	g, _ := plant(t)
	v := g.view()
	on, err := v.Choose(&wire.Explain{Disk: 2})
	if err != nil || len(on) != v.Seats(2) {
		t.Errorf("disk 2 has %d seats, chosen %d (%v)", v.Seats(2), len(on), err)
	}
	same, err := v.Choose(&wire.Explain{Node: "n2"})
	if err != nil || len(same) != len(on) {
		t.Errorf("node n2: %d (%v)", len(same), err)
	}
	if some, err := v.Choose(&wire.Explain{Groups: []ashlar.PGID{3, 1, 3}}); err != nil || len(some) != 2 || some[0].ID != 1 {
		t.Errorf("groups 3, 1, 3: %v (%v)", some, err)
	}
	if all, err := v.Choose(&wire.Explain{}); err != nil || len(all) != len(v.Groups) {
		t.Errorf("all: %d (%v)", len(all), err)
	}
	for _, q := range []*wire.Explain{{Groups: []ashlar.PGID{9999}}, {Disk: 9}, {Node: "n9"}} {
		if _, err := v.Choose(q); !errors.Is(err, ashlar.NotExist) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
