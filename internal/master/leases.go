package master

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// needRecall is the error of an operation that waits for other sessions'
// leases. Nothing of it was written.
type needRecall struct {
	inos []ashlar.Inode
	keep ashlar.LeaseMode // what they may keep
}

// Error implements error.
func (*needRecall) Error() string { return "leases have to be recalled" }

func asNeedRecall(err error) *needRecall {
	var n *needRecall
	errors.As(err, &n)
	return n
}

// openFiles is what evaluation is told of open files: those that were
// registered, and those of which a lease lets somebody open them without.
type openFiles struct {
	l  *lead
	by ashlar.SessionID
	// closed is a file that by surely has not open.
	closed ashlar.Inode
}

// IsOpen implements meta.OpenTable.
func (o *openFiles) IsOpen(ino ashlar.Inode) bool {
	if o.l.opens.IsOpen(ino) {
		return true
	}
	if ino == o.closed && o.by != 0 {
		return o.l.leases.HeldElsewhere(ino, o.by)
	}
	return o.l.leases.Holds(ino)
}

// OpenElsewhere implements meta.OpenTable.
func (o *openFiles) OpenElsewhere(ino ashlar.Inode, by ashlar.SessionID) bool {
	return o.l.opens.OpenElsewhere(ino, by) || o.l.leases.HeldElsewhere(ino, by)
}

// evaluateLeased evaluates a client's operation in the evaluator, unless others'
// leases stand against it: what it changes may be in nobody's cache, and what
// it shows in nobody's buffers.
func (l *lead) evaluateLeased(tx *layered, env *meta.Env, o *wire.Operation) (wire.Message, string, error) {
	files := &openFiles{l: l, by: o.Session}
	if m, ok := o.Body.(*wire.Remove); ok {
		files.closed = m.Closed
	}
	env.Opens = files
	mode := ashlar.LeaseShared
	if a, ok := o.Body.(*wire.AcquireLease); ok {
		mode = a.Mode
		read := *o
		read.Body = &wire.GetAttr{Inode: a.Inode}
		o = &read
	}
	reply, note, err := meta.Evaluate(tx, env, o)
	if n := meta.AsNeedCut(err); n != nil && l.leases.Blocked(o.Session, []ashlar.Inode{n.Inode}, ashlar.LeaseNone) {
		// What others have buffered comes before the cut.
		return nil, "", &needRecall{[]ashlar.Inode{n.Inode}, ashlar.LeaseNone}
	}
	if err != nil {
		return nil, "", err
	}
	if _, ok := o.Body.(*wire.Accessed); ok { // nobody waits for access times
		return reply, note, nil
	}
	keep := ashlar.LeaseNone
	inos := tx.touched()
	if len(inos) == 0 {
		if inos, keep = shown(reply), ashlar.LeaseShared; len(inos) == 0 {
			return reply, note, nil
		}
		if mode == ashlar.LeaseExclusive {
			keep = ashlar.LeaseNone
		}
	}
	if l.leases.Blocked(o.Session, inos, keep) {
		tx.rollback()
		return nil, "", &needRecall{inos, keep}
	}
	return reply, note, nil
}

// touched returns the inodes that the operation being evaluated has written.
func (t *layered) touched() (inos []ashlar.Inode) {
	for i := t.mark; i < len(t.ops); i++ {
		if ino, ok := key.InodeOf(t.ops[i].Key); ok {
			inos = append(inos, ino)
		}
	}
	return inos
}

// shown returns the regular files whose attributes an answer tells: those are
// what a lease may have changed without the leader knowing.
func shown(reply wire.Message) (inos []ashlar.Inode) {
	switch r := reply.(type) {
	case *wire.Entry:
		if r.Attr.Type == ashlar.TypeFile {
			inos = append(inos, r.Attr.Inode)
		}
	case *wire.ReaddirReply:
		if !r.Plus {
			return nil
		}
		for i := range r.Entries {
			if r.Entries[i].Type == ashlar.TypeFile {
				inos = append(inos, r.Entries[i].Inode)
			}
		}
	}
	return inos
}

// grant gives leases with an answer; the evaluator calls it as soon as that is
// evaluated, so that nothing comes between.
func (l *lead) grant(o *wire.Operation, reply wire.Message) {
	if m, ok := o.Body.(*wire.Remove); ok && m.Closed != 0 {
		if r, ok := reply.(*wire.Entry); ok && r.Attr.Inode == m.Closed && r.Attr.Nlink == 0 {
			l.leases.Return(o.Session, []wire.HeldLease{{Inode: m.Closed}})
			return
		}
	}
	if !o.Leases {
		return
	}
	switch r := reply.(type) {
	case *wire.Entry:
		a := r.Attr
		if _, ok := o.Body.(*wire.AcquireLease); ok {
			a.Nlink = max(a.Nlink, 1) // who asks has it open, and gives the lease back at the end
		}
		r.Lease = l.grantOne(o.Session, &a, r.Unsettled, wanted(o, r))
		for i := range r.Also {
			r.Also[i].Lease = l.grantOne(o.Session, &r.Also[i].Attr, r.Also[i].Attr.Type != ashlar.TypeDir, ashlar.LeaseShared)
		}
	case *wire.ReserveReply:
		r.Entry.Lease = l.grantOne(o.Session, &r.Entry.Attr, r.Entry.Unsettled, ashlar.LeaseShared)
	case *wire.ReaddirReply:
		r.Dir.Lease = l.grantOne(o.Session, &r.Dir.Attr, false, ashlar.LeaseShared)
		for i := range r.Entries {
			if e := &r.Entries[i]; r.Plus {
				e.Lease = l.grantOne(o.Session, &e.Attr, e.Unsettled, ashlar.LeaseShared)
			}
		}
	}
}

// wanted is the lease that an operation asks for on what it answers with: who
// makes a file, or opens one for writing that nobody else uses, will write it.
func wanted(o *wire.Operation, e *wire.Entry) ashlar.LeaseMode {
	switch m := o.Body.(type) {
	case *wire.AcquireLease:
		return m.Mode
	case *wire.Make:
		if e.Created && m.Open {
			return ashlar.LeaseExclusive
		}
	case *wire.Open:
		if m.Write {
			return ashlar.LeaseExclusive
		}
	}
	return ashlar.LeaseShared
}

func (l *lead) grantOne(s ashlar.SessionID, a *ashlar.Attr, unsettled bool, m ashlar.LeaseMode) ashlar.LeaseMode {
	switch {
	case unsettled || a.Nlink == 0:
		m = ashlar.LeaseNone
	case a.Type != ashlar.TypeFile:
		m = min(m, ashlar.LeaseShared)
	}
	if m == ashlar.LeaseNone {
		return m
	}
	return l.leases.Grant(s, a.Inode, m)
}

// awaitLeases returns when others' leases do not stand against an operation any
// more. End must be called when it was evaluated again.
func (l *lead) awaitLeases(ctx context.Context, s ashlar.SessionID, n *needRecall) (end func(), err error) {
	w := l.leases.Recall(s, n.inos, n.keep)
	for {
		free, changed := w.Free()
		if free {
			return w.End, nil
		}
		if err := l.awaitChange(ctx, changed); err != nil {
			w.End()
			return nil, err
		}
	}
}

// awaitChange returns when ch is closed, with an error when nobody waits any
// more or this master no longer leads.
func (l *lead) awaitChange(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return l.m.notLeader()
	}
}

// acquire serves wire.AcquireLease: it is evaluated until the lease is granted.
func (l *lead) acquire(ctx context.Context, o *wire.Operation) (wire.Message, error) {
	m := o.Body.(*wire.AcquireLease)
	if m.Mode == ashlar.LeaseNone {
		return nil, ashlar.E("acquire lease", ashlar.Invalid, "", errors.New("no mode"))
	}
	for {
		_, changed := l.leases.Busy(o.Session, m.Inode)
		reply, err := l.evaluated(ctx, o)
		if err != nil {
			return nil, err
		}
		e := reply.(*wire.Entry)
		busy, _ := l.leases.Busy(o.Session, m.Inode)
		if e.Lease >= m.Mode || !busy {
			return reply, nil
		}
		if err := l.awaitChange(ctx, changed); err != nil {
			return nil, err
		}
	}
}

// returnLeases serves wire.ReturnLeases.
func (l *lead) returnLeases(o *wire.Operation) (wire.Message, error) {
	m := o.Body.(*wire.ReturnLeases)
	err := l.admitted(o, func() {
		for _, h := range m.Leases { // before the lease that stood for it is gone
			if h.Open {
				l.opens.add(o.Session, h.Inode)
			}
		}
		l.leases.Return(o.Session, m.Leases)
	})
	if err != nil {
		return nil, err
	}
	l.kickReaping()
	return &wire.Empty{}, nil
}

// watchLeases serves wire.WatchLeases.
func (l *lead) watchLeases(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	q := r.Msg.(*wire.WatchLeases)
	deadline := l.m.clk.Now().Add(l.m.cfg.Lease / 2)
	for {
		l.sessMu.Lock()
		_, err := l.live(q.Session)
		l.sessMu.Unlock()
		if err != nil {
			return nil, err
		}
		recalls, news := l.leases.Recalls(q.Session, q.After)
		left := deadline.Sub(l.m.clk.Now())
		if len(recalls) > 0 || left <= 0 {
			return &wire.LeaseRecalls{Term: l.term, Recalls: recalls}, nil
		}
		if err := l.await(ctx, news, left); err != nil {
			return nil, err
		}
	}
}
