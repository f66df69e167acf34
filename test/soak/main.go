// Command soak lets processes do whatever file systems can do, on one tree
// through two mounts at once, for half an hour, and looks afterwards whether
// anything is left over or wrong. `make soak` runs it.
//
//	soak -bin bin/ashlar -for 30m
//	soak -bin bin/ashlar -for 1m -seed 7 -workers 2
//
// Workers of both mounts make, write, map, cut, link, rename and remove the
// same few hundred names, so that they meet all the time. An operation may be
// refused for what another did (no such file, exists, not empty, ...); any
// other error ends the run. Then, with the workers gone: both mounts show the
// same tree, byte for byte; so does a third that is new; a scrub finds no
// difference; and neither mounts nor nodes hold more descriptors, goroutines or
// memory than bounds allow, compared with what they held after the first tenth.
//
// Workers are goroutines that share nothing but a counter; nothing survives
// a crash but the directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

type options struct {
	bin     string
	dir     string
	length  time.Duration
	seed    uint64
	workers int
	keep    bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/ashlar", "the ashlar binary")
	flag.StringVar(&o.dir, "dir", "", "where everything is kept (default: a new temporary directory, removed if all went well)")
	flag.DurationVar(&o.length, "for", 30*time.Minute, "how long")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "what the workers draw from")
	flag.IntVar(&o.workers, "workers", 4, "workers on each mount")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		fmt.Fprintln(os.Stderr, "soak: everything is kept in", o.dir)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) (err error) {
	temporary := o.dir == ""
	if temporary {
		if o.dir, err = os.MkdirTemp("", "ashlar-soak-"); err != nil {
			return err
		}
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	c := &cluster{bin: o.bin, dir: o.dir}
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return err
	}
	fmt.Printf("soak: seed %d, %d workers on each of two mounts for %v, in %s\n", o.seed, o.workers, o.length, o.dir)
	n, err := work(ctx, o, c)
	if err != nil {
		return err
	}
	fmt.Printf("soak: %d operations\n", n)
	if err := c.verify(ctx); err != nil {
		return err
	}
	if temporary {
		c.stop()
		return os.RemoveAll(o.dir)
	}
	return nil
}

// work runs the workers, and notes what the processes hold after a tenth of
// the time.
func work(ctx context.Context, o *options, c *cluster) (n int64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.length, errOver)
	defer cancel()
	var all sync.WaitGroup
	var total counter
	errs := make(chan error, 2*o.workers)
	for i := range 2 * o.workers {
		w := newWorker(c.mounts[i%2].dir, o.seed, i, &total)
		all.Go(func() {
			if err := w.run(ctx); err != nil {
				errs <- fmt.Errorf("worker %d on %s, after %d operations of all: %w", i, w.root, total.n.Load(), err)
				cancel()
			}
		})
	}
	tenth := time.NewTimer(o.length / 10)
	defer tenth.Stop()
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tenth.C:
			if c.early, err = c.usage(); err != nil {
				errs <- err
				cancel()
			}
		case <-tick.C:
			fmt.Printf("soak: %d operations so far\n", total.n.Load())
		case <-ctx.Done():
		}
	}
	all.Wait()
	close(errs)
	var got []error
	for e := range errs {
		got = append(got, e)
	}
	if len(got) == 0 && !errors.Is(context.Cause(ctx), errOver) {
		got = append(got, ctx.Err())
	}
	return total.n.Load(), errors.Join(got...)
}

var errOver = errors.New("the time is over")
