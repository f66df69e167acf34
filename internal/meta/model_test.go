package meta_test

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/wire"
	"pgregory.net/rapid"
)

// node is a file or directory of the model: POSIX as one would tell it, with
// pointers. It knows nothing of keys, cookies or link records.
type node struct {
	dir   bool
	names map[string]*node
	nlink int
}

func newDir() *node { return &node{dir: true, names: map[string]*node{}} }

func (n *node) links() int {
	if !n.dir {
		return n.nlink
	}
	l := 2
	for _, c := range n.names {
		if c.dir {
			l++
		}
	}
	return l
}

func (n *node) holds(m *node) bool {
	if n == m {
		return true
	}
	for _, c := range n.names {
		if c.holds(m) {
			return true
		}
	}
	return false
}

const done = ashlar.Kind(0xffff) // no error

// model is the file system as it should be.
type model struct{ root *node }

func (m *model) at(path string) *node {
	n := m.root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name != "" {
			n = n.names[name]
		}
	}
	return n
}

// paths lists all directories, or all else.
func (m *model) paths(dirs bool) []string {
	var out []string
	var walk func(p string, n *node)
	walk = func(p string, n *node) {
		if n.dir == dirs {
			out = append(out, p)
		}
		for name, c := range n.names {
			walk(strings.TrimSuffix(p, "/")+"/"+name, c)
		}
	}
	walk("/", m.root)
	sort.Strings(out)
	return out
}

func (m *model) make(d *node, name string, dir bool) ashlar.Kind {
	if d.names[name] != nil {
		return ashlar.Exist
	}
	if d.names[name] = (&node{nlink: 1}); dir {
		d.names[name] = newDir()
	}
	return done
}

func (m *model) link(f, d *node, name string) ashlar.Kind {
	if d.names[name] != nil {
		return ashlar.Exist
	}
	if f.dir {
		return ashlar.NotOwner
	}
	f.nlink++
	d.names[name] = f
	return done
}

func (m *model) remove(d *node, name string, dir bool) ashlar.Kind {
	n := d.names[name]
	switch {
	case n == nil:
		return ashlar.NotExist
	case dir && !n.dir:
		return ashlar.NotDir
	case !dir && n.dir:
		return ashlar.IsDir
	case len(n.names) > 0:
		return ashlar.NotEmpty
	}
	n.nlink--
	delete(d.names, name)
	return done
}

func (m *model) rename(d1 *node, n1 string, d2 *node, n2 string, flags uint32) ashlar.Kind {
	from, to := d1.names[n1], d2.names[n2]
	exchange := flags == wire.RenameExchange
	switch {
	case from == nil:
		return ashlar.NotExist
	case to != nil && flags == wire.RenameNoReplace:
		return ashlar.Exist
	case to == nil && exchange:
		return ashlar.NotExist
	case from.dir && from.holds(d2):
		return ashlar.Loop
	case to != nil && to.dir && to.holds(d1) && exchange:
		return ashlar.Loop
	case to != nil && to.dir && to.holds(d1):
		return ashlar.NotEmpty
	case from == to:
		return done
	case exchange:
		d1.names[n1], d2.names[n2] = to, from
		return done
	case to != nil && from.dir && !to.dir:
		return ashlar.NotDir
	case to != nil && !from.dir && to.dir:
		return ashlar.IsDir
	case to != nil && len(to.names) > 0:
		return ashlar.NotEmpty
	}
	if to != nil {
		to.nlink--
	}
	delete(d1.names, n1)
	d2.names[n2] = from
	return done
}

// same compares a directory of the model with the state's.
func (w *world) same(path string, n *node) error {
	ino := w.at(path)
	r, err := w.do(&wire.GetAttr{Inode: ino})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	a := r.(*wire.Entry).Attr
	if (a.Type == ashlar.TypeDir) != n.dir || int(a.Nlink) != n.links() {
		return fmt.Errorf("%s: type %d nlink %d, want dir %v nlink %d", path, a.Type, a.Nlink, n.dir, n.links())
	}
	if !n.dir {
		return nil
	}
	r, err = w.do(&wire.Readdir{Inode: ino, Plus: true})
	if err != nil {
		return err
	}
	if got := r.(*wire.ReaddirReply).Entries; len(got) != len(n.names) {
		return fmt.Errorf("%s lists %d names, want %d", path, len(got), len(n.names))
	}
	for name, c := range n.names {
		if err := w.same(strings.TrimSuffix(path, "/")+"/"+name, c); err != nil {
			return err
		}
	}
	return nil
}

// step does one random operation on both.
func step(t *rapid.T, w *world, m *model) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "."})
	dir := func(what string) string { return rapid.SampledFrom(m.paths(true)).Draw(t, what) }
	p, n := dir("directory"), name.Draw(t, "name")
	if n == "." {
		n = "d"
	}
	var want ashlar.Kind
	var body wire.Message
	switch rapid.IntRange(0, 7).Draw(t, "operation") {
	case 0, 1:
		body = &wire.Make{Parent: w.at(p), Name: n, Type: ashlar.TypeFile, Exclusive: true}
		want = m.make(m.at(p), n, false)
	case 2:
		body = &wire.Make{Parent: w.at(p), Name: n, Type: ashlar.TypeDir}
		want = m.make(m.at(p), n, true)
	case 3:
		files := append(m.paths(false), p)
		f := rapid.SampledFrom(files).Draw(t, "file")
		body = &wire.Link{Inode: w.at(f), Parent: w.at(p), Name: n}
		want = m.link(m.at(f), m.at(p), n)
	case 4, 5:
		isDir := rapid.Bool().Draw(t, "rmdir")
		body = &wire.Remove{Parent: w.at(p), Name: n, Dir: isDir}
		want = m.remove(m.at(p), n, isDir)
	default:
		p2, n2 := dir("new directory"), name.Draw(t, "new name")
		if n2 == "." {
			n2 = "d"
		}
		flags := uint32(rapid.IntRange(0, 2).Draw(t, "flags"))
		body = &wire.Rename{OldParent: w.at(p), OldName: n, NewParent: w.at(p2), NewName: n2, Flags: flags}
		want = m.rename(m.at(p), n, m.at(p2), n2, flags)
	}
	got := done
	if _, err := w.do(body); err != nil {
		got = ashlar.KindOf(err)
	}
	if got != want {
		t.Fatalf("%+v: %v, want %v", body, got, want)
	}
}

func TestNamespaceBehavesAsTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(t), &model{root: newDir()}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			step(rt, w, m)
		}
		if err := w.same("/", m.root); err != nil {
			rt.Fatal(err)
		}
		if p := checkInvariants(&w.mem); len(p) > 0 {
			rt.Fatal(strings.Join(p, "\n"))
		}
	})
}

func TestInvariantsHoldWithOpenFilesAndReaping(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(t), &model{root: newDir()}
		var held []ashlar.Inode
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			if files := m.paths(false); len(files) > 0 && rapid.Bool().Draw(rt, "hold") {
				ino := w.at(rapid.SampledFrom(files).Draw(rt, "held"))
				w.opens.Open(ino, 77)
				held = append(held, ino)
			}
			step(rt, w, m)
		}
		if p := checkInvariants(&w.mem); len(p) > 0 {
			rt.Fatal(strings.Join(p, "\n"))
		}
		for _, ino := range held {
			w.opens.Close(ino, 77)
		}
		for _, ino := range namespace.Orphans(&w.mem, 0, 1000) {
			if err := namespace.Reap(&w.mem, ino); err != nil {
				rt.Fatal(err)
			}
		}
		if _, err := w.do(&wire.DeleteVolume{Name: "main", Force: true}); err != nil {
			rt.Fatal(err)
		}
		for more := true; more; {
			var err error
			if more, err = namespace.ReapTree(&w.mem, w.env.Now, w.opens, rapid.IntRange(1, 5).Draw(rt, "limit")); err != nil {
				rt.Fatal(err)
			}
		}
		if left := w.state("inode") + w.state("dentry") + w.state("cookie") + w.state("link") + w.state("usage") + w.state("orphan"); left != "" {
			rt.Fatalf("left of a deleted volume:\n%s", left)
		}
	})
}

// A listing in pieces meets every name that was there all the time exactly
// once, whatever is made and removed meanwhile.
func TestReaddirMeetsWhatStaysExactlyOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		do := func(body wire.Message) {
			if _, err := w.do(body); err != nil {
				rt.Fatalf("%+v: %v", body, err)
			}
		}
		for n := range 40 {
			do(w.file(fmt.Sprintf("%s%d", []string{"stay", "go"}[n%2], n)))
		}
		seen := map[string]int{}
		cookie, last := uint64(0), uint64(0)
		for n := 0; ; n++ {
			r, err := w.do(&wire.Readdir{Inode: w.root, Cookie: cookie, Limit: uint32(rapid.IntRange(1, 7).Draw(rt, "limit"))})
			if err != nil {
				rt.Fatal(err)
			}
			reply := r.(*wire.ReaddirReply)
			for _, e := range reply.Entries {
				if e.Cookie <= last || e.Cookie < namespace.CookieFirst {
					rt.Fatalf("cookie %d after %d", e.Cookie, last)
				}
				seen[e.Name]++
				cookie, last = e.Cookie, e.Cookie
			}
			if reply.EOF {
				break
			}
			if k := 2*n + 1; k < 40 && rapid.Bool().Draw(rt, "remove") {
				do(&wire.Remove{Parent: w.root, Name: fmt.Sprintf("go%d", k)})
			}
			if n < 50 && rapid.Bool().Draw(rt, "make") {
				do(w.file(fmt.Sprintf("new%d", n)))
			}
			if rapid.Bool().Draw(rt, "replace") { // over a name: it stays where it was
				do(w.file(fmt.Sprintf("tmp%d", n)))
				do(&wire.Rename{OldParent: w.root, OldName: fmt.Sprintf("tmp%d", n), NewParent: w.root, NewName: "stay20"})
			}
		}
		for n := 0; n < 40; n += 2 {
			if name := fmt.Sprintf("stay%d", n); seen[name] != 1 {
				rt.Errorf("%s was listed %d times", name, seen[name])
			}
		}
	})
}
