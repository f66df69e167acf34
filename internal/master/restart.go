package master

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// restartLook is how often a chunkserver that was started again looks whether
// those are heard of that share its groups.
const restartLook = 20 * time.Millisecond

// restarts are the chunkservers whose registration waits. A registration of a
// new incarnation proves the one before dead, because the data directory is
// locked; what it may not do is to leave an in-sync set in favour of a member
// that died too and has not been missed yet: if that one never returns, the
// only copy that is here would count for nothing.
type restarts map[ashlar.NodeID]placement.Lost

// awaitPeers lets the registration of a restarted chunkserver wait until each
// of those that are in-sync beside it is heard of under this leader, or is
// lost, or waits here as well.
func (l *lead) awaitPeers(ctx context.Context, q *wire.Register) (end func(), err error) {
	end = func() {}
	n := l.restarted(q)
	if n == nil {
		return end, nil
	}
	mine := placement.Lost{Node: n.ID, Session: n.Session}
	l.sessMu.Lock()
	l.restarts[n.ID] = mine
	l.sessMu.Unlock()
	end = func() {
		l.sessMu.Lock()
		defer l.sessMu.Unlock()
		if l.restarts[n.ID] == mine {
			delete(l.restarts, n.ID)
		}
	}
	for l.anyUnheard() {
		_, moved := l.m.revision()
		if err := l.await(ctx, moved, restartLook); err != nil {
			return end, err
		}
	}
	return end, nil
}

// restarted returns the node whose earlier incarnation a registration proves
// dead, nil if it does not.
func (l *lead) restarted(q *wire.Register) *placement.Node {
	v, err := l.current()
	if err != nil {
		return nil // Register says so
	}
	for _, id := range v.NodeIDs() {
		n := v.Nodes[id]
		if n.Name == q.Name && n.UUID == q.UUID && n.Addr == q.Addr && n.Up && n.Incarnation != q.Incarnation {
			return n
		}
	}
	return nil
}

// anyUnheard is unheard for all that wait: they go together.
func (l *lead) anyUnheard() bool {
	l.sessMu.Lock()
	ids := slices.Collect(maps.Keys(l.restarts))
	l.sessMu.Unlock()
	return slices.ContainsFunc(ids, l.unheard)
}

// unheard tells whether any node that is in-sync beside one may be dead without
// being known to be.
func (l *lead) unheard(id ashlar.NodeID) bool {
	v, err := l.current()
	if err != nil {
		return true
	}
	beside := map[ashlar.NodeID]bool{}
	for _, g := range v.Groups {
		in := false
		for _, m := range g.Members {
			in = in || m.Node == id && m.State == ashlar.InSync
		}
		for _, m := range g.Members {
			if in && m.Node != id && m.State == ashlar.InSync && v.Serves(m.Disk) {
				beside[m.Node] = true
			}
		}
	}
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	for peer := range beside {
		_, too := l.restarts[peer]
		if s := l.servers[peer]; s != nil && !too && !s.heard() {
			return true
		}
	}
	return false
}

// loseRestarted takes the incarnations before out of service of all nodes that
// wait to be registered anew: together, so that groups they had to themselves
// keep them in-sync. It is part of the registration's batch.
func (l *lead) loseRestarted(tx meta.Tx, now int64) (lost []placement.Lost, err error) {
	l.sessMu.Lock()
	for _, d := range l.restarts {
		lost = append(lost, d)
	}
	l.sessMu.Unlock()
	if len(lost) < 2 {
		return nil, nil // Register does it
	}
	for _, d := range lost {
		if err := session.Close(tx, d.Session); err != nil {
			return nil, err
		}
	}
	return lost, placement.NodesDown(tx, now, lost)
}

// forgetRestarted is called once that is logged.
func (l *lead) forgetRestarted(lost []placement.Lost) { l.forgetServers(lost) }
