package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/devcluster"
)

// devTimeout is how long a dev command other than up may take.
const devTimeout = 90 * time.Second

func newDevCmd(g *global) *cobra.Command {
	dir := ""
	c := newNoun("dev", "run a cluster of real processes on this machine",
		`A local cluster for trying things out and for tests: nodes n1, n2, ... are
processes of their own under one directory, each with a port and a disk there.
All copies are on one machine, and its disks keep only 64 MiB free, so it is
not for data you need.`,
		`  ashlar dev up --dir ./try --mount ./try/mnt
  ashlar dev kill --dir ./try n1`,
		newDevUpCmd(g, &dir),
		newDevNodeCmd(g, &dir, "kill", "kill a node at once (SIGKILL)", "is killed", (*devcluster.Cluster).Kill),
		newDevNodeCmd(g, &dir, "pause", "stop a node from running (SIGSTOP)", "is paused", (*devcluster.Cluster).Pause),
		newDevNodeCmd(g, &dir, "resume", "let a paused node run again (SIGCONT)", "runs again", (*devcluster.Cluster).Resume),
		newDevNodeCmd(g, &dir, "start", "start a node that does not run", "is started", (*devcluster.Cluster).Start),
		newDevAddCmd(g, &dir), newDevDownCmd(g, &dir), newDevStatusCmd(g, &dir))
	c.PersistentFlags().StringVar(&dir, "dir", "", "directory of the local cluster")
	return c
}

// devCluster makes the local cluster that --dir names.
func devCluster(g *global, dir string) (*devcluster.Cluster, error) {
	if dir == "" {
		return nil, usagef("give --dir, the directory of the local cluster")
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &devcluster.Cluster{
		Dir: path, Exe: exe,
		Connect: func(file string) (devcluster.Admin, error) {
			c, err := config.LoadClient(file, "")
			if err != nil {
				return nil, err
			}
			return newAdmin(c), nil
		},
		Logf: func(format string, a ...any) { fmt.Fprintf(g.Err, "dev: "+format+"\n", a...) },
	}, nil
}

type devUpOptions struct {
	devcluster.Options
	mount string
}

func newDevUpCmd(g *global, dir *string) *cobra.Command {
	var o devUpOptions
	c := &cobra.Command{
		Use: "up --dir DIR", Short: "start a local cluster and stay until interrupted",
		Long: `Starts a local cluster under DIR, making it first if there is none, and stays
in the foreground. It writes DIR/client.toml and prints one line beginning with
"ready" when the volume is usable: all disks registered, all copies there, a
leader, the volume made and, with --mount, the mount answering. Started again
on the same DIR it finds its data.

On an interrupt it unmounts, then stops the nodes. It never starts a node again
that ended by itself or was killed: "dev start" does.

Of N nodes the first 1, 3 or 5 are masters; all are chunkservers.

` + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar dev up --dir ./try --mount ./try/mnt
  ashlar dev up --dir ./try --nodes 5 --replicas 3 --volume scratch`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return runDevUp(c.Context(), g, o, *dir) },
	}
	f := c.Flags()
	f.IntVar(&o.Nodes, "nodes", 0, fmt.Sprintf("nodes of a new cluster (default %d)", devcluster.NodesDefault))
	f.IntVar(&o.BasePort, "base-port", 0, "port of n1, the others follow (default: free ports)")
	f.IntVar(&o.Replicas, "replicas", 0, fmt.Sprintf("copies in a new cluster (default %d)", config.DefaultReplicas))
	f.StringVar(&o.Volume, "volume", "", fmt.Sprintf("volume, made if missing (default %q)", devcluster.VolumeDefault))
	f.StringVar(&o.mount, "mount", "", "directory to mount the volume at")
	f.DurationVar(&o.Timeout, "timeout", devcluster.ReadyTimeout, "give up if not ready after this long")
	return c
}

func runDevUp(ctx context.Context, g *global, o devUpOptions, dir string) error {
	c, err := devCluster(g, dir)
	if err != nil {
		return err
	}
	if o.mount != "" {
		if o.Mount, err = filepath.Abs(o.mount); err != nil {
			return err
		}
	}
	began := time.Now()
	return c.Up(ctx, o.Options, func(s *devcluster.State) {
		line := fmt.Sprintf("ready: %d nodes, volume %s, after %.1fs; client file %s", len(s.Nodes), s.Volume, time.Since(began).Seconds(), c.ClientFile())
		if s.Mount != "" {
			line += "; mounted at " + s.Mount
		}
		fmt.Fprintln(g.Out, line)
	})
}

// newDevNodeCmd makes a command that does one thing to one node.
func newDevNodeCmd(g *global, dir *string, verb, short, done string, do func(*devcluster.Cluster, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " --dir DIR NODE", Short: short,
		Long:    strings.ToUpper(short[:1]) + short[1:] + ".\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: fmt.Sprintf("  ashlar dev %s --dir ./try n1\n  ashlar dev %s --dir ./try n2 && ashlar dev status --dir ./try", verb, verb),
		Args:    args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			cl, err := devCluster(g, *dir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), devTimeout)
			defer cancel()
			if err := do(cl, ctx, a[0]); err != nil {
				return err
			}
			g.sayf("%s %s", a[0], done)
			return nil
		},
	}
}

func newDevAddCmd(g *global, dir *string) *cobra.Command {
	master := false
	c := &cobra.Command{
		Use: "add --dir DIR", Short: "add a node",
		Long: `Makes a new node and starts it: a chunkserver, and with --master also a voting
master (at most five). The masters must be up to agree to a new one.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar dev add --dir ./try
  ashlar dev add --dir ./try --master -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := devCluster(g, *dir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), devTimeout)
			defer cancel()
			n, err := cl.Add(ctx, master)
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(g.Out, n)
			}
			g.sayf("%s is started at %s", n.Name, n.Addr)
			return nil
		},
	}
	c.Flags().BoolVar(&master, "master", false, "also make it a master")
	return c
}

func newDevDownCmd(g *global, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "down --dir DIR", Short: "stop everything",
		Long: `Stops the mount, then all nodes, and ends "dev up" if it runs. Data stays.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound),
		Example: `  ashlar dev down --dir ./try
  ashlar dev down --dir ./try && rm -r ./try`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := devCluster(g, *dir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), devTimeout)
			defer cancel()
			if err := cl.Down(ctx); err != nil {
				return err
			}
			g.sayf("all stopped")
			return nil
		},
	}
}

func newDevStatusCmd(g *global, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "status --dir DIR", Short: "show the processes of a local cluster",
		Long: "Shows every node with its process, address, roles and who leads.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound),
		Example: `  ashlar dev status --dir ./try
  ashlar dev status --dir ./try -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return runDevStatus(c.Context(), g, *dir) },
	}
}

func runDevStatus(ctx context.Context, g *global, dir string) error {
	c, err := devCluster(g, dir)
	if err != nil {
		return err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(g.Out, st)
	}
	var rows []table.Row
	for _, n := range st.Nodes {
		lead := ""
		if n.Leader {
			lead = "leader"
		}
		rows = append(rows, table.Row{n.Name, n.State, n.PID, n.Addr, strings.Join(n.Roles, ", "), lead})
	}
	printTable(g.Out, table.Row{"node", "state", "pid", "address", "roles", "leads"}, rows)
	g.sayf("health: %s; client file %s", orNone(st.Health), st.Client)
	if st.Mount != "" {
		g.sayf("volume %s mounted at %s by pid %d", st.Volume, st.Mount, st.MountID)
	}
	return nil
}
