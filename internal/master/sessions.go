package master

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// TicketTime is how long a ticket is good for; a fresh one is given when half
// of it has passed. A fence stays listed as long (I-7).
const TicketTime = time.Minute

// clientSession is what the leader knows of a session beside its record.
type clientSession struct {
	id          ashlar.SessionID
	name        string
	incarnation ashlar.Incarnation
	renewed     clock.Time
	hello       bool // it has told this leader what it holds
	generation  uint64
	lowest      uint64     // sequence it waits for, as it last said
	ticket      clock.Time // when the last was given, 0 for never
	expires     int64      // when that one does, in operation time
	losing      bool       // it is lost, or about to be: nothing of it is taken
	fence       uint64     // revision, once the loss is logged
}

// openTable is who has which file open: the leader's memory, told by opens and
// hellos. While a session's hello is awaited it answers that everything is
// open.
type openTable struct {
	mu      sync.Mutex
	by      map[ashlar.SessionID]map[ashlar.Inode]struct{}
	of      map[ashlar.Inode]map[ashlar.SessionID]struct{}
	awaited map[ashlar.SessionID]bool
}

func (t *openTable) init() {
	t.by = map[ashlar.SessionID]map[ashlar.Inode]struct{}{}
	t.of = map[ashlar.Inode]map[ashlar.SessionID]struct{}{}
	t.awaited = map[ashlar.SessionID]bool{}
}

// IsOpen implements meta.OpenTable.
func (t *openTable) IsOpen(ino ashlar.Inode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.awaited) > 0 || len(t.of[ino]) > 0
}

// OpenElsewhere implements meta.OpenTable.
func (t *openTable) OpenElsewhere(ino ashlar.Inode, by ashlar.SessionID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.awaited) > 0 {
		return true
	}
	n := len(t.of[ino])
	if _, own := t.of[ino][by]; own {
		n--
	}
	return n > 0
}

func (t *openTable) complete() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.awaited) == 0
}

func (t *openTable) await(s ashlar.SessionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.awaited[s] = true
}

func (t *openTable) add(s ashlar.SessionID, ino ashlar.Inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addLocked(s, ino)
}

func (t *openTable) addLocked(s ashlar.SessionID, ino ashlar.Inode) {
	if t.by[s] == nil {
		t.by[s] = map[ashlar.Inode]struct{}{}
	}
	if t.of[ino] == nil {
		t.of[ino] = map[ashlar.SessionID]struct{}{}
	}
	t.by[s][ino] = struct{}{}
	t.of[ino][s] = struct{}{}
}

// told is a session's hello: what it names is open, beside what it has opened
// under this leader already.
func (t *openTable) told(s ashlar.SessionID, inodes []ashlar.Inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ino := range inodes {
		t.addLocked(s, ino)
	}
	delete(t.awaited, s)
}

func (t *openTable) release(s ashlar.SessionID, inodes []ashlar.Inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ino := range inodes {
		t.releaseLocked(s, ino)
	}
}

func (t *openTable) releaseLocked(s ashlar.SessionID, ino ashlar.Inode) {
	delete(t.by[s], ino)
	delete(t.of[ino], s)
	if len(t.of[ino]) == 0 {
		delete(t.of, ino)
	}
}

// end forgets a session and all that it had open.
func (t *openTable) end(s ashlar.SessionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ino := range t.by[s] {
		t.releaseLocked(s, ino)
	}
	delete(t.by, s)
	delete(t.awaited, s)
}

func (t *openTable) count(s ashlar.SessionID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.by[s])
}

// loadSessions makes the table of a new leader: every live session counts as
// renewed now, when leadership was confirmed (I-6).
func (l *lead) loadSessions(tx meta.Tx) error {
	now := l.m.clk.Now()
	l.steady, l.ticked = now, now
	all, err := session.List(tx)
	if err != nil {
		return err
	}
	for i := range all {
		s := &all[i]
		if s.State == session.Closed || s.State == session.Fenced {
			l.ended[s.ID] = true
		}
		if s.Node != 0 || s.State == session.Closed || s.State == session.Fenced {
			continue
		}
		cs := &clientSession{id: s.ID, name: s.Name, incarnation: s.Incarnation, renewed: now}
		cs.losing, cs.fence = s.State == session.Lost, s.Fence
		l.opens.await(s.ID) // until its hello, or until it is lost and fenced
		if s.Leases {
			l.leases.Await(s.ID)
		}
		l.sessions[s.ID] = cs
	}
	return l.loadServers(tx, now)
}

func noSession(id ashlar.SessionID) error {
	return ashlar.E("session", ashlar.NoSession, "", nil)
}

// live returns a session that is not lost. sessMu must be held.
func (l *lead) live(id ashlar.SessionID) (*clientSession, error) {
	s := l.sessions[id]
	if s == nil || s.losing {
		return nil, noSession(id)
	}
	return s, nil
}

// hear raises the lowest sequence that an operation carries to what its session
// has said since it was sent, so that one that was given up and overtaken is
// refused (I-3), and refuses one whose session was lost meanwhile. It is called
// when the operation is evaluated: what was evaluated before has spoken. The
// floor in the state follows in steps; what this leader heard is lost with it,
// and the next one hears it in the hello that it waits for.
func (l *lead) hear(o *wire.Operation) error {
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.live(o.Session)
	if err != nil {
		return err
	}
	s.lowest = max(s.lowest, o.Lowest)
	o.Lowest = s.lowest
	return nil
}

func (l *lead) sessionOpen(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	q := r.Msg.(*wire.SessionOpen)
	var made *session.Session
	req := newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		s, existed, err := session.Make(tx, env.Now, &session.Request{Name: q.Name, Incarnation: q.Incarnation, Nonce: q.Nonce, Leases: q.Leases})
		if err != nil {
			tx.rollback()
			return nil, "", err
		}
		made = s
		if existed {
			return &wire.Empty{}, "", nil
		}
		return &wire.Empty{}, "session opened: " + q.Name, nil
	})
	// The evaluator adds it, so that its loss can not be decided before.
	req.settled = func(wire.Message) {
		l.sessMu.Lock()
		defer l.sessMu.Unlock()
		if l.sessions[made.ID] == nil {
			l.sessions[made.ID] = &clientSession{
				id: made.ID, name: made.Name, incarnation: made.Incarnation, renewed: l.m.clk.Now(), hello: true,
			}
		}
	}
	if _, err := l.do(ctx, req); err != nil {
		return nil, err
	}
	if err := l.mayRenew(); err != nil {
		return nil, err
	}
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.live(made.ID)
	if err != nil {
		return nil, err
	}
	s.renewed = l.m.clk.Now()
	return &wire.SessionOpenReply{
		Session: s.id, LeaseMs: ms(l.m.cfg.Lease), DeadMs: ms(l.m.cfg.Dead), RenewMs: ms(l.m.cfg.Renew),
		Term: l.term, Cluster: l.m.cfg.Cluster, History: l.m.history(), Ticket: l.freshTicket(s),
	}, nil
}

func ms(d time.Duration) uint32 { return uint32(d / time.Millisecond) }

// mayRenew refuses to renew anybody's lease while the leader's own does not
// hold (I-6).
func (l *lead) mayRenew() error {
	if !l.m.node.Load().LeaseValid() {
		return ashlar.E("renew", ashlar.NotReady, "", errors.New("the leader's own lease is not confirmed"))
	}
	return nil
}

// freshTicket signs a ticket for a session. sessMu must be held.
func (l *lead) freshTicket(s *clientSession) []byte {
	s.ticket, s.expires = l.m.clk.Now(), l.opTime()+int64(TicketTime)
	return rpc.SignTicket(l.m.cfg.Secret, &wire.Ticket{
		Cluster: l.m.cfg.Cluster, History: l.m.history(), Session: s.id, Incarnation: s.incarnation,
		Expires: s.expires,
	})
}

// renew renews a session's lease and makes the answer. sessMu must be held.
func (l *lead) renew(s *clientSession) *wire.SessionRenewReply {
	s.renewed = l.m.clk.Now()
	reply := &wire.SessionRenewReply{LeaseMs: ms(l.m.cfg.Lease), Term: l.term, NeedHello: !s.hello}
	// The time of day may have jumped.
	if s.ticket == 0 || s.renewed.Sub(s.ticket) >= TicketTime/2 || s.expires-l.opTime() < int64(TicketTime/2) {
		reply.Ticket = l.freshTicket(s)
	}
	return reply
}

func (l *lead) sessionRenew(_ context.Context, r *rpc.Request) (wire.Message, error) {
	q := r.Msg.(*wire.SessionRenew)
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.live(q.Session)
	if err != nil {
		return nil, err
	}
	if s.incarnation != q.Incarnation {
		return nil, noSession(q.Session)
	}
	if err := l.mayRenew(); err != nil {
		return nil, err
	}
	return l.renew(s), nil
}

func (l *lead) sessionHello(_ context.Context, r *rpc.Request) (wire.Message, error) {
	q := r.Msg.(*wire.SessionHello)
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.live(q.Session)
	switch {
	case err != nil:
		return nil, err
	case s.incarnation != q.Incarnation:
		return nil, noSession(q.Session)
	case q.Generation < s.generation:
		return nil, ashlar.E("session hello", ashlar.Stale, "", errors.New("a newer connection has said hello"))
	}
	if err := l.mayRenew(); err != nil {
		return nil, err
	}
	s.generation, s.hello, s.lowest = q.Generation, true, max(s.lowest, q.Lowest)
	l.opens.told(s.id, q.Opens)
	l.leases.Told(s.id, q.Leases)
	l.kickBackground()
	return l.renew(s), nil
}

func (l *lead) sessionClose(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	q := r.Msg.(*wire.SessionClose)
	err := l.change(ctx, func(tx meta.Tx, _ int64) (string, error) {
		return "session closed", session.Close(tx, q.Session)
	})
	if err != nil {
		return nil, err
	}
	l.forgetSession(q.Session)
	l.releaseEnded(ctx)
	return &wire.Empty{}, nil
}

func (l *lead) forgetSession(id ashlar.SessionID) {
	l.sessMu.Lock()
	delete(l.sessions, id)
	l.ended[id] = true
	l.sessMu.Unlock()
	l.opens.end(id)
	l.leases.End(id)
	l.kickBackground()
}

// longPast returns the operation time of a moment that lies back for the dead
// threshold, which is above the lease; false if this leader has seen none. Only
// the background goroutine calls it.
func (l *lead) longPast() (at int64, ok bool) {
	type moment = struct {
		clock clock.Time
		op    int64
	}
	now := moment{l.m.clk.Now(), l.opTime()}
	if n := len(l.past); n == 0 || now.clock.Sub(l.past[n-1].clock) >= l.m.cfg.Dead/4 {
		l.past = append(l.past, now)
	}
	for len(l.past) > 1 && now.clock.Sub(l.past[1].clock) > l.m.cfg.Dead {
		l.past = l.past[1:]
	}
	if first := l.past[0]; now.clock.Sub(first.clock) > l.m.cfg.Dead {
		return first.op, true
	}
	return 0, false
}

// loseSilent declares sessions lost that have not renewed for the dead
// threshold, and logs it with their fences (I-7).
func (l *lead) loseSilent() {
	now := l.m.clk.Now()
	var lost []ashlar.SessionID
	l.sessMu.Lock()
	most := l.fencesMax
	for id, s := range l.sessions {
		if !s.losing && now.Sub(later(s.renewed, l.steady)) > l.m.cfg.Dead {
			s.losing = true
			l.m.log.Warn("session lost", "session", uint64(id), "name", s.name)
		}
		if s.losing && s.fence == 0 {
			lost = append(lost, id)
		}
	}
	l.sessMu.Unlock()
	if len(lost) == 0 {
		return
	}
	revisions := make([]uint64, len(lost))
	err := l.change(l.ctx, func(tx meta.Tx, now int64) (string, error) {
		for _, id := range lost {
			l.locks.end(id)
		}
		// The list of fences has a limit, being sent whole. When it is full the
		// rest stays as it is, not served and not released, until others expire.
		fences, err := session.Fences(tx)
		if err != nil {
			return "", err
		}
		if room := max(most-len(fences), 0); room < len(lost) {
			l.m.log.Warn("the list of fences is full; lost sessions wait for it", "fences", len(fences), "waiting", len(lost)-room)
			lost = lost[:room]
		}
		for i, id := range lost {
			rev, err := session.Lose(tx, id, now+int64(TicketTime))
			if err != nil {
				return "", err
			}
			revisions[i] = rev
		}
		return "sessions lost", nil
	})
	l.inEvaluator(func() {}) // grants what the lost ones no longer wait for
	if err != nil {
		l.m.log.Warn("losing sessions", "err", err)
		return
	}
	for i, id := range lost {
		if revisions[i] == 0 { // it was closed meanwhile
			l.forgetSession(id)
			continue
		}
		l.sessMu.Lock()
		if s := l.sessions[id]; s != nil {
			s.fence = revisions[i]
		}
		l.sessMu.Unlock()
	}
}

func later(a, b clock.Time) clock.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// finishFences releases what lost sessions held, once every chunkserver has
// acknowledged the fence or was outlived (I-7).
func (l *lead) finishFences() {
	fences := map[ashlar.SessionID]uint64{}
	l.sessMu.Lock()
	for id, s := range l.sessions {
		if s.fence != 0 {
			fences[id] = s.fence
		}
	}
	l.sessMu.Unlock()
	if len(fences) == 0 {
		return
	}
	// The nodes are looked at after the fences: one that registered before a
	// fence was logged has to acknowledge it.
	v, err := l.current()
	if err != nil {
		return
	}
	acked := ^uint64(0)
	for _, n := range v.Nodes {
		if n.Up {
			acked = min(acked, n.Fenced)
		}
	}
	for id, fence := range fences {
		if fence > acked {
			continue
		}
		err := l.change(l.ctx, func(tx meta.Tx, _ int64) (string, error) {
			return "session fenced", session.FenceDone(tx, id)
		})
		if err != nil {
			l.m.log.Warn("fence", "err", err)
			return
		}
		l.m.log.Info("session fenced", "session", uint64(id))
		l.forgetSession(id)
	}
}

// sweep removes sessions that have ended. Tickets are judged by chunkservers,
// by the masters' time as of their last renewal: when that has jumped they know
// of it only after the next. So a fence is dropped when the expiry of its
// session's last ticket has been over for the dead threshold: whoever has a
// lease then has renewed since, and refuses the ticket (I-7).
func (l *lead) sweep() {
	until, ok := l.longPast()
	l.sessMu.Lock()
	ok = ok && len(l.ended) == 0 // what they hold goes first
	l.sessMu.Unlock()
	if !ok {
		return
	}
	const limit = 512
	for more := true; more && l.ctx.Err() == nil; {
		err := l.change(l.ctx, func(tx meta.Tx, now int64) (note string, err error) {
			more, err = session.Sweep(tx, min(now, until), limit)
			return "sessions swept", err
		})
		if err != nil {
			return
		}
	}
}
