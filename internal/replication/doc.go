// Package replication is the write protocol of a placement group as a state
// machine: who orders writes, who must have applied them, what a new primary
// makes equal before it serves, which retry is answered without being applied
// again. Inputs are method calls, outputs are Actions that the caller carries
// out and reports back. There is no disk, network, clock or goroutine in it;
// what has to survive a crash is noted through Slots, a table in memory that
// the operating system keeps.
//
// It does not know sessions' tickets, leases with the masters, checksums or
// chunk files: those are the chunkserver's.
//
// # One Group
//
// A Group is one member's view: one disk's seat in one placement group. Its
// phase:
//
//	         Configure(newer)                      Configure(newer)
//	    +-------------------------- any -----------------------------+
//	    v                                                            |
//	Recording --Recorded, not primary--> Following                   |
//	    | (drains local writes,                                      |
//	    |  then Record)                                              |
//	    +--Recorded, primary--> Adopting --HandedOver by every       |
//	                                |       other in-sync member     |
//	                                v                                |
//	                           Equalising --Equalised, each range--> Resolving
//	                                                                 |
//	                           Serving <-- Resolved by each ---------+
//
// # Local invariants
//
//   - L-1 A write is started (sent, noted, applied) only in Serving and only
//     while it holds its span exclusively, so two overlapping writes are never
//     in flight together and members may apply what they get in any order.
//   - L-2 A write leaves the in-flight list only when every member that it was
//     sent to has applied it, or in a new epoch in which it was made equal.
//   - L-3 A member applies a numbered write of an epoch at most once and never
//     after the primary counted it as committed.
//   - L-4 Everything started in epoch e and not committed is either sent again
//     under e' > e, stamping its regions with e', or made equal under e'.
//
// A Group is not safe for concurrent use; the caller holds one mutex around
// every call.
package replication
