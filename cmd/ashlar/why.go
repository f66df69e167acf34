package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/fusefs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// whyNouns are what can be asked about beside a path; each takes one name. An
// image will be one more.
var whyNouns = map[string]func(context.Context, *why, string) error{
	"pg": whyGroup, "disk": whyDisk, "node": whyNode,
}

const whyUsage = "ask about VOLUME:/PATH, a path on a mounted volume, pg NUMBER, disk NUMBER or node NAME; or with --if-lost about nothing, for all"

type whyOptions struct {
	lost   []string
	groups bool
}

func newWhyCmd(g *global) *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:   "why [VOLUME:/PATH | PATH | pg NUMBER | disk NUMBER | node NAME]",
		Short: "explain where data is, why it is so, and what a loss would do",
		Long: `Explains where the data of a file, a placement group, a disk or a node is: who
has copies, in which state, who is primary, what is being copied or moved and
why (a lost node, a drain, balance, another number of copies, a member that
returned), and how much is left.

A file is named VOLUME:/path, or by its path on a mounted volume.

With --if-lost, a node's name or a disk's number, as often as needed, it tells what
would happen if these were lost now: what would stop being served, what would
be on its last copy, what would be lost, and whether the masters would go on.
Without anything else, for all data.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar why main:/video.mp4
  ashlar why pg 12
  ashlar why disk 3 --groups
  ashlar why --if-lost n2 --if-lost 5
  ashlar why /mnt/main/video.mp4 --if-lost n1 -json`,
		Args:              args(0, 2),
		ValidArgsFunction: g.completeWhy,
		RunE:              func(c *cobra.Command, a []string) error { return runWhy(c.Context(), g, o, a) },
	}
	c.Flags().StringSliceVar(&o.lost, "if-lost", nil, "suppose that a node (its name) or a disk (its number) is lost now")
	c.Flags().BoolVar(&o.groups, "groups", false, "list every placement group, not only those that need attention")
	return c
}

// why is one question.
type why struct {
	g *global
	o whyOptions
	q wire.Explain // what is supposed lost
}

func runWhy(ctx context.Context, g *global, o whyOptions, a []string) error {
	w := &why{g: g, o: o}
	for _, l := range o.lost {
		if n, err := strconv.ParseUint(l, 10, 32); err == nil && n > 0 {
			w.q.LostDisks = append(w.q.LostDisks, ashlar.DiskID(n))
			continue
		}
		if !config.ValidName(l) {
			return usagef("--if-lost %q: want the name of a node or the number of a disk", l)
		}
		w.q.LostNodes = append(w.q.LostNodes, l)
	}
	if len(w.q.LostNodes) > wire.ExplainLostMax || len(w.q.LostDisks) > wire.ExplainLostMax {
		return usagef("--if-lost: at most %d nodes and %d disks", wire.ExplainLostMax, wire.ExplainLostMax)
	}
	switch {
	case len(a) == 0 && len(o.lost) == 0:
		return usagef("%s", whyUsage)
	case len(a) == 0:
		return whyAll(ctx, w)
	case len(a) == 2:
		ask, ok := whyNouns[a[0]]
		if !ok {
			return usagef("%q cannot be asked about; %s", a[0], whyUsage)
		}
		return ask(ctx, w, a[1])
	}
	if _, ok := whyNouns[a[0]]; ok {
		return usagef("which %s? %s", a[0], whyUsage)
	}
	return whyPath(ctx, w, a[0])
}

// explain asks the leader, as often as it takes to have every group.
func (w *why) explain(ctx context.Context, q wire.Explain) (e *wire.Explanation, err error) {
	q.LostNodes, q.LostDisks = w.q.LostNodes, w.q.LostDisks
	err = w.g.admin(func(a *admin) error {
		parts := slices.Collect(slices.Chunk(q.Groups, wire.ExplainMax))
		if len(parts) == 0 {
			parts = append(parts, nil)
		}
		for _, part := range parts {
			q.Groups, q.After = part, 0
			for more := true; more; {
				var r wire.ExplainReply
				if err := a.call(ctx, &q, &r); err != nil {
					return err
				}
				got, err := r.Get()
				if err != nil {
					return err
				}
				e = joinWhy(e, got, q.After > 0)
				if more = got.More && len(got.Groups) > 0; more {
					q.After = ashlar.PGID(got.Groups[len(got.Groups)-1].ID)
				}
			}
		}
		return nil
	})
	if e != nil {
		e.More = false
	}
	return e, err
}

// joinWhy puts answers together. A further page repeats the sum of the first;
// the answer to another part of the question has its own.
func joinWhy(e, more *wire.Explanation, page bool) *wire.Explanation {
	if e == nil {
		return more
	}
	e.Groups = append(e.Groups, more.Groups...)
	for _, d := range more.Disks {
		if !slices.ContainsFunc(e.Disks, func(o wire.DiskStatus) bool { return o.ID == d.ID }) {
			e.Disks = append(e.Disks, d)
		}
	}
	for _, n := range more.Nodes {
		if !slices.ContainsFunc(e.Nodes, func(o wire.NodeStatus) bool { return o.ID == n.ID }) {
			e.Nodes = append(e.Nodes, n)
		}
	}
	if l := more.Lost; l != nil && e.Lost != nil && !page {
		t := e.Lost
		t.Groups, t.Touched, t.Gone, t.Unavailable = t.Groups+l.Groups, t.Touched+l.Touched, t.Gone+l.Gone, t.Unavailable+l.Unavailable
		t.ReadOnly, t.AtRisk, t.Degraded, t.Whole = t.ReadOnly+l.ReadOnly, t.AtRisk+l.AtRisk, t.Degraded+l.Degraded, t.Whole+l.Whole
		t.Homeless += l.Homeless
	}
	return e
}

func whyAll(ctx context.Context, w *why) error {
	e, err := w.explain(ctx, wire.Explain{})
	if err != nil || w.g.json {
		return w.answer(e, err)
	}
	w.printGroups(e)
	w.printLost(e)
	return nil
}

// answer prints an explanation as JSON, or returns the error.
func (w *why) answer(v any, err error) error {
	if err != nil {
		return err
	}
	return printJSON(w.g.Out, v)
}

func whyGroup(ctx context.Context, w *why, arg string) error {
	n, err := strconv.ParseUint(arg, 10, 32)
	if err != nil || n == 0 {
		return usagef("%q is not the number of a placement group; `ashlar status --groups` lists them", arg)
	}
	e, err := w.explain(ctx, wire.Explain{Groups: []ashlar.PGID{ashlar.PGID(n)}})
	if err != nil || w.g.json {
		return w.answer(e, err)
	}
	w.o.groups = true
	w.printGroups(e)
	w.printLost(e)
	return nil
}

func whyDisk(ctx context.Context, w *why, arg string) error {
	id, err := parseDisk(arg)
	if err != nil {
		return err
	}
	e, err := w.explain(ctx, wire.Explain{Disk: id})
	if err != nil || w.g.json {
		return w.answer(e, err)
	}
	for _, d := range e.Disks {
		if d.ID == uint32(id) {
			w.printDisk(e, &d)
		}
	}
	w.printGroups(e)
	w.printLost(e)
	return nil
}

func whyNode(ctx context.Context, w *why, arg string) error {
	if arg == "" || len(arg) > ashlar.NameMax {
		return usagef("%q is not the name of a node; `ashlar node list` shows them", arg)
	}
	e, err := w.explain(ctx, wire.Explain{Node: arg})
	if err != nil || w.g.json {
		return w.answer(e, err)
	}
	w.printNode(e, arg)
	w.printGroups(e)
	w.printLost(e)
	return nil
}

// fileWhy is what is printed of a file as JSON.
type fileWhy struct {
	Path      string       `json:"path"`
	Inode     ashlar.Inode `json:"inode"`
	Type      string       `json:"type"`
	Size      uint64       `json:"size"`
	Layer     uint64       `json:"layer"`
	Gen       uint64       `json:"generation"`
	ChunkSize uint32       `json:"chunk_size"`
	Width     int          `json:"stripe_width"`
	Ranges    []rangeWhy   `json:"ranges"` // by placement group
	*wire.Explanation
}

// typeWords are what files are called.
var typeWords = map[ashlar.FileType]string{
	ashlar.TypeFile: "file", ashlar.TypeDir: "directory", ashlar.TypeSymlink: "symbolic link", ashlar.TypeFIFO: "fifo",
	ashlar.TypeChar: "character device", ashlar.TypeBlock: "block device", ashlar.TypeSocket: "socket",
}

// rangeWhy is what one group has of a file.
type rangeWhy struct {
	Group  ashlar.PGID `json:"group"`
	Chunks string      `json:"chunks"` // "0-3,8"
	Bytes  uint64      `json:"bytes"`
}

func whyPath(ctx context.Context, w *why, arg string) error {
	text, err := w.locate(arg)
	if err != nil {
		return err
	}
	var info *client.Info
	err = w.g.at(ctx, text, func(v *client.Volume, r remote) (err error) {
		info, err = v.Info(r.name)
		return hintf(err, "`ashlar fs ls %s` shows what there is", orWord(r.volume, "VOLUME")+":/")
	})
	if err != nil {
		return err
	}
	f := &fileWhy{
		Path: arg, Inode: info.Attr.Inode, Type: typeWords[info.Attr.Type], Size: info.Attr.Size, Layer: uint64(info.Layer),
		Gen: uint64(info.Gen), ChunkSize: info.Layout.ChunkSize, Ranges: rangesOf(info), Explanation: &wire.Explanation{},
	}
	for _, s := range info.Layout.Segments {
		f.Width = max(f.Width, len(s.Groups))
	}
	q := wire.Explain{}
	for _, r := range f.Ranges {
		q.Groups = append(q.Groups, r.Group)
	}
	if len(q.Groups) > 0 {
		if f.Explanation, err = w.explain(ctx, q); err != nil {
			return err
		}
	}
	if w.g.json {
		return printJSON(w.g.Out, f)
	}
	w.printFile(f)
	return nil
}

// locate turns a path on a mounted volume into VOLUME:/path, of the cluster
// that the mount names.
func (w *why) locate(arg string) (string, error) {
	if _, ok := parseRemote(arg); ok {
		return arg, nil
	}
	source, inside, ok, err := fusefs.Where(arg)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", usagef("%q is on no mounted Ashlar volume; %s", arg, whyUsage)
	}
	cluster, volume, err := splitDevice(source)
	if err != nil {
		return "", usagef("%q is on a mount that does not name its volume (%q, by -o fsname); write VOLUME:/PATH", arg, source)
	}
	if cluster != "" {
		w.g.cluster = cluster
	}
	return volume + ":" + inside, nil
}

// rangesOf groups a file's chunks by where they are.
func rangesOf(info *client.Info) []rangeWhy {
	out := []rangeWhy{}
	at := map[ashlar.PGID]int{}
	chunks := map[ashlar.PGID][]uint32{}
	for _, c := range info.Chunks {
		i, ok := at[c.Group]
		if !ok {
			i = len(out)
			at[c.Group] = i
			out = append(out, rangeWhy{Group: c.Group})
		}
		out[i].Bytes += uint64(c.Len)
		chunks[c.Group] = append(chunks[c.Group], c.Index)
	}
	for i := range out {
		out[i].Chunks = spans(chunks[out[i].Group])
	}
	return out
}

// spans writes numbers in order as "0-3,8".
func spans(ns []uint32) string {
	var out []string
	for i := 0; i < len(ns); {
		j := i
		for j+1 < len(ns) && ns[j+1] == ns[j]+1 {
			j++
		}
		s := fmt.Sprint(ns[i])
		if j > i {
			s += fmt.Sprintf("-%d", ns[j])
		}
		out = append(out, s)
		i = j + 1
	}
	return strings.Join(out, ",")
}

// completeTimeout is how long the shell may wait for names.
const completeTimeout = 2 * time.Second

// completeWhy offers nouns, then the names there are.
func (g *global) completeWhy(c *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(a) == 0 {
		return []string{"pg", "disk", "node"}, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
	defer cancel()
	var out []string
	_ = g.withStatus(ctx, func(st *wire.Status) error { // without an answer there is nothing to offer
		switch a[0] {
		case "pg":
			for _, x := range st.Groups {
				out = append(out, fmt.Sprint(x.ID))
			}
		case "disk":
			for _, x := range st.Disks {
				out = append(out, fmt.Sprint(x.ID))
			}
		case "node":
			for _, x := range st.Nodes {
				out = append(out, x.Name)
			}
		}
		return nil
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}
