// Command scale measures what a cluster must still do when it is large or
// busy, prints each figure beside its bar, and exits with 1 if one is missed.
// `make scale` runs all of it; `make test` runs the same with fewer inodes and
// generous bars, as this package's tests.
//
//	inodes      10 million inodes in a process capped at 1 GiB
//	checkpoint  how long a checkpoint delays a request
//	restart     an idle leader with 1 million files: memory, and time to serve
//	commit      one metadata commit alone on three nodes against fdatasync
//	creates     64 creates at once through the SDK
//
// inodes and checkpoint drive meta and kv as a leader does, without a cluster;
// the others run bin/ashlar, every node a process of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// options say what is measured and how much of it.
type options struct {
	run     string
	dir     string
	bin     string
	inodes  int
	inTree  int
	files   int
	creates int
	rounds  int
}

// errMissed says that a figure missed its bar.
var errMissed = errors.New("a bar is missed")

func main() {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(os.Stdout, dir); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.run, "run", "inodes,checkpoint,restart,commit,creates", "what to measure, in this order")
	flag.StringVar(&o.dir, "dir", "", "where everything is kept (default: a new temporary directory, removed)")
	flag.StringVar(&o.bin, "bin", "bin/ashlar", "the ashlar binary")
	flag.IntVar(&o.inodes, "inodes", 10_000_000, "inodes of the capped process")
	flag.IntVar(&o.inTree, "tree", 1_000_000, "inodes under the checkpoints")
	flag.IntVar(&o.files, "files", 1_000_000, "files of the leader that restarts")
	flag.IntVar(&o.creates, "creates", 100_000, "files created at once, per round")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of which the median counts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	if o.dir == "" {
		d, err := os.MkdirTemp("", "ashlar-scale")
		if err != nil {
			return err
		}
		o.dir = d
		defer os.RemoveAll(d)
	}
	r := &report{out: out}
	for _, what := range strings.Split(o.run, ",") {
		measure, ok := measures[what]
		if !ok {
			return fmt.Errorf("unknown figure %q; there are inodes, checkpoint, restart, commit and creates", what)
		}
		if err := measure(ctx, r, &o); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if r.missed > 0 {
		return fmt.Errorf("%w: %d of %d", errMissed, r.missed, r.bars)
	}
	return nil
}

// measures are the figures by name.
var measures = map[string]func(context.Context, *report, *options) error{
	"inodes":     measureInodes,
	"checkpoint": measureCheckpoint,
	"restart":    measureRestart,
	"commit":     measureCommit,
	"creates":    measureCreates,
}
