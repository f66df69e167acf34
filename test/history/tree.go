package history

import (
	"fmt"
	"slices"
	"strings"
)

// tree is the names of a tree, a value that may be compared and is a key of
// maps. It has nameSize bytes a name, in order of directory and name:
//
//	directory:16 name:16 node:16
//
// Directories and other files are nodes, numbered by numbers; node 0 is the
// tree's top, which has no name.
type tree string

const (
	nameSize = 6
	keySize  = 4
)

// key is the place of a name: directory and name.
func key(dir, name uint16) string {
	return string([]byte{byte(dir >> 8), byte(dir), byte(name >> 8), byte(name)})
}

func number(s tree, at int) uint16 { return uint16(s[at])<<8 | uint16(s[at+1]) }

// name is one name of a tree.
type name struct{ dir, name, node uint16 }

// all goes through the names in order.
func (t tree) all(yield func(name) bool) {
	for at := 0; at < len(t); at += nameSize {
		if !yield(name{number(t, at), number(t, at+2), number(t, at+keySize)}) {
			return
		}
	}
}

// find returns where a name is or would be.
func (t tree) find(dir, nm uint16) (at int, ok bool) {
	k := key(dir, nm)
	for at = 0; at < len(t); at += nameSize {
		if c := strings.Compare(string(t[at:at+keySize]), k); c >= 0 {
			return at, c == 0
		}
	}
	return at, false
}

func (t tree) get(dir, nm uint16) (node uint16, ok bool) {
	at, ok := t.find(dir, nm)
	if !ok {
		return 0, false
	}
	return number(t, at+keySize), true
}

func (t tree) set(dir, nm, node uint16) tree {
	at, ok := t.find(dir, nm)
	rest := at
	if ok {
		rest += nameSize
	}
	return t[:at] + tree(key(dir, nm)) + tree([]byte{byte(node >> 8), byte(node)}) + t[rest:]
}

func (t tree) drop(dir, nm uint16) tree {
	if at, ok := t.find(dir, nm); ok {
		return t[:at] + t[at+nameSize:]
	}
	return t
}

// names counts the names of a node.
func (t tree) names(node uint16) (n uint32) {
	for e := range t.all {
		if e.node == node {
			n++
		}
	}
	return n
}

// has tells whether a node is in the tree.
func (t tree) has(node uint16) bool { return node == 0 || t.names(node) > 0 }

// list returns the names in a directory, in order.
func (t tree) list(dir uint16) (out []name) {
	for e := range t.all {
		if e.dir == dir {
			out = append(out, e)
		}
	}
	return out
}

// parent returns the directory that a directory is in.
func (t tree) parent(dir uint16) (uint16, bool) {
	for e := range t.all {
		if e.node == dir {
			return e.dir, true
		}
	}
	return 0, false
}

// within tells whether a directory is another one or below it.
func (t tree) within(dir, of uint16) bool {
	for ok := true; ok; dir, ok = t.parent(dir) {
		if dir == of {
			return true
		}
	}
	return false
}

// numbers gives the identities and names of a part of a history small numbers.
type numbers struct {
	nodes map[uint64]uint16 // by identity; 0 is the top
	ids   []uint64          // the other way round
	dirs  []bool            // of nodes: made as a directory
	names []string          // sorted
}

// numbersMax is how many nodes and how many names a part may have.
const numbersMax = 1 << 16

// newNumbers numbers what operations speak of.
func newNumbers(ops []Op) (*numbers, error) {
	n := &numbers{nodes: map[uint64]uint16{0: 0}, ids: []uint64{0}, dirs: []bool{true}}
	seen := map[string]bool{}
	for i := range ops {
		o := &ops[i]
		for _, id := range append([]uint64{o.Dir, o.ToDir, o.Value}, o.Values...) {
			if _, ok := n.nodes[id]; !ok {
				n.nodes[id] = uint16(len(n.ids))
				n.ids, n.dirs = append(n.ids, id), append(n.dirs, false)
			}
		}
		if o.Kind == Mkdir {
			n.dirs[n.nodes[o.Value]] = true
		}
		for _, s := range append([]string{o.Name, o.To}, o.Names...) {
			seen[s] = true
		}
		if len(n.ids) > numbersMax || len(seen) > numbersMax {
			return nil, fmt.Errorf("history of %s: more than %d files or names; divide it into several trees", o.Key, numbersMax)
		}
	}
	for s := range seen {
		n.names = append(n.names, s)
	}
	slices.Sort(n.names)
	return n, nil
}

func (n *numbers) name(s string) uint16 {
	i, _ := slices.BinarySearch(n.names, s)
	return uint16(i)
}

// links is the link count of a node: its names; of a directory that is there,
// 2 and its subdirectories.
func (n *numbers) links(t tree, node uint16) uint32 {
	switch {
	case !n.dirs[node]:
		return t.names(node)
	case !t.has(node):
		return 0
	}
	links := uint32(2)
	for _, e := range t.list(node) {
		if n.dirs[e.node] {
			links++
		}
	}
	return links
}

// text is a tree for people: paths, with the identity of each file.
func (n *numbers) text(t tree) string {
	var out []string
	var walk func(dir uint16, path string)
	walk = func(dir uint16, path string) {
		for _, e := range t.list(dir) {
			p := path + "/" + n.names[e.name]
			if n.dirs[e.node] {
				out = append(out, fmt.Sprintf("%s/ %d", p, n.ids[e.node]))
				walk(e.node, p)
				continue
			}
			out = append(out, fmt.Sprintf("%s %d", p, n.ids[e.node]))
		}
	}
	walk(0, "")
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}
