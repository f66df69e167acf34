// Package chunkserver serves the placement groups on a node's disks: it
// admits clients' reads, writes and syncs, replicates writes between members,
// brings returning members up to date, repairs damage, and keeps its
// registration, lease and watch with the masters.
//
// What is ordered when, and what a new primary does before it serves, is
// decided by package replication; this package carries it out. It knows
// nothing of files, images or layouts.
//
// # Lives
//
// The process goes through lives: one registration, one incarnation, one
// session. When the masters no longer know the session, everything of the
// life is ended, on disk too, before the next one registers, because its
// groups may have new members by then.
//
//	register --> serve (renew, watch, catch up) --> session lost --> end --+
//	    ^                                                                 |
//	    +-----------------------------------------------------------------+
//
// # Seats
//
// A seat is one disk's membership in one group. Its mutex guards the state
// machine; the actions that come out of a step are carried out after the
// mutex was given up, in goroutines that report back by another step.
//
// # Lock order
//
//	life.mu
//	    seat.mu            also guards the replication.Group
//	        slots.mu
//	            chunkstore's
//	catchups.mu, scrubber.mu, life.progressMu   leaves
//
// # What survives a crash
//
// The identity of the node and of its disks; of each seat the epoch it
// recorded, generations, chunks, and the table of writes in flight
// (chunkstore). A restart is a new life with a new incarnation: the masters
// take its disks out of every in-sync set that has another member left.
package chunkserver
