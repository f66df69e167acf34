package history

import (
	"cmp"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// directory is the state of one directory: who has which name, sorted by name.
// It is a value: never changed in place.
type directory []entry

type entry struct {
	name  string
	value uint64 // identity of the file
}

func (d directory) find(name string) (int, bool) {
	return slices.BinarySearchFunc(d, name, func(e entry, name string) int { return cmp.Compare(e.name, name) })
}

func (d directory) get(name string) (uint64, bool) {
	i, ok := d.find(name)
	if !ok {
		return 0, false
	}
	return d[i].value, true
}

func (d directory) set(name string, value uint64) directory {
	i, ok := d.find(name)
	out := slices.Clone(d)
	if ok {
		out[i].value = value
		return out
	}
	return slices.Insert(out, i, entry{name, value})
}

func (d directory) drop(name string) directory {
	i, _ := d.find(name)
	return slices.Delete(slices.Clone(d), i, i+1)
}

func (d directory) links(value uint64) (n uint32) {
	for _, e := range d {
		if e.value == value {
			n++
		}
	}
	return n
}

// namesModel is the names of POSIX in one directory.
var namesModel = porcupine.Model{
	Init: func() any { return directory(nil) },
	Step: func(state, input, _ any) (bool, any) {
		next, errno, ok := step(state.(directory), input.(*Op))
		o := input.(*Op)
		if o.Unknown() {
			return true, next // whatever it was told
		}
		return ok && errno == o.Errno, next
	},
	Equal:             func(a, b any) bool { return slices.Equal(a.(directory), b.(directory)) },
	DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
	DescribeState: func(state any) string {
		var b strings.Builder
		for _, e := range state.(directory) {
			b.WriteString(e.name + " ")
		}
		return b.String()
	},
}

// step does an operation on a directory. ok is false if an answer other than
// the error is wrong.
func step(d directory, o *Op) (next directory, errno string, ok bool) {
	value, there := d.get(o.Name)
	switch o.Kind {
	case Create:
		if there {
			return d, "exist", true
		}
		return d.set(o.Name, o.Value), "", true
	case Unlink:
		if !there {
			return d, "noent", true
		}
		return d.drop(o.Name), "", true
	case Rename:
		if !there {
			return d, "noent", true
		}
		if to, has := d.get(o.To); has && to == value {
			return d, "", true // two names of one file: POSIX does nothing
		}
		return d.drop(o.Name).set(o.To, value), "", true
	case Link:
		if !there {
			return d, "noent", true
		}
		if _, has := d.get(o.To); has {
			return d, "exist", true
		}
		return d.set(o.To, value), "", true
	case LinkTo:
		_, has := d.get(o.To)
		if gone := d.links(o.Value) == 0; gone && has {
			return d, o.Errno, o.Errno != "" // either error
		} else if gone {
			return d, "noent", true
		}
		if has {
			return d, "exist", true
		}
		return d.set(o.To, o.Value), "", true
	case Lookup:
		if !there {
			return d, "noent", true
		}
		return d, "", o.Errno != "" || o.Value == value && o.Links == d.links(value)
	case List:
		names := make([]string, len(d))
		for i, e := range d {
			names[i] = e.name
		}
		return d, "", slices.Equal(names, o.Names)
	}
	return d, "", false
}
