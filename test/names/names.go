// Package names is work on names for whoever records histories: changes and
// reads of small trees, at random. Simulated and real clients do it alike.
//
// A directory is asked for by its inode and told in the history by its
// identity, which is the user id that it was made with, as of every file: what
// was replaced, moved or made twice shows by that. The top of a tree is
// identity 0, which is to say that root made it.
//
// A Worker does one thing at a time and is used by one goroutine. Nothing
// survives it.
package names

import (
	"context"
	"math/rand/v2"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
)

const (
	// names used in each directory, and directories and files of each tree
	// that a worker remembers: few, so that clients meet.
	namesEach = 3
	knownMax  = 4
	// deepOf: a directory is made elsewhere than at the top once in so many
	// times, so that trees stay flat.
	deepOf = 3
	// listMax is above what a directory can hold.
	listMax = 100
)

// Asker asks the masters.
type Asker interface {
	Do(ctx context.Context, cred ashlar.Cred, body, reply wire.Message) error
}

// Notes takes note of operations. Begin is called before one is asked for and
// sets who asks and when; End is told how it ended and sets the rest.
type Notes interface {
	Begin(o *history.Op)
	End(o *history.Op, err error)
	// Full tells whether a tree has enough changes without an answer, each of
	// which makes its history harder to check: only reads follow then.
	Full(key string) bool
}

// Tree is an empty directory to work in, made by root.
type Tree struct {
	Key string // in the history
	Top ashlar.Inode
}

// node is a file or directory that was met.
type node struct {
	id    uint64
	inode ashlar.Inode
}

// known is what a worker has met of a tree: the top first.
type known struct{ dirs, files []node }

// Worker works on trees.
type Worker struct {
	Ask   Asker
	Notes Notes
	Trees []Tree
	Rand  *rand.Rand
	NewID func() uint64 // an identity that nobody else gives, of 32 bits

	known []known // of each tree
}

var root = ashlar.Cred{Checked: true}

// Step does one operation on one tree, a change four times out of five.
func (w *Worker) Step(ctx context.Context) {
	i := w.Rand.IntN(len(w.Trees))
	k := w.at(i)
	o := &history.Op{Key: w.Trees[i].Key}
	if w.Rand.IntN(5) == 0 || w.Notes.Full(o.Key) {
		w.read(ctx, k, o)
		return
	}
	dir, to := w.pick(k.dirs), w.pick(k.dirs)
	switch n := w.Rand.IntN(16); {
	case n < 3:
		o.Kind = history.Create
		w.make(ctx, k, o, dir, ashlar.TypeFile)
	case n < 5:
		o.Kind = history.Mkdir
		if w.Rand.IntN(deepOf) > 0 {
			dir = k.dirs[0]
		}
		w.make(ctx, k, o, dir, ashlar.TypeDir)
	case n < 7:
		o.Kind = history.Unlink
		w.remove(ctx, k, o, dir)
	case n < 9:
		o.Kind = history.Rmdir
		w.remove(ctx, k, o, dir)
	case n < 12:
		o.Kind = history.Rename
		w.rename(ctx, k, o, dir, to, 0)
	case n < 13:
		o.Kind = history.RenameNew
		w.rename(ctx, k, o, dir, to, wire.RenameNoReplace)
	case n < 14:
		o.Kind = history.Exchange
		w.rename(ctx, k, o, dir, to, wire.RenameExchange)
	default:
		w.link(ctx, k, o, to)
	}
}

// Read reads one thing of one tree.
func (w *Worker) Read(ctx context.Context) {
	i := w.Rand.IntN(len(w.Trees))
	w.read(ctx, w.at(i), &history.Op{Key: w.Trees[i].Key})
}

// Last removes a name that is nowhere: a change after all others of the
// session. It fails if it was not answered.
func (w *Worker) Last(ctx context.Context) error {
	o := &history.Op{Kind: history.Unlink, Key: w.Trees[0].Key, Name: "none"}
	var e wire.Entry
	return w.ask(ctx, w.at(0), o, root, &wire.Remove{Parent: w.Trees[0].Top, Name: o.Name}, &e, func() {})
}

// ReadAll lists every directory of every tree and looks up what it was told is
// in it. It fails if something was not answered.
func (w *Worker) ReadAll(ctx context.Context) error {
	for i := range w.Trees {
		if err := w.walk(ctx, w.at(i), w.Trees[i].Key, w.at(i).dirs[0]); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) walk(ctx context.Context, k *known, key string, dir node) error {
	entries, err := w.list(ctx, k, &history.Op{Kind: history.List, Key: key}, dir, true)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.lookup(ctx, k, &history.Op{Kind: history.Lookup, Key: key, Name: e.Name}, dir); err != nil {
			return err
		}
		if e.Type == ashlar.TypeDir {
			if err := w.walk(ctx, k, key, node{uint64(e.Attr.UID), e.Inode}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Worker) at(i int) *known {
	if w.known == nil {
		w.known = make([]known, len(w.Trees))
		for j := range w.known {
			w.known[j].dirs = []node{{0, w.Trees[j].Top}}
		}
	}
	return &w.known[i]
}

func (w *Worker) pick(of []node) node { return of[w.Rand.IntN(len(of))] }

func (w *Worker) name() string { return string(rune('a' + w.Rand.IntN(namesEach))) }

// meet remembers what was found; the oldest is forgotten.
func (k *known) meet(id uint64, inode ashlar.Inode, dir bool) {
	of, first := &k.files, 0
	if dir {
		of, first = &k.dirs, 1
	}
	n := node{id, inode}
	if slices.Contains(*of, n) {
		return
	}
	if *of = append(*of, n); len(*of) > knownMax+first {
		*of = slices.Delete(*of, first, first+1)
	}
}

// forget forgets what is there no more.
func (k *known) forget(n node) {
	is := func(o node) bool { return o == n && n.id != 0 }
	k.dirs, k.files = slices.DeleteFunc(k.dirs, is), slices.DeleteFunc(k.files, is)
}
