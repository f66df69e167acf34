package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

type scrubOptions struct {
	wait    bool
	timeout time.Duration
}

func newDiskScrubCmd(g *global) *cobra.Command {
	var o scrubOptions
	c := &cobra.Command{
		Use: "scrub [DISK]", Short: "verify every chunk now",
		Long: `Verifies the checksum of every block on one disk, or on all, now rather than
when the background pass comes to it. Damage is mended from another copy,
counted and shown.

With --wait it waits for the end of the pass, and fails if damage was found
that could not be mended.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar disk scrub --wait
  ashlar disk scrub 2`,
		Args: args(0, 1),
		RunE: func(c *cobra.Command, a []string) error { return runDiskScrub(c.Context(), g, o, a) },
	}
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until every chunk is verified")
	c.Flags().DurationVar(&o.timeout, "timeout", 0, "give up waiting after this long (0: never)")
	return c
}

// scrubResult is the pass of one node.
type scrubResult struct {
	Node     string `json:"node"`
	Running  bool   `json:"running"`
	Chunks   uint64 `json:"chunks"`
	Total    uint64 `json:"chunks_total"`
	Bytes    uint64 `json:"bytes"`
	Damaged  uint64 `json:"blocks_damaged"`
	Repaired uint64 `json:"blocks_repaired"`

	addr   string
	disk   ashlar.DiskID
	passes uint64 // when it was started
}

func runDiskScrub(ctx context.Context, g *global, o scrubOptions, args []string) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	return g.admin(func(a *admin) error {
		st, err := a.Status(ctx)
		if err != nil {
			return err
		}
		passes, err := startScrubs(ctx, a, st, args)
		if err != nil {
			return err
		}
		if o.wait {
			if err := waitScrubs(ctx, g, a, passes); err != nil {
				return err
			}
		}
		return reportScrubs(g, passes, o.wait)
	})
}

// startScrubs begins a pass on every node concerned.
func startScrubs(ctx context.Context, a *admin, st *wire.Status, args []string) ([]*scrubResult, error) {
	var disk ashlar.DiskID
	only := ""
	if len(args) > 0 {
		var err error
		if disk, err = parseDisk(args[0]); err != nil {
			return nil, err
		}
		d, err := diskOf(st, disk)
		if err != nil {
			return nil, err
		}
		only = d.Node
	}
	var out []*scrubResult
	for _, n := range st.Nodes {
		if only != "" && n.Name != only {
			continue
		}
		if !n.Alive {
			return nil, hintf(ashlar.E("scrub", ashlar.Unreachable, "node "+n.Name, nil), "start the node, or scrub the disks of others one by one")
		}
		r := &scrubResult{Node: n.Name, addr: n.Addr, disk: disk}
		rep, err := r.ask(ctx, a, true)
		if err != nil {
			return nil, err
		}
		r.passes = rep.Passes
		out = append(out, r)
	}
	return out, nil
}

// ask gets the state of the pass and notes it.
func (r *scrubResult) ask(ctx context.Context, a *admin, start bool) (*wire.ScrubReply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var rep wire.ScrubReply
	if err := a.rpc.Call(ctx, r.addr, &wire.Scrub{Start: start, Disk: r.disk}, &rep); err != nil {
		return nil, fmt.Errorf("node %s: %w", r.Node, err)
	}
	r.Running, r.Chunks, r.Total, r.Bytes = rep.Running, rep.Chunks, rep.Total, rep.Bytes
	r.Damaged, r.Repaired = rep.Damaged, rep.Repaired
	return &rep, nil
}

// waitScrubs waits until every pass is over.
func waitScrubs(ctx context.Context, g *global, a *admin, passes []*scrubResult) (err error) {
	b := newBar(g, "verifying chunks", 0, false)
	defer func() { b.done(err) }()
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		running, done, total := false, uint64(0), uint64(0)
		for _, r := range passes {
			if r.Running {
				if _, err := r.ask(ctx, a, false); err != nil {
					return err
				}
			}
			running = running || r.Running
			done, total = done+r.Chunks, total+r.Total
		}
		b.set(done, total)
		if !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

func reportScrubs(g *global, passes []*scrubResult, waited bool) error {
	var bad uint64
	var rows []table.Row
	for _, r := range passes {
		bad += r.Damaged - min(r.Damaged, r.Repaired)
		state := "running"
		if !r.Running {
			state = "finished"
		}
		rows = append(rows, table.Row{r.Node, state, fmt.Sprintf("%d of %d", r.Chunks, r.Total), size(r.Bytes), r.Damaged, r.Repaired})
	}
	if g.json {
		if err := printJSON(g.Out, passes); err != nil {
			return err
		}
	} else {
		printTable(g.Out, table.Row{"node", "pass", "chunks", "verified", "damaged blocks", "mended"}, rows)
	}
	if waited && bad > 0 {
		return hintf(ashlar.E("scrub", ashlar.Corrupt, "", errors.New(fmt.Sprint(bad, " damaged blocks could not be mended"))),
			"`ashlar status` says which groups lack a good copy; bring back nodes that are down")
	}
	return nil
}
