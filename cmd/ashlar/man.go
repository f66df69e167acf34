package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "write the manual pages",
		Long: `Writes a manual page for every command, made from its help, into DIR.

` + exits(exitOK, exitFailed, exitUsage),
		Example: `  ashlar man ./man
  ashlar man /usr/local/share/man/man1`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runMan(g, c.Root(), a[0]) },
	}
}

func runMan(g *global, root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	epoch := time.Unix(0, 0) // the same pages from the same help
	h := &doc.GenManHeader{Section: "1", Source: "Ashlar " + version, Manual: "Ashlar", Date: &epoch}
	if err := doc.GenManTree(root, h, dir); err != nil {
		return err
	}
	g.sayf("manual pages written to %s; try: man -l %s/ashlar.1", dir, dir)
	return nil
}
