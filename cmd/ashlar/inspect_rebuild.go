package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/inspect"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

type rebuildOptions struct {
	out    string
	volume string
	from   string
	stale  bool
}

func newRebuildCmd(g *global) *cobra.Command {
	var o rebuildOptions
	c := &cobra.Command{
		Use: "rebuild DISK...", Short: "put files together from disks alone, when all masters are lost",
		Long: `Reads the chunks of disks whose chunkservers are stopped and puts the files
together that they are of. Without a target it lists them. The disks are only
read.

--into-volume puts them straight into a volume of a new, running cluster (the
one that --cluster names, on other disks): files of the lost volume of that
name, or of the one that --from-volume names, and to lost+found what has no
name. It may be interrupted and run again, also with more disks: what is there
whole is left as it is, what is incomplete is written again, and what somebody
else has put there is not touched. --out writes the files of all volumes to a
directory instead, as DIR/VOLUME/PATH.

Name every disk that is left: of each block the newest good copy among the
disks that were in-sync longest is taken. Names, owners, modes and times are
those that a file had when its chunks were last written or scrubbed: one that
was renamed since comes back under its old name. Directories without files,
empty files, links, attributes and everything else that only the masters knew
do not come back; files deleted shortly before may. What is incomplete is
listed.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable, exitDamaged),
		Example: `  ashlar inspect rebuild /mnt/disk1 /mnt/disk2 /mnt/disk3
  ashlar inspect rebuild --into-volume main /mnt/disk*
  ashlar inspect rebuild --out /backup/rescued /mnt/disk*`,
		Args: args(1, -1),
		RunE: func(c *cobra.Command, a []string) error { return runRebuild(c.Context(), g, o, a) },
	}
	c.Flags().StringVar(&o.out, "out", "", "directory to write the files to; new or empty")
	c.Flags().StringVar(&o.volume, "into-volume", "", "volume of a running cluster to put the files into")
	c.Flags().StringVar(&o.from, "from-volume", "", "volume of the lost cluster whose files those are (default: the same name)")
	c.Flags().BoolVar(&o.stale, "stale", false, "also chunks that only disks out of sync have: data that was cut or deleted, or all that is left")
	return c
}

// rebuildResult is what -json prints.
type rebuildResult struct {
	*inspect.Scan
	Files []*inspect.File `json:"files"`
	// Left are volumes whose files were not asked for.
	Left []string `json:"volumes_left,omitempty"`
}

func runRebuild(ctx context.Context, g *global, o rebuildOptions, disks []string) error {
	switch {
	case o.out != "" && o.volume != "":
		return usagef("--out or --into-volume, not both")
	case o.from != "" && o.volume == "":
		return usagef("--from-volume is for --into-volume: --out writes the files of all volumes")
	}
	var root *os.Root
	if o.out != "" {
		var err error
		if root, err = openOut(o.out); err != nil {
			return err
		}
		defer root.Close()
	}
	dirs := make([]string, len(disks))
	total := 0
	for i, d := range disks {
		dirs[i] = filepath.ToSlash(filepath.Clean(d))
		if g.terminal() && !g.json {
			total += inspect.Count(ctx, vfs.ReadOnly, dirs[i]+"/chunks")
		}
	}
	b := newBar(g, "reading chunks", uint64(total), false)
	scan, err := inspect.ScanDisks(ctx, vfs.ReadOnly, dirs, func(n int) { b.set(uint64(n), uint64(max(n, total))) })
	b.done(err)
	if err != nil {
		return err
	}
	files := scan.Files(o.stale)
	var others []string
	switch {
	case root != nil:
		err = extractAll(ctx, g, scan, inspect.Dir{Root: root}, files, 1)
	case o.volume != "":
		files, others, err = g.intoVolume(ctx, o, scan, files)
	}
	if err != nil {
		return err
	}
	if g.json {
		if err := printJSON(g.Out, rebuildResult{scan, files, others}); err != nil {
			return err
		}
	} else {
		printRebuild(g, scan, files)
		for _, v := range others {
			g.sayf("files of volume %s are left: ashlar inspect rebuild --into-volume NAME --from-volume %s ...", v, v)
		}
	}
	return rebuildVerdict(files, root != nil || o.volume != "", scan)
}

// openOut makes the output directory, which must be empty.
func openOut(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		return nil, usagef("%s is not empty: files of different rebuilds would mix", dir)
	}
	return os.OpenRoot(dir)
}

func printRebuild(g *global, scan *inspect.Scan, files []*inspect.File) {
	var rows []table.Row
	for _, f := range files {
		rows = append(rows, table.Row{
			f.Place, f.Inode, fmt.Sprintf("%d:%d", f.UID, f.GID), fmt.Sprintf("%04o", f.Mode), size(f.Size),
			len(f.Parts), fileState(f),
		})
	}
	if len(rows) > 0 {
		printTable(g.Out, table.Row{"file", "inode", "owner", "mode", "size", "chunks", "state"}, rows)
	}
	for _, d := range scan.Disks {
		line := fmt.Sprintf("disk %s: %d chunks", d.Dir, d.Chunks)
		if d.Broken > 0 {
			line += fmt.Sprintf(", %d not readable", d.Broken)
		}
		if d.NoGroups {
			line += ", its group records can not be read: other disks are believed first"
		}
		g.sayf("%s", line)
	}
	g.sayf("%s", inspect.Summary(files))
}

// fileState says in a few words how a file was found.
func fileState(f *inspect.File) string {
	state := ""
	add := func(format string, a ...any) {
		if state != "" {
			state += "; "
		}
		state += fmt.Sprintf(format, a...)
	}
	if f.Why != "" {
		add("%s", f.Why)
	}
	if f.Absent > 0 {
		add("%d chunks absent", f.Absent)
	}
	if f.OnlyStale > 0 {
		add("%d chunks only on disks out of sync", f.OnlyStale)
	}
	if r := f.Result; r != nil {
		if r.There {
			add("there already")
		}
		var lost uint64
		for _, x := range r.Lost {
			lost += x.Len
		}
		if lost > 0 {
			add("%d bytes lost", lost)
		}
		if r.Stale > 0 {
			add("%d bytes possibly old", r.Stale)
		}
		if r.Error != "" {
			add("%s", r.Error)
		}
		if r.Owner != "" {
			add("owner not set: %s", r.Owner)
		}
	}
	if state == "" {
		return "ok"
	}
	return state
}

func rebuildVerdict(files []*inspect.File, extracted bool, scan *inspect.Scan) error {
	incomplete := 0
	for _, f := range files {
		if extracted && !f.Complete() || f.OnlyStale > 0 {
			incomplete++
		}
	}
	broken := 0
	for _, d := range scan.Disks {
		broken += d.Broken
	}
	if incomplete == 0 && broken == 0 {
		return nil
	}
	err := ashlar.E("rebuild", ashlar.Corrupt, "", errors.Join(fmt.Errorf("%d files are incomplete, %d chunks could not be read", incomplete, broken)))
	return exitError{exitDamaged, hintf(err, "name every disk that is left; --stale adds what only disks out of sync have")}
}
