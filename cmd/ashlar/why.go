package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/wire"
)

type whyOptions struct {
	ifLost []string
}

func newWhyCmd(g *global) *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:   "why PATH | pg N | disk N | node NAME",
		Short: "explain where data is, in what state, and what is being moved and why",
		Long: `Explains where something is, in what state it is, what is being copied or moved
and why, how much is left, and with --if-lost what would happen if a node or
disk died now: what would stop, what would have one copy, what would be gone.

  PATH       a file: VOLUME:/path, or a path on a mounted volume
  pg N       a placement group
  disk N     a disk
  node NAME  a node

--if-lost takes the name of a node or the number of a disk, and may be given
several times: they are lost together.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar why main:/projects/plan.txt --if-lost n2
  ashlar why disk 3`,
		Args: args(1, 2),
		RunE: func(c *cobra.Command, a []string) error { return runWhy(c.Context(), g, o, a) },
	}
	c.Flags().StringArrayVar(&o.ifLost, "if-lost", nil, "tell what would happen if this node or disk died now")
	return c
}

// why is what is explained: some placement groups, and what they are of.
type why struct {
	Subject string             `json:"subject"`
	Facts   []string           `json:"facts"`
	Places  []place            `json:"places,omitempty"` // of a file
	Groups  []wire.GroupStatus `json:"placement_groups"`
	IfLost  *client.Loss       `json:"if_lost,omitempty"`
	Lost    []string           `json:"lost,omitempty"`
}

// place is one group that holds chunks of a file.
type place struct {
	Group  ashlar.PGID `json:"group"`
	Chunks []uint32    `json:"chunks"` // ascending
}

func runWhy(ctx context.Context, g *global, o whyOptions, a []string) error {
	if len(a) == 1 {
		return whyPath(ctx, g, o, a[0])
	}
	return g.withStatus(ctx, func(st *wire.Status) error {
		w, err := whyNoun(st, a[0], a[1])
		if err != nil {
			return err
		}
		return w.tell(g, st, o)
	})
}

// whyNoun explains what is named by a noun and a number or name.
func whyNoun(st *wire.Status, noun, name string) (*why, error) {
	n, err := strconv.ParseUint(name, 10, 32)
	switch noun {
	case "pg":
		if err != nil {
			return nil, usagef("%q is not the number of a placement group; `ashlar status --groups` lists them", name)
		}
		return whyGroup(st, uint32(n))
	case "disk":
		if err != nil {
			return nil, usagef("%q is not the number of a disk; `ashlar disk list` shows them", name)
		}
		return whyDisk(st, uint32(n))
	case "node":
		return whyNode(st, name)
	}
	return nil, usagef("cannot explain %q; there are: a path, pg N, disk N, node NAME", noun)
}

func whyGroup(st *wire.Status, id uint32) (*why, error) {
	for _, gr := range st.Groups {
		if gr.ID == id {
			return &why{
				Subject: fmt.Sprintf("placement group %d of pool %s", id, gr.Pool),
				Facts:   []string{fmt.Sprintf("epoch %d", gr.Epoch)}, Groups: []wire.GroupStatus{gr},
			}, nil
		}
	}
	return nil, hintf(ashlar.E("pg", ashlar.NotExist, fmt.Sprint(id), nil), "there are %d; `ashlar status --groups` lists them", len(st.Groups))
}

// onDisk returns the groups with a seat on one of some disks.
func onDisk(st *wire.Status, has func(*wire.MemberStatus) bool) (out []wire.GroupStatus) {
	for _, gr := range st.Groups {
		if slices.ContainsFunc(gr.Members, func(m wire.MemberStatus) bool { return has(&m) }) {
			out = append(out, gr)
		}
	}
	return out
}

func whyDisk(st *wire.Status, id uint32) (*why, error) {
	for _, d := range st.Disks {
		if d.ID != id {
			continue
		}
		w := &why{
			Subject: fmt.Sprintf("disk %d, %s on node %s", id, d.Path, d.Node),
			Groups:  onDisk(st, func(m *wire.MemberStatus) bool { return m.Disk == id }),
		}
		w.Facts = append(w.Facts, "state: "+d.State, fmt.Sprintf("%d chunks, %s free of %s", d.Chunks, size(d.Free), size(d.Total)))
		if d.Error != "" {
			w.Facts = append(w.Facts, "it failed: "+d.Error)
		}
		if d.Damaged > 0 {
			w.Facts = append(w.Facts, fmt.Sprintf("%d damaged blocks were found on it since it was opened, %d were mended", d.Damaged, d.Repaired))
		}
		coming, left := 0, uint64(0)
		for _, gr := range w.Groups {
			for _, m := range gr.Members {
				if m.Disk == id && m.State == ashlar.Syncing.String() {
					coming++
					left += m.Left
				}
			}
		}
		if coming > 0 {
			w.Facts = append(w.Facts, fmt.Sprintf("%d groups are being copied to it, about %s to go", coming, size(left)))
		}
		return w, nil
	}
	return nil, hintf(ashlar.E("disk", ashlar.NotExist, fmt.Sprint(id), nil), "`ashlar disk list` shows the disks there are")
}

func whyNode(st *wire.Status, name string) (*why, error) {
	w := &why{Subject: "node " + name, Groups: onDisk(st, func(m *wire.MemberStatus) bool { return m.Node == name })}
	known := false
	for _, n := range st.Nodes {
		if n.Name == name {
			known = true
			state := "up"
			if !n.Alive {
				state = "down"
			}
			w.Facts = append(w.Facts, fmt.Sprintf("chunkserver at %s is %s, last heard of %.1f s ago", n.Addr, state, n.Silent))
		}
	}
	for _, m := range st.Masters {
		if m.Name == name {
			known = true
			role := "follower"
			if m.Leader {
				role = "leader"
			}
			w.Facts = append(w.Facts, fmt.Sprintf("master at %s is %s, %s", m.Addr, upOrDown(m.Alive), role))
		}
	}
	if !known {
		return nil, hintf(ashlar.E("node", ashlar.NotExist, name, nil), "`ashlar node list` shows the nodes there are")
	}
	return w, nil
}

// whyPath explains a file, named in a volume or on a mount.
func whyPath(ctx context.Context, g *global, o whyOptions, arg string) error {
	r, ok := parseRemote(arg)
	inode := ashlar.Inode(0)
	if !ok {
		source, ino, err := mountedFile(arg)
		if err != nil {
			return err
		}
		file, volume, _ := cutLast(source, ":")
		r, inode = remote{volume: volume, text: arg}, ino
		if g.cluster == "" {
			g.cluster = file
		}
	}
	return g.files(ctx, func(f *files) error {
		v, err := f.volume(ctx, r)
		if err != nil {
			return err
		}
		var where *client.Info
		if inode != 0 {
			where, err = v.InfoInode(inode)
		} else {
			where, err = v.Info(r.name)
		}
		if err != nil {
			return err
		}
		st, err := f.c.Status(ctx)
		if err != nil {
			return err
		}
		return whyFile(v.Name(), arg, where, st).tell(g, st, o)
	})
}

// whyFile explains a file of a volume.
func whyFile(volume, name string, where *client.Info, st *wire.Status) *why {
	a := &where.Attr
	w := &why{Subject: fmt.Sprintf("%s, inode %d of volume %s", name, a.Inode, volume), Groups: []wire.GroupStatus{}}
	if a.Type != ashlar.TypeFile {
		w.Facts = []string{"it has no data of its own: names and attributes are with all masters"}
		return w
	}
	for _, ch := range where.Chunks {
		i := slices.IndexFunc(w.Places, func(p place) bool { return p.Group == ch.Group })
		if i < 0 {
			i = len(w.Places)
			w.Places = append(w.Places, place{Group: ch.Group})
		}
		w.Places[i].Chunks = append(w.Places[i].Chunks, ch.Index)
	}
	for _, gr := range st.Groups {
		if slices.ContainsFunc(w.Places, func(p place) bool { return uint32(p.Group) == gr.ID }) {
			w.Groups = append(w.Groups, gr)
		}
	}
	w.Facts = []string{fmt.Sprintf("%s in %d chunks of up to %s, in %d placement groups",
		size(a.Size), len(where.Chunks), size(uint64(where.Layout.ChunkSize)), len(w.Places))}
	if a.Size == 0 {
		w.Facts = []string{"it is empty"}
	}
	return w
}

// mountedFile returns the source of the mount that a local path is on, and the
// file's inode.
func mountedFile(path string) (source string, inode ashlar.Inode, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", 0, err
	}
	fi, err := os.Lstat(abs)
	if err != nil {
		return "", 0, hintf(err, "name a file as VOLUME:/path, or a path on a mounted volume")
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", 0, errors.New("no inode number")
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	best := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 36 35 98:0 /root /mount/point options - type source options
		w := strings.Fields(sc.Text())
		i := slices.Index(w, "-")
		if i < 5 || i+2 >= len(w) {
			continue
		}
		at := w[4]
		if (abs == at || strings.HasPrefix(abs, strings.TrimSuffix(at, "/")+"/")) && len(at) >= len(best) {
			best, source = at, ""
			if w[i+1] == "fuse.ashlar" {
				source = w[i+2]
			}
		}
	}
	if source == "" {
		return "", 0, usagef("%s is not on a volume of Ashlar but on %s; name a file as VOLUME:/path", path, best)
	}
	return source, ashlar.Inode(st.Ino), nil
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// whyGroupsShown is how many groups are described one by one; of more, those
// in a bad state come first and the rest are counted.
const whyGroupsShown = 12

// tell prints an explanation.
func (w *why) tell(g *global, st *wire.Status, o whyOptions) error {
	if err := w.ifLost(st, o.ifLost); err != nil {
		return err
	}
	if g.json {
		return printJSON(g.Out, w)
	}
	g.sayf("%s", w.Subject)
	for _, f := range w.Facts {
		g.sayf("  %s", f)
	}
	groups := slices.Clone(w.Groups)
	slices.SortStableFunc(groups, func(a, b wire.GroupStatus) int { return stateRank(b.State) - stateRank(a.State) })
	if len(groups) > 0 {
		g.sayf("  placement groups: %s", summary(groups))
	}
	for i := range groups {
		if i >= whyGroupsShown {
			g.sayf("  and %d more; -json lists all", len(groups)-i)
			break
		}
		w.tellGroup(g, &groups[i])
	}
	w.tellLoss(g)
	return nil
}

// stateRank orders the states of groups, worst highest.
func stateRank(state string) int {
	return slices.Index([]string{"ok", "moving", "degraded", "at risk", "read-only", "unavailable"}, state)
}

func (w *why) tellGroup(g *global, gr *wire.GroupStatus) {
	chunks := ""
	for _, p := range w.Places {
		if uint32(p.Group) == gr.ID {
			chunks = ", chunks " + ranges(p.Chunks)
		}
	}
	g.sayf("  pg %d, %s%s", gr.ID, gr.State, chunks)
	for _, m := range gr.Members {
		line := fmt.Sprintf("disk %d on %s: %s", m.Disk, m.Node, m.State)
		if m.Primary {
			line += ", primary"
		}
		if !m.Alive {
			line += ", not reachable"
		}
		if m.Left > 0 {
			line += fmt.Sprintf(", about %s to go", size(m.Left))
		}
		if m.Why != "" {
			line += ": " + m.Why
		}
		g.sayf("    %s", line)
	}
}

// ranges writes ascending numbers as "0-3, 5".
func ranges(ns []uint32) string {
	var out []string
	for i := 0; i < len(ns); {
		j := i
		for j+1 < len(ns) && ns[j+1] == ns[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprint(ns[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", ns[i], ns[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}

// ifLost works out what the loss of nodes and disks would do.
func (w *why) ifLost(st *wire.Status, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var nodes []string
	var disks []uint32
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			disks = append(disks, uint32(n))
		} else {
			nodes = append(nodes, name)
		}
	}
	in := map[uint32]bool{}
	for _, gr := range w.Groups {
		in[gr.ID] = true
	}
	loss, err := client.IfLost(st, nodes, disks, func(id uint32) bool { return in[id] })
	if err != nil {
		return hintf(err, "--if-lost takes the name of a node (`ashlar node list`) or the number of a disk (`ashlar disk list`)")
	}
	w.IfLost, w.Lost = loss, names
	return nil
}

func (w *why) tellLoss(g *global) {
	l := w.IfLost
	if l == nil {
		return
	}
	g.sayf("if %s died now:", strings.Join(w.Lost, " and "))
	say := func(ids []uint32, what string) {
		if len(ids) > 0 {
			g.sayf("  %d of these groups %s: %s", len(ids), what, ranges(ids))
		}
	}
	stopped := slices.DeleteFunc(slices.Clone(l.Unavailable), func(id uint32) bool { return slices.Contains(l.Gone, id) })
	say(l.Gone, "would lose their last whole copy")
	say(stopped, "would wait for a member that is away")
	say(l.OneCopy, "would go on with one copy")
	say(l.Fewer, "would go on with fewer copies than their pool asks for")
	if l.Whole > 0 {
		g.sayf("  %d of these groups would not notice", l.Whole)
	}
	switch {
	case l.Quorum && l.MastersLeft == l.Masters:
	case l.Quorum:
		g.sayf("  %d of %d masters would be left, a majority: the cluster goes on", l.MastersLeft, l.Masters)
	default:
		g.sayf("  %d of %d masters would be left: the cluster would stand still until one is back", l.MastersLeft, l.Masters)
	}
}
