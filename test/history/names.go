package history

import (
	"hash/maphash"
	"slices"

	"github.com/anishathalye/porcupine"
)

// The names of POSIX over one tree. An operation names its directories by
// their identities, as openat(2) and its like do by descriptors: what happens
// to a path in between is for the operations that found the directory. An
// identity is what Create and Mkdir gave; 0 is the tree's top.
//
// Where several errors apply, POSIX leaves open which is answered, and so does
// the model. Whatever applies, nothing has changed then.

// refusal is a set of errors, as bits.
type refusal uint16

const (
	noEntry refusal = 1 << iota
	exists
	notDir
	isDir
	notEmpty
	invalid
	notPermitted
	stale // an identity that means nothing any more
)

// gone is what is said of a directory or file that was removed.
const gone = noEntry | stale

// errnos is the word of each error.
var errnos = map[string]refusal{
	"noent": noEntry, "exist": exists, "notdir": notDir, "isdir": isDir, "notempty": notEmpty,
	"inval": invalid, "perm": notPermitted, "stale": stale,
}

// namesModel is the model of one part of a history, whose trees begin empty.
func namesModel(n *numbers) porcupine.Model {
	seed := maphash.MakeSeed()
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{tree("")} },
		Step: func(state, input, _ any) []any {
			t, o := state.(tree), input.(*Op)
			next, no := n.step(t, o)
			switch {
			case o.Unknown(): // never is after everything else
				return []any{next}
			case o.GaveUp != 0:
				return []any{next, t}
			case o.Errno != "" && no&errnos[o.Errno] == 0:
				return nil
			case o.Errno == "" && (no != 0 && !orphan(no, o) || !n.told(t, next, o)):
				return nil
			}
			return []any{next}
		},
		Hash:              func(state any) uint64 { return maphash.String(seed, string(state.(tree))) },
		DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
		DescribeState:     func(state any) string { return n.text(state.(tree)) },
	}
	return m.ToModel()
}

// orphan tells whether an operation may be answered though what it is about was
// removed: it is a read of something that somebody has open, or that a new
// leader takes for open.
func orphan(no refusal, o *Op) bool { return no == gone && !o.Kind.Changes() }

// step does an operation on a tree. It returns the errors that may be answered,
// none if it succeeds.
func (n *numbers) step(t tree, o *Op) (tree, refusal) {
	dir, nm, node := n.nodes[o.Dir], n.name(o.Name), n.nodes[o.Value]
	switch o.Kind {
	case Create, Mkdir:
		return n.add(t, dir, nm, node)
	case Link:
		return n.link(t, n.nodes[o.ToDir], n.name(o.To), node)
	case Unlink, Rmdir:
		return n.remove(t, dir, nm, o.Kind == Rmdir)
	case Rename, RenameNew, Exchange:
		return n.rename(t, o)
	case Lookup:
		if no := n.refuse(t, dir); no != 0 || o.Name == ".." {
			return t, no
		}
		if _, ok := t.get(dir, nm); !ok {
			return t, noEntry
		}
	case Stat:
		if !t.has(node) {
			return t, gone
		}
	case List:
		return t, n.refuse(t, dir)
	}
	return t, 0
}

// refuse says what is wrong with a directory that a name is looked for in.
func (n *numbers) refuse(t tree, dir uint16) refusal {
	switch {
	case !t.has(dir):
		return gone
	case !n.dirs[dir]:
		return notDir
	}
	return 0
}

func (n *numbers) add(t tree, dir, nm, node uint16) (tree, refusal) {
	if no := n.refuse(t, dir); no != 0 {
		return t, no
	}
	if _, ok := t.get(dir, nm); ok {
		return t, exists
	}
	return t.set(dir, nm, node), 0
}

func (n *numbers) link(t tree, dir, nm, node uint16) (tree, refusal) {
	next, no := n.add(t, dir, nm, node)
	if !t.has(node) {
		no |= gone
	}
	if n.dirs[node] {
		no |= notPermitted
	}
	if no != 0 {
		return t, no
	}
	return next, 0
}

func (n *numbers) remove(t tree, dir, nm uint16, wantDir bool) (tree, refusal) {
	if no := n.refuse(t, dir); no != 0 {
		return t, no
	}
	node, ok := t.get(dir, nm)
	switch {
	case !ok:
		return t, noEntry
	case wantDir && !n.dirs[node]:
		return t, notDir
	case !wantDir && n.dirs[node]:
		return t, isDir
	case wantDir && len(t.list(node)) > 0:
		return t, notEmpty
	}
	return t.drop(dir, nm), 0
}

// rename moves a name: Rename replaces what is there, RenameNew does not,
// Exchange lets each name lead to what the other led to.
func (n *numbers) rename(t tree, o *Op) (tree, refusal) {
	dir, toDir, nm, to := n.nodes[o.Dir], n.nodes[o.ToDir], n.name(o.Name), n.name(o.To)
	from, ok := t.get(dir, nm)
	if no := n.refuse(t, dir) | n.refuse(t, toDir); no != 0 {
		if ok && n.dirs[from] && !t.has(toDir) {
			no |= invalid // a removed directory that is open knows what it was in
		}
		return t, no
	}
	over, has := t.get(toDir, to)
	var no refusal
	if !ok || !has && o.Kind == Exchange {
		no |= noEntry
	}
	if has && o.Kind == RenameNew {
		no |= exists
	}
	if ok && n.dirs[from] && t.within(toDir, from) || o.Kind == Exchange && has && n.dirs[over] && t.within(dir, over) {
		no |= invalid
	}
	if no != 0 {
		return t, no
	}
	switch {
	case has && over == from:
		return t, 0 // two names of one file: nothing to do
	case o.Kind == Exchange:
		return t.set(dir, nm, over).set(toDir, to, from), 0
	case has:
		if no := n.replace(t, from, over); no != 0 {
			return t, no
		}
	}
	return t.drop(dir, nm).set(toDir, to, from), 0
}

// replace says why one node can not take the name of another.
func (n *numbers) replace(t tree, from, over uint16) (no refusal) {
	switch {
	case n.dirs[from] && !n.dirs[over]:
		no |= notDir
	case !n.dirs[from] && n.dirs[over]:
		no |= isDir
	}
	if len(t.list(over)) > 0 {
		no |= notEmpty
	}
	return no
}

// told tells whether what an operation was told beside its success is so: t is
// the tree after it.
func (n *numbers) told(before, t tree, o *Op) bool {
	node := n.nodes[o.Value]
	switch o.Kind {
	case Lookup:
		dir := n.nodes[o.Dir]
		at, ok := t.get(dir, n.name(o.Name))
		if o.Name == ".." {
			at, ok = t.parent(dir)
			if !ok { // it was in that one when it was removed
				return dir != 0
			}
		}
		return ok && at == node && n.dirs[node] == o.IsDir && n.links(t, node) == o.Links
	case Stat:
		return n.dirs[node] == o.IsDir && n.links(t, node) == o.Links
	case List:
		list := t.list(n.nodes[o.Dir])
		return slices.EqualFunc(list, o.Names, func(e name, s string) bool { return n.names[e.name] == s }) &&
			(o.Values == nil || slices.EqualFunc(list, o.Values, func(e name, id uint64) bool { return n.ids[e.node] == id }))
	case Unlink, Rmdir:
		was, _ := before.get(n.nodes[o.Dir], n.name(o.Name))
		return o.Value == 0 || was == node && n.links(t, node) == o.Links
	case Rename, RenameNew, Exchange:
		at, _ := t.get(n.nodes[o.ToDir], n.name(o.To))
		return o.Value == 0 || at == node && n.links(t, node) == o.Links
	case Create, Mkdir, Link:
		return o.Links == 0 || n.links(t, node) == o.Links
	}
	return false
}
