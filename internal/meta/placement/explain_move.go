package placement

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// What a member does that is not simply in its place (MoveWhy.What).
const (
	moveCopying = "copying"
	moveWaiting = "waiting"
	moveLeaving = "leaving"
	moveMissing = "missing"
)

// Why says in words what becomes of member i and why, "" if it is simply in
// its place.
func (e *Explainer) Why(g *Group, i int) string {
	p := e.t.v.Pool(g.Pool)
	if p == nil {
		return ""
	}
	if m := e.move(p, g, i); m != nil {
		return m.Text
	}
	return ""
}

// move says what becomes of member i and why, nil if it is simply in its
// place.
func (e *Explainer) move(p *Pool, g *Group, i int) *wire.MoveWhy {
	v, m := e.t.v, &g.Members[i]
	switch {
	case m.State == ashlar.Offline:
		return e.away(p, g, i)
	case m.State == ashlar.Syncing && p.Paused:
		return &wire.MoveWhy{What: moveWaiting, Why: "paused", Text: "it lacks changes and is not brought up to date, because repair of pool " +
			p.Name + " is paused: ashlar repair resume " + p.Name}
	case m.State == ashlar.Syncing:
		return e.copying(p, g, i)
	case !v.Serves(m.Disk):
		return e.unreached(g, i)
	case !e.t.stays(p, g, i):
		why, because := e.leaves(p, g, i)
		text := "it stays until another has its data: " + because
		if p.Paused {
			text += "; repair of the pool is paused"
		}
		return &wire.MoveWhy{What: moveLeaving, Why: why, Text: text}
	case len(g.Members) > int(p.Replicas) && !slices.ContainsFunc(g.Seats, func(s Seat) bool { return s.Leave }) && i >= int(p.Replicas):
		return &wire.MoveWhy{What: moveLeaving, Why: "replicas", Text: fmt.Sprintf("the pool asks for %d copies, and there are more", p.Replicas)}
	}
	return nil
}

// briefMax bounds what a sentence quotes of an error, so that a page of
// explanations fits a message.
const briefMax = 200

func brief(s string) string {
	if len(s) <= briefMax {
		return s
	}
	return strings.ToValidUTF8(s[:briefMax-3], "") + "..."
}

// leaves says why a seat does not stay.
func (e *Explainer) leaves(p *Pool, g *Group, i int) (why, because string) {
	v, d := e.t.v, e.t.v.Disks[g.Members[i].Disk]
	switch {
	case d == nil:
		return "lost", "the disk was removed"
	case d.Failed != "":
		return "lost", "the disk failed: " + brief(d.Failed)
	case d.Drain && d.Why != "":
		return "drain", "the disk is being emptied: " + brief(d.Why)
	case v.Draining(d.ID):
		return "drain", "an operator is emptying it"
	case !v.fits(p, d):
		return "labels", fmt.Sprintf("the disk lacks a label of pool %s (%s)", p.Name, strings.Join(p.Labels, ", "))
	case g.Seats[i].Leave:
		return "balance", "another disk is less used"
	}
	return "lost", "it is away for " + e.ago(d.Away)
}

// copying says why a member is being brought up to date.
func (e *Explainer) copying(p *Pool, g *Group, i int) *wire.MoveWhy {
	v, m, s := e.t.v, &g.Members[i], &g.Seats[i]
	out := &wire.MoveWhy{What: moveCopying}
	node, d := v.Nodes[m.Node], v.Disks[m.Disk]
	if !v.Serves(m.Disk) {
		out.What, out.Why, out.Text = moveWaiting, "lost", "it was being brought up to date and cannot be reached"
		return out
	}
	if _, up := v.Primary(g); !up {
		out.What, out.Why, out.Text = moveWaiting, "lost", "there is nobody to copy from: no in-sync member can be reached"
		return out
	}
	for j := range g.Members {
		if j == i || e.t.stays(p, g, j) {
			continue
		}
		why, because := e.leaves(p, g, j)
		out.Why, out.Text = why, fmt.Sprintf("it takes the place of disk %d: %s", g.Members[j].Disk, because)
		if why == "lost" {
			out.Why = "repair"
		}
		return out
	}
	switch {
	case s.Failures > 0:
		out.Why, out.Text = "return", fmt.Sprintf("it did not answer its primary (%d times in a row) and is brought up to date again", s.Failures)
	case node != nil && d != nil && d.Added < node.Since && s.Since >= node.Since && s.Since-node.Since < int64(RetryMax):
		out.Why, out.Text = "return", "its node came back "+e.ago(node.Since)+" ago; it receives what changed meanwhile"
	default:
		out.Why, out.Text = "repair", "it is a new copy: there were fewer than the pool asks for, "+fmt.Sprint(p.Replicas)
	}
	return out
}

// away says what an offline member waits for.
func (e *Explainer) away(p *Pool, g *Group, i int) *wire.MoveWhy {
	v, m, s := e.t.v, &g.Members[i], &g.Seats[i]
	out := &wire.MoveWhy{What: moveWaiting, Why: "lost"}
	d, n := v.Disks[m.Disk], v.Nodes[m.Node]
	switch {
	case d == nil || d.Failed != "" || v.Draining(m.Disk) && !v.Serves(m.Disk):
		_, out.Text = e.leaves(p, g, i)
	case !v.Serves(m.Disk):
		out.Text = fmt.Sprintf("the disk is not attached for %s", e.ago(d.Away))
		if n != nil && !n.Up {
			out.Text = fmt.Sprintf("node %s is down for %s", n.Name, e.ago(n.Since))
		}
		left := e.t.f.RepairTime(p) - time.Duration(e.t.f.Now-d.Away)
		if left > 0 && !p.Paused {
			out.Text += fmt.Sprintf("; another copy is made in %s unless it returns", left.Round(time.Second))
		}
	case p.Paused:
		out.Why, out.Text = "paused", "it is reached and lacks changes; repair of the pool is paused"
	case s.Failures > 0:
		out.Why = "return"
		wait := min(RetryTime<<min(s.Failures, 10), RetryMax) - time.Duration(e.t.f.Now-s.Since)
		out.Text = fmt.Sprintf("it did not answer its primary (%d times in a row) and is tried again in %s",
			s.Failures, max(0, wait).Round(time.Second))
	default:
		out.Why, out.Text = "return", "it is back and will be brought up to date"
		if _, up := v.Primary(g); !up {
			out.Text = "it is back, but there is nobody to copy from: no in-sync member can be reached"
		}
	}
	return out
}

// unreached is about an in-sync member whose disk does not serve.
func (e *Explainer) unreached(g *Group, i int) *wire.MoveWhy {
	v, m := e.t.v, &g.Members[i]
	because := "its disk is gone"
	switch d, n := v.Disks[m.Disk], v.Nodes[m.Node]; {
	case d != nil && d.Failed != "":
		because = "the disk failed: " + brief(d.Failed)
	case n != nil && !n.Up:
		because = fmt.Sprintf("node %s is down for %s: start it", n.Name, e.ago(n.Since))
	case d != nil:
		because = fmt.Sprintf("the disk is not attached for %s", e.ago(d.Away))
	}
	return &wire.MoveWhy{What: moveWaiting, Why: "lost", Text: "it has all that was acknowledged, and is waited for; " + because}
}

// missing says why a group has fewer seats than it should, nil if it has
// enough.
func (e *Explainer) missing(p *Pool, g *Group) *wire.MoveWhy {
	stay := 0
	for i := range g.Members {
		if e.t.stays(p, g, i) {
			stay++
		}
	}
	_, up := e.t.v.Primary(g)
	if stay >= int(p.Replicas) || !up {
		return nil
	}
	out := &wire.MoveWhy{What: moveMissing}
	switch {
	case p.Paused:
		out.Why, out.Text = "paused", "a copy is missing and not made, because repair of the pool is paused: ashlar repair resume "+p.Name
	case len(g.Members) >= seatsMax:
		out.Why, out.Text = "room", "members must be brought up to date before there is room for others"
	case len(e.t.candidates(p, g, -1)) > 0:
		out.Why, out.Text = "repair", "another copy is about to be made"
	default:
		out.Why = "room"
		out.Text = fmt.Sprintf("no disk is fit for another copy: it takes one that is up, not full, not draining, on another %s than the copies there are", p.Domain)
		if len(p.Labels) > 0 {
			out.Text += ", with the labels " + strings.Join(p.Labels, ", ")
		}
		out.Text += "; add one, or ask for fewer copies: ashlar pool set " + p.Name + " --replicas N"
	}
	return out
}
