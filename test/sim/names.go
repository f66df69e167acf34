package sim

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// readOf: names are read once in so many looks at who leads.
const readOf = 8

// newNames returns what a worker does with names, through a session.
func (w *worker) newNames(ask names.Asker) *names.Worker {
	return &names.Worker{Ask: ask, Notes: w, Trees: w.trees, Rand: w.rng, NewID: w.value}
}

// Begin implements names.Notes.
func (w *worker) Begin(o *history.Op) { o.Client, o.Call = w.id, w.now() }

// End implements names.Notes.
func (w *worker) End(o *history.Op, err error) {
	w.answer(o, err)
	w.c.unanswered.add(o)
	w.rec.Add(*o)
}

// Full implements names.Notes.
func (w *worker) Full(key string) bool { return w.c.unanswered.full(key) }

// changeNames does one operation on names.
func (w *worker) changeNames() {
	if w.names == nil {
		w.names = w.newNames(w.conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	w.names.Step(ctx)
}

// readNames reads names: everything, as soon as the client follows another
// leader, through its session or through a new one, and now and then
// something.
func (w *worker) readNames() {
	if w.names == nil {
		w.names = w.newNames(w.conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	addr := w.conn.Leader().Addr()
	switch {
	case addr != "" && w.leader != "" && addr != w.leader:
		w.c.trace.add("client %d follows %s", w.id, addr)
		w.leader = addr
		if err := w.readUnder(ctx); err != nil {
			w.c.trace.add("client %d reads all: %v", w.id, err)
		}
		return
	case w.leader == "":
		w.leader = addr
	}
	if w.rng.IntN(readOf) == 0 {
		w.names.Read(ctx)
	}
}

// readUnder reads all names under a leader that is new to the client.
func (w *worker) readUnder(ctx context.Context) error {
	ask := names.Asker(w.conn)
	if w.rng.IntN(2) == 0 {
		conn, err := masterconn.Dial(ctx, masterconn.Config{
			RPC: w.client.rpc, Masters: w.c.masterAddrs(), Name: w.name + "-visitor", Clock: w.clock, Logger: w.c.logger(w.name),
		})
		if err != nil {
			return err
		}
		defer func() { // what is not closed in time is lost
			cctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(cctx)
		}()
		ask = conn
	}
	return w.newNames(counted{ask, &w.c.afresh}).ReadAll(ctx)
}

// counted counts what was answered.
type counted struct {
	names.Asker
	n *atomic.Int64
}

// Do implements names.Asker.
func (c counted) Do(ctx context.Context, cred ashlar.Cred, m, reply wire.Message) error {
	err := c.Asker.Do(ctx, cred, m, reply)
	if _, ok := history.Errno(err); ok {
		c.n.Add(1)
	}
	return err
}

// endNames does one more change for a client: what it gave up before has taken
// effect by then, or never will.
func (k *client) endNames(rec *history.Recorder) error {
	defer setNode(setNode(k.node))
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	w := &worker{client: k, rec: rec, id: 10 * k.id, rng: k.rng}
	if err := w.newNames(k.conn).Last(ctx); err != nil {
		return fmt.Errorf("the last change of names of %s: %w", k.name, err)
	}
	return nil
}
