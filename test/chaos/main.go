// Command chaos lets a cluster of real processes suffer while client processes
// work on it, and checks afterwards that nothing was lost and nothing lied.
// `make chaos` runs it for twenty minutes.
//
//	chaos -bin bin/ashlar -for 20m            rounds of faults, seeds in order
//	chaos -bin bin/ashlar -seed 7 -rounds 1   one round
//	chaos -bin bin/ashlar -schedule FILE      the faults in a file, once
//
// Three nodes, each master and chunkserver in one process, run in network
// namespaces of their own on a bridge, inside a namespace of the command, so
// that nothing outside is touched. It needs root, ip and iptables. Processes
// are killed and stopped by signals, links are cut and refused by iptables,
// disks and clocks fail by the rules of internal/faults.
//
// A round draws a schedule from its seed, prints it, writes it beside the
// histories and carries it out. Then all faults are lifted, and within
// repairTimeout every copy must be there; a scrub must find no difference;
// everything is read once more; the histories of all clients must be
// linearizable (test/history); descriptors, goroutines and memory of every
// process must not have grown beyond a bound. What went wrong keeps its
// directory, which is named.
//
// The driver is one goroutine; recorders and what watches processes have
// mutexes that are leaves. Nothing survives a crash but the directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options say what is done and for how long.
type options struct {
	bin      string
	dir      string
	length   time.Duration
	seed     uint64
	rounds   int
	schedule string
	faults   time.Duration
	clients  int
}

// insideEnv tells that this process is in a network namespace of its own.
const insideEnv = "ASHLAR_CHAOS_INSIDE"

func main() {
	if len(os.Args) > 1 && os.Args[1] == clientVerb {
		os.Exit(clientMain(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.bin, "bin", "bin/ashlar", "the ashlar binary")
	flag.StringVar(&o.dir, "dir", "", "where everything is kept (default: a new temporary directory, removed if all went well)")
	flag.DurationVar(&o.length, "for", 20*time.Minute, "rounds are begun for so long")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "seed of the first round; the next have the next")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds at most (0: as many as fit)")
	flag.StringVar(&o.schedule, "schedule", "", "a file with the faults of the only round")
	flag.DurationVar(&o.faults, "faults", 45*time.Second, "how long faults begin in a round")
	flag.IntVar(&o.clients, "clients", 3, "client processes")
	flag.Parse()
	if os.Getenv(insideEnv) == "" {
		os.Exit(enter())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\nchaos: everything is kept in %s\n", err, o.dir)
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
	fmt.Fprintln(os.Stderr, "chaos: a network namespace needs root:", err)
	return 1
}

// run carries out rounds until the time is over or one fails.
func run(ctx context.Context, o *options) (err error) {
	kept := o.dir != ""
	if !kept {
		if o.dir, err = os.MkdirTemp("", "ashlar-chaos-"); err != nil {
			return err
		}
	} else if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	var given Schedule
	if o.schedule != "" {
		if given, err = loadSchedule(o.schedule); err != nil {
			return err
		}
		o.rounds = 1
	}
	c, err := newCluster(ctx, o)
	if err != nil {
		return err
	}
	defer c.stop()
	total, n := 0, 0
	began := time.Now()
	for ; (o.rounds == 0 || n < o.rounds) && (n == 0 || time.Since(began) < o.length); n++ {
		r := newRound(c, o, o.seed+uint64(n), given)
		err := r.run(ctx)
		total += r.injected
		if err != nil {
			return fmt.Errorf("round with seed %d: %w\n%s\nagain: chaos -seed %d -rounds 1, or -schedule %s", r.seed, err, c.logs(), r.seed, r.file("schedule"))
		}
		fmt.Printf("round with seed %d: %s\n", r.seed, r.summary())
	}
	fmt.Printf("%d faults of %d schedules in %v: nothing lost, nothing wrong\n", total, n, time.Since(began).Round(time.Second))
	if !kept {
		c.stop()
		return os.RemoveAll(o.dir)
	}
	return nil
}
