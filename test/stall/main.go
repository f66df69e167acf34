// Command stall measures how long applications on a mounted volume are held up
// when a node fails, prints each figure beside its bar, and exits with 1 if one
// is missed. `make stall` runs all of it.
//
//	kill-chunkserver    kill -9 of a node that does not lead
//	kill-leader         kill -9 of the node that leads
//	stop-chunkserver    SIGSTOP of a node that does not lead
//	stop-leader         SIGSTOP of the node that leads
//	silent-chunkserver  every packet of a node that does not lead is dropped
//	silent-leader       every packet of the node that leads is dropped
//	reject-chunkserver  every packet of one of them is answered for it with
//	reject-leader       resets and ICMP errors in turn, which proves nothing
//	return              a node is back after a time of writes: until it is
//	                    in-sync again
//	repair              every group makes another copy: how much slower
//	                    applications are meanwhile, and how true the estimate is
//
// Three nodes, each master and chunkserver in one process, run in network
// namespaces of their own on a bridge; everything, the mount too, is inside
// another namespace, so that nothing outside is touched. It needs root, ip and
// iptables. Applications open a file, write or read 4 KiB and close it, and
// write 4 KiB and sync it, about every 2 ms, at a mount's default settings; an
// operation's time is from open to close. Each figure is the longest operation
// that ran in the seconds after the fault, of several faults the median and the
// worst.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options say what is measured and how often.
type options struct {
	cases string
	runs  int
	bin   string
	dir   string
	away  time.Duration
	slack int
	fill  int
	limit string
}

// insideEnv tells that this process is in a network namespace of its own.
const insideEnv = "ASHLAR_STALL_INSIDE"

func main() {
	var o options
	flag.StringVar(&o.cases, "cases", "all", "what to measure, separated by commas")
	flag.IntVar(&o.runs, "runs", 10, "faults of each sort")
	flag.StringVar(&o.bin, "bin", "bin/ashlar", "the ashlar binary")
	flag.StringVar(&o.dir, "dir", "", "where everything is kept (default: a new temporary directory, removed)")
	flag.DurationVar(&o.away, "away", time.Minute, "how long the node that returns is away")
	flag.IntVar(&o.slack, "slack", 1, "how many times its bar a figure may take")
	flag.IntVar(&o.fill, "fill", 512, "MiB that are copied in the case repair")
	flag.StringVar(&o.limit, "limit", "default", "repair bandwidth of each node in the case repair")
	flag.Parse()
	if os.Getenv(insideEnv) == "" {
		os.Exit(enter())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "stall:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// enter runs this command again in a network namespace of its own.
func enter() int {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	signal.Ignore(os.Interrupt) // it goes to the whole group
	err := c.Run()
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return max(e.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "stall: a network namespace needs root:", err)
	return 1
}

// cases are what is measured, by name, in order.
var cases = []struct {
	name  string
	fault fault
	lead  bool // of the node that leads
	watch time.Duration
	bar   time.Duration
	alive bool // nobody may take the node's process for dead
}{
	{"kill-chunkserver", kill, false, killTime, 200 * time.Millisecond, false},
	{"kill-leader", kill, true, killTime, 2 * time.Second, false},
	{"stop-chunkserver", pause, false, silentTime, 7 * time.Second, true},
	{"stop-leader", pause, true, silentTime, 7 * time.Second, true},
	{"silent-chunkserver", silence, false, silentTime, 7 * time.Second, true},
	{"silent-leader", silence, true, silentTime, 7 * time.Second, true},
	{"reject-chunkserver", reject, false, silentTime, 7 * time.Second, true},
	{"reject-leader", reject, true, silentTime, 7 * time.Second, true},
}

const returnCase = "return"

func run(ctx context.Context, o *options) error {
	if o.dir == "" {
		d, err := os.MkdirTemp("", "ashlar-stall-")
		if err != nil {
			return err
		}
		o.dir = d
		defer os.RemoveAll(d)
	} else if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, n := range strings.Split(o.cases, ",") {
		wanted[n] = true
	}
	c, err := newCluster(ctx, o)
	if err != nil {
		return err
	}
	defer c.stop()
	missed := 0
	for _, k := range cases {
		if !wanted["all"] && !wanted[k.name] {
			continue
		}
		proofs := c.proofs()
		r, err := c.measure(ctx, k.fault, k.lead, k.watch, o.runs)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if n := c.proofs() - proofs; k.alive == (n > 0) {
			missed++
			fmt.Printf("%-20s MISSED: %d times a process was taken for dead\n", k.name, n)
		}
		missed += r.print(k.name, k.bar*time.Duration(o.slack))
	}
	if wanted["all"] || wanted[returnCase] {
		ok, err := c.measureReturn(ctx, o.away, o.runs)
		if err != nil {
			return fmt.Errorf("%s: %w", returnCase, err)
		}
		if !ok {
			missed++
		}
	}
	if wanted["all"] || wanted[repairCase] {
		ok, err := c.measureRepair(ctx, o.fill<<20, o.limit)
		if err != nil {
			return fmt.Errorf("%s: %w", repairCase, err)
		}
		if !ok {
			missed++
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d bars are missed", missed)
	}
	return nil
}
