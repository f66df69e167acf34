// Command ashlar is all of Ashlar in one binary: the server (serve), the
// kernel mount (mount, also as mount.ashlar), a local cluster for trying
// things out (dev), and the commands that look after a cluster.
//
// This package holds flags, wiring and printing only. A command is a file: an
// options struct, a constructor with its help, and a run function that takes
// a context, the options, the arguments and where to print.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args, stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

// stdio is where a command reads and prints.
type stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// terminal tells whether progress can be drawn: on standard error, so that
// standard output stays what was asked for.
func (s stdio) terminal() bool {
	f, ok := s.Err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// global is what every command has besides its own options.
type global struct {
	stdio
	cluster string // --cluster
	json    bool   // --json
}

// Main runs one command line and returns its exit status. A context that is
// canceled stops the command in order.
func Main(ctx context.Context, args []string, std stdio) int {
	g := &global{stdio: std}
	root := newRootCmd(g)
	if filepath.Base(args[0]) == "mount.ashlar" {
		root.SetArgs(mountHelperArgs(args[1:]))
	} else {
		root.SetArgs(singleDashJSON(args[1:]))
	}
	return report(g, root.ExecuteContext(ctx))
}

// singleDashJSON lets -json be written for --json, as Go's own tools do.
func singleDashJSON(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		if a == "-json" || strings.HasPrefix(a, "-json=") {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// newRootCmd builds the whole tree of commands.
func newRootCmd(g *global) *cobra.Command {
	root := &cobra.Command{
		Use:   "ashlar",
		Short: "highly available files on ordinary machines",
		Long: `Ashlar turns a few Linux machines into one highly available store.

A cluster is named by --cluster: a client file that "ashlar dev up" or "ashlar
install" wrote, or a list of master addresses host:port,host:port. Without it,
ASHLAR_CLUSTER is used, then /etc/ashlar/client.toml.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable, exitAtRisk, exitDamaged, exitLockLost),
		Example: `  ashlar dev up --dir ./try --mount ./try/mnt
  ashlar --cluster ./try/client.toml status`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(g.In)
	root.SetOut(g.Out)
	root.SetErr(g.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%v; see `%s --help`", err, c.CommandPath())
	})
	root.PersistentFlags().StringVar(&g.cluster, "cluster", "", "client file, or master addresses host:port,host:port")
	root.PersistentFlags().BoolVar(&g.json, "json", false, "print JSON (-json does too)")
	root.AddCommand(
		newServeCmd(g), newMountCmd(g), newDevCmd(g), newInstallCmd(g),
		newStatusCmd(g), newWhyCmd(g), newNodeCmd(g), newDiskCmd(g), newPoolCmd(g), newRepairCmd(g), newVolumeCmd(g), newLockCmd(g),
		newFSCmd(g), newInspectCmd(g), newVersionCmd(g), newManCmd(g),
	)
	return root
}

// args checks the number of arguments and says how the command is called if
// it is wrong. maxArgs below 0 means any number.
func args(minArgs, maxArgs int) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if len(a) < minArgs || maxArgs >= 0 && len(a) > maxArgs {
			return usagef("%d arguments; usage: %s", len(a), c.UseLine())
		}
		return nil
	}
}

// noCommand refuses what is left after the commands there are.
func noCommand(c *cobra.Command, a []string) error {
	if len(a) > 0 {
		return usagef("unknown command %q; see `%s --help`", a[0], c.CommandPath())
	}
	return nil
}

// newNoun makes a command that only holds others.
func newNoun(use, short, long, example string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example,
		Long: long + "\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}

// sayf prints a line for people: nothing with --json, whose output is data.
func (g *global) sayf(format string, a ...any) {
	if !g.json {
		fmt.Fprintf(g.Out, format+"\n", a...)
	}
}
