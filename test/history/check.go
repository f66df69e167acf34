package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// ErrUndecided says that a part of a history took too long to check. It is
// neither right nor wrong.
var ErrUndecided = errors.New("undecided in time")

// Check tells whether a history can be true: nil if it is linearizable. The
// time is for each key. What is wrong is written below dir, if that is not "",
// as text and as a page that shows it.
func Check(ops []Op, timeout time.Duration, dir string) error {
	var errs []error
	for _, part := range split(ops) {
		model := namesModel
		switch n := len(part) - 1; {
		case part[n].Kind == PowerLoss:
			model = powerBlockModel
		case ofBlocks(part[0].Kind):
			model = blockModel
		}
		if err := checkPart(model, part, timeout, dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func ofBlocks(k Kind) bool {
	return k == BlockRead || k == BlockWrite || k == BlockSync || k == PowerLoss
}

// split divides a history by key and kind of object, in the order of the keys.
// A loss of power is part of every block's, and then, only then, syncs are.
func split(ops []Op) [][]Op {
	parts := map[string][]Op{}
	var keys []string
	var dark []Op
	for _, o := range ops {
		if o.Kind == PowerLoss {
			dark = append(dark, o)
		}
	}
	for _, o := range ops {
		switch {
		case o.Unknown() && (o.Kind == BlockRead || o.Kind == BlockSync || o.Kind == Lookup || o.Kind == List):
			continue // without an answer it says nothing
		case o.Kind == PowerLoss, o.Kind == BlockSync && dark == nil:
			continue
		}
		k := "names " + o.Key
		if ofBlocks(o.Kind) {
			k = "block " + o.Key
		}
		if parts[k] == nil {
			keys = append(keys, k)
		}
		parts[k] = append(parts[k], o)
	}
	slices.Sort(keys)
	out := make([][]Op, 0, len(keys))
	for _, k := range keys {
		if strings.HasPrefix(k, "block ") {
			parts[k] = append(parts[k], dark...)
		}
		out = append(out, parts[k])
	}
	return out
}

func checkPart(model porcupine.Model, ops []Op, timeout time.Duration, dir string) error {
	ops = bound(ops)
	events := make([]porcupine.Operation, len(ops))
	for i := range ops {
		// porcupine wants one operation of a client at a time; one that is
		// never answered gets a client of its own.
		events[i] = porcupine.Operation{ClientId: i, Input: &ops[i], Output: &ops[i], Call: ops[i].Call, Return: ops[i].Return}
	}
	result, info := porcupine.CheckOperationsVerbose(model, events, timeout)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("history of %s, %d operations: %w", ops[0].Key, len(ops), ErrUndecided)
	}
	err := fmt.Errorf("history of %s, %d operations, is not linearizable", ops[0].Key, len(ops))
	if dir == "" {
		return err
	}
	where, werr := explain(model, info, ops, dir)
	return errors.Join(fmt.Errorf("%w: see %s", err, where), werr)
}

// bound gives writes that were given up the time until which they may take
// effect: the end of the first write of the same process that was called
// later and answered. The model lets them take none.
func bound(ops []Op) []Op {
	out := slices.Clone(ops)
	for i := range out {
		w := &out[i]
		if w.Kind != BlockWrite || !w.Unknown() || w.GaveUp == 0 {
			continue
		}
		for j := range ops {
			l := &ops[j]
			if l.Kind == BlockWrite && !l.Unknown() && l.Process == w.Process && l.Call >= w.GaveUp {
				w.Return = min(w.Return, l.Return)
			}
		}
	}
	return out
}

// explain writes a part that is wrong.
func explain(model porcupine.Model, info porcupine.LinearizationInfo, ops []Op, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	base := filepath.Join(dir, strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, ops[0].Key))
	sorted := slices.Clone(ops)
	slices.SortStableFunc(sorted, func(a, b Op) int { return int(min(1, max(-1, a.Call-b.Call))) })
	var text strings.Builder
	for i := range sorted {
		fmt.Fprintln(&text, &sorted[i])
	}
	errs := []error{os.WriteFile(base+".txt", []byte(text.String()), 0o644)}
	page, err := os.Create(base + ".html")
	if err != nil {
		return base + ".txt", errors.Join(append(errs, err)...)
	}
	errs = append(errs, porcupine.Visualize(model, info, page), page.Close())
	return base + ".txt", errors.Join(errs...)
}
