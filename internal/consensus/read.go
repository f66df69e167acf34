package consensus

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
)

// readers are those who wait for a read barrier. A barrier begins with a
// context that is never used again: an answer to an older one proves nothing.
type readers struct {
	mu      sync.Mutex
	asked   bool                    // the raft goroutine will begin a barrier
	waiting []chan error            // for the next barrier
	begun   map[string][]chan error // by the barrier's context
	behind  []readAt                // confirmed; the state is not there yet
}

type readAt struct {
	index uint64
	done  []chan error
}

// ReadIndex returns nil when the state applied here reflects every change
// that was acknowledged before the call (I-2). It is the slow way, for while
// the lease is not valid.
func (n *Node) ReadIndex(ctx context.Context) error {
	done := make(chan error, 1)
	n.reads.mu.Lock()
	n.reads.waiting = append(n.reads.waiting, done)
	ask := !n.reads.asked
	n.reads.asked = true
	n.reads.mu.Unlock()
	if ask {
		n.inbox.put(event{call: n.beginReads})
	}
	select {
	case err := <-done:
		return err
	case <-n.ctx.Done():
		return ErrStopped
	case <-ctx.Done():
		return ctxErr(ctx)
	}
}

// beginReads begins one barrier for all who wait for the next.
func (n *Node) beginReads() {
	r := &n.reads
	r.mu.Lock()
	waiting := r.waiting
	r.waiting, r.asked = nil, false
	if n.rn.BasicStatus().RaftState != raft.StateLeader {
		r.mu.Unlock()
		answer(waiting, ErrNotLeader)
		return
	}
	if r.begun == nil {
		r.begun = map[string][]chan error{}
	}
	n.readSeq++
	key := binary.LittleEndian.AppendUint64(nil, n.incarnation)
	key = binary.LittleEndian.AppendUint64(key, n.readSeq)
	r.begun[string(key)] = waiting
	r.mu.Unlock()
	n.rn.ReadIndex(key)
}

// confirmed is called when raft has confirmed a barrier.
func (r *readers) confirmed(rs raft.ReadState, applied *atomic.Uint64) {
	r.mu.Lock()
	done := r.begun[string(rs.RequestCtx)]
	delete(r.begun, string(rs.RequestCtx))
	if len(done) > 0 {
		r.behind = append(r.behind, readAt{rs.Index, done})
	}
	r.mu.Unlock()
	r.applied(applied.Load()) // loaded after: one of the two sees the other
}

// applied wakes the readers that the state has caught up with.
func (r *readers) applied(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep := r.behind[:0]
	for _, b := range r.behind {
		if b.index <= index {
			answer(b.done, nil)
		} else {
			keep = append(keep, b)
		}
	}
	r.behind = keep
}

// lose fails every barrier under way.
func (r *readers) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, done := range r.begun {
		answer(done, ErrNotLeader)
	}
	clear(r.begun)
}

func answer(done []chan error, err error) {
	for _, d := range done {
		d <- err
	}
}
