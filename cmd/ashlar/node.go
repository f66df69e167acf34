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
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func newNodeCmd(g *global) *cobra.Command {
	return newNoun("node", "look after nodes: masters and chunkservers",
		`A node is one process of Ashlar on one machine: a master, a chunkserver, or
both. A new chunkserver joins by being started; a master is added here first.`,
		`  ashlar node list
  ashlar node drain n3 --wait`,
		newNodeListCmd(g), newNodeInfoCmd(g), newNodeAddCmd(g), newNodeRemoveCmd(g), newNodeDrainCmd(g), newNodeUndrainCmd(g))
}

func newNodeListCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the nodes",
		Long: "Lists every node with its roles and whether it is up.\n\n" + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar node list
  ashlar node list -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				if g.json {
					return printJSON(g.Out, nodes(st))
				}
				printNodes(g, st)
				return nil
			})
		},
	}
}

// withStatus runs fn on the state of the cluster.
func (g *global) withStatus(ctx context.Context, fn func(*wire.Status) error) error {
	return g.admin(func(a *admin) error {
		st, err := a.Status(ctx)
		if err != nil {
			return err
		}
		return fn(st)
	})
}

// nodeInfo is a node with what its roles say of it.
type nodeInfo struct {
	Name        string             `json:"name"`
	Addr        string             `json:"addr"`
	Master      *wire.MasterStatus `json:"master,omitempty"`
	Chunkserver *wire.NodeStatus   `json:"chunkserver,omitempty"`
	Disks       []wire.DiskStatus  `json:"disks,omitempty"`
}

func (n *nodeInfo) roles() string {
	var out []string
	if n.Master != nil {
		role := "master"
		if n.Master.Leader {
			role = "leader"
		} else if n.Master.Learner {
			role = "learner"
		}
		out = append(out, role)
	}
	if n.Chunkserver != nil {
		out = append(out, "chunkserver")
	}
	return strings.Join(out, ", ")
}

// state is the word for a node: that of its worst role, which is named if the
// other one does better.
func (n *nodeInfo) state() string {
	m, c := n.Master, n.Chunkserver
	out := "up"
	switch {
	case m != nil && !m.Alive && (c == nil || c.State == "down"):
		out = "DOWN"
	case m != nil && !m.Alive && c.State == "silent":
		out = "silent"
	case m != nil && !m.Alive:
		out = "master DOWN"
	case c != nil && c.State == "down" && m != nil:
		out = "chunkserver DOWN"
	case c != nil && c.State == "down":
		out = "DOWN"
	case c != nil && c.State == "silent":
		out = "silent"
	}
	switch {
	case c == nil || !c.Drain:
	case !slices.ContainsFunc(n.Disks, func(d wire.DiskStatus) bool { return d.Groups > 0 }):
		out += ", drained"
	default:
		out += ", draining"
	}
	return out
}

// nodes joins masters and chunkservers by name.
func nodes(st *wire.Status) []nodeInfo {
	var out []nodeInfo
	at := func(name, addr string) *nodeInfo {
		i := slices.IndexFunc(out, func(n nodeInfo) bool { return n.Name == name })
		if i < 0 {
			out = append(out, nodeInfo{Name: name, Addr: addr})
			i = len(out) - 1
		}
		return &out[i]
	}
	for i := range st.Masters {
		at(st.Masters[i].Name, st.Masters[i].Addr).Master = &st.Masters[i]
	}
	for i := range st.Nodes {
		at(st.Nodes[i].Name, st.Nodes[i].Addr).Chunkserver = &st.Nodes[i]
	}
	for _, d := range st.Disks {
		n := at(d.Node, "")
		n.Disks = append(n.Disks, d)
	}
	slices.SortFunc(out, func(a, b nodeInfo) int { return natural(a.Name, b.Name) })
	return out
}

// natural orders n2 before n10.
func natural(a, b string) int {
	if len(a) != len(b) && strings.TrimRight(a, "0123456789") == strings.TrimRight(b, "0123456789") {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func printNodes(g *global, st *wire.Status) {
	var rows []table.Row
	for _, n := range nodes(st) {
		rack, silent := "", ""
		if c := n.Chunkserver; c != nil {
			rack = c.Rack
			if c.State != "up" {
				silent = ago(c.Silent)
			}
		}
		rows = append(rows, table.Row{n.Name, n.Addr, n.roles(), n.state(), silent, rack, len(n.Disks)})
	}
	printTable(g.Out, table.Row{"name", "address", "roles", "state", "silent", "rack", "disks"}, rows)
}

func findNode(st *wire.Status, name string) (*nodeInfo, error) {
	for _, n := range nodes(st) {
		if n.Name == name {
			return &n, nil
		}
	}
	return nil, hintf(ashlar.E("node", ashlar.NotExist, name, nil), "`ashlar node list` shows the nodes there are")
}

func newNodeInfoCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "info NODE", Short: "show one node",
		Long: "Shows a node with its disks.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar node info n1
  ashlar node info n1 -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				n, err := findNode(st, a[0])
				if err != nil {
					return err
				}
				if g.json {
					return printJSON(g.Out, n)
				}
				g.sayf("%s at %s: %s, %s", n.Name, n.Addr, n.roles(), n.state())
				if len(n.Disks) > 0 {
					printDisks(g, n.Disks)
				}
				return nil
			})
		},
	}
}

type nodeAddOptions struct {
	learner bool
}

func newNodeAddCmd(g *global) *cobra.Command {
	var o nodeAddOptions
	c := &cobra.Command{
		Use: "add NAME HOST:PORT", Short: "add a master to the consensus group",
		Long: `Adds a master, online: the group agrees to it, and the new master, started
with an empty data directory and this name, catches up and then votes. Keep
the number of masters odd: 1, 3 or 5.

A node that is only a chunkserver needs no adding: start it.

` + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar node add n4 10.0.0.4:9500
  ashlar node add --learner standby 10.0.0.9:9500`,
		Args: args(2, 2),
		RunE: func(c *cobra.Command, a []string) error { return runNodeAdd(c.Context(), g, o, a[0], a[1]) },
	}
	c.Flags().BoolVar(&o.learner, "learner", false, "keep a copy of the log but do not vote")
	return c
}

func runNodeAdd(ctx context.Context, g *global, o nodeAddOptions, name, addr string) error {
	if _, err := config.ParseMaster(name + "=" + addr); err != nil {
		return usagef("%v; %s", err, config.NameRule)
	}
	return g.admin(func(a *admin) error {
		if err := a.call(ctx, &wire.AddMaster{Name: name, Addr: addr, Learner: o.learner}, nil); err != nil {
			return err
		}
		g.sayf("%s is a member; now start it with an empty data directory: ashlar serve --config FILE", name)
		return nil
	})
}

func newNodeRemoveCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "remove NODE", Short: "take a node out of the cluster",
		Long: `Takes a node out, as a chunkserver and as a master. As a chunkserver it must be
empty and stopped: drain it, stop its process, then remove it. What is only a
master is removed while it runs.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar node drain n3 --wait    # then stop n3
  ashlar node remove n3`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runNodeRemove(c.Context(), g, a[0]) },
	}
}

func runNodeRemove(ctx context.Context, g *global, name string) error {
	return g.admin(func(a *admin) error {
		st, err := a.Status(ctx)
		if err != nil {
			return err
		}
		n, err := findNode(st, name)
		if err != nil {
			return err
		}
		if n.Chunkserver != nil {
			if err := mayRemove(n); err != nil {
				return err
			}
			if err := removeChunkserver(ctx, g, a, n); err != nil {
				return err
			}
		}
		if n.Master != nil {
			if err := a.call(ctx, &wire.RemoveMaster{Name: name}, nil); err != nil {
				return hintf(err, "`ashlar node list` shows which masters are up: a majority must stay")
			}
			g.sayf("%s is no master any more", name)
		}
		return nil
	})
}

// mayRemove refuses to remove a chunkserver that has data or runs, before
// anything is done.
func mayRemove(n *nodeInfo) error {
	groups := 0
	for _, d := range n.Disks {
		groups += d.Groups
	}
	switch {
	case groups > 0:
		err := fmt.Errorf("%d placement groups have a member on it", groups)
		return hintf(ashlar.E("remove node", ashlar.Busy, n.Name, err), "first move its data away: `ashlar node drain %s --wait`", n.Name)
	case n.Chunkserver.Alive:
		err := errors.New("its process runs, and would register again")
		return hintf(ashlar.E("remove node", ashlar.Busy, n.Name, err), "it is empty: stop its process, then run this again")
	}
	return nil
}

// removeChunkserver removes the drained disks of a node and forgets it.
func removeChunkserver(ctx context.Context, g *global, a *admin, n *nodeInfo) error {
	hint := fmt.Sprintf("first move its data away: `ashlar node drain %s --wait`", n.Name)
	for _, d := range n.Disks {
		if d.State == "removed" {
			continue
		}
		if err := a.call(ctx, &wire.SetDisk{Disk: ashlar.DiskID(d.ID), Remove: true}, nil); err != nil {
			return hintf(err, "%s", hint)
		}
	}
	if err := a.call(ctx, &wire.SetNode{Name: n.Name, Remove: true}, nil); err != nil {
		return hintf(err, "%s", hint)
	}
	g.sayf("%s is no chunkserver any more", n.Name)
	return nil
}

type drainOptions struct {
	wait    bool
	timeout time.Duration
}

func (o *drainOptions) addFlags(c *cobra.Command) {
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until no data is left there")
	c.Flags().DurationVar(&o.timeout, "timeout", 0, "give up waiting after this long (0: never)")
}

func newNodeDrainCmd(g *global) *cobra.Command {
	var o drainOptions
	c := &cobra.Command{
		Use: "drain NODE", Short: "move all data off a node",
		Long: `Moves the data of all disks of a node to others, keeping every copy on the
way. It is refused if too few other nodes are up to take the copies. The node serves until it is empty and stays drained until undrained.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar node drain n3
  ashlar node drain n3 --wait --timeout 1h`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runNodeDrain(c.Context(), g, o, a[0]) },
	}
	o.addFlags(c)
	return c
}

func runNodeDrain(ctx context.Context, g *global, o drainOptions, name string) error {
	return g.admin(func(a *admin) error {
		if err := a.call(ctx, &wire.SetNode{Name: name, Drain: true}, nil); err != nil {
			return err
		}
		if !o.wait {
			g.sayf("%s is draining; `ashlar status` shows how far it is", name)
			return nil
		}
		return waitDrained(ctx, g, a, o, name, func(d wire.DiskStatus) bool { return d.Node == name })
	})
}

// waitDrained waits until the chosen disks hold no member of any group.
func waitDrained(ctx context.Context, g *global, a *admin, o drainOptions, what string, of func(wire.DiskStatus) bool) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	b := newBar(g, "draining "+what, 0, false)
	most, left := 0, 0
	_, err := a.waitStatus(ctx, func(st *wire.Status) (bool, error) {
		b.say(drainingLine(what, st))
		left = 0
		for _, d := range st.Disks {
			if of(d) {
				left += d.Groups
			}
		}
		most = max(most, left)
		b.set(uint64(most-left), uint64(most))
		return left == 0, nil
	})
	b.done(err)
	if errors.Is(err, context.DeadlineExceeded) {
		return hintf(ashlar.E("drain", ashlar.Timeout, what, fmt.Errorf("after %v %d placement groups are still there", o.timeout, left)),
			"`ashlar status` says what it waits for: perhaps no other node has room or is in another failure domain")
	}
	if err == nil {
		g.sayf("%s is drained", what)
	}
	return err
}

// drainingLine says what is drained and how long all copying will take.
func drainingLine(what string, st *wire.Status) string {
	line := "draining " + what
	for _, p := range st.Pools {
		if p.Repair.Groups > 0 {
			line += fmt.Sprintf(" (%s: %s left, done in: %s)", p.Name, size(p.Repair.Left), timeLeft(p.Repair))
		}
	}
	return line
}

func newNodeUndrainCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "undrain NODE", Short: "let a node take data again",
		Long: "Stops draining a node and lets it take data again.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar node undrain n3
  ashlar node undrain n3 && ashlar status`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.admin(func(ad *admin) error {
				if err := ad.call(c.Context(), &wire.SetNode{Name: a[0], Undrain: true}, nil); err != nil {
					return err
				}
				g.sayf("%s takes data again", a[0])
				return nil
			})
		},
	}
}
