package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar/internal/wire"
)

func newRepairCmd(g *global) *cobra.Command {
	return newNoun("repair", "see, slow down or pause the copying that repairs and moves data",
		`Lost copies are made anew, returning nodes brought up to date, drained disks
emptied and full ones relieved by copying between nodes, what has the fewest
copies first. It goes on by itself; these commands show it and hold it back.`,
		`  ashlar repair status
  ashlar repair pause default`,
		newRepairStatusCmd(g), newRepairPauseCmd(g), newRepairResumeCmd(g))
}

func newRepairStatusCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "show what is being copied in each pool, and until when",
		Long: `Shows for each pool how many placement groups are being repaired or moved, how
much was copied and is left, how fast, and when it will be done. The last two
are estimates from the speed of the last seconds.

` + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar repair status
  ashlar repair status -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				if g.json {
					return printJSON(g.Out, repairsOf(st))
				}
				printRepairs(g, st)
				return nil
			})
		},
	}
}

// poolRepair is what repair status prints of a pool as JSON.
type poolRepair struct {
	Pool string `json:"pool"`
	wire.Repair
}

func repairsOf(st *wire.Status) []poolRepair {
	out := []poolRepair{}
	for _, p := range st.Pools {
		out = append(out, poolRepair{p.Name, p.Repair})
	}
	return out
}

func printRepairs(g *global, st *wire.Status) {
	var rows []table.Row
	for _, p := range st.Pools {
		r := p.Repair
		rows = append(rows, table.Row{
			p.Name, r.Groups, size(r.Done), size(r.Left), size(r.Rate) + "/s", timeLeft(r),
			size(r.Limit) + "/s", time.Duration(r.After * float64(time.Second)),
		})
	}
	printTable(g.Out, table.Row{"pool", "groups", "copied", "left", "speed", "done in", "limit per node", "repair-after"}, rows)
}

// timeLeft says when a repair will be done.
func timeLeft(r wire.Repair) string {
	switch {
	case r.Paused:
		return "paused"
	case r.Groups == 0:
		return "-"
	case r.Time == 0:
		return "not known yet"
	}
	return "about " + time.Duration(r.Time*float64(time.Second)).Round(time.Second).String()
}

// repairLine says in one line what is being copied.
func repairLine(r wire.Repair) string {
	limit := fmt.Sprintf("at most %s/s a node, elsewhere after %v of absence", size(r.Limit), time.Duration(r.After*float64(time.Second)))
	switch {
	case r.Groups == 0 && r.Paused:
		return "paused; nothing to copy; " + limit
	case r.Groups == 0:
		return "nothing to copy; " + limit
	}
	return fmt.Sprintf("%d groups, %s copied, %s left at %s/s, done in: %s; %s",
		r.Groups, size(r.Done), size(r.Left), size(r.Rate), timeLeft(r), limit)
}

func newRepairPauseCmd(g *global) *cobra.Command {
	return repairVerb(g, "pause", "stop copying in a pool until resumed",
		`Stops repair and movement in a pool, or in all pools: lost copies are not made
anew, returning members not brought up to date, disks not emptied. Status says
so until it is resumed.`,
		"paused", func(m *wire.SetPool) { m.Pause = true })
}

func newRepairResumeCmd(g *global) *cobra.Command {
	return repairVerb(g, "resume", "go on copying in a pool",
		"Ends what `ashlar repair pause` began, in a pool or in all.",
		"going on", func(m *wire.SetPool) { m.Resume = true })
}

func repairVerb(g *global, use, short, long, done string, set func(*wire.SetPool)) *cobra.Command {
	return &cobra.Command{
		Use: use + " [POOL]", Short: short,
		Long:    long + "\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: "  ashlar repair " + use + " default\n  ashlar repair " + use,
		Args:    args(0, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.admin(func(ad *admin) error { return setRepair(c.Context(), g, ad, a, done, set) })
		},
	}
}

func setRepair(ctx context.Context, g *global, ad *admin, pools []string, done string, set func(*wire.SetPool)) error {
	if len(pools) == 0 {
		st, err := ad.Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range st.Pools {
			pools = append(pools, p.Name)
		}
	}
	for _, name := range pools {
		m := &wire.SetPool{Name: name, Update: true}
		set(m)
		if err := ad.call(ctx, m, nil); err != nil {
			return hintf(err, "`ashlar pool list` shows the pools there are")
		}
		g.sayf("repair of pool %s is %s", name, done)
	}
	return nil
}
