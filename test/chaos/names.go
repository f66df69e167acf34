package main

import (
	"context"
	"log/slog"

	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// What is done with names, beside changing them.
const (
	trees = 4
	// readOf: names are read once in so many looks at who leads.
	readOf = 4
)

// newNames returns what a worker does with names, through a session.
func (w *worker) newNames(ask names.Asker) *names.Worker {
	return &names.Worker{Ask: ask, Notes: w, Trees: w.work.Trees, Rand: w.rng, NewID: w.value}
}

// Begin implements names.Notes: a change is noted before it is asked for.
func (w *worker) Begin(o *history.Op) {
	o.Client, o.Process, o.Call, o.Return = w.id, w.id/workersMax, now(), history.Never
	if o.Kind.Changes() {
		w.notes.add(o)
	}
}

// End implements names.Notes.
func (w *worker) End(o *history.Op, err error) { w.end(o, err) }

// Full implements names.Notes.
func (w *worker) Full(key string) bool { return w.notes.full(key) }

// changeNames does one operation on names.
func (w *worker) changeNames() {
	if w.names == nil {
		w.names = w.newNames(w.conn)
	}
	ctx, cancel := w.patience()
	defer cancel()
	w.names.Step(ctx)
}

// readNames reads names: everything, as soon as the client follows another
// leader, through its session or through a new one, and now and then
// something.
func (w *worker) readNames() {
	if w.names == nil {
		w.names, w.leader = w.newNames(w.conn), w.conn.Leader().Addr()
	}
	ctx, cancel := w.patience()
	defer cancel()
	addr := w.conn.Leader().Addr()
	if addr != "" && w.leader != "" && addr != w.leader {
		w.log.Warn("reads all names under another leader", "leader", addr, "end", w.readUnder(ctx))
	} else if w.rng.IntN(readOf) == 0 {
		w.names.Read(ctx)
	}
	if addr != "" {
		w.leader = addr
	}
}

// readUnder reads all names under a leader that is new to the client.
func (w *worker) readUnder(ctx context.Context) error {
	if w.rng.IntN(2) == 0 {
		return w.newNames(w.conn).ReadAll(ctx)
	}
	s, err := open(ctx, w.cluster, "visitor", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.close()
	return w.newNames(s.conn).ReadAll(ctx)
}

// endNames makes the last change of names of a process: what it gave up before
// has taken effect by then, or never will.
func (w *worker) endNames() {
	ctx, cancel := context.WithTimeout(context.Background(), askLong)
	defer cancel()
	_ = w.newNames(w.conn).Last(ctx) // noted
}
