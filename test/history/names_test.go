package history

import (
	"errors"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
)

// told is a history of names being written: each operation begins after the
// one before has ended.
type told struct {
	ops []Op
	now int64
}

func (h *told) add(o Op) *Op {
	o.Key, o.Call, o.Return = "t", h.now, h.now+1
	h.now += 2
	h.ops = append(h.ops, o)
	return &h.ops[len(h.ops)-1]
}

func (h *told) create(dir uint64, name string, id uint64) *Op {
	return h.add(Op{Kind: Create, Dir: dir, Name: name, Value: id})
}
func (h *told) mkdir(dir uint64, name string, id uint64) *Op {
	return h.add(Op{Kind: Mkdir, Dir: dir, Name: name, Value: id})
}
func (h *told) unlink(dir uint64, name, errno string) *Op {
	return h.add(Op{Kind: Unlink, Dir: dir, Name: name, Errno: errno})
}
func (h *told) rmdir(dir uint64, name, errno string) *Op {
	return h.add(Op{Kind: Rmdir, Dir: dir, Name: name, Errno: errno})
}
func (h *told) rename(k Kind, dir uint64, name string, toDir uint64, to, errno string) *Op {
	return h.add(Op{Kind: k, Dir: dir, Name: name, ToDir: toDir, To: to, Errno: errno})
}
func (h *told) link(id, toDir uint64, to, errno string) *Op {
	return h.add(Op{Kind: Link, Value: id, ToDir: toDir, To: to, Errno: errno})
}
func (h *told) file(dir uint64, name string, id uint64, links uint32) *Op {
	return h.add(Op{Kind: Lookup, Dir: dir, Name: name, Value: id, Links: links})
}
func (h *told) dir(dir uint64, name string, id uint64, links uint32) *Op {
	return h.add(Op{Kind: Lookup, Dir: dir, Name: name, Value: id, Links: links, IsDir: true})
}
func (h *told) none(dir uint64, name string) *Op {
	return h.add(Op{Kind: Lookup, Dir: dir, Name: name, Errno: "noent"})
}
func (h *told) list(dir uint64, names ...string) *Op {
	return h.add(Op{Kind: List, Dir: dir, Names: names})
}

// Most of these begin with directories 8 "x" and 9 "y", and file 1 "x/a".
func begin(h *told) {
	h.mkdir(0, "x", 8)
	h.mkdir(0, "y", 9)
	h.create(8, "a", 1)
}

// during makes an operation one that took all the time.
func during(o *Op) { o.Call, o.Return = 0, 1000 }

// unanswered makes it one without an answer, whose session goes on.
func unanswered(o *Op) { o.GaveUp, o.Return, o.Errno = o.Return, Never, "" }

func TestWhatIsToldOfNamesIsAcceptedIfItCanBeTrue(t *testing.T) {
	for _, c := range []struct {
		name string
		ok   bool
		of   func(h *told)
	}{
		{"created once", true, func(h *told) {
			during(h.create(0, "a", 1))
			o := h.create(0, "a", 2)
			o.Errno = "exist"
			h.file(0, "a", 1, 1)
		}},
		{"created twice", false, func(h *told) { during(h.create(0, "a", 1)); h.create(0, "a", 2) }},
		{"unlinked twice", false, func(h *told) { begin(h); during(h.unlink(8, "a", "")); h.unlink(8, "a", "") }},

		{"renamed across directories", true, func(h *told) {
			begin(h)
			h.rename(Rename, 8, "a", 9, "b", "")
			h.file(9, "b", 1, 1)
			h.none(8, "a")
			h.list(8)
			h.list(9, "b")
		}},
		{"a rename is lost", false, func(h *told) { begin(h); h.rename(Rename, 8, "a", 9, "b", ""); h.file(8, "a", 1, 1) }},
		{"a rename is lost, as a list shows", false, func(h *told) { begin(h); h.rename(Rename, 8, "a", 9, "b", ""); h.list(9) }},
		{"the name is in both directories", false, func(h *told) {
			begin(h)
			during(h.rename(Rename, 8, "a", 9, "b", ""))
			h.list(9, "b")
			h.list(8, "a")
		}},
		{"the name is in neither directory", false, func(h *told) {
			begin(h)
			during(h.rename(Rename, 8, "a", 9, "b", ""))
			h.list(8)
			h.list(9)
		}},
		{"the name moves while both are listed", true, func(h *told) {
			begin(h)
			during(h.rename(Rename, 8, "a", 9, "b", ""))
			h.list(8, "a")
			h.list(9, "b")
		}},
		{"a retry renamed again what had come since", false, func(h *told) {
			begin(h)
			h.rename(Rename, 8, "a", 9, "b", "")
			h.create(8, "a", 2)
			h.file(9, "b", 2, 1)
		}},
		{"a rename without an answer did that", true, func(h *told) {
			begin(h)
			h.rename(Rename, 8, "a", 9, "b", "")
			h.create(8, "a", 2)
			unanswered(h.rename(Rename, 8, "a", 9, "b", ""))
			h.file(9, "b", 2, 1)
		}},
		{"a rename without an answer did it never", true, func(h *told) {
			begin(h)
			unanswered(h.rename(Rename, 8, "a", 9, "b", ""))
			h.list(8, "a")
			h.unlink(8, "a", "")
		}},
		{"a rename that was given up came after the session's next change", false, func(h *told) {
			begin(h)
			unanswered(h.rename(Rename, 8, "a", 9, "b", ""))
			h.create(9, "c", 2)
			h.file(8, "a", 1, 1)
			h.none(8, "a")
		}},
		{"another's change bounds nothing", true, func(h *told) {
			begin(h)
			unanswered(h.rename(Rename, 8, "a", 9, "b", ""))
			h.create(9, "c", 2).Process = 7
			h.file(8, "a", 1, 1)
			h.none(8, "a")
		}},
		{"renamed over a file", true, func(h *told) {
			begin(h)
			h.create(9, "b", 2)
			h.link(2, 0, "z", "")
			h.rename(Rename, 8, "a", 9, "b", "")
			h.file(0, "z", 2, 1)
			h.file(9, "b", 1, 1)
		}},
		{"what was replaced kept its count", false, func(h *told) {
			begin(h)
			h.create(9, "b", 2)
			h.link(2, 0, "z", "")
			h.rename(Rename, 8, "a", 9, "b", "")
			h.file(0, "z", 2, 2)
		}},
		{"renamed to what is free", true, func(h *told) { begin(h); h.rename(RenameNew, 8, "a", 9, "b", ""); h.file(9, "b", 1, 1) }},
		{"refused to replace", true, func(h *told) {
			begin(h)
			h.create(9, "b", 2)
			h.rename(RenameNew, 8, "a", 9, "b", "exist")
			h.file(9, "b", 2, 1)
		}},
		{"replaced and should not have", false, func(h *told) { begin(h); h.create(9, "b", 2); h.rename(RenameNew, 8, "a", 9, "b", "") }},
		{"between two names of a file nothing happens", true, func(h *told) {
			begin(h)
			h.link(1, 9, "b", "")
			h.rename(Rename, 8, "a", 9, "b", "")
			h.file(8, "a", 1, 2)
		}},
		{"exchanged", true, func(h *told) {
			begin(h)
			h.create(9, "b", 2)
			h.rename(Exchange, 8, "a", 9, "b", "")
			h.file(8, "a", 2, 1)
			h.file(9, "b", 1, 1)
		}},
		{"half exchanged", false, func(h *told) {
			begin(h)
			h.create(9, "b", 2)
			h.rename(Exchange, 8, "a", 9, "b", "")
			h.file(8, "a", 2, 1)
			h.file(9, "b", 2, 1)
		}},
		{"nothing to exchange with", true, func(h *told) { begin(h); h.rename(Exchange, 8, "a", 9, "b", "noent") }},

		{"links are counted across directories", true, func(h *told) { begin(h); h.link(1, 9, "b", ""); h.file(9, "b", 1, 2); h.file(8, "a", 1, 2) }},
		{"links are counted wrong", false, func(h *told) { begin(h); h.link(1, 9, "b", ""); h.file(8, "a", 1, 1) }},
		{"a file that is gone gets no name", false, func(h *told) { begin(h); h.unlink(8, "a", ""); h.link(1, 9, "b", "") }},
		{"a file that is gone is refused a name", true, func(h *told) { begin(h); h.unlink(8, "a", ""); h.link(1, 9, "b", "stale") }},
		{"a directory is refused a name", true, func(h *told) { begin(h); h.link(8, 9, "b", "perm") }},
		{"another file was removed than is answered", false, func(h *told) {
			begin(h)
			o := h.unlink(8, "a", "")
			o.Value = 2
		}},
		{"what was removed has names left", false, func(h *told) {
			begin(h)
			o := h.unlink(8, "a", "")
			o.Value, o.Links = 1, 1
		}},

		{"a directory is moved with what is in it", true, func(h *told) {
			begin(h)
			h.rename(Rename, 0, "x", 9, "x", "")
			h.dir(9, "x", 8, 2)
			h.file(8, "a", 1, 1)
			h.dir(8, "..", 9, 3)
		}},
		{"a moved directory has its old parent", false, func(h *told) { begin(h); h.rename(Rename, 0, "x", 9, "x", ""); h.dir(8, "..", 0, 3) }},
		{"subdirectories are counted", true, func(h *told) { begin(h); h.mkdir(9, "d", 10); h.dir(0, "y", 9, 3); h.dir(0, "x", 8, 2) }},
		{"a subdirectory that left is counted", false, func(h *told) {
			begin(h)
			h.mkdir(9, "d", 10)
			h.rename(Rename, 9, "d", 8, "d", "")
			h.dir(0, "y", 9, 3)
		}},
		{"a directory below itself", false, func(h *told) { begin(h); h.mkdir(8, "d", 10); h.rename(Rename, 0, "x", 10, "x", "") }},
		{"a directory is refused below itself", true, func(h *told) {
			begin(h)
			h.mkdir(8, "d", 10)
			h.rename(Rename, 0, "x", 10, "x", "inval")
			h.rename(Exchange, 8, "d", 0, "x", "inval")
		}},
		{"a directory over what it is in", true, func(h *told) { begin(h); h.mkdir(8, "d", 10); h.rename(Rename, 8, "d", 0, "x", "notempty") }},
		{"over an empty directory", true, func(h *told) { begin(h); h.rename(Rename, 0, "x", 0, "y", ""); h.list(0, "y"); h.list(8, "a") }},
		{"over a full directory", true, func(h *told) { begin(h); h.rename(Rename, 0, "y", 0, "x", "notempty") }},
		{"a full directory is replaced", false, func(h *told) { begin(h); h.rename(Rename, 0, "y", 0, "x", "") }},
		{"a directory over a file", true, func(h *told) { begin(h); h.rename(Rename, 0, "y", 8, "a", "notdir") }},
		{"a file over a directory", true, func(h *told) { begin(h); h.rename(Rename, 8, "a", 0, "y", "isdir") }},
		{"the wrong error", false, func(h *told) { begin(h); h.rename(Rename, 8, "a", 0, "y", "notdir") }},
		{"unlink of a directory, rmdir of a file", true, func(h *told) { begin(h); h.unlink(0, "y", "isdir"); h.rmdir(8, "a", "notdir") }},
		{"a full directory is not removed", true, func(h *told) { begin(h); h.rmdir(0, "x", "notempty"); h.unlink(8, "a", ""); h.rmdir(0, "x", "") }},
		{"a full directory is removed", false, func(h *told) { begin(h); h.rmdir(0, "x", "") }},
		{"in a removed directory nothing is made", true, func(h *told) {
			begin(h)
			h.rmdir(0, "y", "")
			o := h.create(9, "b", 2)
			o.Errno = "stale"
			h.none(9, "b")
			h.rename(Rename, 8, "a", 9, "b", "noent")
		}},
		{"into a removed directory that was in what moves", true, func(h *told) {
			begin(h)
			h.mkdir(8, "d", 10)
			h.rmdir(8, "d", "")
			h.rename(Rename, 0, "x", 10, "b", "inval")
			h.rename(Rename, 8, "a", 10, "b", "noent")
		}},
		{"a file is not below itself", false, func(h *told) { begin(h); h.rmdir(0, "y", ""); h.rename(Rename, 8, "a", 9, "b", "inval") }},
		{"in a removed directory something was made", false, func(h *told) { begin(h); h.rmdir(0, "y", ""); h.create(9, "b", 2) }},
		{"something is made while the directory is removed", false, func(h *told) {
			begin(h)
			during(h.create(9, "b", 2))
			h.rmdir(0, "y", "")
			h.none(0, "y")
		}},
		{"a directory of that name came anew", true, func(h *told) {
			begin(h)
			h.rmdir(0, "y", "")
			h.mkdir(0, "y", 10)
			h.add(Op{Kind: List, Dir: 9, Errno: "stale"})
			h.list(10)
		}},
		{"stat of what is there and not", true, func(h *told) {
			begin(h)
			h.add(Op{Kind: Stat, Value: 1, Links: 1})
			h.add(Op{Kind: Stat, Value: 0, Links: 4, IsDir: true})
			h.unlink(8, "a", "")
			h.add(Op{Kind: Stat, Value: 1, Errno: "stale"})
		}},
		{"what was removed and is open still", true, func(h *told) {
			begin(h)
			h.unlink(8, "a", "")
			h.rmdir(0, "y", "")
			h.add(Op{Kind: Stat, Value: 1})
			h.add(Op{Kind: Stat, Value: 9, IsDir: true})
			h.list(9)
			h.dir(9, "..", 0, 3)
			h.none(9, "a")
		}},
		{"what was removed has a link", false, func(h *told) { begin(h); h.unlink(8, "a", ""); h.add(Op{Kind: Stat, Value: 1, Links: 1}) }},
		{"what was never made is there", false, func(h *told) { begin(h); h.file(0, "b", 3, 1) }},
		{"a removed directory has names", false, func(h *told) { begin(h); h.rmdir(0, "y", ""); h.list(9, "a") }},
		{"stat of a file says directory", false, func(h *told) { begin(h); h.add(Op{Kind: Stat, Value: 1, Links: 1, IsDir: true}) }},
		{"listed with whose the names are", true, func(h *told) { begin(h); h.list(0, "x", "y").Values = []uint64{8, 9} }},
		{"listed as another's", false, func(h *told) { begin(h); h.list(0, "x", "y").Values = []uint64{9, 8} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &told{now: 10}
			c.of(h)
			decide(t, h.ops, c.ok)
		})
	}
}

// Trees do not know each other: each has its own verdict.
func TestTreesAreDecidedByThemselves(t *testing.T) {
	h := &told{now: 10}
	begin(h)
	other := &told{now: 10}
	begin(other)
	other.none(8, "a")
	for i := range other.ops {
		other.ops[i].Key = "u"
	}
	parts, err := Divide(append(h.ops, other.ops...))
	if err != nil || len(parts) != 2 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	for i, want := range []Verdict{True, Untrue} {
		if parts[i].Decide(time.Minute); parts[i].Verdict != want {
			t.Errorf("%s is %s", parts[i].Key, parts[i].Verdict)
		}
	}
}

func TestErrorsOfNamesHaveWords(t *testing.T) {
	for _, k := range []ashlar.Kind{
		ashlar.NotExist, ashlar.Exist, ashlar.NotDir, ashlar.IsDir, ashlar.NotEmpty, ashlar.Loop, ashlar.Invalid, ashlar.NotOwner, ashlar.Stale,
	} {
		if w, ok := Errno(ashlar.E("rename", k, "", nil)); !ok || errnos[w] == 0 {
			t.Errorf("%v is %q", k, w)
		}
	}
	for _, err := range []error{ashlar.Timeout, ashlar.OutcomeUnknown, ashlar.NoSpace, errors.New("x")} {
		if w, ok := Errno(err); ok {
			t.Errorf("%v is the answer %q", err, w)
		}
	}
	if w, ok := Errno(nil); !ok || w != "" {
		t.Errorf("success is %q", w)
	}
}
