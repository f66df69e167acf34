package history

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// Page writes a page that shows a part that was decided: who asked what when,
// and how far an order was found.
func (p *Part) Page(w io.Writer) error { return porcupine.Visualize(p.model, p.info, w) }

// Explain writes a part that was decided below dir: as text, as a history that
// can be checked again, and as a page. It returns the name of the text.
func (p *Part) Explain(dir string) (text string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	base := filepath.Join(dir, strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, p.Key))
	return base + ".txt", errors.Join(
		write(base+".txt", p.Text), write(base+".history", func(w io.Writer) error { return Write(w, p.sorted()) }), write(base+".html", p.Page))
}

func write(name string, to func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(to(f), f.Close())
}

// sorted returns the operations in the order of their calls.
func (p *Part) sorted() []Op {
	out := slices.Clone(p.Ops)
	slices.SortStableFunc(out, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	return out
}

// Text writes a part for people: where the search ended, and every operation
// in the order of the calls.
func (p *Part) Text(w io.Writer) error {
	if p.Verdict != True {
		if _, err := fmt.Fprintf(w, "%s: %s\n%s\n", p.Key, p.Verdict, p.Stuck()); err != nil {
			return err
		}
	}
	for _, o := range p.sorted() {
		if _, err := fmt.Fprintln(w, &o); err != nil {
			return err
		}
	}
	return nil
}

// Stuck tells how far the longest order goes that explains the answers, and
// which of the operations that it leaves returned first: its answer is one that
// no order found explains. The part was decided and is not true.
func (p *Part) Stuck() string {
	var longest []int
	for _, part := range p.info.PartialLinearizations() {
		for _, order := range part {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	done := map[int]bool{}
	state := p.model.Init()
	for _, id := range longest {
		done[id] = true
		_, state = p.model.Step(state, &p.Ops[id], &p.Ops[id])
	}
	first := -1
	for i := range p.Ops {
		if !done[i] && (first < 0 || p.Ops[i].Return < p.Ops[first].Return) {
			first = i
		}
	}
	if first < 0 {
		return fmt.Sprintf("every one of %d operations has its place\n", len(p.Ops))
	}
	s := fmt.Sprintf("the longest order found explains %d of %d operations and stops before\n  %s\n", len(done), len(p.Ops), &p.Ops[first])
	if len(longest) > 0 {
		s += fmt.Sprintf("after\n  %s\n", &p.Ops[longest[len(longest)-1]])
	}
	if p.model.DescribeState != nil {
		s += fmt.Sprintf("when there is\n  %s\n", p.model.DescribeState(state))
	}
	return s
}
