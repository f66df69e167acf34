// Command chaos lets a cluster of real processes suffer while client processes
// work on it, and checks afterwards that nothing was lost and nothing lied.
// `make chaos` runs it for twenty minutes.
//
//	chaos -bin bin/ashlar -for 20m             rounds of faults, seeds in order
//	chaos -bin bin/ashlar -short -rounds 100   many short ones, a line each
//	chaos -bin bin/ashlar -seed 7 -rounds 1    one round
//	chaos -bin bin/ashlar -schedule FILE       the faults in a file, once
//
// Three nodes, each master and chunkserver in one process, run in network
// namespaces of their own on a bridge; clients and a mount are beside it, and
// all of it is in namespaces of the command, so that nothing outside is touched. It needs root, ip and iptables. Processes
// are killed and stopped by signals, links are cut and refused by iptables and
// made slow by a relay of frames, disks and clocks fail by the rules of
// internal/faults.
//
// A round draws a schedule from its seed, prints it, writes it beside the
// histories and carries it out; what was hit when, which a schedule leaves open
// where it says "leader", is written beside it as a schedule that hits the same
// again. A fault counts if it met something: a process that ran, a packet that
// was stopped. Then all faults are lifted, and within
// repairTimeout every copy must be there; a scrub must find no difference;
// everything is read once more; the histories of all clients must be
// linearizable (test/history); applications on a mount may have seen no error
// that the failure model does not allow; descriptors, goroutines and memory of
// every process must not have grown beyond a bound; no master may have taken a
// process for dead, by proof of death, that lived. What went wrong keeps its
// directory, which is named. The cluster goes on into the next round; in the
// short form a failed round does not end the run: its cluster is kept as it is
// and the next round begins with a new one.
//
// The driver is one goroutine, and relays have four each; recorders, relays and
// what watches processes have mutexes that are leaves, but for relay.mu, which
// is taken before pipe.mu and let go. Nothing survives a crash but the directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
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
	short    bool
}

// shortFaults is how long faults begin in a round of the short form; they last
// some seconds longer.
const shortFaults = 14 * time.Second

// insideEnv tells that this process is in namespaces of its own.
const insideEnv = "ASHLAR_CHAOS_INSIDE"

func main() {
	if len(os.Args) > 1 && os.Args[1] == clientVerb {
		os.Exit(clientMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == appVerb {
		os.Exit(appMain(os.Args[2:]))
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
	flag.BoolVar(&o.short, "short", false, fmt.Sprintf("many schedules: faults begin for %v in a round, which prints one line; a failed one does not end the run", shortFaults))
	flag.Parse()
	if o.short {
		o.shorten()
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(enter())
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil { // what is mounted stays in here
		fmt.Fprintln(os.Stderr, "chaos: mounts of its own:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\nchaos: everything is kept in %s\n", err, o.dir)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// shorten sets what the short form has by itself and was not asked for
// otherwise.
func (o *options) shorten() {
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["faults"] {
		o.faults = shortFaults
	}
	if o.rounds > 0 && !given["for"] {
		o.length = math.MaxInt64 // all of them
	}
}

// enter runs this command again with a network and mounts of its own.
func enter() int {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	signal.Ignore(os.Interrupt) // it goes to the whole group
	err := c.Run()
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return max(e.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "chaos: namespaces need root:", err)
	return 1
}
