package chunkserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// handlers sets every handler of the chunkserver.
func (s *Server) handlers() {
	h := func(k wire.Kind, f rpc.Handler) {
		s.cfg.Server.Handle(k, func(ctx context.Context, r *rpc.Request) (wire.Message, error) {
			m, err := f(ctx, r)
			return m, again(err)
		})
	}
	h((*wire.Attach)(nil).Kind(), s.handleAttach)
	h((*wire.Write)(nil).Kind(), s.handleWrite)
	h((*wire.Read)(nil).Kind(), s.handleRead)
	h((*wire.Sync)(nil).Kind(), s.handleSync)
	h((*wire.Runs)(nil).Kind(), s.handleRuns)
	h((*wire.CopyRange)(nil).Kind(), s.handleCopyRange)
	h((*wire.Scrub)(nil).Kind(), s.handleScrub) // an administrator's command asks each node
	node := func(k wire.Kind, f rpc.Handler) {
		h(k, func(ctx context.Context, r *rpc.Request) (wire.Message, error) {
			if r.Peer.Role != wire.RoleNode {
				return nil, ashlar.E("request", ashlar.Auth, r.Peer.Name, errors.New("only for nodes of the cluster"))
			}
			return f(ctx, r)
		})
	}
	node((*wire.Replicate)(nil).Kind(), s.handleReplicate)
	node((*wire.ReplicaSync)(nil).Kind(), s.handleReplicaSync)
	node((*wire.ReplicaCommit)(nil).Kind(), s.handleReplicaCommit)
	node((*wire.Adopt)(nil).Kind(), s.handleAdopt)
	node((*wire.Catchup)(nil).Kind(), s.handleCatchup)
	node((*wire.ChunkList)(nil).Kind(), s.handleChunkList)
	node((*wire.Copy)(nil).Kind(), s.handleCopy)
	node((*wire.CatchupEnd)(nil).Kind(), s.handleCatchupEnd)
	node((*wire.Fetch)(nil).Kind(), s.handleFetch)
	node((*wire.ChunkSums)(nil).Kind(), s.handleChunkSums)
	node((*wire.Cut)(nil).Kind(), s.handleCut)
	node((*wire.DeleteLayers)(nil).Kind(), s.handleDeleteLayers)
	node((*wire.Yield)(nil).Kind(), s.handleYield)
}

// again turns what was broken off here, because an epoch, a life or the
// process ended, into an error that makes the caller try again.
func again(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ashlar.Canceled) {
		return ashlar.E("request", ashlar.NotReady, "", err)
	}
	return err
}

// attached is what a connection has shown: the state that handlers keep on it.
type attached struct {
	session ashlar.SessionID
	expires int64 // masters' time
}

// handleAttach takes the ticket of the session whose requests a connection
// will carry.
func (s *Server) handleAttach(_ context.Context, r *rpc.Request) (wire.Message, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	k, err := rpc.OpenTicket(s.cfg.Secret, r.Msg.(*wire.Attach).Ticket)
	if err != nil {
		return nil, err
	}
	if k.Cluster != s.cfg.Cluster {
		return nil, ashlar.E("attach", ashlar.WrongCluster, k.Cluster.String(), nil)
	}
	a := &attached{session: k.Session, expires: k.Expires}
	if err := l.check(a, k.Session); err != nil {
		return nil, err
	}
	r.Conn.SetValue(a)
	return nil, nil
}

// check tells whether requests of a session may come over a connection (I-7).
func (l *life) check(a *attached, id ashlar.SessionID) error {
	switch {
	case a == nil || a.session != id:
		return ashlar.E("request", ashlar.Auth, "", errors.New("no ticket of this session was shown"))
	case a.expires <= l.lease.mastersTime():
		return ashlar.E("request", ashlar.Auth, "", errors.New("the ticket is over"))
	case l.fenced(id):
		return ashlar.E("request", ashlar.NoSession, "", errors.New("the session is fenced"))
	}
	return nil
}

// admit lets a client's request in: the lease holds (I-6), the session is
// known and not fenced (I-7), the epoch is ours (I-4) and this seat is the
// primary and serves. A group that is about to serve, or whose newer epoch
// the client heard of before we did, is waited for briefly. The generation
// (I-10) is checked when the range is granted.
func (l *life) admit(ctx context.Context, r *rpc.Request, a *wire.Address) (*seat, error) {
	if !l.lease.valid() {
		return nil, ashlar.NoLease
	}
	if r.Peer.Role == wire.RoleNode { // on behalf of a session that showed its ticket there
		if l.fenced(a.Session) {
			return nil, ashlar.E("request", ashlar.NoSession, "", errors.New("the session is fenced"))
		}
	} else {
		have, _ := r.Conn.Value().(*attached)
		if err := l.check(have, a.Session); err != nil {
			return nil, err
		}
	}
	if t := l.primary(a.Group); t != nil && t.ready(a.Epoch) == nil {
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, admitWait)
	defer cancel()
	return l.await(ctx, a.Group, a.Epoch)
}

// primary returns the seat here that is the primary of a group, or else any.
func (l *life) primary(g ashlar.PGID) *seat {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := l.byGroup[g]
	if len(list) == 1 {
		return list[0]
	}
	for _, t := range list {
		t.mu.Lock()
		p := t.sm.Primary()
		t.mu.Unlock()
		if p {
			return t
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return nil
}

// ready tells whether requests of an epoch can be taken now.
func (t *seat) ready(e ashlar.Epoch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.readyLocked(e)
}

func (t *seat) readyLocked(e ashlar.Epoch) error {
	if err := t.sm.Ready(e); err != nil {
		return err
	}
	if !t.vetted {
		return ashlar.NotReady
	}
	return nil
}

// await waits until a group is served here in an epoch.
func (l *life) await(ctx context.Context, g ashlar.PGID, e ashlar.Epoch) (*seat, error) {
	for {
		l.mu.RLock()
		news := l.news
		l.mu.RUnlock()
		t := l.primary(g)
		var own <-chan struct{}
		if t != nil {
			t.mu.Lock()
			var err error
			err, own = t.readyLocked(e), t.news
			ahead := e > t.sm.Epoch()
			t.mu.Unlock()
			if err == nil {
				return t, nil
			}
			if !errors.Is(err, ashlar.NotReady) {
				return nil, ashlar.E("request", ashlar.KindOf(err), fmt.Sprintf("pg %d", g), nil)
			}
			if ahead {
				own = nil // it comes by the watch
			}
		}
		select {
		case <-news:
		case <-own:
		case <-ctx.Done():
			return nil, ashlar.E("request", ashlar.NotReady, fmt.Sprintf("pg %d", g), nil)
		}
	}
}

// member returns the seat that a replica's message is addressed to.
func (l *life) member(d ashlar.DiskID, g ashlar.PGID) (*seat, error) {
	if t := l.find(d, g); t != nil {
		return t, nil
	}
	return nil, ashlar.E("request", ashlar.NotReady, fmt.Sprintf("pg %d on disk %d", g, d), errors.New("no such member here"))
}

// enter counts a change of the disk that a primary ordered (I-4); the caller
// calls exit.
func (t *seat) enter(e ashlar.Epoch) error {
	var err error
	t.step(nil, func(g *replication.Group) { err = g.Enter(e) })
	return err
}

// of checks that a primary's request carries this member's epoch (I-4), for
// requests that change nothing here.
func (t *seat) of(e ashlar.Epoch) error {
	err := t.enter(e)
	if err == nil {
		t.exit()
	}
	return err
}

func (t *seat) exit() { t.step(nil, func(g *replication.Group) { g.Leave() }) }
