package consensus

import (
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
)

// proposal is a place in the log and what is to stand there.
type proposal struct {
	term, index uint64
	entry       *raftpb.Entry
}

// proposals hands out the places in the log of the term that this member
// leads. A place is taken when Propose returns; the raft goroutine fills it
// or drops it and everything after.
type proposals struct {
	mu      sync.Mutex
	term    uint64
	next    uint64
	leading bool
	open    bool        // the entry that begins the term was applied
	isOpen  atomic.Bool // open, for those who ask often
	stalled bool        // something was dropped and NextIndex was not asked since
	sizes   []int
	first   uint64 // index of sizes[0]
	bytes   int
}

func (p *proposals) begin(term, next uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.term, p.next, p.leading, p.open, p.stalled = term, next, true, false, false
	p.sizes, p.first, p.bytes = nil, next, 0
	p.isOpen.Store(false)
}

func (p *proposals) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leading, p.open = false, false
	p.isOpen.Store(false)
}

// opened tells whether the term was one to open.
func (p *proposals) opened(term uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leading && p.term == term {
		p.open = true
		p.isOpen.Store(true)
		return true
	}
	return false
}

func (p *proposals) ready() bool { return p.isOpen.Load() }

// dropped takes back the places from index on, if they are still term's.
func (p *proposals) dropped(term, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.term != term || !p.leading {
		return
	}
	for ; p.next > index && len(p.sizes) > 0; p.next-- {
		p.bytes -= p.sizes[len(p.sizes)-1]
		p.sizes = p.sizes[:len(p.sizes)-1]
	}
	p.next, p.stalled = index, true
}

// applied gives back the room of places up to index.
func (p *proposals) applied(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.sizes) > 0 && p.first <= index {
		p.bytes -= p.sizes[0]
		p.sizes, p.first = p.sizes[1:], p.first+1
	}
	if len(p.sizes) == 0 {
		p.first = p.next
	}
}

// NextIndex returns the place that the next proposal can have. Before ok is
// true LeaderChanged has told that this member leads. It also acknowledges
// ErrDropped: the caller has discarded what it evaluated on dropped
// proposals. It is for one caller, the evaluator.
func (n *Node) NextIndex() (term, index uint64, ok bool) {
	p := &n.props
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return 0, 0, false
	}
	p.stalled = false
	return p.term, p.next, true
}

// Propose asks for data to stand at exactly (term, index). A nil error means
// that the place is taken and the proposal on its way; that it is committed
// is seen in Apply, that it lost its place in Config.Dropped, or, after a
// change of leader, by another entry in its place. It does not block. data is
// kept and must not change; it is not empty and at most EntryMax long.
func (n *Node) Propose(term, index uint64, data []byte) error {
	if len(data) == 0 || len(data) > EntryMax {
		return ashlar.E("propose", ashlar.TooBig, "", nil)
	}
	return n.propose(term, index, &raftpb.Entry{Data: data})
}

func (n *Node) propose(term, index uint64, e *raftpb.Entry) error {
	p := &n.props
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.open || term != p.term:
		return ErrNotLeader
	case p.stalled:
		return ErrDropped
	case index != p.next:
		return ErrMoved
	case len(p.sizes) >= proposedMax || p.bytes+len(e.Data) > proposedBytesMax && p.bytes > 0:
		return ErrOverloaded
	}
	p.next++
	p.sizes = append(p.sizes, len(e.Data))
	p.bytes += len(e.Data)
	// Inside the lock, so that the queue is in the order of the places.
	n.inbox.put(event{proposal: &proposal{term, index, e}})
	return nil
}

// stepProposals gives proposals to raft in one message. They are dropped if
// one of them would not come to stand in its place.
func (n *Node) stepProposals(props []*proposal) {
	term, index := props[0].term, props[0].index
	st := n.rn.BasicStatus()
	if st.RaftState != raft.StateLeader || st.GetTerm() != term {
		n.drop(props)
		return
	}
	if index != n.lastIndex+1 {
		n.drop(props)
		return
	}
	entries := make([]*raftpb.Entry, 0, len(props))
	for i, p := range props {
		if p.term != term || p.index != index+uint64(i) {
			n.stepProposals(props[:i])
			n.stepProposals(props[i:])
			return
		}
		entries = append(entries, p.entry)
	}
	id := n.cfg.ID
	if err := n.rn.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &id, Entries: entries}); err != nil {
		n.drop(props)
		return
	}
	n.lastIndex += uint64(len(entries))
}

func (n *Node) drop(props []*proposal) {
	term, index := props[0].term, props[0].index
	n.props.dropped(term, min(index, n.lastIndex+1))
	n.confWaits = slices.DeleteFunc(n.confWaits, func(w confWait) bool {
		if w.term != term || w.index < index {
			return false
		}
		w.done <- ErrDropped
		return true
	})
	if n.cfg.Dropped != nil {
		n.cfg.Dropped(term, index)
	}
}
