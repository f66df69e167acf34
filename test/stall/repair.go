package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	repairCase = "repair"
	// repairQuiet is how long the quiet latency is measured.
	repairQuiet = 8 * time.Second
	// repairFactor is how many times the quiet 99th percentile it may take.
	repairFactor = 3
	// estimateBy is when an estimate must have been shown.
	estimateBy = 20 * time.Second
	// repairLook is how often it is asked how far the copying is.
	repairLook = 250 * time.Millisecond
	fillFile   = 8 << 20
)

// percentile of the operations of an application; sorts them.
func percentile(took []time.Duration, p int) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[(len(took)-1)*p/100]
}

// collect takes the latencies of each application since it was last called.
func (l *load) collect() [][]time.Duration {
	out := make([][]time.Duration, len(l.apps))
	for i, a := range l.apps {
		a.mu.Lock()
		out[i], a.took = a.took, nil
		a.mu.Unlock()
	}
	return out
}

// fill writes data that a repair then has to copy.
func (c *cluster) fill(bytes int) error {
	dir := filepath.Join(c.mnt, "fill")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	buf := make([]byte, fillFile)
	for i := range buf {
		buf[i] = byte(i>>12) | 1
	}
	for i := range bytes / fillFile {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("f%d", i)))
		if err != nil {
			return err
		}
		_, err = f.Write(buf)
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measureRepair has every placement group make a third copy, and then drop it,
// while applications work. It compares what they waited with what they wait
// when nothing is copied, and the first estimate with what came true.
func (c *cluster) measureRepair(ctx context.Context, bytes int, limit string) (ok bool, err error) {
	if err := c.whole(ctx); err != nil {
		return false, err
	}
	if err := c.fill(bytes); err != nil {
		return false, err
	}
	if _, err := c.ashlar(ctx, "pool", "set", "default", "--repair-bandwidth", limit); err != nil {
		return false, err
	}
	l := c.load()
	defer l.stop()
	l.watch(ctx, quietTime)
	l.collect()
	errs := l.watch(ctx, repairQuiet).errors
	quiet := l.collect()
	before, err := c.status(ctx)
	if err != nil {
		return false, err
	}
	began := time.Now()
	if _, err := c.ashlar(ctx, "pool", "set", "default", "--replicas", "3"); err != nil {
		return false, err
	}
	left := time.Duration(0)
	asked := time.Duration(0)
	var after *wire.Status
	for {
		errs = append(errs, l.watch(ctx, repairLook).errors...)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if after, err = c.status(ctx); err != nil {
			return false, err
		}
		r := after.Pools[0].Repair
		if asked == 0 && r.Time > 0 {
			asked, left = time.Since(began), time.Duration(r.Time*float64(time.Second))
		}
		if after.Redundant && r.Groups == 0 {
			break
		}
		if time.Since(began) > readyTimeout {
			return false, fmt.Errorf("%s: after %v %d groups are still being copied", repairCase, readyTimeout, r.Groups)
		}
	}
	took := time.Since(began)
	during := l.collect()
	copied := after.Synced - min(before.Synced, after.Synced)
	fmt.Printf("%-20s third copies of %.0f MiB made in %s, at most %s/s a node\n", repairCase, float64(copied)/(1<<20), seconds(took), limit)
	ok = len(errs) == 0
	for i, a := range l.apps {
		q, d := percentile(quiet[i], 99), percentile(during[i], 99)
		verdict := "ok"
		if d > repairFactor*q {
			verdict, ok = "MISSED", false
		}
		fmt.Printf("%-20s %-12s p50 %s -> %s, p99 %s -> %s (%.1f times), worst %s; bar: %d times  %s\n", repairCase, a.name,
			percentile(quiet[i], 50), percentile(during[i], 50), q, d, float64(d)/float64(max(q, 1)), percentile(during[i], 100), repairFactor, verdict)
	}
	if asked == 0 && took > estimateBy {
		ok = false
		fmt.Printf("%-20s MISSED: nothing was estimated in %s\n", repairCase, seconds(took))
	}
	if asked > 0 {
		real := took - asked
		verdict := "ok"
		if left > 2*real+time.Second || 2*left+time.Second < real {
			verdict, ok = "MISSED", false
		}
		fmt.Printf("%-20s %s to go were estimated after %s, it took %s; bar: within a factor of 2  %s\n", repairCase, seconds(left), seconds(asked), seconds(real), verdict)
	}
	if len(errs) > 0 {
		fmt.Printf("%-20s applications saw errors: %q\n", repairCase, errs)
	}
	if _, err := c.ashlar(ctx, "pool", "set", "default", "--replicas", "2"); err != nil {
		return false, err
	}
	return ok, c.whole(ctx)
}
