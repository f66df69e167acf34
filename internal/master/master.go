// Package master is the role that leads or follows: it runs one member of the
// consensus group over the metadata store, serves operations, sessions and
// chunkservers while it leads, and drives what the state asks for (fences,
// cuts, deletions, moves). What is right is decided by package meta; this
// package decides when.
//
// # How a change is made
//
// The evaluator of the leader runs one operation after the other against the
// committed state under an overlay of what is already proposed, puts the
// writes of several into one batch and proposes it for exactly one place in
// the log. Masters apply a batch only in that place (I-3). A reply that
// depends on proposed state waits until that is applied (I-1, I-2); any other
// is given while the leader's lease holds. Reads see committed state only and
// run beside the evaluator.
//
// # Lock order
//
//	lead.sessMu
//	    openTable.mu
//	lead.mu          proposals in flight
//	    overlay.mu
//	lead.viewMu
//	Master.mu        who waits for which revision
//	witnesses.mu     a leaf
//
// # What survives a crash
//
// The log, the store and MASTER, which says which member this directory is.
// Everything of type lead is the leader's own and built anew: who has renewed,
// what is open, how full disks are.
package master

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Defaults of Config.
const (
	LeaseDefault    = 3 * time.Second
	DeadDefault     = 3500 * time.Millisecond
	RenewDefault    = 500 * time.Millisecond
	ReplicasDefault = 2
)

// Peer is a master as the configuration names it.
type Peer struct {
	Name, Addr string
}

// Config says what a master is and what it stands on.
type Config struct {
	Name    string // of this master; its member id follows from it
	Addr    string // where its Server is reached
	Cluster ashlar.ClusterID
	Secret  []byte
	Dir     string
	FS      vfs.FS // vfs.OS if nil
	// Masters are the masters of a new cluster, this one among them, and where
	// to ask for the members of an old one. None means a cluster of one.
	Masters []Peer
	Server  *rpc.Server
	RPC     *rpc.Client
	Clock   clock.Clock // clock.Real if nil
	Logger  *slog.Logger

	Lease time.Duration // of sessions; 0 means LeaseDefault
	Dead  time.Duration // when a silent session is lost; 0 means DeadDefault
	Renew time.Duration // how often sessions renew; 0 means RenewDefault

	Replicas    int           // of the default pool of a new cluster; 0 means ReplicasDefault
	RepairAfter time.Duration // 0 means placement.RepairAfterDefault
	// Retries of background work; 0 means RenewDefault.
	Tick time.Duration
	// Consensus timing; 0 means its defaults.
	ConsensusTick time.Duration
	ElectionTicks int
	// SnapshotThresholdBytes is the size of the log at which it is cut; 0
	// means consensus's default.
	SnapshotThresholdBytes int64
	// CacheBytes bounds the store's cache; 0 means kv.CacheDefault.
	CacheBytes int64
	// NoWitness makes this master wait for the dead threshold even where the
	// end of a process is proven.
	NoWitness bool
	// Fatal is told that the metadata disk failed; it must end the process and
	// not return (kv.Options.Fatal).
	Fatal func(error)
	// OnRemoved, if set, is called once when this master was taken out of the
	// group and has stopped.
	OnRemoved func()
}

func (c *Config) setDefaults() error {
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Lease == 0 {
		c.Lease = LeaseDefault
	}
	if c.Dead == 0 {
		c.Dead = DeadDefault
	}
	if c.Renew == 0 {
		c.Renew = RenewDefault
	}
	if c.Tick == 0 {
		c.Tick = RenewDefault
	}
	if c.Replicas == 0 {
		c.Replicas = ReplicasDefault
	}
	bad := func(what string) error { return ashlar.E("start master", ashlar.Invalid, c.Name, errors.New(what)) }
	switch {
	case c.Name == "" || c.Addr == "" || c.Dir == "":
		return bad("name, address and directory are needed")
	case c.Cluster.IsZero() || len(c.Secret) == 0:
		return bad("cluster and secret are needed")
	case c.Server == nil || c.RPC == nil:
		return bad("server and client are needed")
	case c.Lease >= c.Dead:
		return bad("the lease must be shorter than the dead threshold")
	case c.Replicas > ashlar.ReplicasMax:
		return bad("too many replicas")
	}
	return nil
}

// Master is one master.
type Master struct {
	cfg Config
	log *slog.Logger
	clk clock.Clock

	store *kv.Store
	trans *transport

	witnesses *witnesses

	node        atomic.Pointer[consensus.Node] // nil until the group is joined
	booted      chan struct{}                  // closed once node is set
	lead        atomic.Pointer[lead]           // nil while following
	leadership  atomic.Pointer[consensus.Leadership]
	members     atomic.Pointer[[]consensus.Member]
	initialised atomic.Bool // the cluster's record is applied
	id          atomic.Uint64
	replays     applier // the apply goroutine's

	mu      sync.Mutex
	touched uint64        // index of the last change of groups or fences
	moved   chan struct{} // closed when touched grows
	elected chan struct{} // closed when another leads, or nobody

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start starts a master and registers its handlers on the server, which is
// not serving yet. Joining the group goes on behind it.
func Start(ctx context.Context, cfg Config) (*Master, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	m := &Master{cfg: cfg, log: cfg.Logger.With("master", cfg.Name), clk: cfg.Clock, moved: make(chan struct{}), elected: make(chan struct{}), booted: make(chan struct{})}
	if err := vfs.MakeDir(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	store, err := kv.Open(kv.Options{
		Dir: path.Join(cfg.Dir, StoreDir), FS: cfg.FS, Cluster: cfg.Cluster, CacheBytes: cfg.CacheBytes, Logger: m.log, Fatal: cfg.Fatal,
	})
	if err != nil {
		return nil, err
	}
	m.store = store
	if err := m.checkInitialised(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	known, err := m.readIdentity()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if err := cfg.FS.SyncDir(cfg.Dir); err != nil { // MASTER may be there and not durable
		return nil, errors.Join(err, store.Close())
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.trans = newTransport(m)
	m.witnesses = newWitnesses(m)
	m.handle()
	if known != nil {
		if err := m.boot(known); err != nil {
			m.cancel()
			return nil, errors.Join(err, store.Close())
		}
		return m, nil
	}
	m.wg.Go(m.join)
	return m, nil
}

func (m *Master) checkInitialised() error {
	_, ok, err := m.store.Get(key.Cluster())
	if ok {
		m.initialised.Store(true)
	}
	return err
}

// boot starts the member that the directory is.
func (m *Master) boot(id *identity) error {
	m.id.Store(id.ID)
	node, err := consensus.Start(consensus.Config{
		ID: id.ID, Cluster: m.cfg.Cluster, Dir: path.Join(m.cfg.Dir, LogDir), FS: m.cfg.FS, Clock: m.clk,
		TickInterval: m.cfg.ConsensusTick, ElectionTicks: m.cfg.ElectionTicks,
		Bootstrap: id.First, Transport: m.trans, Machine: (*machine)(m),
		MembersChanged: m.membersChanged, Dropped: m.dropped,
		SnapshotThresholdBytes: m.cfg.SnapshotThresholdBytes, Logger: m.log,
	})
	if err != nil {
		return err
	}
	m.node.Store(node)
	close(m.booted)
	m.wg.Go(func() {
		select {
		case <-node.Done():
			if m.ctx.Err() == nil {
				m.log.Error("this master has stopped", "err", node.Err())
				m.leadership.Store(nil) // or it would name itself for ever
				if l := m.lead.Swap(nil); l != nil {
					l.stop()
				}
			}
		case <-m.ctx.Done():
		}
	})
	return nil
}

// dropped is consensus telling that proposals lost their place.
func (m *Master) dropped(term, _ uint64) {
	if l := m.lead.Load(); l != nil && l.term == term {
		l.void()
	}
}

func (m *Master) membersChanged(members []consensus.Member) {
	had := false
	if old := m.members.Load(); old != nil {
		_, had = findMember(*old, m.id.Load())
	}
	m.members.Store(&members)
	m.trans.setMembers(members)
	if _, has := findMember(members, m.id.Load()); had && !has {
		m.log.Warn("this master was removed from the group and stops; its data directory is of no use any more")
		m.wg.Go(m.removed)
	}
}

// removed stops the member, a moment after it was taken out so that the
// others have the entry too.
func (m *Master) removed() {
	done := make(chan struct{})
	stop := m.clk.AfterFunc(time.Second, func() { close(done) })
	defer stop()
	select {
	case <-done:
	case <-m.ctx.Done():
		return
	}
	if n := m.node.Load(); n != nil {
		if err := n.Kill(); err != nil {
			m.log.Error("stopping", "err", err)
		}
	}
	if m.cfg.OnRemoved != nil {
		m.cfg.OnRemoved()
	}
}

func findMember(members []consensus.Member, id uint64) (consensus.Member, bool) {
	for _, mem := range members {
		if mem.ID == id {
			return mem, true
		}
	}
	return consensus.Member{}, false
}

// Stop hands leadership on if it can before ctx ends, and stops the master.
func (m *Master) Stop(ctx context.Context) error {
	var err error
	if n := m.node.Load(); n != nil {
		err = n.Stop(ctx)
	}
	return errors.Join(err, m.close())
}

// Kill stops the master at once, for the others as a crash would.
func (m *Master) Kill() error {
	var err error
	if n := m.node.Load(); n != nil {
		err = n.Kill()
	}
	return errors.Join(err, m.close())
}

func (m *Master) close() error {
	m.cancel()
	if l := m.lead.Swap(nil); l != nil {
		l.stop()
	}
	m.wg.Wait()
	var err error
	if n := m.node.Load(); n != nil { // it may have joined while it was being stopped
		err = n.Kill()
	}
	if l := m.lead.Swap(nil); l != nil {
		l.stop()
	}
	m.trans.close()
	m.witnesses.close()
	return errors.Join(err, m.store.Close())
}

// Member returns which member of the group this master is and how often it was
// started, zeros while it has not joined.
func (m *Master) Member() (id ashlar.MemberID, life uint64) {
	n := m.node.Load()
	if n == nil {
		return 0, 0
	}
	return ashlar.MemberID(m.id.Load()), n.Incarnation()
}

// Leads tells whether this master leads and serves.
func (m *Master) Leads() bool { return m.lead.Load() != nil }

// leader returns what this master keeps while it leads, or an error that says
// who does.
func (m *Master) leader() (*lead, error) {
	if l := m.lead.Load(); l != nil {
		return l, nil
	}
	return nil, m.notLeader()
}

func (m *Master) notLeader() error {
	addr, _ := m.leaderAddr()
	return &rpc.NotLeaderError{Leader: addr}
}

// leaderAddr returns the address of the leader, "" if it is not known or is
// this master and not ready.
func (m *Master) leaderAddr() (addr string, term uint64) {
	ls := m.leadership.Load()
	if ls == nil {
		return "", 0
	}
	members := m.members.Load()
	if ls.Self && m.lead.Load() != nil {
		return m.cfg.Addr, ls.Term
	}
	if ls.Leader == 0 || members == nil || ls.Self {
		return "", ls.Term
	}
	mem, _ := findMember(*members, ls.Leader)
	return mem.Addr, ls.Term
}

// touch notes that groups or fences changed at index and wakes who waits.
func (m *Master) touch(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index > m.touched {
		m.touched = index
		close(m.moved)
		m.moved = make(chan struct{})
	}
}

// leaderMoved wakes who waits for a leader.
func (m *Master) leaderMoved() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.elected)
	m.elected = make(chan struct{})
}

// revision returns the index of the last change of groups or fences, and a
// channel that is closed at the next.
func (m *Master) revision() (uint64, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.touched, m.moved
}

// nodeOnly refuses what only masters and chunkservers may ask.
func nodeOnly(r *rpc.Request) error {
	if r.Peer.Role != wire.RoleNode {
		return ashlar.E("", ashlar.Auth, r.Peer.Name, errors.New("only a node of the cluster may ask this"))
	}
	return nil
}
