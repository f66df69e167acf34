package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/cockroachdb/datadriven"
)

// world is a state, the time, and what the chunkservers say of their disks.
type world struct {
	mem     metatest.Mem
	now     int64
	session uint64
	free    map[ashlar.DiskID]uint64
	yields  []Yield
}

func newWorld() *world { return &world{now: int64(time.Hour), free: map[ashlar.DiskID]uint64{}} }

func (w *world) facts() *Facts {
	return &Facts{Now: w.now, Usage: func(d ashlar.DiskID) (Usage, bool) {
		free, ok := w.free[d]
		if !ok {
			free = 100 << 30
		}
		return Usage{Total: 100 << 30, Free: free}, true
	}}
}

func (w *world) view() *View {
	v, err := Load(&w.mem)
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) node(name string) *Node {
	v := w.view()
	for _, id := range v.NodeIDs() {
		if v.Nodes[id].Name == name {
			return v.Nodes[id]
		}
	}
	return nil
}

func (w *world) tick() error {
	var err error
	w.yields, err = Tick(&w.mem, w.facts())
	return err
}

// settle lets time pass and every syncing member catch up, and gives every
// consent, until nothing changes any more.
func (w *world) settle() error {
	for range 200 {
		before := w.groups(true)
		w.now += int64(time.Second)
		if err := w.tick(); err != nil {
			return err
		}
		w.mem.Commit()
		for _, y := range w.yields {
			if _, err := Rotate(&w.mem, w.now, y.Group, y.Epoch, y.To); err != nil {
				return err
			}
			w.mem.Commit()
		}
		for _, g := range w.view().Groups {
			if err := w.syncAll(g); err != nil {
				return err
			}
		}
		if before == w.groups(true) {
			return nil
		}
	}
	return fmt.Errorf("it does not settle:\n%s", w.groups(true))
}

func (w *world) syncAll(g *Group) error {
	v := w.view()
	p, ok := v.Primary(g)
	if !ok {
		return nil
	}
	for _, m := range g.Members {
		if m.State != ashlar.Syncing || !v.Serves(m.Disk) {
			continue
		}
		now := w.view().Group(g.ID)
		if _, err := Synced(&w.mem, w.now, p.ID, g.ID, now.Epoch, m.Disk); err != nil {
			return err
		}
		w.mem.Commit()
	}
	return nil
}

// groups writes each group as "pg 1 e2: 1 2s 3x!": disks in order, s for
// syncing, x for offline, ! for a seat to be left.
func (w *world) groups(all bool) string {
	var b strings.Builder
	for i, g := range w.view().Groups {
		if !all && i >= 4 {
			fmt.Fprintf(&b, "and %d more\n", len(w.view().Groups)-i)
			break
		}
		fmt.Fprintf(&b, "pg %d e%d:", g.ID, g.Epoch)
		for j, m := range g.Members {
			fmt.Fprintf(&b, " %d%s", m.Disk, [...]string{"?", "", "s", "x"}[m.State])
			if g.Seats[j].Leave {
				b.WriteByte('!')
			}
		}
		if g.LastCopy {
			b.WriteString(" last-copy")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (w *world) disks() string {
	var b strings.Builder
	v := w.view()
	for _, id := range v.DiskIDs() {
		fmt.Fprintf(&b, "disk %d of %s: %d seats, %d primary\n", id, v.Nodes[v.Disks[id].Node].Name, v.seats[id], v.heads[id])
	}
	return b.String()
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld()
		if err := SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: 2}); err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := w.run(t, d)
			if err != nil {
				w.mem.Discard()
				return out + "error: " + err.Error() + "\n"
			}
			w.mem.Commit()
			return out
		})
	})
}

func (w *world) run(t *testing.T, d *datadriven.TestData) (string, error) {
	arg := func(name string) (out string) {
		if d.HasArg(name) {
			d.ScanArgs(t, name, &out)
		}
		return out
	}
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(arg(name), 10, 64)
		return n
	}
	switch d.Cmd {
	case "register":
		return w.register(d, arg, number)
	case "advance":
		w.now += int64(must(time.ParseDuration(d.CmdArgs[0].Key)))
		return "", nil
	case "tick":
		err := w.tick()
		out := w.groups(false)
		for _, y := range w.yields {
			out += fmt.Sprintf("yield pg %d e%d\n", y.Group, y.Epoch)
		}
		return out, err
	case "settle":
		err := w.settle()
		return w.groups(false) + w.disks(), err
	case "down":
		var lost []Lost
		for _, a := range d.CmdArgs {
			n := w.node(a.Key)
			lost = append(lost, Lost{n.ID, n.Session})
		}
		return "", NodesDown(&w.mem, w.now, lost)
	case "failed":
		_, err := MemberFailed(&w.mem, w.now, w.node(arg("by")).ID, ashlar.PGID(number("pg")), ashlar.Epoch(number("epoch")), ashlar.DiskID(number("disk")))
		return w.groups(false), err
	case "synced":
		_, err := Synced(&w.mem, w.now, w.node(arg("by")).ID, ashlar.PGID(number("pg")), ashlar.Epoch(number("epoch")), ashlar.DiskID(number("disk")))
		return w.groups(false), err
	case "disk-failed":
		_, err := DiskFailed(&w.mem, w.now, w.node(arg("by")).ID, ashlar.DiskID(number("disk")), "smoke")
		return w.groups(false), err
	case "pool":
		dom, _ := ashlar.ParseDomain(arg("domain"))
		m := &wire.SetPool{Name: arg("name"), Update: d.HasArg("update"), Replicas: uint8(number("replicas")), Domain: dom}
		if l := arg("label"); l != "" {
			m.Labels = []string{l}
		}
		return "", SetPool(&w.mem, m)
	case "set-disk":
		return "", SetDisk(&w.mem, w.now, &wire.SetDisk{
			Disk: ashlar.DiskID(number("disk")), Drain: d.HasArg("drain"), Undrain: d.HasArg("undrain"),
			Remove: d.HasArg("remove"), Force: d.HasArg("force"),
		})
	case "set-node":
		return "", SetNode(&w.mem, &wire.SetNode{Name: arg("name"), Drain: d.HasArg("drain"), Remove: d.HasArg("remove")})
	case "free":
		w.free[ashlar.DiskID(number("disk"))] = number("mib") << 20
		return "", nil
	case "choose":
		ids, err := NewTable(w.view(), w.facts()).Choose(1, int(number("n")), number("seed"))
		return fmt.Sprintln(ids), err
	case "groups":
		return w.groups(false), nil
	case "disks":
		return w.disks(), nil
	}
	return "", fmt.Errorf("unknown command %s", d.Cmd)
}

// register name=n1 [uuid=1] inc=1 disks=(1,2) [owner=1] [rack=a] [label=ssd]
func (w *world) register(d *datadriven.TestData, arg func(string) string, number func(string) uint64) (string, error) {
	addr := arg("addr")
	if addr == "" {
		addr = arg("name") + ":1"
	}
	m := &wire.Register{Name: arg("name"), Addr: addr, Rack: arg("rack"), Incarnation: ashlar.Incarnation(number("inc"))}
	copy(m.UUID[:], arg("name")+arg("uuid"))
	owner := number("owner")
	if owner == 0 {
		owner = uint64(m.Incarnation)
	}
	for _, a := range d.CmdArgs {
		if a.Key != "disks" {
			continue
		}
		for _, v := range a.Vals {
			in := wire.DiskInfo{Path: "/" + v, Owner: owner, Chunks: number("chunks")}
			copy(in.UUID[:], "disk "+v)
			if l := arg("label"); l != "" {
				in.Labels = []string{l}
			}
			m.Disks = append(m.Disks, in)
		}
	}
	open := func(ashlar.NodeID) (ashlar.SessionID, error) { w.session++; return ashlar.SessionID(w.session), nil }
	got, err := Register(&w.mem, w.now, open, m)
	if err != nil {
		return "", err
	}
	out := fmt.Sprintf("node %d session %d disks %v\n", got.Node, got.Session, got.Disks)
	if got.Replaced != 0 {
		out += fmt.Sprintf("replaces session %d\n", got.Replaced)
	}
	return out, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// check holds the state to the package's rules.
func (w *world) check(t testing.TB) {
	t.Helper()
	for _, g := range w.view().Groups {
		if g.Count(ashlar.InSync) == 0 {
			t.Fatalf("pg %d has no in-sync member", g.ID)
		}
		var disks []ashlar.DiskID
		for _, m := range g.Members {
			if slices.Contains(disks, m.Disk) {
				t.Fatalf("pg %d has two seats on disk %d", g.ID, m.Disk)
			}
			disks = append(disks, m.Disk)
		}
	}
}
