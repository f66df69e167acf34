package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// TestMain makes the test binary its own node: called as Exe would be, it
// reads its configuration, listens, and ends in order on SIGTERM.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		os.Exit(fakeNode(os.Args[3]))
	}
	os.Exit(m.Run())
}

func fakeNode(file string) int {
	c, err := config.LoadServe(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if _, err := os.Stat(filepath.Join(c.Data, "refuse")); err == nil {
		fmt.Fprintln(os.Stderr, "refused as the test asked")
		return 1
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	<-ctx.Done()
	fmt.Fprintln(os.Stderr, "stopped in order")
	return 0
}

// fakeAdmin answers for masters: a disk is "ok" if its node listens.
type fakeAdmin struct {
	dir   string
	mu    sync.Mutex
	added []string
}

func (f *fakeAdmin) Status(context.Context) (*wire.Status, error) {
	s, err := Load(f.dir)
	if err != nil {
		return nil, err
	}
	st := &wire.Status{Leader: "n1", Health: "ok", Redundant: true, Groups: make([]wire.GroupStatus, 1)}
	for _, n := range s.Nodes {
		if !free(n.Addr) {
			st.Disks = append(st.Disks, wire.DiskStatus{Node: n.Name, State: "ok"})
			if n.Master {
				st.Masters = append(st.Masters, wire.MasterStatus{Name: n.Name, Alive: true, Match: 1})
			}
		}
	}
	return st, nil
}

func (f *fakeAdmin) EnsureVolume(context.Context, string) error { return nil }
func (f *fakeAdmin) Close()                                     {}
func (f *fakeAdmin) AddMaster(_ context.Context, name, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.added = append(f.added, name)
	return nil
}

type rig struct {
	*Cluster
	t     *testing.T
	admin *fakeAdmin
	ctx   context.Context
	mu    sync.Mutex
	said  []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, admin: &fakeAdmin{dir: filepath.Join(t.TempDir(), "dev")}}
	r.Cluster = &Cluster{
		Dir: r.admin.dir, Exe: exe,
		Connect: func(string) (Admin, error) { return r.admin, nil },
		Logf: func(f string, a ...any) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.said = append(r.said, fmt.Sprintf(f, a...))
		},
	}
	return r
}

// up runs Up until the returned function is called; it returns when ready.
func (r *rig) up(o Options) (stop func() error) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	ready, done := make(chan *State, 1), make(chan error, 1)
	go func() { done <- r.Up(ctx, o, func(s *State) { ready <- s }) }()
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	r.t.Cleanup(func() { stop() })
	select {
	case <-ready:
	case err := <-done:
		r.t.Fatalf("Up: %v", err)
	}
	return stop
}

func (r *rig) status() *Status {
	r.t.Helper()
	st, err := r.Status(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestUpStartsEveryNodeAndStopsThemInOrder(t *testing.T) {
	r := newRig(t)
	stop := r.up(Options{})
	st := r.status()
	if len(st.Nodes) != 3 || st.Leader != "n1" || !st.Nodes[0].Leader || st.Health != "ok" || st.Up != os.Getpid() {
		t.Errorf("status %+v", st)
	}
	for _, n := range st.Nodes {
		if n.State != "running" || n.PID == 0 {
			t.Errorf("node %+v", n)
		}
	}
	if _, err := config.LoadClient(r.ClientFile(), ""); err != nil {
		t.Error(err)
	}
	r.must(stop())
	for _, n := range r.status().Nodes {
		if n.State != "stopped" {
			t.Errorf("after stop: %+v", n)
		}
		if l := tail(n.Log); !strings.Contains(l, "stopped in order") {
			t.Errorf("%s was not stopped in order: %q", n.Name, l)
		}
	}
}

func TestUpAgainFindsTheSameCluster(t *testing.T) {
	r := newRig(t)
	r.must(r.up(Options{Nodes: 2})())
	first, err := Load(r.Dir)
	r.must(err)
	r.must(r.up(Options{})())
	second, err := Load(r.Dir)
	r.must(err)
	if first.Cluster != second.Cluster || len(second.Nodes) != 2 || first.Nodes[1] != second.Nodes[1] {
		t.Errorf("first %+v\nsecond %+v", first, second)
	}
	for _, o := range []Options{{Nodes: 3}, {Replicas: 1}, {BasePort: 1}, {Volume: "no/name"}} {
		if err := r.Up(r.ctx, o, nil); !errors.Is(err, ashlar.Invalid) {
			t.Errorf("Up with %+v: %v", o, err)
		}
	}
}

func TestAKilledNodeStaysDownUntilStarted(t *testing.T) {
	r := newRig(t)
	r.up(Options{})
	pid := r.status().Nodes[1].PID
	r.must(r.Kill(r.ctx, "n2"))
	if n := r.status().Nodes[1]; n.State != "stopped" || n.PID != 0 {
		t.Errorf("after kill: %+v", n)
	}
	if err := r.Kill(r.ctx, "n2"); !errors.Is(err, ashlar.NotReady) || !strings.Contains(err.Error(), "dev start") {
		t.Errorf("second kill: %v", err)
	}
	r.must(r.Start(r.ctx, "n2"))
	if n := r.status().Nodes[1]; n.State != "running" || n.PID == pid {
		t.Errorf("after start: %+v, was %d", n, pid)
	}
	if err := r.Start(r.ctx, "n2"); !errors.Is(err, ashlar.Busy) {
		t.Errorf("second start: %v", err)
	}
	if err := r.Kill(r.ctx, "n9"); !errors.Is(err, ashlar.NotExist) || !strings.Contains(err.Error(), "n1, n2, n3") {
		t.Errorf("kill of an unknown node: %v", err)
	}
	r.must(wait(r.ctx, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.said) > 0
	}))
	if !strings.Contains(r.said[0], "n2 ended: signal: killed; start it again with") {
		t.Errorf("Up said %q", r.said)
	}
}

func TestPauseAndResume(t *testing.T) {
	r := newRig(t)
	stop := r.up(Options{Nodes: 1})
	r.must(r.Pause(r.ctx, "n1"))
	if s := r.status().Nodes[0].State; s != "paused" {
		t.Errorf("after pause: %s", s)
	}
	r.must(r.Resume(r.ctx, "n1"))
	if s := r.status().Nodes[0].State; s != "running" {
		t.Errorf("after resume: %s", s)
	}
	r.must(r.Pause(r.ctx, "n1"))
	r.must(stop()) // a paused node is woken to stop
}

func TestAddJoinsANewNode(t *testing.T) {
	r := newRig(t)
	r.up(Options{})
	n, err := r.Add(r.ctx, false)
	r.must(err)
	if n.Name != "n4" || n.Master || len(r.admin.added) != 0 {
		t.Errorf("added %+v", n)
	}
	n, err = r.Add(r.ctx, true)
	r.must(err)
	if n.Name != "n5" || !n.Master || len(r.admin.added) != 1 {
		t.Errorf("added %+v, masters told of %v", n, r.admin.added)
	}
	c, err := config.LoadClient(r.ClientFile(), "")
	r.must(err)
	if len(c.Masters) != 4 {
		t.Errorf("client file names %v", c.Masters)
	}
	s, err := config.LoadServe(r.nodeFile("n1", "ashlar.toml"))
	r.must(err)
	if len(s.Masters) != 4 {
		t.Errorf("n1 is configured with %v", s.Masters)
	}
}

func TestDownWorksWithoutASupervisor(t *testing.T) {
	r := newRig(t)
	r.must(r.up(Options{Nodes: 1})())
	r.must(r.Start(r.ctx, "n1"))
	r.must(r.Down(r.ctx))
	if s := r.status().Nodes[0].State; s != "stopped" {
		t.Errorf("after down: %s", s)
	}
	r.must(r.Down(r.ctx))
}

func TestTwoSupervisorsOfOneDirectoryAreRefused(t *testing.T) {
	r := newRig(t)
	r.up(Options{Nodes: 1})
	if err := r.Up(r.ctx, Options{}, nil); !errors.Is(err, ashlar.Busy) || !strings.Contains(err.Error(), "dev down") {
		t.Errorf("got %v", err)
	}
}

func TestANodeThatEndsBeforeReadyEndsUpWithItsLog(t *testing.T) {
	r := newRig(t)
	r.must(r.up(Options{Nodes: 1})())
	r.must(os.MkdirAll(r.nodeFile("n1", "data"), 0o755))
	r.must(os.WriteFile(r.nodeFile("n1", "data/refuse"), nil, 0o644))
	err := r.Up(r.ctx, Options{}, nil)
	if err == nil || !strings.Contains(err.Error(), "refused as the test asked") || !strings.Contains(err.Error(), "node n1") {
		t.Errorf("Up: %v", err)
	}
	if err := r.Start(r.ctx, "n1"); err == nil || !strings.Contains(err.Error(), "refused as the test asked") {
		t.Errorf("Start: %v", err)
	}
}

func TestAPortInUseIsRefusedByNumber(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := newRig(t)
	err = r.Up(r.ctx, Options{BasePort: l.Addr().(*net.TCPAddr).Port}, nil)
	if !errors.Is(err, ashlar.Exist) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestANumberUsedAgainIsNotTheNode(t *testing.T) {
	self := process{PID: os.Getpid()}
	self.Start, _, _ = procStat(self.PID)
	if !self.alive() {
		t.Fatal("this process is not alive")
	}
	self.Start++
	if self.alive() {
		t.Error("another life of the number counts as alive")
	}
	if err := self.signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
}

func TestVotersAreOdd(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 6: 5, 64: 5} {
		if got := voters(n); got != want {
			t.Errorf("voters(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestEditedConfigurationsAreKept(t *testing.T) {
	r := newRig(t)
	r.must(r.up(Options{Nodes: 1})())
	file := r.nodeFile("n1", "ashlar.toml")
	b, err := os.ReadFile(file)
	r.must(err)
	r.must(os.WriteFile(file, append(b, "\n[timing]\nlease = \"4s\"\ndead = \"5s\"\n"...), 0o644))
	r.must(r.up(Options{})())
	c, err := config.LoadServe(file)
	r.must(err)
	if c.Timing.Lease != 4*time.Second {
		t.Errorf("lease %v", c.Timing.Lease)
	}
}
