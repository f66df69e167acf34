package main

import (
	"context"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// rootMode is the mode of a new volume's root directory unless said.
const rootMode = 0o755

func newVolumeCmd(g *global) *cobra.Command {
	return newNoun("volume", "look after volumes: file systems in the cluster",
		`A volume is a tree of files with a pool and a layout policy for new files. It
is mounted as a whole: ashlar mount CLUSTER:VOLUME DIR.`,
		`  ashlar volume list
  ashlar volume create projects`,
		newVolumeListCmd(g), newVolumeInfoCmd(g), newVolumeCreateCmd(g), newVolumeSetCmd(g), newVolumeDeleteCmd(g))
}

func newVolumeListCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the volumes",
		Long: "Lists the volumes.\n\n" + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar volume list
  ashlar volume list -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				if g.json {
					return printJSON(g.Out, st.Volumes)
				}
				printVolumes(g, st.Volumes)
				return nil
			})
		},
	}
}

func printVolumes(g *global, vs []wire.VolumeStatus) {
	var rows []table.Row
	for _, v := range vs {
		rows = append(rows, table.Row{v.Name, v.Pool, v.Inodes, size(v.Bytes), size(uint64(v.ChunkSize)), v.StripeWidth, size(uint64(v.StripeUnit))})
	}
	printTable(g.Out, table.Row{"volume", "pool", "inodes", "data", "chunk", "width", "unit"}, rows)
}

func newVolumeInfoCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "info VOLUME", Short: "show one volume",
		Long: "Shows a volume.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar volume info main
  ashlar volume info main -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				for _, v := range st.Volumes {
					if v.Name != a[0] {
						continue
					}
					if g.json {
						return printJSON(g.Out, v)
					}
					printVolumes(g, []wire.VolumeStatus{v})
					return nil
				}
				return hintf(ashlar.E("volume", ashlar.NotExist, a[0], nil), "`ashlar volume list` shows the volumes there are")
			})
		},
	}
}

type volumeOptions struct {
	chunk  string
	width  uint8
	unit   string
	pool   string
	mode   string
	uid    uint32
	gid    uint32
	rename string
	force  bool
}

func (o *volumeOptions) addPolicyFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.chunk, "chunk-size", "", "size of a chunk, a power of two from 64KiB to 64MiB (new volumes: 64MiB)")
	f.Uint8Var(&o.width, "stripe-width", 0, "placement groups a large file goes across, 1 to 8 (new volumes: 4)")
	f.StringVar(&o.unit, "stripe-unit", "", "bytes in one group before the next, a power of two (new volumes: the chunk size)")
}

// apply lays the options over a policy and checks the result.
func (o *volumeOptions) apply(p ashlar.Policy) (ashlar.Policy, error) {
	follow := p.StripeUnit == p.ChunkSize
	if o.chunk != "" {
		n, err := config.ParseSize(o.chunk)
		if err != nil || n > ashlar.ChunkSizeMax {
			return p, usagef("--chunk-size %q: want 64KiB to 64MiB", o.chunk)
		}
		p.ChunkSize = uint32(n)
		if follow {
			p.StripeUnit = p.ChunkSize
		}
	}
	if o.unit != "" {
		n, err := config.ParseSize(o.unit)
		if err != nil || n > ashlar.ChunkSizeMax {
			return p, usagef("--stripe-unit %q: want 64KiB to the chunk size", o.unit)
		}
		p.StripeUnit = uint32(n)
	}
	if o.width != 0 {
		p.StripeWidth = o.width
	}
	if err := p.Validate(); err != nil {
		return p, usagef("%v", err)
	}
	return p, nil
}

func newVolumeCreateCmd(g *global) *cobra.Command {
	var o volumeOptions
	c := &cobra.Command{
		Use: "create VOLUME", Short: "make a volume",
		Long: "Makes a volume with an empty root directory.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar volume create projects
  ashlar volume create video --pool fast --stripe-width 8`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runVolumeCreate(c.Context(), g, o, a[0]) },
	}
	o.addPolicyFlags(c)
	f := c.Flags()
	f.StringVar(&o.pool, "pool", "", `pool that holds its data ("": the default pool)`)
	f.StringVar(&o.mode, "mode", "0755", "mode of the root directory, octal")
	f.Uint32Var(&o.uid, "uid", 0, "owner of the root directory")
	f.Uint32Var(&o.gid, "gid", 0, "group of the root directory")
	return c
}

func runVolumeCreate(ctx context.Context, g *global, o volumeOptions, name string) error {
	if !config.ValidName(name) {
		return usagef("volume %q: %s", name, config.NameRule)
	}
	policy, err := o.apply(ashlar.DefaultPolicy)
	if err != nil {
		return err
	}
	var mode uint16
	if _, err := fmt.Sscanf(o.mode, "%o", &mode); err != nil || mode&^ashlar.ModeMask != 0 {
		return usagef("--mode %q: want an octal mode such as 0755", o.mode)
	}
	return g.admin(func(a *admin) error {
		err := a.createVolume(ctx, &wire.SetVolume{Name: name, Pool: o.pool, Policy: policy, Mode: mode, UID: o.uid, GID: o.gid})
		if err != nil {
			return err
		}
		g.sayf("volume %s is made; mount it with: ashlar mount %s:%s DIR", name, mountName(a.conf), name)
		return nil
	})
}

// mountName is how a cluster is named before the colon of a mount.
func mountName(c *config.Client) string {
	if c.File != "" {
		return c.File
	}
	return "CLUSTER"
}

func newVolumeSetCmd(g *global) *cobra.Command {
	var o volumeOptions
	c := &cobra.Command{
		Use: "set VOLUME", Short: "change a volume",
		Long: `Changes the name of a volume, or the layout policy for its new files: files
that are there stay as they are.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar volume set main --stripe-width 8
  ashlar volume set main --rename old`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runVolumeSet(c.Context(), g, o, a[0]) },
	}
	o.addPolicyFlags(c)
	c.Flags().StringVar(&o.rename, "rename", "", "new name")
	return c
}

func runVolumeSet(ctx context.Context, g *global, o volumeOptions, name string) error {
	layout := o.chunk != "" || o.unit != "" || o.width != 0
	if !layout && o.rename == "" {
		return usagef("nothing to set; give --rename, --chunk-size, --stripe-width or --stripe-unit")
	}
	if o.rename != "" && !config.ValidName(o.rename) {
		return usagef("volume %q: %s", o.rename, config.NameRule)
	}
	return g.admin(func(a *admin) error {
		m := &wire.SetVolume{Name: name, Update: true, Rename: o.rename}
		if layout {
			st, err := a.Status(ctx)
			if err != nil {
				return err
			}
			for _, v := range st.Volumes {
				if v.Name == name {
					m.Policy = ashlar.Policy{ChunkSize: v.ChunkSize, StripeWidth: uint8(v.StripeWidth), StripeUnit: v.StripeUnit}
				}
			}
			if m.Policy.ChunkSize == 0 {
				return hintf(ashlar.E("volume", ashlar.NotExist, name, nil), "`ashlar volume list` shows the volumes there are")
			}
			if m.Policy, err = o.apply(m.Policy); err != nil {
				return err
			}
		}
		if err := a.call(ctx, m, &wire.VolumeReply{}); err != nil {
			return err
		}
		g.sayf("volume %s is changed", name)
		return nil
	})
}

func newVolumeDeleteCmd(g *global) *cobra.Command {
	var o volumeOptions
	c := &cobra.Command{
		Use: "delete VOLUME", Short: "delete a volume",
		Long: `Deletes an empty volume, or with --force one with all that is in it; space
comes back in the background.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar volume delete tmp
  ashlar volume delete tmp --force`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.admin(func(ad *admin) error {
				err := ad.call(c.Context(), &wire.DeleteVolume{Name: a[0], Force: o.force}, nil)
				if ashlar.KindOf(err) == ashlar.NotEmpty {
					err = hintf(err, "look at what is in it with `ashlar fs ls %s:/`; --force deletes it all", a[0])
				}
				if err != nil {
					return err
				}
				g.sayf("volume %s is deleted", a[0])
				return nil
			})
		},
	}
	c.Flags().BoolVar(&o.force, "force", false, "with everything in it")
	return c
}
