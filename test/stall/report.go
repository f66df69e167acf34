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
// how long it takes to be in-sync again, and that only what changed is copied.
func (c *cluster) measureReturn(ctx context.Context, away time.Duration) (ok bool, err error) {
	if err := c.whole(ctx); err != nil {
		return false, err
	}
	n, err := c.victim(ctx, false, 0)
	if err != nil {
		return false, err
	}
	l := c.load()
	defer l.stop()
	l.watch(ctx, quietTime) // files are made in whole groups, and then written
	undo, err := kill(c, n)
	if err != nil {
		return false, err
	}
	s := l.watch(ctx, away)
	before, err := c.status(ctx)
	if err != nil {
		return false, err
	}
	began := time.Now()
	if err := undo(); err != nil {
		return false, err
	}
	if err := c.whole(ctx); err != nil {
		return false, err
	}
	took := time.Since(began)
	// Chunkservers tell how much they have sent with their renewals.
	l.watch(ctx, 2*time.Second)
	after, err := c.status(ctx)
	if err != nil {
		return false, err
	}
	copied := after.Synced - min(before.Synced, after.Synced)
	bar := returnTime + time.Duration(float64(copied)/budget*float64(time.Second))
	verdict := "ok"
	if ok = took < bar && len(s.errors) == 0; !ok {
		verdict = "MISSED"
	}
	fmt.Printf("%-20s in-sync again %s after its start, away %s, %d operations meanwhile, %.1f MiB copied; bar: under %s  %s\n",
		returnCase, seconds(took), away, s.count, float64(copied)/(1<<20), seconds(bar), verdict)
	if len(s.errors) > 0 {
		fmt.Printf("%-20s applications saw errors: %q\n", returnCase, s.errors)
	}
	return ok, nil
}
