package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

type statusOptions struct {
	wait    bool
	timeout time.Duration
	groups  bool
}

func newStatusCmd(g *global) *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "show what is at risk, then nodes, disks, groups and capacity",
		Long: `Shows the health of the cluster first: what is at risk and until when, or the
command that helps. Then masters, nodes, disks, placement groups, volumes and
capacity, as the leader sees them.

Health is "ok", "degraded" (a copy is missing), "at risk" (one copy is left,
or the loss of one more master stops the cluster) or "unavailable" (data cannot
be served until a disk is back). If no leader answers within --timeout (default
8s) it is "unknown": then it shows which masters answer, and whom they take for
the leader. "ashlar why" explains each problem.

With --wait it shows nothing until redundancy is full: every placement group
has all its copies, and every disk with one is alive. The time to go is an estimate from the speed so far.

` + exits(exitOK, exitFailed, exitUsage, exitUnavailable, exitAtRisk),
		Example: `  ashlar status
  ashlar status --wait --timeout 5m && echo redundancy is full`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return runStatus(c.Context(), g, o) },
	}
	f := c.Flags()
	f.BoolVar(&o.wait, "wait", false, "wait until redundancy is full")
	f.DurationVar(&o.timeout, "timeout", 0, "give up after this long (0: 8s, or never with --wait)")
	f.BoolVar(&o.groups, "groups", false, "list every placement group")
	return c
}

func runStatus(ctx context.Context, g *global, o statusOptions) error {
	return g.admin(func(a *admin) error {
		st, err := statusOrWait(ctx, g, a, o)
		if err != nil && !o.wait && exitOf(err) == exitUnavailable && ctx.Err() == nil {
			return leaderless(ctx, g, a, err)
		}
		if err != nil {
			return err
		}
		if g.json {
			err = printJSON(g.Out, st)
		} else {
			printStatus(g, st, o.groups)
		}
		if err == nil && (st.Health == "at risk" || st.Health == "unavailable") {
			return exitError{exitAtRisk, errors.New("")}
		}
		return err
	})
}

// statusOrWait gets the status, after waiting for full redundancy if asked.
func statusOrWait(ctx context.Context, g *global, a *admin, o statusOptions) (*wire.Status, error) {
	if !o.wait {
		limit := statusTimeout
		if o.timeout > 0 {
			limit = o.timeout
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return a.Status(ctx)
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	b := newBar(g, "making copies", 0, true)
	var most uint64
	st, err := a.waitStatus(ctx, func(st *wire.Status) (bool, error) {
		left, groups := toSync(st)
		most = max(most, left)
		b.say(fmt.Sprintf("making copies (%d groups)", groups))
		b.set(most-left, most)
		// A leader that has just been elected counts copies before it has heard
		// from every node: all must be alive, too.
		return st.Redundant && st.Health == "ok", nil
	})
	b.done(err)
	if errors.Is(err, context.DeadlineExceeded) {
		detail := "no leader answered"
		if st != nil {
			left, groups := toSync(st)
			detail = fmt.Sprintf("%d placement groups miss a copy, about %s to go", groups, size(left))
		}
		return nil, ashlar.E("status --wait", ashlar.Timeout, "", fmt.Errorf("after %v %s", o.timeout, detail))
	}
	return st, err
}

// toSync tells how many bytes and groups lack a copy.
func toSync(st *wire.Status) (left uint64, groups int) {
	for _, gr := range st.Groups {
		whole := true
		for _, m := range gr.Members {
			left += m.Left
			whole = whole && m.State == ashlar.InSync.String()
		}
		if !whole || gr.State != "ok" {
			groups++
		}
	}
	return left, groups
}

func printStatus(g *global, st *wire.Status, groups bool) {
	g.sayf("health: %s", st.Health)
	for _, p := range st.Problems {
		g.sayf("  %s: %s", p.Severity, p.What)
		if p.Next != "" {
			g.sayf("    %s", p.Next)
		}
	}
	g.sayf("cluster %s, leader %s, term %d", st.Cluster, orNone(st.Leader), st.Term)
	g.sayf("\nMasters")
	printMasters(g, st)
	g.sayf("\nNodes")
	printNodes(g, st)
	g.sayf("\nDisks")
	printDisks(g, st.Disks)
	g.sayf("\nPlacement groups: %s", summary(st.Groups))
	if groups {
		printGroups(g, st.Groups)
	}
	g.sayf("\nPools")
	printPools(g, st.Pools)
	for _, p := range st.Pools {
		if p.Repair.Groups > 0 || p.Repair.Paused {
			g.sayf("repair in %s: %s", p.Name, repairLine(p.Repair))
		}
	}
	g.sayf("\nVolumes")
	printVolumes(g, st.Volumes)
	g.sayf("\nCapacity: %s free of %s on disks in reach, copies counted; %d client sessions; %d deleted files to clean up",
		size(st.Free), size(st.Total), len(st.Sessions), st.Deleting)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// summary counts groups by state: "48 ok, 3 degraded".
func summary(gs []wire.GroupStatus) string {
	count := map[string]int{}
	for _, g := range gs {
		count[g.State]++
	}
	var out []string
	for _, s := range slices.Backward(stateOrder) {
		if count[s] > 0 {
			out = append(out, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

func printMasters(g *global, st *wire.Status) {
	var rows []table.Row
	masters := slices.SortedFunc(slices.Values(st.Masters), func(a, b wire.MasterStatus) int { return natural(a.Name, b.Name) })
	for _, m := range masters {
		role := "follower"
		switch {
		case m.Leader:
			role = "leader"
		case m.Learner:
			role = "learner"
		}
		rows = append(rows, table.Row{m.Name, m.Addr, role, upOrDown(m.Alive), behind(st.Committed, m.Match)})
	}
	printTable(g.Out, table.Row{"name", "address", "role", "state", "behind"}, rows)
}

// behind tells how many log entries a master lacks.
func behind(committed, match uint64) uint64 {
	if match >= committed {
		return 0
	}
	return committed - match
}

func upOrDown(alive bool) string {
	if alive {
		return "up"
	}
	return "DOWN"
}

func printGroups(g *global, gs []wire.GroupStatus) {
	var rows []table.Row
	for _, gr := range gs {
		rows = append(rows, table.Row{gr.ID, gr.Pool, gr.Epoch, gr.State, memberList(gr.Members)})
	}
	printTable(g.Out, table.Row{"group", "pool", "epoch", "state", "members"}, rows)
}

// memberList writes the members of a group: "n1/1* n2/3 n3/5 (syncing)".
func memberList(ms []wire.MemberStatus) string {
	var out []string
	for _, m := range ms {
		s := fmt.Sprintf("%s/%d", m.Node, m.Disk)
		if m.Primary {
			s += "*"
		}
		if m.State != ashlar.InSync.String() || !m.Alive {
			s += " (" + m.State
			if m.State == ashlar.InSync.String() {
				s += ", out of reach"
			}
			if m.Left > 0 {
				s += ", " + size(m.Left) + " left"
			}
			s += ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// diskOf finds a disk by number.
func diskOf(st *wire.Status, id ashlar.DiskID) (wire.DiskStatus, error) {
	i := slices.IndexFunc(st.Disks, func(d wire.DiskStatus) bool { return d.ID == uint32(id) })
	if i < 0 {
		return wire.DiskStatus{}, hintf(ashlar.E("disk", ashlar.NotExist, fmt.Sprint(id), nil), "`ashlar disk list` shows the disks there are")
	}
	return st.Disks[i], nil
}
