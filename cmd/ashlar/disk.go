package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func newDiskCmd(g *global) *cobra.Command {
	return newNoun("disk", "look after disks",
		`A disk is a directory on a local file system that a chunkserver keeps chunks
in. It gets its number when its node first registers it; name it by that.`,
		`  ashlar disk list
  ashlar disk scrub --wait`,
		newDiskListCmd(g), newDiskInfoCmd(g), newDiskSetCmd(g), newDiskDrainCmd(g), newDiskUndrainCmd(g), newDiskRemoveCmd(g), newDiskScrubCmd(g))
}

func parseDisk(s string) (ashlar.DiskID, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, usagef("%q is not the number of a disk; `ashlar disk list` shows them", s)
	}
	return ashlar.DiskID(n), nil
}

func newDiskListCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the disks",
		Long: "Lists every disk with its state, fill and damage found.\n\n" + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar disk list
  ashlar disk list -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				if g.json {
					return printJSON(g.Out, st.Disks)
				}
				printDisks(g, st.Disks)
				return nil
			})
		},
	}
}

// stateMax is how long a state may be in a table.
const stateMax = 60

// oldFigures is from when on it is said how old figures are.
const oldFigures = 5 * time.Second

func printDisks(g *global, ds []wire.DiskStatus) {
	var rows []table.Row
	for _, d := range ds {
		state := d.State
		if d.Error != "" {
			state += ": " + d.Error
			if len(state) > stateMax {
				state = strings.ToValidUTF8(state[:stateMax-3], "") + "..." // all of it is in disk info and in why
			}
		}
		free, total, chunks, damaged := size(d.Free), size(d.Total), fmt.Sprint(d.Chunks), fmt.Sprint(d.Damaged)
		switch {
		case d.Age < 0: // nothing is known, which is not the same as nothing
			free, total, chunks, damaged = "?", "?", "?", "?"
		case d.Age > oldFigures.Seconds():
			state += " (figures of " + ago(d.Age) + " ago)"
		}
		rows = append(rows, table.Row{d.ID, d.Node, d.Path, state, free, total, chunks, d.Groups, damaged, strings.Join(d.Labels, ",")})
	}
	printTable(g.Out, table.Row{"disk", "node", "path", "state", "free", "total", "chunks", "groups", "damaged", "labels"}, rows)
}

func newDiskInfoCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "info DISK", Short: "show one disk and the placement groups on it",
		Long: "Shows a disk and every placement group that has a member on it.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar disk info 2
  ashlar disk info 2 -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runDiskInfo(c.Context(), g, a[0]) },
	}
}

func runDiskInfo(ctx context.Context, g *global, arg string) error {
	id, err := parseDisk(arg)
	if err != nil {
		return err
	}
	return g.withStatus(ctx, func(st *wire.Status) error {
		d, err := diskOf(st, id)
		if err != nil {
			return err
		}
		on := []wire.GroupStatus{}
		for _, gr := range st.Groups {
			for _, m := range gr.Members {
				if m.Disk == uint32(id) {
					on = append(on, gr)
				}
			}
		}
		if g.json {
			return printJSON(g.Out, struct {
				wire.DiskStatus
				On []wire.GroupStatus `json:"placement_groups"`
			}{d, on})
		}
		printDisks(g, []wire.DiskStatus{d})
		if d.Error != "" {
			g.sayf("error: %s", d.Error)
		}
		g.sayf("uuid %s; %d blocks found damaged, %d mended\n", d.UUID, d.Damaged, d.Repaired)
		printGroups(g, on)
		return nil
	})
}

type diskSetOptions struct {
	labels []string
}

func newDiskSetCmd(g *global) *cobra.Command {
	var o diskSetOptions
	c := &cobra.Command{
		Use: "set DISK --labels LABEL,...", Short: "replace the labels of a disk",
		Long: `Replaces the labels by which pools choose disks. An empty list takes all away.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar disk set 2 --labels ssd,shelf-1
  ashlar disk set 2 --labels ""`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			if !c.Flags().Changed("labels") {
				return usagef("nothing to set; give --labels")
			}
			return setDisk(c.Context(), g, a[0], wire.SetDisk{Relabel: true, Labels: o.labels}, "disk %d has new labels")
		},
	}
	c.Flags().StringSliceVar(&o.labels, "labels", nil, "labels, separated by commas")
	return c
}

// setDisk sends one change of a disk and says what it did.
func setDisk(ctx context.Context, g *global, arg string, m wire.SetDisk, done string) error {
	id, err := parseDisk(arg)
	if err != nil {
		return err
	}
	for _, l := range m.Labels {
		if !config.ValidName(l) {
			return usagef("label %q: %s", l, config.NameRule)
		}
	}
	m.Disk = id
	return g.admin(func(a *admin) error {
		if err := a.call(ctx, &m, nil); err != nil {
			return err
		}
		g.sayf(done, id)
		return nil
	})
}

func newDiskDrainCmd(g *global) *cobra.Command {
	var o drainOptions
	c := &cobra.Command{
		Use: "drain DISK", Short: "move all data off a disk",
		Long: `Moves the data of a disk to others, keeping every copy on the way. It is
refused if too few others are left to take the copies.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar disk drain 2
  ashlar disk drain 2 --wait && ashlar disk remove 2`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runDiskDrain(c.Context(), g, o, a[0]) },
	}
	o.addFlags(c)
	return c
}

func runDiskDrain(ctx context.Context, g *global, o drainOptions, arg string) error {
	id, err := parseDisk(arg)
	if err != nil {
		return err
	}
	return g.admin(func(a *admin) error {
		if err := a.call(ctx, &wire.SetDisk{Disk: id, Drain: true}, nil); err != nil {
			return err
		}
		if !o.wait {
			g.sayf("disk %d is draining; `ashlar status` shows how far it is", id)
			return nil
		}
		return waitDrained(ctx, g, a, o, fmt.Sprintf("disk %d", id), func(d wire.DiskStatus) bool { return d.ID == uint32(id) })
	})
}

func newDiskUndrainCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "undrain DISK", Short: "let a disk take data again",
		Long: "Stops draining a disk and lets it take data again.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar disk undrain 2
  ashlar disk undrain 2 && ashlar disk info 2`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return setDisk(c.Context(), g, a[0], wire.SetDisk{Undrain: true}, "disk %d takes data again")
		},
	}
}

type diskRemoveOptions struct {
	force bool
}

func newDiskRemoveCmd(g *global) *cobra.Command {
	var o diskRemoveOptions
	c := &cobra.Command{
		Use: "remove DISK", Short: "forget a drained or dead disk",
		Long: `Forgets a disk for good. It is refused while placement groups have a member
there; --force removes a dead disk all the same. It is refused even then for a
disk with the last copy of anything.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar disk drain 2 --wait && ashlar disk remove 2
  ashlar disk remove --force 2`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			err := setDisk(c.Context(), g, a[0], wire.SetDisk{Remove: true, Force: o.force}, "disk %d is forgotten")
			switch {
			case ashlar.KindOf(err) == ashlar.Busy && o.force:
				err = hintf(err, "`ashlar why disk %s` shows what it holds", a[0])
			case ashlar.KindOf(err) == ashlar.Busy:
				err = hintf(err, "first move its data away: `ashlar disk drain %s --wait`", a[0])
			}
			return err
		},
	}
	c.Flags().BoolVar(&o.force, "force", false, "although placement groups have members there; those copies are given up")
	return c
}
