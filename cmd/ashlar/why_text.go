package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// notableMax is how many placement groups are told about without --groups.
const notableMax = 10

func orWord(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

// count writes a number of things: "1 group", "3 groups".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (w *why) printFile(f *fileWhy) {
	g := w.g
	if f.Type != typeWords[ashlar.TypeFile] {
		g.sayf("%s is a %s (inode %d): the masters keep it; it has no data on disks", f.Path, f.Type, f.Inode)
		return
	}
	if len(f.Ranges) == 0 {
		g.sayf("%s is a file of %s (inode %d) without data on disks", f.Path, size(f.Size), f.Inode)
		return
	}
	g.sayf("%s: inode %d, %s in chunks of %s, striped over %s; layer %d, generation %d",
		f.Path, f.Inode, size(f.Size), size(uint64(f.ChunkSize)), count(f.Width, "placement group"), f.Layer, f.Gen)
	for i, r := range f.Ranges {
		if i >= notableMax && !w.o.groups {
			g.sayf("  and %d more: --groups lists them", len(f.Ranges)-i)
			break
		}
		g.sayf("  chunks %s (%s) are in placement group %d", shorten(r.Chunks), size(r.Bytes), r.Group)
	}
	w.printGroups(f.Explanation)
	w.printLost(f.Explanation)
}

// shortenMax is how much of a list of chunks is printed.
const shortenMax = 60

func shorten(s string) string {
	if len(s) <= shortenMax {
		return s
	}
	return s[:strings.LastIndexByte(s[:shortenMax], ',')] + ",..."
}

// notable tells whether a group is to be told about unasked.
func notable(gr *wire.GroupWhy) bool {
	return gr.State != "ok" || len(gr.Moves) > 0 || gr.IfLosesAll || gr.IfLost == "unavailable" || gr.IfLost == "read-only"
}

// stateOrder is how bad a state is, worst first.
var stateOrder = []string{"unavailable", "read-only", "at risk", "degraded", "moving", "ok"}

func (w *why) printGroups(e *wire.Explanation) {
	if len(e.Groups) == 0 {
		w.g.sayf("no placement group is there")
		return
	}
	gs := slices.Clone(e.Groups)
	slices.SortStableFunc(gs, func(a, b wire.GroupWhy) int {
		return slices.Index(stateOrder, a.State) - slices.Index(stateOrder, b.State)
	})
	if len(gs) > 1 {
		plain := make([]wire.GroupStatus, len(gs))
		for i := range gs {
			plain[i] = gs[i].GroupStatus
		}
		w.g.sayf("%s: %s", count(len(gs), "placement group"), summary(plain))
	}
	shown, skipped := 0, 0
	for i := range gs {
		if !w.o.groups && len(gs) > 1 && (!notable(&gs[i]) || shown >= notableMax) {
			if notable(&gs[i]) {
				skipped++
			}
			continue
		}
		shown++
		w.printGroup(e, &gs[i])
	}
	if skipped > 0 {
		w.g.sayf("and %d more that need attention: --groups lists all", skipped)
	}
	w.printLeft(e)
}

// sentence says what the state of a group means.
func sentence(gr *wire.GroupWhy) string {
	switch gr.State {
	case "ok":
		return fmt.Sprintf("all %d copies are there", gr.Want)
	case "moving":
		return fmt.Sprintf("all %d copies are there; data is on its way elsewhere", gr.Want)
	case "degraded":
		return fmt.Sprintf("%d of %d copies are there", gr.Copies, gr.Want)
	case "at risk":
		return fmt.Sprintf("1 of %d copies is there: it is lost if that disk is", gr.Want)
	case "read-only":
		return fmt.Sprintf("%d of %d copies are there, fewer than write-min %d: reads are served, writes wait", gr.Copies, gr.Want, gr.WriteMin)
	case "unavailable":
		if gr.Copies > 0 {
			return "its primary does not serve; another is about to take over"
		}
		return "no in-sync copy can be reached: reads and writes wait"
	}
	return ""
}

func (w *why) printGroup(e *wire.Explanation, gr *wire.GroupWhy) {
	g := w.g
	g.sayf("placement group %d of pool %s is %s: %s (epoch %d%s)", gr.ID, gr.Pool, gr.State, sentence(gr), gr.Epoch, bytesOf(gr))
	if gr.LastCopy {
		g.sayf("  its last in-sync member was restarted alone; what it has is all there is")
	}
	for _, m := range gr.Members {
		line := fmt.Sprintf("  disk %d on %s: %s", m.Disk, orWord(m.Node, "a node that is no more"), m.State)
		if m.Primary {
			line += ", primary"
		}
		if !m.Alive {
			line += ", out of reach"
		} else if n := nodeOf(e, m.Node); n != nil && n.State == "silent" {
			line += fmt.Sprintf(", silent for %s", ago(n.Silent))
		}
		for _, mv := range gr.Moves {
			if mv.Disk == m.Disk && mv.What != "missing" {
				line += "; " + moveLine(&mv)
			}
		}
		g.sayf("%s", line)
	}
	for _, mv := range gr.Moves {
		if mv.What == "missing" {
			g.sayf("  a copy is missing: %s", mv.Text)
		}
	}
	if line := ifLost(gr); line != "" {
		g.sayf("  %s", line)
	}
}

func bytesOf(gr *wire.GroupWhy) string {
	if gr.Bytes == 0 {
		return ""
	}
	return ", about " + size(gr.Bytes) + " on each disk"
}

func nodeOf(e *wire.Explanation, name string) *wire.NodeStatus {
	i := slices.IndexFunc(e.Nodes, func(n wire.NodeStatus) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &e.Nodes[i]
}

func moveLine(m *wire.MoveWhy) string {
	s := m.What + " (" + m.Why + "): " + m.Text
	if m.Left > 0 {
		s += ", " + size(m.Left) + " left"
	}
	return s
}

// ifLost says what would become of one group.
func ifLost(gr *wire.GroupWhy) string {
	switch {
	case gr.IfLost == "":
		return ""
	case gr.IfLosesAll:
		return "if lost: no in-sync copy would be left, its data would be gone"
	case gr.IfLost == "unavailable":
		return "if lost: it would stop serving until a member that is out of reach returns"
	case gr.IfLost == "read-only":
		return fmt.Sprintf("if lost: writes would wait, %d copies would be left", gr.IfCopies)
	case gr.IfLost == "at risk":
		return "if lost: it would go on, on its last copy"
	case gr.IfLost == gr.State && gr.IfCopies == gr.Copies:
		return "if lost: nothing would change"
	}
	return fmt.Sprintf("if lost: it would go on with %d copies", gr.IfCopies)
}

// printLeft sums up what is to be copied.
func (w *why) printLeft(e *wire.Explanation) {
	left, n := uint64(0), 0
	for _, gr := range e.Groups {
		for _, m := range gr.Moves {
			if m.What == "copying" {
				left += m.Left
				n++
			}
		}
	}
	switch {
	case n == 0:
	case e.Rate > 0 && left > 0:
		w.g.sayf("%s being copied, %s left; all that is copied goes at %s/s, at least %s to go", count(n, "member")+isAre(n), size(left), size(e.Rate),
			time.Duration(float64(left)/float64(e.Rate)*float64(time.Second)).Round(time.Second))
	default:
		w.g.sayf("%s being copied, %s left", count(n, "member")+isAre(n), size(left))
	}
}

func isAre(n int) string {
	if n == 1 {
		return " is"
	}
	return " are"
}

// diskWords say what the state of a disk means.
var diskWords = map[string]string{
	"ok":       "serves",
	"silent":   "counts as serving, but its node has not been heard of lately",
	"full":     "serves, but has no room: writes to it fail",
	"draining": "serves while it is being emptied",
	"drained":  "is empty and may be removed: ashlar disk remove",
	"offline":  "cannot be reached",
	"failed":   "failed and is not used any more",
}

func (w *why) printDisk(e *wire.Explanation, d *wire.DiskStatus) {
	g := w.g
	g.sayf("disk %d (%s on %s) is %s: it %s", d.ID, d.Path, orWord(d.Node, "no node"), d.State, diskWords[d.State])
	if d.Drained != "" {
		g.sayf("  it was drained by itself: %s", d.Drained)
	}
	if d.Error != "" {
		g.sayf("  error: %s", d.Error)
	}
	if n := nodeOf(e, d.Node); n != nil && n.State != "up" {
		g.sayf("  node %s is %s for %s: ashlar why node %s", n.Name, n.State, ago(n.Silent), n.Name)
	}
	if d.Age < 0 {
		g.sayf("  how full it is has not been reported to this leader")
	} else {
		g.sayf("  %s free of %s, %d chunks; %d blocks found damaged, %d of them mended (as of %s ago)",
			size(d.Free), size(d.Total), d.Chunks, d.Damaged, d.Repaired, ago(d.Age))
	}
	coming, going, left := 0, 0, uint64(0)
	for _, gr := range e.Groups {
		for _, m := range gr.Moves {
			if m.Disk != d.ID {
				continue
			}
			switch m.What {
			case "copying":
				coming++
				left += m.Left
			case "leaving":
				going++
			}
		}
	}
	if coming > 0 {
		g.sayf("  coming: %s, %s left", count(coming, "member"), size(left))
	}
	if going > 0 {
		g.sayf("  leaving: %s", count(going, "member"))
	}
}

func (w *why) printNode(e *wire.Explanation, name string) {
	n := nodeOf(e, name)
	if n == nil {
		return
	}
	line := fmt.Sprintf("node %s at %s is %s", n.Name, n.Addr, n.State)
	if n.State != "up" {
		line += " for " + ago(n.Silent)
	}
	if n.Drain {
		line += ", and being drained"
	}
	w.g.sayf("%s", line)
	for i := range e.Disks {
		if e.Disks[i].Node == name {
			w.printDisk(e, &e.Disks[i])
		}
	}
}

// printLost says what would become of everything asked about.
func (w *why) printLost(e *wire.Explanation) {
	l := e.Lost
	if l == nil {
		return
	}
	var what []string
	what = append(what, l.Nodes...)
	for _, d := range l.Disks {
		what = append(what, fmt.Sprintf("disk %d", d))
	}
	w.g.sayf("if %s were lost now, of %s:", strings.Join(what, " and "), count(l.Groups, "placement group"))
	for _, line := range []struct {
		n    int
		text string
	}{
		{l.Gone, "would lose their last in-sync copy: their data would be gone"},
		{l.Unavailable, "would not be served until a member that is out of reach returns"},
		{l.ReadOnly, "would take no writes (fewer copies than write-min)"},
		{l.AtRisk, "would go on, on their last copy"},
		{l.Degraded, "would go on, with a copy missing"},
		{l.Whole, "would keep all their copies"},
		{l.Groups - l.Touched, "have nothing there"},
		{l.Homeless, "could not be made whole again: there would be no fit disk for another copy"},
	} {
		if line.n > 0 {
			w.g.sayf("  %d %s", line.n, line.text)
		}
	}
	switch {
	case !l.Majority:
		w.g.sayf("  the masters would stand still: %d of %d would be left, %d are needed; nothing would be served until one returns", l.Left, l.Voters, l.Needed)
	case !l.HasLeader:
		w.g.sayf("  the masters would go on after electing a leader: %d of %d would be left", l.Left, l.Voters)
	default:
		w.g.sayf("  the masters would go on: %d of %d would be left", l.Left, l.Voters)
	}
}
