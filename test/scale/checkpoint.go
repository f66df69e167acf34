package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// checkpointBar is how long a checkpoint may delay a request.
const checkpointBar = 20 * time.Millisecond

// opsPerRequest is how many creates one timed request carries.
const opsPerRequest = 8

// checkpointResult is what a client beside checkpoints saw. Each round is one
// checkpoint, and the same number of requests without one.
type checkpointResult struct {
	Took   latencies // the checkpoints
	During latencies // requests that overlap a checkpoint
	Beside latencies // as many, while there is none
}

func measureCheckpoint(ctx context.Context, r *report, o *options) error {
	res, err := checkpoints(ctx, filepath.Join(o.dir, "checkpoint"), o.inTree, 10*o.rounds)
	if err != nil {
		return err
	}
	r.title("a checkpoint beside requests, %d inodes, %d checkpoints", o.inTree, len(res.Took))
	res.print(r)
	r.atMost("a checkpoint adds to the slowest request", ms(res.delay()), ms(checkpointBar), "ms")
	return nil
}

// delay is what checkpoints add to the slowest request. Others use the machine
// too: how long a request takes beside no checkpoint is taken off.
func (res *checkpointResult) delay() time.Duration {
	return max(0, res.During.max()-res.Beside.max())
}

func (res *checkpointResult) print(r *report) {
	r.say("a checkpoint takes %.1f ms (median), %.1f at most", ms(res.Took.median()), ms(res.Took.max()))
	for _, l := range []struct {
		what string
		l    latencies
	}{{"during one", res.During}, {"beside none", res.Beside}} {
		r.say("%6d requests %-11s median %.2f ms, 99%% %.2f, 99.9%% %.2f, slowest %.2f",
			len(l.l), l.what, ms(l.l.median()), ms(l.l.at(0.99)), ms(l.l.at(0.999)), ms(l.l.max()))
	}
}

// checkpoints makes a tree of n inodes, then checkpoints while a client makes
// and reads files as fast as it can.
func checkpoints(ctx context.Context, dir string, n, rounds int) (*checkpointResult, error) {
	defer os.RemoveAll(dir)
	store, err := openStore(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	l, err := newLeader(store)
	if err != nil {
		return nil, err
	}
	if _, err := grow(l, n, func(time.Duration) {}); err != nil {
		return nil, err
	}
	b := &beside{l: l}
	b.work, err = l.mkdir(l.root, "work")
	if err != nil {
		return nil, err
	}
	if err := l.apply(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- b.client() }()
	res := &checkpointResult{}
	err = b.rounds(ctx, store, dir, rounds, res)
	b.stop.Store(true)
	if cerr := <-done; err == nil {
		err = cerr
	}
	if cerr := store.Close(); err == nil {
		err = cerr
	}
	res.During, res.Beside = b.during, b.alone
	return res, err
}

// beside is a client that works while checkpoints are made.
type beside struct {
	l             *leader
	work          ashlar.Inode
	busy          atomic.Uint64 // odd while a checkpoint is made
	stop          atomic.Bool
	answered      atomic.Uint64
	during, alone latencies
}

func (b *beside) rounds(ctx context.Context, store *kv.Store, dir string, rounds int, res *checkpointResult) error {
	for i := range rounds {
		from := b.answered.Load()
		to := filepath.Join(dir, fmt.Sprintf("checkpoint-%d", i))
		b.busy.Add(1)
		began := time.Now()
		index, err := store.Checkpoint(to)
		took := time.Since(began)
		b.busy.Add(1)
		if err != nil {
			return err
		}
		if applied := store.Applied(); index == 0 || index > applied {
			return fmt.Errorf("a checkpoint as of %d, %d is applied", index, applied)
		}
		res.Took = append(res.Took, took)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		// As many requests without a checkpoint, and at least some.
		for until := b.answered.Load() + max(b.answered.Load()-from, 64); b.answered.Load() < until; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
			if b.stop.Load() {
				return nil
			}
		}
	}
	return nil
}

// client makes files and reads each until it is told to stop.
func (b *beside) client() error {
	defer b.stop.Store(true)
	for n := 0; !b.stop.Load(); n++ {
		before := b.busy.Load()
		began := time.Now()
		if err := b.request(n); err != nil {
			return err
		}
		took := time.Since(began)
		if after := b.busy.Load(); before != after || before%2 == 1 {
			b.during = append(b.during, took)
		} else {
			b.alone = append(b.alone, took)
		}
		b.answered.Add(1)
	}
	return nil
}

func (b *beside) request(n int) error {
	var last ashlar.Inode
	for i := range opsPerRequest {
		ino, err := b.l.create(b.work, fileName(n*opsPerRequest+i))
		if err != nil {
			return err
		}
		last = ino
	}
	if err := b.l.apply(); err != nil {
		return err
	}
	_, err := read(b.l.store, &b.l.env, b.l.session, &wire.GetAttr{Inode: last})
	return err
}
