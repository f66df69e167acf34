package placement

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// reasons returns what is said of the seats of all groups, once each.
func (w *world) reasons() string {
	v := w.view()
	seen := map[string]bool{}
	var out []string
	for _, g := range v.Groups {
		for i := range g.Members {
			if r := v.Reason(w.facts(), g, i); r != "" && !seen[r] {
				seen[r] = true
				out = append(out, fmt.Sprintf("%s: %s", g.Members[i].State, r))
			}
		}
	}
	return strings.Join(out, "\n")
}

func TestEveryCopyThatIsMadeHasAReason(t *testing.T) {
	w := newWorld()
	g := &grown{world: w}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		w.mem.Commit()
	}
	must(SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Replicas: 2}))
	for i := range 3 {
		g.register(t, fmt.Sprint("n", i+1), ashlar.DiskID(i+1))
	}
	must(w.settle())
	if got := w.reasons(); got != "" {
		t.Fatalf("all is well, and yet: %s", got)
	}
	expect := func(when string, want ...string) {
		t.Helper()
		got := w.reasons()
		for _, x := range want {
			if !strings.Contains(got, x) {
				t.Errorf("%s: %q is not said in:\n%s", when, x, got)
			}
		}
	}
	must(NodesDown(&w.mem, w.now, []Lost{{Node: w.node("n3").ID, Session: w.node("n3").Session}}))
	w.now += int64(time.Minute)
	expect("a node is down", "offline: node n3 is down for 1m0s, and replaced if it is not back in 9m0s")
	w.now += int64(10 * time.Minute)
	must(w.tick())
	expect("for long", "syncing: it replaces disk 3, which has been away for longer than 10m0s",
		"node n3 is down for 11m0s; its copy is made elsewhere where there is room")
	must(w.settle())

	g.register(t, "n4", 4)
	must(SetDisk(&w.mem, w.now, &wire.SetDisk{Disk: 2, Drain: true}))
	must(w.tick())
	expect("a disk is drained", "syncing: it takes over from disk 2, which is being drained", "in-sync: its disk is being drained")
	must(SetPool(&w.mem, &wire.SetPool{Name: DefaultPool, Update: true, Pause: true}))
	expect("repair is paused", "being drained; repair of the pool is paused")
}
