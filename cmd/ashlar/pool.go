package main

import (
	"context"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func newPoolCmd(g *global) *cobra.Command {
	return newNoun("pool", "look after pools: disks, copies and failure domains",
		`A pool says which disks hold data (by label), how many copies there are and
what two copies must not share: a disk, a node or a rack. Volumes are in pools;
a new cluster has one, named "default".`,
		`  ashlar pool list
  ashlar pool create fast --replicas 3 --labels ssd`,
		newPoolListCmd(g), newPoolInfoCmd(g), newPoolCreateCmd(g), newPoolSetCmd(g), newPoolDeleteCmd(g))
}

func newPoolListCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the pools",
		Long: "Lists the pools.\n\n" + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar pool list
  ashlar pool list -json`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return g.withStatus(c.Context(), func(st *wire.Status) error {
				if g.json {
					return printJSON(g.Out, st.Pools)
				}
				printPools(g, st.Pools)
				return nil
			})
		},
	}
}

func printPools(g *global, ps []wire.PoolStatus) {
	var rows []table.Row
	for _, p := range ps {
		rows = append(rows, table.Row{p.Name, p.Replicas, p.WriteMin, p.Domain, strings.Join(p.Labels, ","), p.Groups})
	}
	printTable(g.Out, table.Row{"pool", "copies", "write-min", "domain", "labels", "groups"}, rows)
}

func newPoolInfoCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "info POOL", Short: "show one pool and its placement groups",
		Long: "Shows a pool and every placement group in it.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar pool info default
  ashlar pool info default -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error { return runPoolInfo(c.Context(), g, a[0]) },
	}
}

func runPoolInfo(ctx context.Context, g *global, name string) error {
	return g.withStatus(ctx, func(st *wire.Status) error {
		for _, p := range st.Pools {
			if p.Name != name {
				continue
			}
			in := []wire.GroupStatus{}
			for _, gr := range st.Groups {
				if gr.Pool == name {
					in = append(in, gr)
				}
			}
			if g.json {
				return printJSON(g.Out, struct {
					wire.PoolStatus
					In []wire.GroupStatus `json:"placement_groups"`
				}{p, in})
			}
			printPools(g, []wire.PoolStatus{p})
			g.sayf("\nRepair: %s", repairLine(p.Repair))
			g.sayf("\nPlacement groups: %s", summary(in))
			printGroups(g, in)
			return nil
		}
		return hintf(ashlar.E("pool", ashlar.NotExist, name, nil), "`ashlar pool list` shows the pools there are")
	})
}

type poolOptions struct {
	replicas uint8
	writeMin uint8
	domain   string
	labels   []string
	limit    string
	after    time.Duration
}

func (o *poolOptions) addFlags(c *cobra.Command, creating bool) {
	f := c.Flags()
	def := uint8(0)
	if creating {
		def = config.DefaultReplicas
	}
	f.Uint8Var(&o.replicas, "replicas", def, "copies of everything, 1 to 5")
	f.Uint8Var(&o.writeMin, "write-min", 0, "fewest copies a write needs to be acknowledged (new pools: 1)")
	f.StringVar(&o.domain, "domain", "", "what two copies must not share: disk, node or rack (new pools: node)")
	f.StringVar(&o.limit, "repair-bandwidth", "", "bytes a second each node may send for repair and movement, as 50MiB, or default (200MiB)")
	f.DurationVar(&o.after, "repair-after", 0, "absence after which copies are made elsewhere (default: as configured, 10m)")
	f.StringSliceVar(&o.labels, "labels", nil, "labels a disk must have to be used, separated by commas")
}

// message checks the options and makes the request.
func (o *poolOptions) message(name string) (*wire.SetPool, error) {
	m := &wire.SetPool{Name: name, Replicas: o.replicas, WriteMin: o.writeMin, Labels: o.labels}
	if !config.ValidName(name) {
		return nil, usagef("pool %q: %s", name, config.NameRule)
	}
	if o.replicas > ashlar.ReplicasMax {
		return nil, usagef("--replicas %d: want 1 to %d", o.replicas, ashlar.ReplicasMax)
	}
	if o.replicas > 0 && o.writeMin > o.replicas {
		return nil, usagef("--write-min %d is more than the %d copies there are", o.writeMin, o.replicas)
	}
	if err := o.repair(m); err != nil {
		return nil, err
	}
	if o.domain != "" {
		d, ok := ashlar.ParseDomain(o.domain)
		if !ok {
			return nil, usagef("--domain %q: want disk, node or rack", o.domain)
		}
		m.Domain = d
	}
	for _, l := range o.labels {
		if !config.ValidName(l) {
			return nil, usagef("label %q: %s", l, config.NameRule)
		}
	}
	return m, nil
}

// repair sets what the options say of repair.
func (o *poolOptions) repair(m *wire.SetPool) error {
	if o.after < 0 || o.after > 0 && o.after < time.Second {
		return usagef("--repair-after %v: want at least 1s", o.after)
	}
	m.RepairAfter = uint64(o.after.Milliseconds())
	switch o.limit {
	case "":
		return nil
	case "default":
		m.RepairBytes = wire.RepairDefault
		return nil
	}
	n, err := config.ParseSize(o.limit)
	if err != nil || n == 0 {
		return usagef("--repair-bandwidth %q: want bytes a second, as 50MiB, or default; to stop repair use `ashlar repair pause`", o.limit)
	}
	m.RepairBytes = n
	return nil
}

func newPoolCreateCmd(g *global) *cobra.Command {
	var o poolOptions
	c := &cobra.Command{
		Use: "create POOL", Short: "make a pool",
		Long: "Makes a pool. Its placement groups appear as soon as disks match.\n\n" + exits(exitOK, exitFailed, exitUsage, exitUnavailable),
		Example: `  ashlar pool create fast --replicas 3 --labels ssd
  ashlar pool create scratch --replicas 1`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			m, err := o.message(a[0])
			if err != nil {
				return err
			}
			if m.Domain == 0 {
				m.Domain = ashlar.DomainNode
			}
			if m.WriteMin == 0 {
				m.WriteMin = 1
			}
			return sendPool(c.Context(), g, m, "made")
		},
	}
	o.addFlags(c, true)
	return c
}

func sendPool(ctx context.Context, g *global, m *wire.SetPool, done string) error {
	return g.admin(func(a *admin) error {
		if err := a.call(ctx, m, nil); err != nil {
			return err
		}
		g.sayf("pool %s is %s", m.Name, done)
		return nil
	})
}

func newPoolSetCmd(g *global) *cobra.Command {
	var o poolOptions
	c := &cobra.Command{
		Use: "set POOL", Short: "change a pool",
		Long: `Changes what is given and leaves the rest. Copies are made or dropped in the
background; "ashlar status --wait" waits for it.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar pool set default --replicas 3
  ashlar pool set default --repair-bandwidth 50MiB --repair-after 30m`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			m, err := o.message(a[0])
			if err != nil {
				return err
			}
			m.Update, m.Relabel = true, c.Flags().Changed("labels")
			if m.Replicas == 0 && m.WriteMin == 0 && m.Domain == 0 && m.RepairBytes == 0 && m.RepairAfter == 0 && !m.Relabel {
				return usagef("nothing to set; give --replicas, --write-min, --domain, --labels, --repair-bandwidth or --repair-after")
			}
			return sendPool(c.Context(), g, m, "changed")
		},
	}
	o.addFlags(c, false)
	return c
}

func newPoolDeleteCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete POOL", Short: "delete a pool that no volume uses",
		Long: "Deletes a pool. It is refused while a volume uses it.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar pool delete scratch
  ashlar volume delete tmp --force && ashlar pool delete scratch`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.admin(func(ad *admin) error {
				err := ad.call(c.Context(), &wire.DeletePool{Name: a[0]}, nil)
				if ashlar.KindOf(err) == ashlar.Busy {
					err = hintf(err, "`ashlar volume list` shows which volumes are in it")
				}
				if err != nil {
					return err
				}
				g.sayf("pool %s is deleted", a[0])
				return nil
			})
		},
	}
}
