package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// failuresMax is how many rounds of a run in the short form may fail before it
// ends: each keeps a directory.
const failuresMax = 10

// tally is what the rounds of a run came to.
type tally struct {
	schedules, faults, ops, answered int
	proofs, appErrors                int
	longest                          time.Duration // until everything was redundant
	longestSeed                      uint64
	failed                           []uint64 // seeds
	began                            time.Time
}

func (t *tally) add(r *round, err error) {
	t.schedules++
	t.faults += r.injected
	t.ops += r.ops
	t.answered += r.answered
	t.proofs += r.c.proofs
	t.appErrors += r.appErrors
	r.c.proofs = 0
	if r.repaired > t.longest {
		t.longest, t.longestSeed = r.repaired, r.seed
	}
	if err != nil {
		t.failed = append(t.failed, r.seed)
	}
}

func (t *tally) String() string {
	end := "0 lost, 0 wrong"
	if len(t.failed) > 0 {
		end = fmt.Sprintf("%d FAILED, with seeds %v", len(t.failed), t.failed)
	}
	return fmt.Sprintf("%d schedules, %d faults, %d operations (%d without an answer), %d errors that applications may see, %d deaths proven and none of a living process, %s; longest time to redundancy %v (seed %d); %v in all",
		t.schedules, t.faults, t.ops, t.ops-t.answered, t.appErrors, t.proofs, end, t.longest.Round(time.Millisecond), t.longestSeed, time.Since(t.began).Round(time.Second))
}

// run carries out rounds until the time is over, or one fails and the form is
// not the short one.
func run(ctx context.Context, o *options) (err error) {
	kept := o.dir != ""
	if !kept {
		if o.dir, err = os.MkdirTemp("", "ashlar-chaos-"); err != nil {
			return err
		}
	} else if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	var given Schedule
	if o.schedule != "" {
		if given, err = loadSchedule(o.schedule); err != nil {
			return err
		}
		o.rounds = 1
	}
	t := &tally{began: time.Now()}
	err = rounds(ctx, o, given, t)
	if t.schedules > 0 {
		fmt.Println(t)
	}
	if err == nil && !kept {
		return os.RemoveAll(o.dir)
	}
	return err
}

// rounds runs one round after the other on one cluster, and on a new one after
// a round that failed.
func rounds(ctx context.Context, o *options, given Schedule, t *tally) (err error) {
	var c *cluster
	defer func() {
		if c != nil {
			c.stop()
		}
	}()
	for n := 0; (o.rounds == 0 || n < o.rounds) && (n == 0 || time.Since(t.began) < o.length); n++ {
		if c == nil {
			if c, err = newCluster(ctx, o, fmt.Sprintf("cluster-%d", len(t.failed)+1)); err != nil {
				return err
			}
		}
		r, err := newRound(c, o, o.seed+uint64(n), given)
		if err != nil {
			return err
		}
		err = r.run(ctx)
		t.add(r, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			fmt.Printf("seed %d: %s\n", r.seed, r.summary())
			if err := r.forget(); err != nil {
				return err
			}
			continue
		}
		err = fmt.Errorf("round with seed %d: %w\n%s\nagain: chaos -clients %d -seed %d -schedule %s", r.seed, err, c.logs(), o.clients, r.seed, r.file("resolved"))
		if !o.short || len(t.failed) == failuresMax {
			return err
		}
		fmt.Printf("FAILED: %v\n", err)
		c.stop()
		c = nil
	}
	if len(t.failed) > 0 {
		return errors.New("some rounds failed")
	}
	return nil
}
