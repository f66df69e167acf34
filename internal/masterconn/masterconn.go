// Package masterconn is how everything but a master talks to the masters.
// Leader finds and follows the leader and retries what is not a session's;
// chunkservers use it. Witnesses keeps the connections by whose end the masters
// know that a process of the cluster is over. Conn keeps a client session: it renews it, tells a new
// leader what the session holds, numbers its operations so that each takes
// effect once (I-3), and knows how long answers from caches may be given
// (I-6). It does not know what an operation means.
//
// # When a session is lost
//
// The masters say so (NoSession in answer to a renewal or hello; an operation
// refused for that reason only makes Conn ask). OnLost is called, a new
// session is opened, and operations go on under it: those that were certainly
// never evaluated get a new sequence, the others end with OutcomeUnknown,
// because an operation is never retried under another session.
//
// # Lock order
//
//	Conn.mu
//	    Leader.mu
//	    Window.mu
//	Witnesses.mu
//	    Leader.mu
//
// Nothing here survives a crash: a process that starts again is a new
// incarnation with a new session.
package masterconn

import (
	"context"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// Times and limits.
const (
	// askTimeout is how long a master may take to say who leads.
	askTimeout = time.Second
	// askHold is how long a master that knows of no leader may hold the question.
	askHold = 900 * time.Millisecond
	// doubtAfter is how long an answer may take before the leader is asked
	// whether it still leads. As long as it says so, the answer is waited for.
	doubtAfter = time.Second
	// renewTimeout is how long an answer to a renewal is waited for.
	renewTimeout = time.Second
	// openTimeout is how long an answer to opening a session or to a hello is
	// waited for; both may wait for the log.
	openTimeout = 3 * time.Second
	// renewEvery is the default between renewals; the masters may say otherwise.
	renewEvery = 500 * time.Millisecond
	// askEvery is how often operations that the leader is not ready for make
	// it be asked why.
	askEvery = 50 * time.Millisecond
	// backoffMin and backoffMax bound the pause before a retry. A pause ends
	// early when another leader is found.
	backoffMin = 5 * time.Millisecond
	backoffMax = 200 * time.Millisecond
	// mastersMax bounds the addresses learned in addition to those configured.
	mastersMax = 64
)

// backoff is the pause between the attempts of one call.
type backoff struct{ next time.Duration }

// wait pauses; it returns early when wake is closed, and false when ctx ended.
func (b *backoff) wait(ctx context.Context, clk clock.Clock, wake <-chan struct{}) bool {
	b.next = min(max(2*b.next, backoffMin), backoffMax)
	timer := make(chan struct{})
	stop := clk.AfterFunc(b.next, func() { close(timer) })
	defer stop()
	select {
	case <-timer:
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}
