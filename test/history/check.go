package history

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Verdict is whether a part of a history can be true.
type Verdict string

// The verdicts.
const (
	True      Verdict = "true"
	Untrue    Verdict = "untrue"
	Undecided Verdict = "undecided" // in time
)

// ErrUndecided says that a part of a history took too long to check. It is
// neither right nor wrong.
var ErrUndecided = errors.New("undecided in time")

// Part is a part of a history that is true or not by itself: a block, or a
// tree of names.
type Part struct {
	Key     string
	Ops     []Op
	Verdict Verdict

	model porcupine.Model
	info  porcupine.LinearizationInfo
}

// Check tells whether a history can be true: nil if it is linearizable. The
// time is for each key. What is wrong is written below dir, if that is not "",
// as text, as a history, and as a page that shows it.
func Check(ops []Op, timeout time.Duration, dir string) error {
	parts, err := Divide(ops)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range parts {
		p.Decide(timeout)
		errs = append(errs, p.err(dir))
	}
	return errors.Join(errs...)
}

// Divide divides a history by key and kind of object, in the order of the
// keys. A loss of power is part of every block's, and then, only then, syncs
// are.
func Divide(ops []Op) ([]*Part, error) {
	var dark []Op
	byKey := map[string]*Part{}
	for _, o := range ops {
		if o.Kind == PowerLoss {
			dark = append(dark, o)
		}
	}
	for _, o := range boundNames(ops) {
		switch {
		case o.Unknown() && !o.Kind.Changes():
			continue // without an answer it says nothing
		case o.Kind == PowerLoss, o.Kind == BlockSync && dark == nil:
			continue
		}
		k := "names " + o.Key
		if o.Kind.block() {
			k = "block " + o.Key
		}
		if byKey[k] == nil {
			byKey[k] = &Part{Key: o.Key}
		}
		byKey[k].Ops = append(byKey[k].Ops, o)
	}
	parts := make([]*Part, 0, len(byKey))
	for _, k := range slices.Sorted(maps.Keys(byKey)) {
		p := byKey[k]
		if err := p.choose(dark); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// choose gives a part its model.
func (p *Part) choose(dark []Op) error {
	switch {
	case !p.Ops[0].Kind.block():
		n, err := newNumbers(p.Ops)
		if err != nil {
			return err
		}
		p.model = namesModel(n)
		return nil
	case dark == nil:
		p.model = blockModel
	default:
		p.model = powerBlockModel
	}
	p.Ops = append(boundWrites(p.Ops), dark...)
	return nil
}

// Decide looks for an order in which the part is true, for so long.
func (p *Part) Decide(timeout time.Duration) {
	events := make([]porcupine.Operation, len(p.Ops))
	for i := range p.Ops {
		o := &p.Ops[i]
		// porcupine wants one operation of a client at a time; one that is
		// never answered gets a client of its own.
		events[i] = porcupine.Operation{ClientId: i, Input: o, Output: o, Call: o.Call, Return: o.Return}
	}
	result, info := porcupine.CheckOperationsVerbose(p.model, events, timeout)
	p.info = info
	switch result {
	case porcupine.Ok:
		p.Verdict = True
	case porcupine.Illegal:
		p.Verdict = Untrue
	default:
		p.Verdict = Undecided
	}
}

// err is the verdict as an error, explained below dir if that is not "".
func (p *Part) err(dir string) error {
	switch p.Verdict {
	case True:
		return nil
	case Undecided:
		return fmt.Errorf("history of %s, %d operations: %w", p.Key, len(p.Ops), ErrUndecided)
	}
	err := fmt.Errorf("history of %s, %d operations, is not linearizable", p.Key, len(p.Ops))
	if dir == "" {
		return err
	}
	where, werr := p.Explain(dir)
	return errors.Join(fmt.Errorf("%w: see %s", err, where), werr)
}

// bound gives changes that were given up the time until which they may take
// effect: the end of the first of the changes that follow it, which was called
// later by the same process and answered. The model lets them take none.
func bound(ops []Op, follows func(given, later *Op) bool) []Op {
	out := slices.Clone(ops)
	for i := range out {
		w := &out[i]
		if !w.Kind.Changes() || !w.Unknown() || w.GaveUp == 0 {
			continue
		}
		for j := range ops {
			l := &ops[j]
			if l.Kind.Changes() && !l.Unknown() && l.Process == w.Process && l.Call >= w.GaveUp && follows(w, l) {
				w.Return = min(w.Return, l.Return)
			}
		}
	}
	return out
}

// boundWrites is bound for the writes of one block.
func boundWrites(ops []Op) []Op {
	return bound(ops, func(_, _ *Op) bool { return true })
}

// boundNames is bound for changes of names, in whatever tree: a session's later
// request tells that it does not wait for the earlier one any more.
func boundNames(ops []Op) []Op {
	return bound(ops, func(given, later *Op) bool { return !given.Kind.block() && !later.Kind.block() })
}
