package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// result is what several faults of one sort did.
type result struct {
	quiet, stall []time.Duration
	which        map[string]int
	errors       []string
	count        int
}

func (c *cluster) measure(ctx context.Context, f fault, lead bool, watch time.Duration, runs int) (*result, error) {
	r := &result{which: map[string]int{}}
	for i := range runs {
		quiet, stall, err := c.once(ctx, f, lead, watch, i)
		if err != nil {
			return nil, err
		}
		r.quiet = append(r.quiet, quiet.longest)
		r.stall = append(r.stall, stall.longest)
		r.which[stall.which]++
		r.errors = append(r.errors, stall.errors...)
		r.count += stall.count
		fmt.Printf("  %2d: longest %-8s (%s), before the fault %s, %d operations\n",
			i+1, seconds(stall.longest), stall.which, seconds(quiet.longest), stall.count)
	}
	return r, nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// middle is the median, of an even number the lower one.
func middle(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[(len(s)-1)/2]
}

// print prints a result and returns how many bars it misses.
func (r *result) print(name string, bar time.Duration) (missed int) {
	verdict := "ok"
	worst := slices.Max(r.stall)
	if worst >= bar {
		verdict, missed = "MISSED", 1
	}
	fmt.Printf("%-20s longest stall: median %s, worst %s of %d; bar: under %s  %s  (quiet: median %s, worst %s)\n",
		name, seconds(middle(r.stall)), seconds(worst), len(r.stall), bar, verdict, seconds(middle(r.quiet)), seconds(slices.Max(r.quiet)))
	if len(r.errors) > 0 {
		missed++
		fmt.Printf("%-20s MISSED: applications saw errors: %q\n", name, r.errors)
	}
	return missed
}

// budget is what a chunkserver sends to members that catch up, at most, in
// bytes a second; returnTime what a return may take beside copying.
const (
	budget     = 200 << 20
	returnTime = 10 * time.Second
)

// measureReturn kills a node, lets applications write without it, and measures
// how long it takes to be in-sync again, and that only what changed is copied:
// several times, a node after the other.
func (c *cluster) measureReturn(ctx context.Context, away time.Duration, runs int) (ok bool, err error) {
	var took []time.Duration
	ok = true
	for i := range runs {
		r, err := c.returnOnce(ctx, away, i)
		if err != nil {
			return false, err
		}
		bar := returnTime + time.Duration(float64(r.copied)/budget*float64(time.Second))
		verdict := "ok"
		if r.took >= bar || len(r.errors) > 0 {
			verdict, ok = "MISSED", false
		}
		fmt.Printf("  %2d: in-sync again %s after its start, away %s, %d operations meanwhile, %.1f MiB copied; bar: under %s  %s\n",
			i+1, seconds(r.took), away, r.count, float64(r.copied)/(1<<20), seconds(bar), verdict)
		if len(r.errors) > 0 {
			fmt.Printf("%-20s applications saw errors: %q\n", returnCase, r.errors)
		}
		took = append(took, r.took)
	}
	fmt.Printf("%-20s in-sync again after its start: median %s, worst %s of %d\n", returnCase, seconds(middle(took)), seconds(slices.Max(took)), runs)
	return ok, nil
}

// back is how a node came back.
type back struct {
	took   time.Duration
	copied uint64 // bytes
	count  int    // operations while it was away
	errors []string
}

func (c *cluster) returnOnce(ctx context.Context, away time.Duration, i int) (*back, error) {
	if err := c.whole(ctx); err != nil {
		return nil, err
	}
	n, err := c.victim(ctx, false, i)
	if err != nil {
		return nil, err
	}
	l := c.load()
	defer l.stop()
	l.watch(ctx, quietTime) // files are made in whole groups, and then written
	undo, err := kill(c, n)
	if err != nil {
		return nil, err
	}
	s := l.watch(ctx, away)
	before, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := undo(); err != nil {
		return nil, err
	}
	if err := c.whole(ctx); err != nil {
		return nil, err
	}
	took := time.Since(began)
	// Chunkservers tell how much they have sent with their renewals.
	rest := l.watch(ctx, 2*time.Second)
	after, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	return &back{took, after.Synced - min(before.Synced, after.Synced), s.count, append(s.errors, rest.errors...)}, nil
}
