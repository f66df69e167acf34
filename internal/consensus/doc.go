// Package consensus drives raft for the masters: it keeps the log on disk,
// carries messages and checkpoints between members, applies what is committed
// to a state machine, and tells who leads and whether the leader's lease
// holds. It decides nothing about the state: the leader's evaluator does, and
// names the place in the log that each of its batches is for.
//
// It is not a library for any raft user: proposals are not forwarded, and a
// state machine keeps its own applied index.
//
// # Goroutines
//
//	raft    owns the raft state; steps messages, ticks and proposals
//	append  owns the log; one write and one sync for all that is queued
//	apply   owns the order of Apply, Restore and LeaderChanged
//	cut     flushes the store and cuts the log when it has grown
//
// They hand work on through queues. The leader sends an append to its
// followers before its own sync has ended, but counts itself only after (I-1).
//
// # Lock order
//
//	Node.checkpointMu       one Flush or Checkpoint of the machine at a time
//	Node.receiveMu          one checkpoint received at a time
//	proposals.mu            the order of places is the order in the queue
//	  queue.mu
//	Node.mu, stamps.mu, readers.mu    leaves
//
// # What survives a crash
//
// Of a process and of the machine alike: the member's vote and term, every
// entry it acknowledged, the membership; the incarnation only grows. The
// state machine may be behind: the log is replayed above its applied index.
package consensus
