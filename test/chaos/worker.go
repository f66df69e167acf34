package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
)

// What clients do.
const (
	files       = 3 // files that blocks are in
	blocksEach  = 4 // blocks used of each, a chunk apart
	directories = 4
	namesEach   = 3
	workersMax  = 8 // of a process
	thinkMax    = 60 * time.Millisecond
	// An operation in askShortOf is given up soon, the others are waited for
	// longer than any fault.
	askShort   = 2 * time.Second
	askLong    = 15 * time.Second
	askShortOf = 8
)

// worker asks one thing at a time.
type worker struct {
	*session
	work  *work
	sdk   *sdkFile
	notes *notes
	id    int
	rng   *rand.Rand
	count uint64
	dirty bool // the last write of the SDK's file has no answer
}

// until works until stop is closed, and ends what it is asking.
func (w *worker) until(stop <-chan struct{}, step func(*worker)) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		step(w)
		t.Reset(time.Duration(w.rng.Int64N(int64(thinkMax))))
	}
}

// value returns an identity that no other operation of the round has; it fits
// a user id.
func (w *worker) value() uint64 {
	w.count++
	return uint64(w.id)<<20 | w.count
}

func (w *worker) patience() (context.Context, context.CancelFunc) {
	d := askLong
	if w.rng.IntN(askShortOf) == 0 {
		d = askShort
	}
	return context.WithTimeout(context.Background(), d)
}

// begin notes that a change is asked for.
func (w *worker) begin(o *history.Op) {
	o.Client, o.Call, o.Return = w.id, now(), history.Never
	w.notes.add(o)
}

// end notes how an operation ended. What may have happened or not, and what
// may still happen, has no answer.
func (w *worker) end(o *history.Op, err error) {
	o.Return = now()
	switch {
	case err == nil:
	case errors.Is(err, ashlar.Exist):
		o.Errno = "exist"
	case errors.Is(err, ashlar.NotExist):
		o.Errno = "noent"
	default:
		o.Return = history.Never
		if !readOnly(o.Kind) {
			w.notes.lost(o)
		}
	}
	if !o.Unknown() || !readOnly(o.Kind) {
		w.notes.add(o)
	}
}

func readOnly(k history.Kind) bool {
	return k == history.BlockRead || k == history.Lookup || k == history.List
}

// endRead is end for a block that was read.
func (w *worker) endRead(o *history.Op, b []byte, err error) error {
	if err == nil {
		if o.Value, err = history.Value(b); err != nil {
			err = fmt.Errorf("%s: %w", o, err)
			w.notes.wrong(err)
			return err
		}
	}
	w.end(o, err)
	return err
}

func blockKey(ref *object.Ref, block int) string {
	return fmt.Sprintf("%s/%d", ref.Hint, block)
}

// readBlock reads one block.
func (w *worker) readBlock(ctx context.Context, ref *object.Ref, block int) error {
	o := history.Op{Client: w.id, Kind: history.BlockRead, Key: blockKey(ref, block), Call: now()}
	b := make([]byte, history.BlockSize)
	return w.endRead(&o, b, w.store.ReadAt(ctx, ref, b, offset(ref, block)))
}

func offset(ref *object.Ref, block int) uint64 { return uint64(block) * uint64(ref.Layout.ChunkSize) }

// blocks reads or writes one block.
func (w *worker) blocks() {
	ref := &w.work.Refs[w.rng.IntN(len(w.work.Refs))]
	block := w.rng.IntN(blocksEach)
	ctx, cancel := w.patience()
	defer cancel()
	if w.rng.IntN(2) == 0 || w.notes.full(blockKey(ref, block)) {
		_ = w.readBlock(ctx, ref, block) // noted
		return
	}
	o := history.Op{Kind: history.BlockWrite, Key: blockKey(ref, block), Value: w.value()}
	b := make([]byte, history.BlockSize)
	history.Fill(b, o.Value)
	var flags uint32
	if w.rng.IntN(2) == 0 {
		flags = wire.WriteSync
	}
	w.begin(&o)
	w.end(&o, w.store.WriteAt(ctx, ref, b, offset(ref, block), flags))
}

// names does one operation in a directory.
func (w *worker) names() {
	d := w.rng.IntN(len(w.work.Dirs))
	dir := w.work.Dirs[d]
	name := func() string { return string(rune('a' + w.rng.IntN(namesEach))) }
	o := history.Op{Client: w.id, Key: fmt.Sprintf("dir%d", d), Name: name(), Call: now()}
	to := name()
	ctx, cancel := w.patience()
	defer cancel()
	what := w.rng.IntN(7)
	if w.notes.full(o.Key) {
		what = 5 + w.rng.IntN(2)
	}
	var e wire.Entry
	switch what {
	case 0, 1:
		o.Kind, o.Value = history.Create, w.value()
		w.begin(&o)
		w.end(&o, w.conn.Do(ctx, ashlar.Cred{UID: uint32(o.Value), Checked: true},
			&wire.Make{Parent: dir, Name: o.Name, Type: ashlar.TypeFile, Mode: 0o644, Exclusive: true}, &e))
	case 2:
		o.Kind = history.Unlink
		w.begin(&o)
		w.end(&o, w.do(ctx, &wire.Remove{Parent: dir, Name: o.Name}, &e))
	case 3:
		o.Kind, o.To = history.Rename, to
		w.begin(&o)
		w.end(&o, w.do(ctx, &wire.Rename{OldParent: dir, OldName: o.Name, NewParent: dir, NewName: o.To}, &e))
	case 4:
		if e, err := w.lookup(ctx, o, dir); err == nil {
			o.Name, o.Kind, o.To, o.Value = "", history.LinkTo, to, uint64(e.Attr.UID)
			w.begin(&o)
			w.end(&o, w.do(ctx, &wire.Link{Inode: e.Attr.Inode, Parent: dir, Name: to}, &e))
		}
	case 5:
		_ = w.list(ctx, o.Key, dir) // noted
	default:
		_, _ = w.lookup(ctx, o, dir) // noted
	}
}

func (w *worker) lookup(ctx context.Context, o history.Op, dir ashlar.Inode) (e wire.Entry, err error) {
	o.Kind = history.Lookup
	err = w.do(ctx, &wire.Lookup{Parent: dir, Name: o.Name}, &e)
	if err == nil {
		o.Value, o.Links = uint64(e.Attr.UID), e.Attr.Nlink
	}
	w.end(&o, err)
	return e, err
}

func (w *worker) list(ctx context.Context, key string, dir ashlar.Inode) error {
	o := history.Op{Client: w.id, Kind: history.List, Key: key, Call: now(), Names: []string{}}
	var rep wire.ReaddirReply
	err := w.do(ctx, &wire.Readdir{Inode: dir, Limit: 100}, &rep)
	for _, e := range rep.Entries {
		if e.Name != "." && e.Name != ".." {
			o.Names = append(o.Names, e.Name)
		}
	}
	slices.Sort(o.Names)
	w.end(&o, err)
	return err
}

// sdkFile writes the client's own file through the SDK, or reads it. Reads
// after a write without an answer say little: what is cached may go.
func (w *worker) sdkFile() {
	ctx, cancel := w.patience()
	defer cancel()
	o := history.Op{Client: w.id, Key: w.sdk.name, Kind: history.BlockRead, Call: now()}
	b := make([]byte, history.BlockSize)
	full := w.notes.full(o.Key)
	if full && w.dirty {
		return
	}
	if !w.dirty && w.count > 0 && (full || w.rng.IntN(2) == 0) {
		_ = w.endRead(&o, b, w.sdk.read(ctx, b)) // noted
		return
	}
	o.Kind, o.Value = history.BlockWrite, w.value()
	history.Fill(b, o.Value)
	w.begin(&o)
	err := w.sdk.write(ctx, b)
	w.dirty = err != nil
	w.end(&o, err)
}
