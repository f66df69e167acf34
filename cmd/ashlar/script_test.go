package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ashlarfs/ashlar/internal/devcluster"
)

// TestMain makes the test binary be ashlar when it is called so, in scripts
// and by `ashlar dev` for the nodes it starts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ashlar": main})
}

// stories is where the scripts are: a file for each command, its good path
// and its refusals.
const stories = "../../test/script"

// TestStoriesWithoutACluster runs the scripts that need none.
func TestStoriesWithoutACluster(t *testing.T) {
	p := params(filepath.Join(stories, "alone"))
	testscript.Run(t, p)
}

// TestStoriesOfACluster runs every other script against one local cluster of
// three nodes, named by ASHLAR_CLUSTER. DEV is its directory, MASTERS its
// addresses.
func TestStoriesOfACluster(t *testing.T) {
	dir := t.TempDir()
	masters := startShared(t, dir)
	p := params(filepath.Join(stories, "cluster"))
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("ASHLAR_CLUSTER", filepath.Join(dir, "client.toml"))
		e.Setenv("DEV", dir)
		e.Setenv("MASTERS", masters)
		return nil
	}
	// Scripts run in parallel; the cluster stops when all of them are done.
	t.Run("all", func(t *testing.T) { testscript.Run(t, p) })
}

func params(dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Condition: func(cond string) (bool, error) {
			if cond != "fuse" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := os.Stat("/dev/fuse")
			return err == nil && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "await": cmdAwait, "garbage": cmdGarbage, "stopdev": cmdStopDev,
		},
	}
}

// startShared starts the cluster of all scripts and returns the addresses of
// its masters.
func startShared(t *testing.T, dir string) (masters string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), awaitMax)
	defer cancel()
	up := exec.Command("ashlar", "dev", "up", "--dir", dir)
	out, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	up.Stderr = &errs
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(up.Process.Signal(os.Interrupt), up.Wait()); err != nil {
			t.Errorf("dev up: %v\n%s", err, errs.String())
		}
	})
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("dev up ended:\n%s", errs.String())
		}
	case <-ctx.Done():
		t.Fatalf("dev up is not ready")
	}
	st, err := devcluster.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var addrs []string
	for _, m := range st.Masters() {
		addrs = append(addrs, m.Addr)
	}
	return strings.Join(addrs, ",")
}

// awaitMax is how long anything may take in a script.
const awaitMax = 60 * time.Second

// command runs a command in the script's directory and environment.
func command(ts *testscript.TestScript, args []string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), awaitMax)
	defer cancel()
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Dir = ts.Getenv("WORK")
	if wd := ts.MkAbs("."); wd != "" {
		c.Dir = wd
	}
	c.Env = append(os.Environ(), environment(ts)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// environment is what scripts set and commands read.
func environment(ts *testscript.TestScript) []string {
	var out []string
	for _, k := range []string{"ASHLAR_CLUSTER", "ASHLAR_SECRET_FILE", "ASHLAR_ROLES", "ASHLAR_FAULTS", "DEV", "HOME"} {
		if v := ts.Getenv(k); v != "" || k == "ASHLAR_CLUSTER" {
			out = append(out, k+"="+v)
		}
	}
	return out
}

// cmdExits is `exits N COMMAND...`: it must end with that status. Its output
// is there for stdout and stderr.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	out, errs, code := command(ts, args[1:])
	fmt.Fprint(ts.Stdout(), out)
	fmt.Fprint(ts.Stderr(), errs)
	if code != want {
		ts.Fatalf("exit status %d, want %d\n%s%s", code, want, out, errs)
	}
}

// cmdAwait is `await PATTERN COMMAND...`: the command is run again and again
// until it prints something that matches.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await PATTERN COMMAND...")
	}
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(awaitMax)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, errs, _ := command(ts, args[1:])
		if re.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %v there is no match for %s in\n%s%s", awaitMax, re, out, errs)
		}
		<-tick.C
	}
}

// cmdGarbage is `garbage ADDR,...`: random bytes are sent to every address.
func cmdGarbage(ts *testscript.TestScript, neg bool, args []string) {
	for _, addr := range strings.Split(args[0], ",") {
		for _, prefix := range []string{"", "GET / HTTP/1.1\r\n\r\n", "ASHLAR1\n"} {
			c, err := net.Dial("tcp", addr)
			ts.Check(err)
			junk := []byte(prefix)
			for range 4096 {
				junk = append(junk, byte(rand.Uint32()))
			}
			// The node may hang up before all is sent; that is its right.
			_, _ = c.Write(junk)
			_ = c.Close()
		}
	}
}

// cmdStopDev is `stopdev DIR`: what a script left running is stopped.
func cmdStopDev(ts *testscript.TestScript, neg bool, args []string) {
	command(ts, []string{"ashlar", "dev", "down", "--dir", args[0]})
}

// run runs one command line in this process.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	var out, errs bytes.Buffer
	code = Main(ctx, append([]string{"ashlar"}, args...), stdio{In: strings.NewReader(""), Out: &out, Err: &errs})
	return out.String(), errs.String(), code
}

// TestEveryCommandHelpsItsUser holds the help of every command to its form:
// two examples and the exit statuses.
func TestEveryCommandHelpsItsUser(t *testing.T) {
	root := newRootCmd(&global{})
	all := append(root.Commands(), root)
	for len(all) > 0 {
		c := all[0]
		all = append(all[1:], c.Commands()...)
		if c == root {
			all = all[:len(all)-len(root.Commands())]
		}
		if c.Short == "" || !strings.Contains(c.Long, "Exit statuses:") {
			t.Errorf("%s: help lacks a summary or the exit statuses", c.CommandPath())
		}
		if n := strings.Count("\n"+c.Example, "\n"); n < 2 {
			t.Errorf("%s: help has %d examples, want two", c.CommandPath(), n)
		}
	}
}

func TestErrorsAreJSONWhenAskedFor(t *testing.T) {
	_, stderr, code := run(t, "pool", "create", "a b", "-json")
	var e struct {
		Error string
		Exit  int
	}
	if err := json.Unmarshal([]byte(stderr), &e); err != nil || e.Exit != exitUsage || code != exitUsage || e.Error == "" {
		t.Errorf("status %d, %q (%v)", code, stderr, err)
	}
}
