package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
)

// What a mutex helper tells CTDB, a character on standard output
// (cluster_mutex_helper.txt of ctdb).
const (
	ctdbHeld      = "0" // and holds it until it is ended
	ctdbContended = "1" // somebody else holds it
	ctdbFailed    = "3"
)

// parentEvery is how often it is looked whether CTDB is there still.
const parentEvery = time.Second

func newLockCTDBCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "ctdb NAME", Short: "be CTDB's helper for its cluster lock",
		Long: `Takes a named lock for ctdbd and holds it until it is told to end, ctdbd is gone,
or the lock is lost: a mutex helper, as ctdb(7) calls it. In ctdb.conf:

  [cluster]
      cluster lock = !/usr/local/bin/ashlar lock ctdb samba

It prints 0 when the lock is held, 1 when somebody else holds it, 3 when that can
not be told; ctdbd does not look at the exit status. No file and no mount is
needed.

` + exits(exitOK, exitFailed, exitUsage, exitUnavailable, exitLockLost),
		Example: `  ashlar lock ctdb samba
  ashlar --cluster 10.0.0.1:9500,10.0.0.2:9500 lock ctdb samba`,
		Args:              args(1, 1),
		ValidArgsFunction: g.completeLocks(true),
		RunE:              func(c *cobra.Command, a []string) error { return runLockCTDB(c.Context(), g, a[0]) },
	}
}

func runLockCTDB(ctx context.Context, g *global, name string) error {
	parent := os.Getppid()
	c, err := g.dialClient(ctx)
	if err != nil {
		fmt.Fprint(g.Out, ctdbFailed)
		return err
	}
	defer closeClient(c)
	tctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l, err := c.TryLock(tctx, name, client.EX)
	switch {
	case err != nil:
		fmt.Fprint(g.Out, ctdbFailed)
		return err
	case l == nil:
		fmt.Fprint(g.Out, ctdbContended)
		return exitError{exitUnavailable, errors.New("")} // nothing unexpected to be logged
	}
	if _, err = fmt.Fprint(g.Out, ctdbHeld); err == nil {
		err = holdFor(ctx, parent, l)
	}
	uctx, done := context.WithTimeout(context.Background(), closeTimeout)
	defer done()
	if gone := l.Unlock(uctx); err == nil && errors.Is(gone, ashlar.NoSession) {
		err = lockLost(l)
	}
	return err
}

// holdFor returns when ctx ends, the parent is gone, or the lock is lost.
func holdFor(ctx context.Context, parent int, l *client.Lock) error {
	tick := time.NewTicker(parentEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Lost():
			return lockLost(l)
		case <-tick.C:
			if os.Getppid() != parent {
				return nil
			}
		}
	}
}
