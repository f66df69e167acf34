package master

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// handle registers all handlers.
func (m *Master) handle() {
	s := m.cfg.Server
	all := func(msg wire.Message, h rpc.Handler) { s.Handle(msg.Kind(), h) }
	all(&wire.FindLeader{}, m.findLeader)
	all(&wire.Witness{}, m.witness)
	all(&wire.Raft{}, m.raft)
	s.HandleQuick((&wire.Raft{}).Kind(), m.quickRaft)
	all(&wire.SnapshotBegin{}, m.snapshotBegin)
	all(&wire.SnapshotData{}, m.snapshotData)
	all(&wire.SnapshotEnd{}, m.snapshotEnd)

	led := func(msg wire.Message, h func(*lead, context.Context, *rpc.Request) (wire.Message, error)) {
		s.Handle(msg.Kind(), func(ctx context.Context, r *rpc.Request) (wire.Message, error) {
			l, err := m.leader()
			if err != nil {
				return nil, err
			}
			if !m.initialised.Load() {
				return nil, ashlar.E("", ashlar.NotReady, "", errors.New("the cluster is being made"))
			}
			reply, err := h(l, ctx, r)
			return reply, m.wrap(err)
		})
	}
	led(&wire.SessionOpen{}, (*lead).sessionOpen)
	led(&wire.SessionRenew{}, (*lead).sessionRenew)
	led(&wire.SessionHello{}, (*lead).sessionHello)
	led(&wire.SessionClose{}, (*lead).sessionClose)
	led(&wire.Operation{}, (*lead).operation)
	s.HandleQuick((&wire.Operation{}).Kind(), m.quickOperation)
	led(&wire.Register{}, (*lead).register)
	led(&wire.ServerRenew{}, (*lead).serverRenew)
	led(&wire.Watch{}, (*lead).watch)
	led(&wire.WatchLeases{}, (*lead).watchLeases)
	led(&wire.Fenced{}, (*lead).fenced)
	led(&wire.ReportMember{}, (*lead).reportMember)
	led(&wire.ReportSynced{}, (*lead).reportSynced)
	led(&wire.ReportDisk{}, (*lead).reportDisk)
	led(&wire.Origins{}, (*lead).origins)
	led(&wire.GetStatus{}, func(l *lead, ctx context.Context, _ *rpc.Request) (wire.Message, error) {
		return l.getStatus(ctx)
	})
	led(&wire.Explain{}, func(l *lead, ctx context.Context, r *rpc.Request) (wire.Message, error) {
		return l.explain(ctx, r.Msg.(*wire.Explain))
	})
	led(&wire.GetGroups{}, func(l *lead, ctx context.Context, r *rpc.Request) (wire.Message, error) {
		return l.getGroups(ctx, r.Msg.(*wire.GetGroups))
	})
	led(&wire.ListLocks{}, (*lead).listLocks)
	led(&wire.AddMaster{}, func(l *lead, ctx context.Context, r *rpc.Request) (wire.Message, error) {
		return &wire.Empty{}, m.addMaster(ctx, l, r.Msg.(*wire.AddMaster))
	})
	led(&wire.RemoveMaster{}, func(_ *lead, ctx context.Context, r *rpc.Request) (wire.Message, error) {
		return &wire.Empty{}, m.removeMaster(ctx, r.Msg.(*wire.RemoveMaster))
	})
	led(&wire.TransferLeader{}, func(_ *lead, ctx context.Context, r *rpc.Request) (wire.Message, error) {
		return &wire.Empty{}, m.transferLeader(ctx, r.Msg.(*wire.TransferLeader))
	})
}

// wrap tells a caller where the leader is when the reason of a failure is that
// this is not it.
func (m *Master) wrap(err error) error {
	if errors.Is(err, consensus.ErrNotLeader) || errors.Is(err, consensus.ErrStopped) {
		return m.notLeader()
	}
	return err
}
