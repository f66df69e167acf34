package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// What clients do.
const (
	files      = 3 // files that blocks are in
	blocksEach = 4 // blocks used of each, a chunk apart
	workersMax = 8 // of a process
	thinkMax   = 60 * time.Millisecond
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

	cluster string // the client file
	log     *slog.Logger
	names   *names.Worker
	leader  string // that the client followed when names were last read
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
	word, ok := history.Errno(err)
	switch {
	case err == nil:
	case ok && o.Kind != history.BlockWrite:
		o.Errno = word
	default:
		if o.Process != 0 {
			o.GaveUp = o.Return
		}
		o.Return = history.Never
		if o.Kind.Changes() {
			w.notes.lost(o)
		}
	}
	if !o.Unknown() || o.Kind.Changes() {
		w.notes.add(o)
	}
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
