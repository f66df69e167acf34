package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/devcluster"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// binary is the ashlar that is tested, built once by TestMain.
var binary string

// require skips, or fails if the environment demands it.
func require(t *testing.T) {
	t.Helper()
	why := ""
	if _, err := os.Stat("/dev/fuse"); err != nil {
		why = "needs /dev/fuse: " + err.Error()
	} else if os.Geteuid() != 0 {
		why = "needs root, to keep owners of files and to mount"
	}
	if why == "" {
		return
	}
	if os.Getenv("ASHLAR_E2E") == "required" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestMain(m *testing.M) {
	if name := os.Getenv(writerEnv); name != "" {
		os.Exit(writer(name))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "ashlar-e2e-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "ashlar")
		out, err := exec.Command("go", "build", "-o", binary, "github.com/ashlarfs/ashlar/cmd/ashlar").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "building ashlar: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// cluster is a local cluster of real processes.
type cluster struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	mnt  string
	up   *exec.Cmd
	done chan error
	// args are more of those of `dev up`.
	args []string
	// closers are to be called before what is open of a mount goes.
	closers []func()
	// small are the disks that have a file system of their own.
	small []string
}

// readyTimeout is how long a start, or a recovery, may take.
const readyTimeout = 60 * time.Second

// stopReserve is how much of a test's time is kept for stopping the cluster.
const stopReserve = 25 * time.Second

// start brings up a cluster of three nodes with a mount.
func start(t *testing.T) *cluster {
	t.Helper()
	c := prepare(t)
	c.run()
	return c
}

// prepare makes the directory of a cluster.
func prepare(t *testing.T) *cluster {
	t.Helper()
	require(t)
	dir, err := os.MkdirTemp("", "ashlar-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if d, ok := t.Deadline(); ok { // fail in time to stop what was started
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d.Add(-stopReserve))
		t.Cleanup(cancel)
	}
	c := &cluster{t: t, ctx: ctx, dir: dir, mnt: filepath.Join(dir, "mnt"), done: make(chan error, 1)}
	t.Cleanup(c.stop)
	return c
}

// smallDisk gives a node that was not started yet a disk of its own, in memory.
func (c *cluster) smallDisk(node string, bytes int) {
	c.t.Helper()
	dir := filepath.Join(c.dir, node, "disk")
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = syscall.Mount("ashlar-e2e", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.small = append(c.small, dir)
}

// run starts `dev up` and waits for its line beginning with "ready".
func (c *cluster) run() {
	c.t.Helper()
	c.up = exec.Command(binary, append([]string{"dev", "up", "--dir", c.dir, "--mount", c.mnt}, c.args...)...)
	out, err := c.up.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	var errs bytes.Buffer
	c.up.Stderr = &errs
	if err := c.up.Start(); err != nil {
		c.t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		defer close(ready)
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready") {
				ready <- s.Text()
			}
		}
	}()
	select {
	case line, ok := <-ready:
		if !ok {
			err := c.up.Wait()
			c.up = nil
			c.t.Fatalf("dev up: %v\n%s", err, errs.String())
		}
		c.t.Log(line)
	case <-time.After(readyTimeout):
		c.t.Fatalf("dev up is not ready after %v", readyTimeout)
	}
	go func() { c.done <- c.up.Wait() }()
}

// stop interrupts `dev up`, which unmounts and stops the nodes.
func (c *cluster) stop() {
	defer c.forget()
	if c.up == nil {
		return
	}
	if err := c.up.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.t.Error(err)
	}
	select {
	case err := <-c.done:
		if err != nil {
			c.t.Errorf("dev up ended with %v", err)
		}
	case <-time.After(2 * readyTimeout):
		c.t.Errorf("dev up does not stop")
		c.up.Process.Kill()
	}
	if c.t.Failed() {
		c.logs()
		c.t.Logf("everything but disks in memory is kept in %s", c.dir)
	}
}

// forget removes what a test has left, unless it failed: but disks in memory
// are never left.
func (c *cluster) forget() {
	for _, dir := range c.small {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	}
	if c.t.Failed() {
		return
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.t.Error(err)
	}
}

// logs shows the ends of all logs.
func (c *cluster) logs() {
	logs, _ := filepath.Glob(filepath.Join(c.dir, "n*", "log"))
	for _, l := range append(logs, filepath.Join(c.dir, "mount.log")) {
		b, err := os.ReadFile(l)
		if err == nil {
			c.t.Logf("%s:\n%s", l, b[max(0, len(b)-3000):])
		}
	}
}

// try runs an ashlar command.
func (c *cluster) try(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(c.ctx, binary, args...)
	cmd.Env = append(os.Environ(), "ASHLAR_CLUSTER="+filepath.Join(c.dir, "client.toml"))
	out, err := cmd.Output()
	var e *exec.ExitError
	if errors.As(err, &e) {
		err = fmt.Errorf("ashlar %s: %w: %s", strings.Join(args, " "), err, e.Stderr)
	}
	return out, err
}

// ashlar runs an ashlar command that must succeed.
func (c *cluster) ashlar(args ...string) []byte {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) dev(verb string, args ...string) []byte {
	c.t.Helper()
	return c.ashlar(append([]string{"dev", verb, "--dir", c.dir}, args...)...)
}

func (c *cluster) devStatus() (st devcluster.Status) {
	c.t.Helper()
	if err := json.Unmarshal(c.dev("status", "-json"), &st); err != nil {
		c.t.Fatal(err)
	}
	return st
}

// status is the state of the cluster; ok is false while nobody leads.
func (c *cluster) status() (st wire.Status, ok bool) {
	out, err := c.try("status", "-json")
	if len(out) == 0 && err != nil {
		return st, false
	}
	if err := json.Unmarshal(out, &st); err != nil {
		c.t.Fatal(err)
	}
	return st, st.Health != "unknown"
}

// poll waits until cond holds.
func (c *cluster) poll(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(readyTimeout)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			c.t.Fatalf("after %v still not: %s", readyTimeout, what)
		}
		<-tick.C
	}
}

// leader returns the name of the leading node.
func (c *cluster) leader() (name string) {
	c.t.Helper()
	c.poll("somebody leads", func() bool {
		name = c.devStatus().Leader
		return name != ""
	})
	return name
}

// restart starts a node that was killed and waits until the masters know its
// new incarnation. A node that is back within the dead threshold was never
// missed: until it registers, its copies still count as whole.
func (c *cluster) restart(name string) {
	c.t.Helper()
	var before uint64
	c.poll("there is a status", func() (ok bool) { before, ok = c.incarnation(name); return ok })
	c.dev("start", name)
	c.poll(name+" has registered", func() bool {
		now, ok := c.incarnation(name)
		return ok && now != before
	})
}

// incarnation is that of a node as the masters know it.
func (c *cluster) incarnation(name string) (uint64, bool) {
	st, ok := c.status()
	for _, n := range st.Nodes {
		if n.Name == name {
			return n.Incarnation, ok
		}
	}
	return 0, false
}

// redundant waits until every copy is there.
func (c *cluster) redundant() {
	c.t.Helper()
	c.ashlar("status", "--wait", "--timeout", readyTimeout.String())
}

// killAll ends all nodes at once.
func (c *cluster) killAll() {
	c.t.Helper()
	for _, n := range c.devStatus().Nodes {
		if n.PID == 0 {
			continue
		}
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			c.t.Fatal(err)
		}
	}
	c.poll("all are dead", func() bool {
		for _, n := range c.devStatus().Nodes {
			if n.PID != 0 {
				return false
			}
		}
		return true
	})
}

// secondMount mounts the volume once more, with nothing cached, by a process
// that the caller ends.
func (c *cluster) secondMount() (dir string, cmd *exec.Cmd, errs *bytes.Buffer) {
	c.t.Helper()
	dir, err := os.MkdirTemp(c.dir, "fresh-")
	if err != nil {
		c.t.Fatal(err)
	}
	cmd = exec.Command(binary, "mount", "--foreground", filepath.Join(c.dir, "client.toml")+":main", dir)
	errs = &bytes.Buffer{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if cmd.ProcessState != nil {
			return
		}
		_ = cmd.Process.Kill() // the test has failed before it ended it
		_ = cmd.Wait()
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	})
	var outer, inner syscall.Stat_t
	if err := syscall.Stat(c.dir, &outer); err != nil {
		c.t.Fatal(err)
	}
	c.poll("the fresh mount is there", func() bool {
		return syscall.Stat(dir, &inner) == nil && inner.Dev != outer.Dev
	})
	return dir, cmd, errs
}

// freshMount is secondMount until the test function is done.
func (c *cluster) freshMount(fn func(dir string)) {
	c.t.Helper()
	dir, cmd, errs := c.secondMount()
	defer func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			c.t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("the fresh mount ended with %v\n%s", err, errs.String())
		}
	}()
	fn(dir)
}
