package object

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// place is what the store knows of one placement group.
type place struct {
	store *Store
	id    ashlar.PGID

	mu       sync.Mutex
	now      *known // nil before the first answer
	err      error  // of the last question, nil if it was answered
	fetching bool
	changed  chan struct{} // closed at the end of every question that changed something
}

// known is a group as the masters last told. ctx ends when the masters give it
// another primary, and with it every attempt that waits for the old one.
type known struct {
	group ashlar.Group
	addr  string // of the primary, "" for none that could be asked
	ctx   context.Context
	end   context.CancelFunc
}

func (s *Store) place(id ashlar.PGID) *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[id]
	if p == nil {
		p = &place{store: s, id: id, changed: make(chan struct{})}
		s.places[id] = p
	}
	return p
}

// get returns the group, asking for it if it is not known at all.
func (p *place) get(ctx context.Context) (*known, error) {
	for {
		p.mu.Lock()
		k, err, changed := p.now, p.err, p.changed
		if k == nil {
			p.fetch()
		}
		p.mu.Unlock()
		switch {
		case k != nil:
			return k, nil
		case err != nil && !ashlar.KindOf(err).Retryable():
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ended(ctx, err)
		}
	}
}

// news returns a channel that is closed when the group is known to be another
// than k, and has the masters asked.
func (p *place) news(k *known) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != k {
		ch := make(chan struct{})
		close(ch)
		return ch
	}
	p.fetch()
	return p.changed
}

// fetch asks the masters in the background, unless that is being done. While
// an epoch is known they answer when it is over, or after half a second. mu
// must be held.
func (p *place) fetch() {
	s := p.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.fetching || s.closed {
		return
	}
	p.fetching = true
	m := &wire.GetGroups{Groups: []ashlar.PGID{p.id}}
	if p.now != nil && p.now.addr != "" {
		m.After = p.now.group.Epoch
	}
	s.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
		defer cancel()
		var reply wire.GroupsReply
		err := s.masters.Do(ctx, ashlar.Cred{Checked: true}, m, &reply)
		p.learn(&reply, err)
	})
}

// learn takes in an answer.
func (p *place) learn(reply *wire.GroupsReply, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetching = false
	if err == nil && (len(reply.Groups) != 1 || reply.Groups[0].ID != p.id) {
		err = ashlar.E("locate", ashlar.IO, fmt.Sprintf("pg %d", p.id), errors.New("the masters know no such group"))
	}
	if p.err = err; err == nil {
		if !p.adopt(&reply.Groups[0]) {
			return
		}
	} else if p.now != nil {
		return
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// adopt replaces what is known by g and tells whether that is something new.
// mu must be held.
func (p *place) adopt(g *ashlar.Group) bool {
	k := &known{group: *g}
	old := p.now
	i := g.Primary()
	if i >= 0 {
		k.addr = g.Members[i].Addr
	}
	if old != nil {
		if g.Epoch < old.group.Epoch || g.Epoch == old.group.Epoch && k.addr == old.addr {
			return false
		}
		j := old.group.Primary()
		if i >= 0 && j >= 0 && g.Members[i] == old.group.Members[j] {
			k.ctx, k.end = old.ctx, old.end
		} else {
			old.end()
		}
	}
	if k.ctx == nil {
		k.ctx, k.end = context.WithCancel(context.Background())
	}
	p.now = k
	return true
}

// ended is the error of a context that ended, with the reason why it was
// waited until then.
func ended(ctx context.Context, reason error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ashlar.E("data", ashlar.Timeout, "", reason)
	}
	return ashlar.E("data", ashlar.Canceled, "", reason)
}
