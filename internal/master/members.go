package master

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/placement"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Pace of joining.
const (
	joinAsk    = time.Second            // that a master has to answer
	joinPause  = 100 * time.Millisecond // between rounds
	joinRemind = 10 * time.Second       // between log lines
	memberCall = 10 * time.Second       // for a change of members
	removeWait = 2 * time.Second        // to hear of those who stay
)

// memberID gives a master its id: the same for all who work it out from the
// same words, never that of another name or an earlier life.
func memberID(cluster ashlar.ClusterID, name string, life int64) uint64 {
	h := sha256.New()
	h.Write(cluster[:])
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(life)))
	h.Write([]byte(name))
	return binary.LittleEndian.Uint64(h.Sum(nil))>>1 | 1
}

// masterRecord is what the state keeps of a member beside the membership.
type masterRecord struct {
	Name    string
	Vote    bool // it is to have a vote once it has caught up
	Started bool // it has held a part of the log
}

// Fields implements key.Record.
func (r *masterRecord) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.Text(c, &r.Name, ashlar.NameMax)
	wire.Bool(c, &r.Vote)
	wire.Bool(c, &r.Started)
}

// join is the goroutine of a master with an empty directory: it finds out
// whether there is a cluster, and becomes the member that waits for it, or
// makes a new one together with the others.
func (m *Master) join() {
	var reminded time.Duration
	for m.ctx.Err() == nil {
		id, why := m.place()
		if id != nil {
			if err := m.writeIdentity(id); err != nil {
				m.log.Error("joining", "err", err)
				return
			}
			if err := m.boot(id); err != nil {
				m.log.Error("joining", "err", err)
			}
			return
		}
		if reminded -= joinPause; reminded <= 0 {
			m.log.Info("waiting to join", "why", why)
			reminded = joinRemind
		}
		t := timeout(m.clk, joinPause)
		select {
		case <-t.c:
		case <-m.ctx.Done():
			t.stop()
		}
	}
}

// place returns which member this master is to be, or why it is not known.
func (m *Master) place() (*identity, string) {
	first := m.firstMembers()
	empty := 1 // this one
	for _, p := range m.cfg.Masters {
		if p.Name == m.cfg.Name {
			continue
		}
		r, err := m.askLeader(p.Addr)
		switch {
		case err != nil:
			continue
		case r.Initialised:
			return m.placeIn(r)
		}
		empty++
	}
	switch {
	case !slices.ContainsFunc(first, func(c consensus.Member) bool { return c.Name == m.cfg.Name }):
		return nil, "no master of the cluster answers"
	case empty <= len(first)/2:
		return nil, fmt.Sprintf("%d of %d masters of the new cluster are here", empty, len(first))
	}
	m.log.Info("making a new cluster", "cluster", m.cfg.Cluster.String(), "masters", len(first))
	return &identity{ID: memberID(m.cfg.Cluster, m.cfg.Name, 0), First: first}, ""
}

// placeIn finds this master in an existing cluster. Only its leader is
// believed: it knows who has taken part.
func (m *Master) placeIn(r *wire.FindLeaderReply) (*identity, string) {
	if r.Leader == "" {
		return nil, "the cluster has no leader now"
	}
	own, err := m.askLeader(r.Leader)
	if err != nil || own.Leader != r.Leader || !own.Initialised {
		return nil, "the cluster's leader does not answer"
	}
	for _, a := range own.Masters {
		switch {
		case a.Name != m.cfg.Name:
		case a.Started:
			return nil, fmt.Sprintf("master %s has taken part before and its data is missing here; "+
				"give it a new id with: ashlar node remove %s; ashlar node add %s %s", a.Name, a.Name, a.Name, m.cfg.Addr)
		default:
			return &identity{ID: uint64(a.ID)}, ""
		}
	}
	return nil, fmt.Sprintf("this master is not a member; add it with: ashlar node add %s %s", m.cfg.Name, m.cfg.Addr)
}

func (m *Master) askLeader(addr string) (*wire.FindLeaderReply, error) {
	ctx, cancel := context.WithTimeout(m.ctx, joinAsk)
	defer cancel()
	r := new(wire.FindLeaderReply)
	return r, m.cfg.RPC.Call(ctx, addr, &wire.FindLeader{}, r)
}

func (m *Master) firstMembers() []consensus.Member {
	peers := m.cfg.Masters
	if len(peers) == 0 {
		peers = []Peer{{m.cfg.Name, m.cfg.Addr}}
	}
	var out []consensus.Member
	for _, p := range peers {
		out = append(out, consensus.Member{ID: memberID(m.cfg.Cluster, p.Name, 0), Name: p.Name, Addr: p.Addr})
	}
	return out
}

// initCluster writes the first records of a new cluster.
func (l *lead) initCluster() error {
	return l.change(l.ctx, func(tx meta.Tx, now int64) (string, error) {
		if c, err := meta.LoadCluster(tx); err != nil || c != nil {
			return "", err
		}
		meta.InitCluster(tx, &meta.Cluster{ID: l.m.cfg.Cluster, History: 1, Created: now})
		return "new cluster", placement.SetPool(tx, &wire.SetPool{
			Name: placement.DefaultPool, Replicas: uint8(l.m.cfg.Replicas), Domain: ashlar.DomainNode,
		})
	})
}

// history is the cluster's.
func (m *Master) history() ashlar.History {
	if c, err := meta.LoadCluster(&plain{store: m.store}); err == nil && c != nil {
		return c.History
	}
	return 1
}

// findHoldMax bounds how long a question for the leader is held.
const findHoldMax = time.Second

// findLeader answers who leads, from any master, once another leads than the
// one that is known not to answer.
func (m *Master) findLeader(ctx context.Context, r *rpc.Request) (wire.Message, error) {
	q := r.Msg.(*wire.FindLeader)
	held := timeout(m.clk, min(time.Duration(q.HoldMs)*time.Millisecond, findHoldMax))
	defer held.stop()
	for waiting := q.HoldMs > 0; waiting; {
		m.mu.Lock()
		moved := m.elected
		m.mu.Unlock()
		if addr, _ := m.leaderAddr(); addr != "" && (addr != q.Not || addr == m.cfg.Addr) {
			break
		}
		select {
		case <-moved:
		case <-held.c:
			waiting = false
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.ctx.Done():
			waiting = false
		}
	}
	addr, term := m.leaderAddr()
	out := &wire.FindLeaderReply{Leader: addr, Term: term, Initialised: m.initialised.Load()}
	members := m.members.Load()
	if members == nil {
		for _, p := range m.firstMembers() {
			out.Masters = append(out.Masters, wire.MasterAddr{ID: ashlar.MemberID(p.ID), Name: p.Name, Addr: p.Addr})
		}
		return out, nil
	}
	tx := &plain{store: m.store}
	for _, mem := range *members {
		rec := new(masterRecord)
		if _, err := key.Load(tx, key.Master(ashlar.MemberID(mem.ID)), rec); err != nil {
			return nil, err
		}
		out.Masters = append(out.Masters, wire.MasterAddr{
			ID: ashlar.MemberID(mem.ID), Name: mem.Name, Addr: mem.Addr, Learner: mem.Learner, Started: rec.Started,
		})
	}
	if tx.err != nil {
		return nil, ashlar.E("find leader", ashlar.NotReady, "", tx.err)
	}
	return out, nil
}

// addMaster makes a member of a master that is yet to be started. It gets its
// vote from careForMembers once it has caught up.
func (m *Master) addMaster(ctx context.Context, l *lead, q *wire.AddMaster) error {
	if q.Name == "" || q.Addr == "" {
		return ashlar.E("add master", ashlar.Invalid, q.Name, errors.New("name and address are needed"))
	}
	members := *m.members.Load()
	for _, mem := range members {
		if mem.Name == q.Name {
			if mem.Addr == q.Addr { // asked again
				return nil
			}
			return ashlar.E("add master", ashlar.Exist, q.Name, errors.New("a master of this name is at "+mem.Addr))
		}
	}
	if len(members) >= wire.MastersMax {
		return ashlar.E("add master", ashlar.TooBig, q.Name, nil)
	}
	id := memberID(m.cfg.Cluster, q.Name, l.opTime())
	err := l.change(ctx, func(tx meta.Tx, _ int64) (string, error) {
		key.Store(tx, key.Master(ashlar.MemberID(id)), &masterRecord{Name: q.Name, Vote: !q.Learner})
		return "add master " + q.Name, nil
	})
	if err != nil {
		return err
	}
	return m.node.Load().AddLearner(ctx, consensus.Member{ID: id, Name: q.Name, Addr: q.Addr})
}

// removeMaster takes a master out of the group, unless those who are left
// could agree on nothing.
func (m *Master) removeMaster(ctx context.Context, q *wire.RemoveMaster) error {
	mem, ok := m.memberNamed(q.Name)
	if !ok {
		return ashlar.E("remove master", ashlar.NotExist, q.Name, nil)
	}
	for deadline := m.clk.Now().Add(removeWait); ; {
		st, err := m.node.Load().Status(ctx)
		if err != nil {
			return err
		}
		voters, active := votersWithout(st.Members, mem.ID)
		if voters == 0 || active > voters/2 { // of the last one the group knows itself
			return m.node.Load().RemoveMember(ctx, mem.ID)
		}
		if !m.clk.Now().Before(deadline) {
			return ashlar.E("remove master", ashlar.Invalid, q.Name,
				fmt.Errorf("of the %d masters that would be left %d answer: no majority", voters, active))
		}
		t := timeout(m.clk, joinPause)
		select {
		case <-t.c:
		case <-ctx.Done():
			t.stop()
			return ctx.Err()
		}
	}
}

// votersWithout counts the voters other than one, and those heard of lately.
func votersWithout(members []consensus.MemberStatus, id uint64) (voters, active int) {
	for _, mem := range members {
		if mem.Learner || mem.ID == id {
			continue
		}
		voters++
		if mem.Active {
			active++
		}
	}
	return voters, active
}

func (m *Master) transferLeader(ctx context.Context, q *wire.TransferLeader) error {
	if q.Name == m.cfg.Name {
		return nil
	}
	if q.Name != "" {
		if _, ok := m.memberNamed(q.Name); !ok {
			return ashlar.E("transfer leadership", ashlar.NotExist, q.Name, nil)
		}
		return ashlar.E("transfer leadership", ashlar.Unsupported, q.Name,
			errors.New("leadership goes to the master that is furthest; name none"))
	}
	return m.node.Load().TransferLeadership(ctx)
}

func (m *Master) memberNamed(name string) (consensus.Member, bool) {
	for _, mem := range *m.members.Load() {
		if mem.Name == name {
			return mem, true
		}
	}
	return consensus.Member{}, false
}

// careForMembers notes which members have taken part, gives learners that are
// to vote their vote, and keeps this master's own address right.
func (l *lead) careForMembers() {
	ctx, cancel := context.WithTimeout(l.ctx, memberCall)
	defer cancel()
	node := l.m.node.Load()
	st, err := node.Status(ctx)
	if err != nil {
		return
	}
	tx := &plain{store: l.m.store}
	for _, mem := range st.Members {
		rec := &masterRecord{Name: mem.Name, Vote: !mem.Learner}
		k := key.Master(ashlar.MemberID(mem.ID))
		if _, err := key.Load(tx, k, rec); err != nil {
			l.logged("members", err)
			return
		}
		if !rec.Started && (mem.Match > 0 || mem.ID == st.ID) {
			rec.Started = true
			err = l.change(ctx, func(tx meta.Tx, _ int64) (string, error) {
				key.Store(tx, k, rec)
				return "master " + mem.Name + " takes part", nil
			})
		}
		switch {
		case err != nil:
		case mem.Learner && rec.Vote && mem.Active && mem.Match+promoteLag >= st.Commit:
			err = node.Promote(ctx, mem.ID)
		case mem.ID == st.ID && mem.Addr != l.m.cfg.Addr:
			err = node.UpdateMember(ctx, consensus.Member{ID: mem.ID, Name: mem.Name, Addr: l.m.cfg.Addr})
		}
		if err != nil {
			l.logged("members", err)
			return
		}
	}
}

// promoteLag is how far behind a learner may be for its promotion to begin.
const promoteLag = 1000
