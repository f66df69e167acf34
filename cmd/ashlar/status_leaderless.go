package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const (
	// statusTimeout is how long status waits for a leader: an election, and
	// another if the first fails.
	statusTimeout = 8 * time.Second
	// probeTimeout is how long one master may take to say whom it follows.
	probeTimeout = 2 * time.Second
)

// masterWord is what one master says when there is no leader that answers.
type masterWord struct {
	Name    string `json:"name,omitempty"`
	Addr    string `json:"addr"`
	Answers bool   `json:"alive"`
	Leader  string `json:"follows,omitempty"` // the address that it takes for the leader's
	Term    uint64 `json:"term,omitempty"`
	Error   string `json:"error,omitempty"`
	learner bool
}

// leaderlessStatus is what status prints as JSON when no leader answers. It
// has the fields of a Status that can be told, so that whoever reads a Status
// can read it.
type leaderlessStatus struct {
	Health   string       `json:"health"`
	Problems []wire.Risk  `json:"problems"`
	Leader   string       `json:"leader"` // empty: nobody who is followed answers
	Masters  []masterWord `json:"masters"`
	Needed   int          `json:"masters_needed"`
}

// leaderless says what can be said without a leader, and fails with the exit
// status of an unreachable cluster.
func leaderless(ctx context.Context, g *global, a *admin, cause error) error {
	s := judge(a.probe(ctx), cause)
	if g.json {
		if err := printJSON(g.Out, s); err != nil {
			return err
		}
		return exitError{exitUnavailable, errors.New("")}
	}
	g.sayf("health: %s", s.Health)
	for _, p := range s.Problems {
		g.sayf("  %s: %s\n    %s", p.Severity, p.What, p.Next)
	}
	g.sayf("\nMasters")
	var rows []table.Row
	for _, m := range s.Masters {
		state, leader := "no answer: "+m.Error, ""
		if m.Answers {
			state, leader = fmt.Sprintf("answers, term %d", m.Term), orWord(m.Leader, "nobody")
		}
		rows = append(rows, table.Row{orWord(m.Name, "?"), m.Addr, leader, state})
	}
	printTable(g.Out, table.Row{"name", "address", "follows", "state"}, rows)
	return exitError{exitUnavailable, errors.New("")}
}

// probe asks every master that is known whom it follows, and those that they
// name, at once.
func (a *admin) probe(ctx context.Context) []masterWord {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var words []*masterWord
	var ask func(addr, name string, learner bool) // mu must be held
	ask = func(addr, name string, learner bool) {
		i := slices.IndexFunc(words, func(w *masterWord) bool { return w.Addr == addr })
		if i >= 0 {
			words[i].Name, words[i].learner = orWord(name, words[i].Name), words[i].learner || learner
			return
		}
		w := &masterWord{Addr: addr, Name: name, learner: learner}
		words = append(words, w)
		wg.Go(func() {
			var r wire.FindLeaderReply
			err := a.rpc.Call(ctx, addr, &wire.FindLeader{}, &r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				w.Error = plainCause(err)
				return
			}
			w.Answers, w.Leader, w.Term = true, r.Leader, r.Term
			for _, m := range r.Masters {
				ask(m.Addr, m.Name, m.Learner)
			}
		})
	}
	mu.Lock()
	for _, addr := range a.leader.Masters() {
		ask(addr, "", false)
	}
	mu.Unlock()
	wg.Wait()
	out := make([]masterWord, len(words))
	for i, w := range words {
		out[i] = *w
	}
	slices.SortFunc(out, func(a, b masterWord) int { return strings.Compare(a.Addr, b.Addr) })
	return out
}

// plainCause is why a master did not answer, in a few words.
func plainCause(err error) string {
	if ashlar.KindOf(err) == ashlar.Timeout || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("nothing for %v", probeTimeout)
	}
	return err.Error()
}

// judge draws from what masters say what is wrong and what to do.
func judge(masters []masterWord, cause error) *leaderlessStatus {
	s := &leaderlessStatus{Health: "unknown", Masters: masters}
	voters, answer := 0, 0
	var missing, leaders []string
	for _, m := range masters {
		if m.Answers && m.Leader != "" && !slices.Contains(leaders, m.Leader) {
			leaders = append(leaders, m.Leader)
		}
		if m.learner {
			continue
		}
		voters++
		if m.Answers {
			answer++
		} else {
			missing = append(missing, orWord(m.Name, m.Addr))
		}
	}
	s.Needed = voters/2 + 1
	risk := func(what, next string) {
		s.Problems = append(s.Problems, wire.Risk{Severity: "unavailable", What: what, Next: next})
	}
	switch {
	case answer == 0:
		risk(fmt.Sprintf("none of the %d masters that are known answers", voters),
			"are they running, and is their port open from here? `systemctl status ashlar` on each")
	case answer < s.Needed:
		risk(fmt.Sprintf("there is no leader: %d of %d masters answer, %d are needed", answer, voters, s.Needed),
			"start "+strings.Join(missing, ", ")+"; docs/operations/lose-quorum.md if that cannot be")
	case len(leaders) > 0:
		risk(fmt.Sprintf("masters follow %s, which does not answer in time", strings.Join(leaders, ", ")),
			"they elect another in seconds if it is gone; if this stays, look at its log and at the network from here to it")
	default:
		risk(fmt.Sprintf("%d of %d masters answer, and none knows a leader", answer, voters),
			"they elect one within seconds if they can reach each other and write to their disks; if this stays, see their logs")
	}
	if cause != nil {
		s.Problems[0].What += " (" + cause.Error() + ")"
	}
	return s
}
