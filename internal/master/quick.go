package master

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// The quick ways serve what a client that does one thing at a time asks for,
// with as few goroutines taking turns as possible: every turn costs more than
// the work. Whatever is not simple is declined and goes the usual way.

// quickRaft receives a packet.
func (m *Master) quickRaft(r *rpc.Request, _ bool) (wire.Message, error, rpc.Outcome) {
	reply, err := m.raft(m.ctx, r)
	return reply, err, rpc.Answered
}

// quickOperation answers a read, or evaluates and proposes a change whose
// answer follows when it is applied.
func (m *Master) quickOperation(r *rpc.Request, alone bool) (wire.Message, error, rpc.Outcome) {
	l, n := m.lead.Load(), m.node.Load()
	if !alone || l == nil || n == nil || !m.initialised.Load() || !n.LeaseValid() {
		return nil, nil, rpc.Declined
	}
	o := r.Msg.(*wire.Operation)
	switch o.Body.(type) {
	case *wire.Lookup, *wire.GetAttr, *wire.GetXattr, *wire.Readlink, *wire.Access:
		if l.admit(o) != nil {
			return nil, nil, rpc.Declined
		}
		if o.Leases && leasable(o.Body) {
			if l.changeNow(r, o) {
				return nil, nil, rpc.Later
			}
			return nil, nil, rpc.Declined
		}
		reply, err := l.readOnce(o)
		if !l.confirmed() || l.leases.Blocked(o.Session, shown(reply), ashlar.LeaseShared) {
			return nil, nil, rpc.Declined // what was read may be old: read it again (I-2)
		}
		return reply, m.wrap(err), rpc.Answered
	case *wire.Open, *wire.Make, *wire.Remove, *wire.Rename, *wire.Link, *wire.SetAttr, *wire.Commit, *wire.Commits, *wire.SetLock, *wire.SetName:
		if l.admit(o) == nil && l.changeNow(r, o) {
			return nil, nil, rpc.Later
		}
	}
	return nil, nil, rpc.Declined
}

// confirmed is confirm for who cannot wait.
func (l *lead) confirmed() bool { return l.m.node.Load().LeaseValid() && l.m.lead.Load() == l }

// changeNow is evaluated without a goroutine of its own.
func (l *lead) changeNow(r *rpc.Request, o *wire.Operation) bool {
	q := l.request(o)
	q.then = func(a answer) {
		if meta.AsNeedCut(a.err) == nil && asNeedRecall(a.err) == nil && (!a.bare || l.confirmed()) {
			r.Answer(a.reply, l.m.wrap(a.err))
			return
		}
		again := l.spawn(func() { // nothing was written: evaluated again it is the same
			reply, err := l.evaluated(l.ctx, o)
			r.Answer(reply, l.m.wrap(err))
		})
		if !again {
			r.Answer(nil, l.m.notLeader())
		}
	}
	return l.evaluateNow(q)
}
