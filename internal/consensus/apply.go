package consensus

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/ashlarfs/ashlar"
)

// applyJob is something for the apply goroutine; one field is set.
type applyJob struct {
	msg     *raftpb.Message // MsgStorageApply
	lead    *Leadership
	restore *received
	done    chan error // of restore
}

// confResult is a change of members that was applied.
type confResult struct {
	index, term uint64
	cc          *raftpb.ConfChangeV2
	*membership
}

// runApply is the apply goroutine.
func (n *Node) runApply() {
	a := applier{n: n, members: n.membershipAt(n.applied.Load())}
	var jobs []applyJob
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.applyq.wake:
		}
		jobs = n.applyq.take(jobs)
		for _, j := range jobs {
			if n.ctx.Err() != nil {
				return
			}
			var err error
			switch {
			case j.msg != nil:
				err = a.apply(j.msg)
			case j.lead != nil:
				a.leadership(*j.lead)
			case j.restore != nil:
				err = a.restore(j.restore)
				j.done <- err
			}
			if err != nil {
				n.fail(err)
				return
			}
		}
	}
}

// untoldMax bounds what is applied before raft is told of it, in bytes; it is
// far below applyBytesMax, at which raft would wait.
const untoldMax = applyBytesMax / 16

// applier is the state of the apply goroutine.
type applier struct {
	n       *Node
	members *membership
	leads   *Leadership // this member's, until the term's first entry is applied
	run     []Entry
	untold  int // bytes applied of which the raft goroutine was told quietly
}

func (a *applier) apply(m *raftpb.Message) error {
	n := a.n
	run := a.run[:0]
	var events []event
	begins := false
	for _, e := range m.Entries {
		out := Entry{Index: e.GetIndex(), Term: e.GetTerm()}
		cc, err := decodeConfChange(e)
		switch {
		case err != nil:
			return err
		case cc != nil:
			if a.members, err = a.members.apply(cc, out.Index); err != nil {
				return err
			}
			out.Conf = a.members.members
			events = append(events, event{conf: &confResult{out.Index, out.Term, cc, a.members}})
		case len(e.Data) > 0:
			out.Data = e.Data
		}
		begins = begins || a.leads != nil && out.Term == a.leads.Term
		run = append(run, out)
	}
	if err := n.cfg.Machine.Apply(run); err != nil {
		return ashlar.E("apply", ashlar.IO, fmt.Sprintf("entries %d to %d", run[0].Index, run[len(run)-1].Index), err)
	}
	last := run[len(run)-1].Index
	clear(run)
	a.run = run
	n.mu.Lock()
	for _, e := range events {
		n.confs = append(n.confs, confAt{e.conf.index, e.conf.membership})
	}
	n.mu.Unlock()
	n.applied.Store(last)
	n.props.applied(last)
	n.reads.applied(last)
	urgent := len(events) > 0 || a.leads != nil
	for _, r := range m.GetResponses() {
		events = append(events, event{local: r})
	}
	// What is applied raft needs to know to hand out more, and to forget what
	// it holds: neither is worth a turn of its goroutine while that is little.
	for _, e := range m.Entries {
		a.untold += len(e.Data) + 128
	}
	if urgent || a.untold > untoldMax {
		a.untold = 0
		n.inbox.put(events...)
	} else {
		n.inbox.putQuietly(events...)
	}
	if begins {
		if n.props.opened(a.leads.Term) {
			n.cfg.Machine.LeaderChanged(*a.leads)
		}
		a.leads = nil
	}
	return nil
}

// leadership passes on who leads; that this member does, only once everything
// before its term is applied.
func (a *applier) leadership(l Leadership) {
	a.leads = nil
	if l.Self {
		a.leads = &l
		return
	}
	a.n.cfg.Machine.LeaderChanged(l)
}

func (a *applier) restore(r *received) error {
	index, err := a.n.cfg.Machine.Restore(r.dir)
	if err != nil {
		return err
	}
	if index != r.index {
		return ashlar.E("restore checkpoint", ashlar.Corrupt, "", fmt.Errorf("it is as of %d, not %d", index, r.index))
	}
	n := a.n
	a.members = r.members
	n.mu.Lock()
	n.confs = []confAt{{index, r.members}}
	n.mu.Unlock()
	n.applied.Store(index)
	n.inbox.put(event{call: func() { n.setMembers(r.members) }})
	return n.cfg.FS.RemoveAll(r.dir)
}

// decodeConfChange returns the change of members that an entry is, or nil.
func decodeConfChange(e *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	switch e.GetType() {
	case raftpb.EntryNormal:
		return nil, nil
	case raftpb.EntryConfChange:
		var cc raftpb.ConfChange
		if err := proto.Unmarshal(e.Data, &cc); err != nil {
			return nil, ashlar.E("decode", ashlar.Corrupt, "change of members", err)
		}
		return cc.AsV2(), nil
	case raftpb.EntryConfChangeV2:
		cc := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(e.Data, cc); err != nil {
			return nil, ashlar.E("decode", ashlar.Corrupt, "change of members", err)
		}
		return cc, nil
	}
	return nil, ashlar.E("decode", ashlar.Corrupt, "entry", fmt.Errorf("type %v", e.GetType()))
}
