package master

import (
	"context"
	"errors"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// groupsWait is how long GetGroups with After waits at most.
const groupsWait = 500 * time.Millisecond

// operation serves wire.Operation: changes and opens in the evaluator, reads
// from committed state beside it.
func (l *lead) operation(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	o := r.Msg.(*wire.Operation)
	if err := l.admit(o); err != nil {
		return nil, err
	}
	switch body := o.Body.(type) {
	case *wire.GetGroups:
		return l.getGroups(ctx, body)
	case *wire.GetStatus:
		return l.getStatus(ctx)
	case *wire.Explain:
		return l.explain(ctx, body)
	case *wire.AddMaster:
		return &wire.Empty{}, l.m.addMaster(ctx, l, body)
	case *wire.RemoveMaster:
		return &wire.Empty{}, l.m.removeMaster(ctx, body)
	case *wire.TransferLeader:
		return &wire.Empty{}, l.m.transferLeader(ctx, body)
	case *wire.Release:
		return l.release(o, body)
	case *wire.WaitLock:
		if !body.Cancel {
			return l.waitLock(ctx, o, body.ID)
		}
		return l.evaluated(ctx, o)
	case *wire.ReturnLeases:
		return l.returnLeases(o)
	case *wire.AcquireLease:
		return l.acquire(ctx, o)
	case *wire.WaitName:
		if !body.Cancel {
			return l.waitLock(ctx, o, body.ID)
		}
		return l.evaluated(ctx, o)
	case *wire.WatchName:
		return l.watchName(ctx, o, body)
	case *wire.Open, *wire.ListLocks:
		return l.evaluated(ctx, o)
	}
	if wire.Changes(o.Body) || o.Leases && leasable(o.Body) {
		return l.evaluated(ctx, o)
	}
	return l.read(ctx, o)
}

// leasable tells whether leases can come with the answer to a read.
func leasable(body wire.Message) bool {
	switch body.(type) {
	case *wire.Lookup, *wire.GetAttr, *wire.Readdir:
		return true
	}
	return false
}

// admit refuses operations of sessions that are lost, that speak through an
// old connection, or whose hello this leader still waits for (I-3).
func (l *lead) admit(o *wire.Operation) error { return l.admitted(o, func() {}) }

// admitted is admit, and calls f before anything changes of what it has looked
// at: what was sent once more through a newer connection has no effect any more.
func (l *lead) admitted(o *wire.Operation, f func()) error {
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.live(o.Session)
	switch {
	case err != nil:
		return err
	case o.Generation < s.generation:
		return noSession(o.Session)
	case !s.hello:
		return ashlar.E("operation", ashlar.NotReady, "", errors.New("the session has not said hello to this leader"))
	}
	f()
	return nil
}

// release serves wire.Release.
func (l *lead) release(o *wire.Operation, m *wire.Release) (wire.Message, error) {
	if err := l.admitted(o, func() { l.opens.release(o.Session, m.Inodes) }); err != nil {
		return nil, err
	}
	l.kickReaping()
	return &wire.Empty{}, nil
}

// evaluated has an operation evaluated in order with all changes. If it needs
// a cut, that is made first, and the operation evaluated again (I-10); so it is
// when it had to wait for leases.
func (l *lead) evaluated(ctx context.Context, o *wire.Operation) (wire.Message, error) {
	for begun := false; ; begun = true {
		reply, err := l.do(ctx, l.request(o))
		if n := asNeedRecall(err); n != nil {
			end, err := l.awaitLeases(ctx, o.Session, n)
			if err != nil {
				return nil, err
			}
			defer end() // until then nobody gets them back
			continue
		}
		need := meta.AsNeedCut(err)
		if need == nil {
			if begun && errors.Is(err, ashlar.NoSession) {
				// The session was lost meanwhile. A plain refusal would say that
				// nothing was done, and it would be done again under another.
				err = ashlar.E("operation", ashlar.OutcomeUnknown, "", errors.New("the session was lost while it was under way"))
			}
			l.after(o, err)
			return reply, err
		}
		if err := l.cut(ctx, need, o); err != nil {
			return nil, err
		}
	}
}

// request makes an operation one for the evaluator.
func (l *lead) request(o *wire.Operation) *request {
	fresh := false // not answered from what is kept of an earlier try
	r := newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		if err := l.hear(o); err != nil {
			return nil, "", err
		}
		reply, note, err := l.evaluateLeased(tx, env, o)
		fresh = !wire.Changes(o.Body) || len(tx.touched()) > 0
		return reply, note, err
	})
	r.settled = func(reply wire.Message) {
		l.noteOpen(o, reply)
		if fresh {
			l.grant(o, reply)
		}
	}
	return r
}

// noteOpen registers what an operation opened; the evaluator calls it.
func (l *lead) noteOpen(o *wire.Operation, reply wire.Message) {
	entry, ok := reply.(*wire.Entry)
	if !ok {
		return
	}
	switch body := o.Body.(type) {
	case *wire.Open:
		l.opens.add(o.Session, entry.Attr.Inode)
	case *wire.Make:
		if body.Open && entry.Attr.Type == ashlar.TypeFile {
			l.opens.add(o.Session, entry.Attr.Inode)
		}
	}
}

// after makes background work look at once for what an operation may have
// left to do.
func (l *lead) after(o *wire.Operation, err error) {
	if err != nil {
		return
	}
	switch o.Body.(type) {
	case *wire.SetPool, *wire.SetDisk, *wire.SetNode, *wire.DeletePool, *wire.DeleteVolume:
		l.kickBackground()
	}
}

// read evaluates a read on a view of the committed state: every change that
// was acknowledged is in it (I-2).
func (l *lead) read(ctx context.Context, o *wire.Operation) (wire.Message, error) {
	if !l.m.node.Load().LeaseValid() {
		if err := l.m.node.Load().ReadIndex(ctx); err != nil {
			return nil, err
		}
	}
	for {
		reply, err := l.readOnce(o)
		if cerr := l.confirm(ctx); cerr != nil {
			return nil, cerr
		}
		inos := shown(reply)
		if err != nil || !l.leases.Blocked(o.Session, inos, ashlar.LeaseShared) {
			return reply, err
		}
		end, err := l.awaitLeases(ctx, o.Session, &needRecall{inos, ashlar.LeaseShared})
		if err != nil {
			return nil, err
		}
		end()
	}
}

func (l *lead) readOnce(o *wire.Operation) (wire.Message, error) {
	snap, err := l.m.store.Snapshot()
	if err != nil {
		return nil, ashlar.E("read", ashlar.NotReady, "", err)
	}
	defer snap.Close()
	tx := &plain{store: snap}
	reply, _, err := meta.Evaluate(tx, l.env(), o)
	if tx.err != nil {
		return nil, ashlar.E("read", ashlar.IO, "", tx.err)
	}
	return reply, err
}

// env is what an evaluation knows beyond the state.
func (l *lead) env() *meta.Env {
	return &meta.Env{
		Now: l.opTime(), Opens: &openFiles{l: l}, Placer: placer{l}, Space: spaceOf{l}, Cluster: evaluateCluster,
	}
}

// placer chooses groups by a table that is built anew when groups or their
// space change, not per choice.
type placer struct{ l *lead }

// Choose implements meta.Placer.
func (p placer) Choose(pool uint32, n int, seed uint64) ([]ashlar.PGID, error) {
	t := p.l.table.Load()
	if t == nil {
		return nil, ashlar.E("choose groups", ashlar.NotReady, "", nil)
	}
	return t.Choose(pool, n, seed)
}

type spaceOf struct{ l *lead }

// Space implements meta.Space.
func (s spaceOf) Space(pool uint32) (total, free uint64) {
	v, err := s.l.current()
	if err != nil {
		return 0, 0
	}
	if p := v.Pool(pool); p != nil {
		return v.Space(s.l.facts(), p)
	}
	return 0, 0
}

// evaluateCluster evaluates what an operation changes of the cluster itself.
func evaluateCluster(tx meta.Tx, now int64, body wire.Message) (reply wire.Message, note string, err error) {
	switch b := body.(type) {
	case *wire.SetPool:
		note, err = "set pool "+b.Name, placement.SetPool(tx, b)
	case *wire.DeletePool:
		note, err = "delete pool "+b.Name, placement.DeletePool(tx, b.Name)
	case *wire.SetDisk:
		note, err = "set disk", placement.SetDisk(tx, now, b)
	case *wire.SetNode:
		note, err = "set node "+b.Name, placement.SetNode(tx, b)
	default:
		err = ashlar.E("operation", ashlar.Unsupported, "", nil)
	}
	if err != nil {
		return nil, "", err
	}
	return &wire.Empty{}, note, nil
}

// getGroups answers where groups are, after the first one's epoch has passed
// After or a while.
func (l *lead) getGroups(ctx context.Context, q *wire.GetGroups) (wire.Message, error) {
	deadline := l.m.clk.Now().Add(groupsWait)
	for {
		_, moved := l.m.revision()
		v, err := l.current()
		if err != nil {
			return nil, err
		}
		left := deadline.Sub(l.m.clk.Now())
		if q.After == 0 || len(q.Groups) == 0 || left <= 0 || newer(v, q) {
			return groupsReply(v, q), l.confirm(ctx)
		}
		if err := l.await(ctx, moved, left); err != nil {
			return nil, err
		}
	}
}

func newer(v *placement.View, q *wire.GetGroups) bool {
	g := v.Group(q.Groups[0])
	return g == nil || g.Epoch > q.After
}

func groupsReply(v *placement.View, q *wire.GetGroups) *wire.GroupsReply {
	out := &wire.GroupsReply{}
	if len(q.Groups) == 0 {
		for _, g := range v.Groups {
			out.Groups = append(out.Groups, v.Resolved(g))
		}
		return out
	}
	for _, id := range q.Groups {
		if g := v.Group(id); g != nil {
			out.Groups = append(out.Groups, v.Resolved(g))
		}
	}
	return out
}

// await returns when ch is closed or d has passed, with an error when nobody
// waits any more or this master no longer leads.
func (l *lead) await(ctx context.Context, ch <-chan struct{}, d time.Duration) error {
	timer := timeout(l.m.clk, d)
	defer timer.stop()
	select {
	case <-ch:
	case <-timer.c:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return l.m.notLeader()
	}
	return nil
}

type timer struct {
	c    chan struct{}
	stop func() bool
}

func timeout(clk clock.Clock, d time.Duration) timer {
	c := make(chan struct{})
	return timer{c, clk.AfterFunc(d, func() { close(c) })}
}
