package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ashlarfs/ashlar/client"
)

// idleBar bounds an idle leader's memory, and serveBar how long it takes from
// its start to its first answer.
const (
	idleBar  = 512 << 20
	serveBar = 5 * time.Second
)

// restarts is how often the cluster is killed and started again.
const restarts = 3

func measureRestart(ctx context.Context, r *report, o *options) error {
	return with(ctx, o, "restart", func(c *cluster, v *client.Volume) error {
		rate, err := createFiles(v, "files", o.files)
		if err != nil {
			return err
		}
		lead, err := c.leader(ctx)
		if err != nil {
			return err
		}
		peak, err := memory(lead.PID, "VmHWM")
		if err != nil {
			return err
		}
		filled, err := memory(lead.PID, "VmRSS")
		if err != nil {
			return err
		}
		var took []float64
		for range restarts {
			d, err := c.restart(ctx)
			if err != nil {
				return err
			}
			took = append(took, d.Seconds())
		}
		if lead, err = c.leader(ctx); err != nil {
			return err
		}
		idle, err := memory(lead.PID, "VmRSS")
		if err != nil {
			return err
		}
		r.title("an idle leader with %d files, made at %.0f a second", o.files, rate)
		r.say("memory right after making them %.0f MiB, at its peak %.0f MiB", mib(filled), mib(peak))
		r.atMost("resident right after, with all caches", mib(filled), mib(uint64(idleBar)), "MiB")
		r.atMost("resident after a restart", mib(idle), mib(uint64(idleBar)), "MiB")
		r.say("all nodes killed and started again: %.2f s", took)
		r.atMost("killed, started, answering (median)", median(took), serveBar.Seconds(), "s")
		return nil
	})
}

// restart kills every node at once, starts them, and returns how long it took
// from then to an answer.
func (c *cluster) restart(ctx context.Context) (time.Duration, error) {
	all, err := c.nodes(ctx)
	if err != nil {
		return 0, err
	}
	each := func(verb string) error {
		var g errgroup.Group
		for _, n := range all {
			g.Go(func() error {
				_, err := c.dev(ctx, verb, n.Name)
				return err
			})
		}
		return g.Wait()
	}
	if err := each("kill"); err != nil {
		return 0, err
	}
	for _, n := range all {
		if err := gone(ctx, n.PID); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := each("start"); err != nil {
		return 0, err
	}
	s, v, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close(ctx)
	if _, err := v.Stat("files/dir-000"); err != nil {
		return 0, fmt.Errorf("after the restart: %w", err)
	}
	return time.Since(began), nil
}

// gone returns when the last thread of a killed process has ended, and with it
// its sockets. The process may show as ended before: that is its first thread.
func gone(ctx context.Context, pid int) error {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(threads) <= 1 {
			return ctx.Err()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
