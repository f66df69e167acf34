package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set when a release is built:
// go build -ldflags "-X main.version=1.2.3".
var version = "development"

type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
}

func newVersionCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Long:  "Prints the version of this binary, the commit it was built from and the Go release.\n\n" + exits(exitOK, exitUsage),
		Example: `  ashlar version
  ashlar version -json`,
		Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error { return runVersion(g) },
	}
}

func runVersion(g *global) error {
	v := versionInfo{Version: version, Go: runtime.Version()}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if g.json {
		return printJSON(g.Out, v)
	}
	g.sayf("ashlar %s (commit %s, %s)", v.Version, orNone(v.Commit), v.Go)
	return nil
}
