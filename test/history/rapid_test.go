package history

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// draw makes operations on a tree without answers. Times are 100 apart.
func draw(t *rapid.T, most int) []Op {
	dirs, files := []uint64{0}, []uint64{}
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	kind := rapid.SampledFrom([]Kind{Create, Create, Mkdir, Mkdir, Unlink, Rmdir, Rename, Rename, RenameNew, Exchange, Link, Lookup, Stat, List})
	var ops []Op
	for i := range rapid.IntRange(1, most).Draw(t, "operations") {
		at := int64(1000 + 100*i)
		o := Op{Kind: kind.Draw(t, "kind"), Key: "t", Call: at, Return: at + 1, Process: rapid.IntRange(1, 3).Draw(t, "process")}
		dir := func(what string) uint64 { return rapid.SampledFrom(dirs).Draw(t, what) }
		o.Dir, o.Name = dir("directory"), name.Draw(t, "name")
		switch o.Kind {
		case Create:
			o.Value = uint64(i + 1)
			files = append(files, o.Value)
		case Mkdir:
			o.Value = uint64(i + 1)
			dirs = append(dirs, o.Value)
		case Rename, RenameNew, Exchange:
			o.ToDir, o.To = dir("new directory"), name.Draw(t, "new name")
		case Link, Stat:
			o.Value = rapid.SampledFrom(slices.Concat(dirs, files)).Draw(t, "file")
			if o.Dir, o.Name = 0, ""; o.Kind == Link {
				o.ToDir, o.To = dir("new directory"), name.Draw(t, "new name")
			}
		case List:
			o.Name = ""
		case Lookup:
			if o.Dir != 0 && rapid.IntRange(0, 3).Draw(t, "up") == 0 {
				o.Name = ".."
			}
		}
		ops = append(ops, o)
	}
	return ops
}

// answer does operations one after the other and fills in what is told.
func answer(t *rapid.T, ops []Op) *numbers {
	n, err := newNumbers(ops)
	if err != nil {
		t.Fatal(err)
	}
	state := tree("")
	for i := range ops {
		o := &ops[i]
		before := state
		next, no := n.step(state, o)
		state = next
		for _, word := range []string{"noent", "exist", "notdir", "isdir", "notempty", "inval", "perm", "stale"} {
			if no&errnos[word] != 0 && (o.Errno == "" || rapid.Bool().Draw(t, "which error")) {
				o.Errno = word
			}
		}
		if no == 0 {
			n.tell(before, state, o)
		}
	}
	return n
}

// tell fills in what an operation that succeeded was told.
func (n *numbers) tell(before, t tree, o *Op) {
	var node uint16
	switch o.Kind {
	case Lookup:
		if node, _ = t.get(n.nodes[o.Dir], n.name(o.Name)); o.Name == ".." {
			node, _ = t.parent(n.nodes[o.Dir])
		}
	case Stat, Create, Mkdir, Link:
		node = n.nodes[o.Value]
	case Unlink, Rmdir:
		node, _ = before.get(n.nodes[o.Dir], n.name(o.Name))
	case Rename, RenameNew, Exchange:
		node, _ = t.get(n.nodes[o.ToDir], n.name(o.To))
	case List:
		o.Names = []string{}
		for _, e := range t.list(n.nodes[o.Dir]) {
			o.Names, o.Values = append(o.Names, n.names[e.name]), append(o.Values, n.ids[e.node])
		}
		return
	}
	o.Value, o.Links = n.ids[node], n.links(t, node)
	o.IsDir = n.dirs[node] && !o.Kind.Changes()
}

// overlap makes operations last longer, so that others may have been before or
// after them, and takes some answers away. A process does one at a time.
func overlap(t *rapid.T, ops []Op) {
	late := map[int]int64{} // of a process: when its last operation returned
	for i := range ops {
		o := &ops[i]
		until := o.Return + 250
		for _, next := range ops[i+1:] {
			if next.Process == o.Process {
				until = min(until, next.Call-1)
				break
			}
		}
		o.Call = rapid.Int64Range(max(o.Call-250, late[o.Process]+1), o.Call).Draw(t, "call")
		o.Return = rapid.Int64Range(o.Return, until).Draw(t, "return")
		if late[o.Process] = o.Return; !o.Kind.Changes() {
			continue
		}
		switch rapid.IntRange(0, 9).Draw(t, "answered") {
		case 0: // the process goes on
			o.GaveUp, o.Return = o.Return, Never
		case 1: // it is killed, and another comes
			o.Return = Never
			o.Process += 10 * (i + 1)
		}
		if o.Unknown() {
			o.Errno, o.Links = "", 0
			if o.Kind != Create && o.Kind != Mkdir && o.Kind != Link {
				o.Value = 0
			}
		}
	}
}

// What really happened, in an order that nobody was told, is accepted.
func TestWhatHappenedIsAccepted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ops := draw(rt, 60)
		answer(rt, ops)
		overlap(rt, ops)
		if err := Check(ops, time.Minute, ""); err != nil {
			rt.Fatalf("%v\n%s", err, text(ops))
		}
	})
}

// Of operations one after the other no answer can be another.
func TestAnAnswerThatIsNotWhatHappenedIsRefused(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ops := draw(rt, 40)
		n := answer(rt, ops)
		i := rapid.IntRange(0, len(ops)-1).Draw(rt, "untrue")
		if !corrupt(rt, n, ops, i) {
			rt.SkipNow()
		}
		if err := Check(ops, time.Minute, ""); err == nil {
			rt.Fatalf("%s\nis accepted in\n%s", &ops[i], text(ops))
		}
	})
}

// corrupt changes an answer to one that the model does not allow as well.
func corrupt(t *rapid.T, n *numbers, ops []Op, i int) bool {
	o := &ops[i]
	state := tree("")
	for j := range i {
		state, _ = n.step(state, &ops[j])
	}
	_, no := n.step(state, o)
	word := rapid.SampledFrom([]string{"noent", "exist", "notdir", "isdir", "notempty", "inval", "perm", "stale"}).Draw(t, "word")
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0: // an error that is not so
		if no&errnos[word] != 0 {
			return false
		}
		o.Errno = word
	case 1: // a success that was none; what was removed may be open still
		if o.Errno == "" || no == gone && !o.Kind.Changes() {
			return false
		}
		o.Errno = ""
	case 2: // another count
		if o.Errno != "" || o.Kind == List || o.Kind.Changes() && o.Value == 0 {
			return false
		}
		o.Links++
	default: // another name or file
		switch {
		case o.Errno != "" || o.Kind == Create || o.Kind == Mkdir || o.Kind == Link || o.Kind == Stat:
			return false
		case o.Kind == List && len(o.Names) > 0:
			o.Names, o.Values = o.Names[1:], nil
		case o.Kind == List:
			o.Names, o.Values = []string{"a"}, nil
		default:
			o.Value = math.MaxUint32
		}
	}
	return true
}

// The search finds an order exactly if trying every one finds one.
func TestTheVerdictIsThatOfTryingEveryOrder(t *testing.T) {
	verdicts := map[bool]int{}
	rapid.Check(t, func(rt *rapid.T) {
		ops := draw(rt, 7)
		n := answer(rt, ops)
		overlap(rt, ops)
		if i := rapid.IntRange(0, len(ops)-1).Draw(rt, "untrue"); rapid.Bool().Draw(rt, "lie") && !ops[i].Unknown() {
			corrupt(rt, n, ops, i)
		}
		n, err := newNumbers(ops)
		if err != nil {
			rt.Fatal(err)
		}
		want := every(n, tree(""), boundNames(ops))
		verdicts[want]++
		if err := Check(ops, time.Minute, ""); (err == nil) != want {
			rt.Fatalf("some order explains it: %v; the search says %v\n%s", want, err, text(ops))
		}
	})
	if !testing.Short() && min(verdicts[true], verdicts[false]) == 0 {
		t.Errorf("of one kind alone: %v", verdicts)
	}
}

// every tells whether some order of what is left is true.
func every(n *numbers, t tree, left []Op) bool {
	done := true
	for i := range left {
		o := &left[i]
		doubt := o.Unknown() || o.GaveUp != 0
		done = done && doubt
		first := !slices.ContainsFunc(left, func(x Op) bool { return x.Return < o.Call })
		rest := slices.Delete(slices.Clone(left), i, i+1)
		next, no := n.step(t, o)
		switch {
		case !first:
		case doubt && every(n, t, rest), doubt && every(n, next, rest):
			return true
		case doubt:
		case o.Errno != "" && no&errnos[o.Errno] == 0, o.Errno == "" && (no != 0 && !orphan(no, o) || !n.told(t, next, o)):
		case every(n, next, rest):
			return true
		}
	}
	return done
}

func text(ops []Op) string {
	var b strings.Builder
	for i := range ops {
		b.WriteString(ops[i].String() + "\n")
	}
	return b.String()
}
