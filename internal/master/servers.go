package master

import (
	"context"
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// server is what the leader knows of a chunkserver beside its record.
type server struct {
	node        ashlar.NodeID
	session     ashlar.SessionID
	incarnation ashlar.Incarnation
	process     ashlar.Incarnation // that serves it, 0 if it is not witnessed
	renewed     clock.Time
	disks       map[wire.UUID]wire.DiskInfo
	progress    map[seat]wire.SyncProgress
	synced      uint64
	speed       speed // of synced
	sizes       map[ashlar.PGID]uint64
	losing      bool // its lease is over, or about to be declared so
	// conn is what its last renewal came on, nil before the first under this
	// leader. It tells people, never the lease, that the process may be gone.
	conn *rpc.ServerConn
}

// heard tells whether the connection of the last renewal stands: a process
// that was killed loses it at once, long before its lease.
func (s *server) heard() bool {
	if s.conn == nil {
		return false
	}
	select {
	case <-s.conn.Closed():
		return false
	default:
		return true
	}
}

type seat struct {
	group ashlar.PGID
	disk  ashlar.DiskID
}

// loadServers makes the table of a new leader.
func (l *lead) loadServers(tx meta.Tx, now clock.Time) error {
	v, err := placement.Load(tx)
	if err != nil {
		return err
	}
	for id, n := range v.Nodes {
		if n.Up {
			l.servers[id] = &server{
				node: id, session: n.Session, incarnation: n.Incarnation, process: n.Process, renewed: now,
			}
		}
	}
	return nil
}

// bySession finds a live chunkserver. sessMu must be held.
func (l *lead) bySession(id ashlar.SessionID) (*server, error) {
	for _, s := range l.servers {
		if s.session == id && !s.losing {
			return s, nil
		}
	}
	return nil, noSession(id)
}

// reporter is the node that a chunkserver's session belongs to.
func (l *lead) reporter(id ashlar.SessionID) (ashlar.NodeID, error) {
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.bySession(id)
	if err != nil {
		return 0, err
	}
	return s.node, nil
}

func (l *lead) register(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.Register)
	registered, err := l.awaitPeers(ctx, q)
	defer registered()
	if err != nil {
		return nil, err
	}
	var got *placement.Registered
	var lost []placement.Lost
	req := newRequest(func(tx *layered, env *meta.Env) (wire.Message, string, error) {
		open := func(n ashlar.NodeID) (ashlar.SessionID, error) {
			s, _, err := session.Make(tx, env.Now, &session.Request{Name: q.Name, Incarnation: q.Incarnation, Node: n})
			if err != nil {
				return 0, err
			}
			return s.ID, nil
		}
		var err error
		if lost, err = l.loseRestarted(tx, env.Now); err == nil {
			got, err = placement.Register(tx, env.Now, open, q)
		}
		if err == nil && got.Replaced != 0 {
			err = session.Close(tx, got.Replaced)
		}
		if err == nil {
			err = fencedAtStart(tx, got)
		}
		if err != nil {
			tx.rollback()
			return nil, "", err
		}
		return &wire.Empty{}, fmt.Sprintf("node %s registered as %d", q.Name, got.Node), nil
	})
	req.settled = func(wire.Message) {
		l.forgetRestarted(lost)
		l.addServer(got, q, r.Conn)
	}
	if _, err := l.do(ctx, req); err != nil {
		return nil, err
	}
	watch, err := l.watchReply(got.Node)
	if err != nil {
		return nil, err
	}
	if err := l.mayRenew(); err != nil {
		return nil, err
	}
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.bySession(got.Session)
	if err != nil {
		return nil, err
	}
	s.renewed = l.m.clk.Now()
	l.kickBackground()
	l.m.log.Info("chunkserver registered", "node", q.Name, "id", uint32(got.Node), "disks", len(got.Disks))
	return &wire.RegisterReply{
		Node: got.Node, Session: got.Session,
		LeaseMs: ms(l.m.cfg.Lease), DeadMs: ms(l.m.cfg.Dead), RenewMs: ms(l.m.cfg.Renew),
		Term: l.term, Time: l.opTime(), History: l.m.history(), Disks: got.Disks, Fences: watch.Fences, Watch: *watch,
	}, nil
}

// fencedAtStart: a chunkserver that has admitted nothing yet, and holds the
// fence list before it does, has acknowledged all of it (I-7).
func fencedAtStart(tx meta.Tx, got *placement.Registered) error {
	fences, err := session.Fences(tx)
	if err != nil || len(fences) == 0 {
		return err
	}
	return placement.Fenced(tx, got.Node, got.Session, fences[len(fences)-1].Revision)
}

func (l *lead) addServer(got *placement.Registered, q *wire.Register, conn *rpc.ServerConn) {
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	if s := l.servers[got.Node]; s != nil && s.session == got.Session {
		return
	}
	s := &server{
		node: got.Node, session: got.Session, incarnation: q.Incarnation, process: q.Process,
		renewed: l.m.clk.Now(), conn: conn,
	}
	s.report(q.Disks, nil)
	l.servers[got.Node] = s
}

func (s *server) report(disks []wire.DiskInfo, progress []wire.SyncProgress) {
	s.disks = make(map[wire.UUID]wire.DiskInfo, len(disks))
	for _, d := range disks {
		s.disks[d.UUID] = d
	}
	s.progress = make(map[seat]wire.SyncProgress, len(progress))
	for _, p := range progress {
		s.progress[seat{p.Group, p.Disk}] = p
	}
}

func (l *lead) serverRenew(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.ServerRenew)
	failed, err := l.renewServer(q, r.Conn)
	if err != nil {
		return nil, err
	}
	if len(failed) > 0 {
		l.spawn(func() { l.disksFailed(q.Session, failed) })
	}
	return &wire.ServerRenewReply{LeaseMs: ms(l.m.cfg.Lease), Term: l.term, Time: l.opTime()}, nil
}

// renewServer renews a chunkserver's lease, and returns the disks that it says
// have failed.
func (l *lead) renewServer(q *wire.ServerRenew, conn *rpc.ServerConn) (failed []wire.DiskInfo, err error) {
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	s, err := l.bySession(q.Session)
	if err != nil {
		return nil, err
	}
	if s.incarnation != q.Incarnation {
		return nil, noSession(q.Session)
	}
	if err := l.mayRenew(); err != nil {
		return nil, err
	}
	old := s.disks
	s.report(q.Disks, q.Progress)
	s.synced, s.renewed, s.conn = q.Synced, l.m.clk.Now(), conn
	s.speed.at(s.renewed, q.Synced)
	if s.sizes == nil {
		s.sizes = map[ashlar.PGID]uint64{}
	}
	for _, g := range q.Sizes {
		s.sizes[g.Group] = g.Bytes
	}
	for id, d := range s.disks {
		if d.Error != "" && old[id].Error == "" {
			failed = append(failed, d)
		}
	}
	return failed, nil
}

func (l *lead) disksFailed(id ashlar.SessionID, disks []wire.DiskInfo) {
	node, err := l.reporter(id)
	if err != nil {
		return
	}
	v, err := l.current()
	if err != nil {
		return
	}
	for _, in := range disks {
		for _, d := range v.Disks {
			if d.UUID == in.UUID && d.Node == node {
				l.logged("disk failed", l.diskFailed(l.ctx, node, d.ID, in.Error))
			}
		}
	}
}

// logged logs the failure of background work; what will simply be tried again
// is of no interest.
func (l *lead) logged(what string, err error) {
	switch {
	case err == nil || l.ctx.Err() != nil:
	case ashlar.KindOf(err).Retryable():
		l.m.log.Debug(what, "err", err)
	default:
		l.m.log.Warn(what, "err", err)
	}
}

func (l *lead) diskFailed(ctx context.Context, node ashlar.NodeID, disk ashlar.DiskID, reason string) error {
	l.m.log.Warn("disk failed", "disk", uint32(disk), "reason", reason)
	err := l.change(ctx, func(tx meta.Tx, now int64) (string, error) {
		_, err := placement.DiskFailed(tx, now, node, disk, reason)
		return fmt.Sprintf("disk %d failed: %s", disk, reason), err
	})
	l.kickBackground()
	return err
}

func (l *lead) watch(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.Watch)
	node, err := l.reporter(q.Session)
	if err != nil {
		return nil, err
	}
	deadline := l.m.clk.Now().Add(l.m.cfg.Lease / 2)
	for {
		rev, moved := l.m.revision()
		left := deadline.Sub(l.m.clk.Now())
		if rev > q.Revision || left <= 0 {
			break
		}
		if err := l.await(ctx, moved, left); err != nil {
			return nil, err
		}
	}
	if _, err := l.reporter(q.Session); err != nil {
		return nil, err
	}
	reply, err := l.watchReply(node)
	if err != nil {
		return nil, err
	}
	return reply, l.confirm(ctx)
}

// watchReply is what a chunkserver has to know now. The revision is read
// first, so that what is told is at least as new.
func (l *lead) watchReply(node ashlar.NodeID) (*wire.WatchReply, error) {
	rev, _ := l.m.revision()
	v, err := l.current()
	if err != nil {
		return nil, err
	}
	tx := &plain{store: l.m.store}
	fences, err := session.Fences(tx)
	if err == nil {
		err = tx.err
	}
	if err != nil {
		return nil, err
	}
	return &wire.WatchReply{Revision: rev, Groups: v.OnNode(node), Fences: fences, Rules: v.Rules()}, nil
}

func (l *lead) fenced(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.Fenced)
	node, err := l.reporter(q.Session)
	if err != nil {
		return nil, err
	}
	err = l.change(ctx, func(tx meta.Tx, _ int64) (string, error) {
		return fmt.Sprintf("node %d holds the fences up to %d", node, q.Revision), placement.Fenced(tx, node, q.Session, q.Revision)
	})
	l.kickBackground()
	return &wire.Empty{}, err
}

func (l *lead) reportMember(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.ReportMember)
	node, err := l.reporter(q.Session)
	if err != nil {
		return nil, err
	}
	return &wire.Empty{}, l.change(ctx, func(tx meta.Tx, now int64) (string, error) {
		_, err := placement.MemberFailed(tx, now, node, q.Group, q.Epoch, q.Disk)
		return fmt.Sprintf("pg %d: disk %d failed: %s", q.Group, q.Disk, q.Reason), err
	})
}

func (l *lead) reportSynced(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.ReportSynced)
	node, err := l.reporter(q.Session)
	if err != nil {
		return nil, err
	}
	err = l.change(ctx, func(tx meta.Tx, now int64) (string, error) {
		_, err := placement.Synced(tx, now, node, q.Group, q.Epoch, q.Disk)
		return fmt.Sprintf("pg %d: disk %d is in-sync", q.Group, q.Disk), err
	})
	l.kickBackground()
	return &wire.Empty{}, err
}

func (l *lead) reportDisk(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.ReportDisk)
	node, err := l.reporter(q.Session)
	if err != nil {
		return nil, err
	}
	return &wire.Empty{}, l.diskFailed(ctx, node, q.Disk, q.Reason)
}

// loseServers takes chunkservers out of service that have not renewed for the
// dead threshold, which is above the lease, or whose process is proven dead:
// their leases are surely over (I-6). All that are due go together.
func (l *lead) loseServers() {
	now := l.m.clk.Now()
	var lost []placement.Lost
	l.sessMu.Lock()
	for id, s := range l.servers {
		silent := now.Sub(later(s.renewed, l.steady)) > l.m.cfg.Dead
		if s.losing = s.losing || silent || l.m.witnesses.isDead(s.process); s.losing {
			lost = append(lost, placement.Lost{Node: id, Session: s.session})
		}
	}
	l.sessMu.Unlock()
	if len(lost) == 0 {
		return
	}
	l.m.log.Warn("chunkservers lost", "nodes", fmt.Sprint(lost))
	err := l.change(l.ctx, func(tx meta.Tx, now int64) (string, error) {
		for _, d := range lost {
			if err := session.Close(tx, d.Session); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("nodes down: %v", lost), placement.NodesDown(tx, now, lost)
	})
	l.logged("taking chunkservers out of service", err)
	if err != nil {
		return // again at the next tick
	}
	l.forgetServers(lost)
	l.kickBackground()
}

// forgetServers drops chunkservers that are out of service, and keeps what
// they last said of their disks for people.
func (l *lead) forgetServers(lost []placement.Lost) {
	l.sessMu.Lock()
	defer l.sessMu.Unlock()
	for _, d := range lost {
		if s := l.servers[d.Node]; s != nil && s.session == d.Session {
			for id, in := range s.disks {
				l.figures[id] = figures{in, s.renewed}
			}
			delete(l.servers, d.Node)
		}
	}
}

// facts are what placement decides by.
func (l *lead) facts() *placement.Facts {
	v, err := l.current()
	if err != nil {
		return &placement.Facts{Now: l.opTime(), RepairAfter: l.m.cfg.RepairAfter}
	}
	usage := map[ashlar.DiskID]placement.Usage{}
	damaged := map[ashlar.DiskID]uint64{}
	sizes := map[ashlar.PGID]uint64{}
	l.sessMu.Lock()
	for id, d := range v.Disks {
		if s := l.servers[d.Node]; s != nil {
			if in, ok := s.disks[d.UUID]; ok {
				usage[id] = placement.Usage{Total: in.Total, Free: in.Free}
				damaged[id] = in.Damaged
			}
		}
	}
	for _, s := range l.servers {
		for id, n := range s.sizes {
			if v.Group(id) != nil {
				sizes[id] = max(sizes[id], n)
			}
		}
	}
	l.sessMu.Unlock()
	return &placement.Facts{
		Now: l.opTime(), RepairAfter: l.m.cfg.RepairAfter,
		Usage:   func(id ashlar.DiskID) (placement.Usage, bool) { u, ok := usage[id]; return u, ok },
		Size:    func(id ashlar.PGID) (uint64, bool) { n, ok := sizes[id]; return n, ok },
		Damaged: func(id ashlar.DiskID) uint64 { return damaged[id] },
	}
}
