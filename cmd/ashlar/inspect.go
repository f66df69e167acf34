package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/inspect"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

type inspectOptions struct {
	verbose bool
	all     bool
}

func newInspectCmd(g *global) *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use: "inspect FILE|DIR...", Short: "read and verify the files of nodes that are not running",
		Long: `Reads files of Ashlar as they lie on a disk, verifies every checksum in them,
and says what they are: identities, chunks, dirty marks, group records, writes
in flight, segments of the log, the masters' store, checkpoints. The kind of a
file is told by its first bytes. Nothing is started and nothing is written.

A directory (a disk, a node's data directory, a store) is looked at whole; of
its files only those with damage, or something worth knowing, are listed,
unless --all or -v asks for the others too. A torn block of a chunk that is
marked dirty is no damage: the chunkserver compares such chunks with other
members before it serves them. Of a node that is running, files that are being
written may look damaged.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitDamaged),
		Example: `  ashlar inspect /srv/ashlar
  ashlar inspect -v /srv/ashlar/groups /var/lib/ashlar/master/log/log`,
		Args: args(1, -1),
		RunE: func(c *cobra.Command, a []string) error { return runInspect(c.Context(), g, o, a) },
	}
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "list what is in the files too: entries, blocks, records")
	c.Flags().BoolVar(&o.all, "all", false, "list every file of a directory")
	c.AddCommand(newRebuildCmd(g))
	return c
}

// inspectResult is what -json prints.
type inspectResult struct {
	Reports []*inspect.Report `json:"reports"`
	Totals  inspect.Totals    `json:"totals"`
}

func runInspect(ctx context.Context, g *global, o inspectOptions, names []string) error {
	fsys := vfs.ReadOnly
	total := 0
	if g.terminal() && !g.json {
		for _, n := range names {
			total += inspect.Count(ctx, fsys, n)
		}
	}
	b := newBar(g, "verifying files", uint64(total), false)
	out := inspectResult{Reports: []*inspect.Report{}}
	single := false
	w := inspect.Walker{
		Options:  inspect.Options{FS: fsys, Entries: o.verbose},
		Each:     func(r *inspect.Report) { out.take(r, single || o.all || o.verbose) },
		Progress: func(files int, _ int64) { b.set(uint64(files), uint64(max(files, total))) },
	}
	for _, n := range names {
		st, err := fsys.Stat(n)
		if err == nil {
			single = !st.IsDir()
			err = w.Walk(ctx, filepath.ToSlash(filepath.Clean(n)))
		}
		if err != nil {
			b.done(err)
			return err
		}
	}
	b.done(nil)
	out.Totals = w.Totals
	if g.json {
		if err := printJSON(g.Out, out); err != nil {
			return err
		}
	} else {
		out.print(g)
	}
	return out.verdict()
}

// take keeps a report that is to be shown.
func (r *inspectResult) take(x *inspect.Report, all bool) {
	quiet := len(x.Notes) == 0 && (x.Status == inspect.OK || x.Status == inspect.Foreign)
	if all || !quiet {
		r.Reports = append(r.Reports, x)
	}
}

func (r *inspectResult) print(g *global) {
	for _, x := range r.Reports {
		kind := x.Kind
		if kind == "" {
			kind = "file"
		}
		g.sayf("%s: %s, %s", x.Path, kind, x.Status)
		if x.Status == inspect.Foreign {
			continue
		}
		for _, p := range x.Problems {
			g.sayf("  ! %s", p)
		}
		for _, n := range x.Notes {
			g.sayf("  - %s", n)
		}
		if x.Cluster != "" {
			g.sayf("  %-18s %s", "cluster", x.Cluster)
		}
		for _, f := range x.Fields {
			g.sayf("  %-18s %s", f.Name, f.Value)
		}
		for _, e := range x.Entries {
			g.sayf("    %s", e)
		}
	}
	t := &r.Totals
	parts := []string{fmt.Sprintf("%d verified, %d damaged", t.Files, t.Damaged)}
	for _, p := range []struct {
		n    int
		what string
	}{{t.Newer, "of a newer format"}, {t.Failed, "not readable"}, {t.Foreign, "not Ashlar's"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	g.sayf("%s", strings.Join(parts, ", "))
}

// verdict is the exit status.
func (r *inspectResult) verdict() error {
	t := &r.Totals
	switch {
	case t.Damaged > 0:
		err := ashlar.E("inspect", ashlar.Corrupt, "", fmt.Errorf("%d damaged", t.Damaged))
		return exitError{exitDamaged, hintf(err, "a running cluster mends chunks by itself: `ashlar disk scrub --wait`; if all masters are lost, see `ashlar inspect rebuild --help`")}
	case t.Newer > 0:
		return ashlar.E("inspect", ashlar.Version, "", fmt.Errorf("%d files are of a newer format; use the release that wrote them", t.Newer))
	case t.Failed > 0:
		return errors.New("some files could not be read; see above")
	case t.Files == 0:
		return hintf(errors.New("not an Ashlar file, and none below it"), "name a disk (it has a file \"disk\") or a node's data directory")
	}
	return nil
}
