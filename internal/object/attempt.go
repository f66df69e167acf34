package object

import (
	"context"
	"errors"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// request is one data request, repeated until it is done. prepare makes the
// messages for a group as it is now; it may wait, and its errors end the
// request. done checks the answer. failed is told why an attempt failed.
type request interface {
	prepare(ctx context.Context, k *known) (req, reply wire.Message, err error)
	done() error
	failed(err error)
}

var (
	errPrimary   = errors.New("the group has another primary")
	errGivenUp   = errors.New("given up before it was sent")
	errNoPrimary = ashlar.E("data", ashlar.NotReady, "", errors.New("the group has no primary"))
)

// try is the state of the attempts at one request.
type try struct {
	pause   time.Duration
	epoch   ashlar.Epoch // that the counts below belong to
	corrupt int
	disk    int
}

// run does a request in a group until it succeeds, fails for good or ctx ends.
func (s *Store) run(ctx context.Context, id ashlar.PGID, r request) error {
	p := s.place(id)
	var t try
	for {
		k, err := p.get(ctx)
		if err != nil {
			return err
		}
		err = errNoPrimary
		if k.addr != "" {
			req, reply, perr := r.prepare(ctx, k)
			if perr != nil {
				return perr
			}
			if ctx.Err() != nil { // nothing is sent any more: not under a newer session either (I-7)
				return ended(ctx, errGivenUp)
			}
			if err = s.attempt(ctx, p, k, req, reply); err == nil {
				err = r.done()
			}
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ended(ctx, err)
		}
		r.failed(err)
		if !s.again(&t, k, err) {
			return err
		}
		if !s.wait(ctx, p, k, &t) {
			return ended(ctx, err)
		}
	}
}

// again tells whether a request that failed with err is to be repeated.
func (s *Store) again(t *try, k *known, err error) bool {
	if t.epoch != k.group.Epoch {
		t.epoch, t.corrupt, t.disk = k.group.Epoch, 0, 0
	}
	if errors.Is(err, rpc.ErrClosed) {
		return false
	}
	switch kind := ashlar.KindOf(err); kind {
	case ashlar.Auth, ashlar.NoSession:
		s.refusedTicket()
	case ashlar.Corrupt:
		t.corrupt++
		return t.corrupt < corruptTries
	case ashlar.IO:
		t.disk++
		return t.disk < diskTries
	case ashlar.Canceled, ashlar.Fenced: // its server is going away
	default:
		return kind.Retryable()
	}
	return true
}

// wait pauses before the next attempt, or until the group changes.
func (s *Store) wait(ctx context.Context, p *place, k *known, t *try) bool {
	t.pause = min(max(2*t.pause, backoffMin), backoffMax)
	timer := make(chan struct{})
	stop := s.clock.AfterFunc(t.pause, func() { close(timer) })
	defer stop()
	select {
	case <-p.news(k):
	case <-timer:
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}

// attempt sends a request to the primary and waits for the answer, for as
// long as the group has this primary.
func (s *Store) attempt(ctx context.Context, p *place, k *known, req, reply wire.Message) error {
	actx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.ctx, cancel)()
	late := s.clock.AfterFunc(doubtAfter, func() { s.doubt(actx, p) })
	defer late()
	err := s.rpc.Call(actx, k.addr, req, reply)
	if err != nil && k.ctx.Err() != nil && ctx.Err() == nil && errors.Is(err, ashlar.Canceled) {
		return ashlar.E("data", ashlar.Unreachable, k.addr, errPrimary)
	}
	return err
}

// doubt keeps asking the masters for the group until ctx ends.
func (s *Store) doubt(ctx context.Context, p *place) {
	for ctx.Err() == nil {
		p.mu.Lock()
		p.fetch()
		p.mu.Unlock()
		timer := make(chan struct{})
		stop := s.clock.AfterFunc(doubtAfter/2, func() { close(timer) })
		select {
		case <-timer:
		case <-ctx.Done():
		case <-s.ctx.Done():
			stop()
			return
		}
		stop()
	}
}
