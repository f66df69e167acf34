// Package chunkstore keeps chunks on one disk: a directory on a local file
// system. It stores, checks and returns blocks, remembers which of them may
// be torn after power was lost (I-8), and keeps what a member of a placement
// group must not forget: group records (I-4), generations (I-10) and writes
// in flight (I-4, I-7). It is not a protocol: it orders nothing, talks to no
// one, and whoever uses it serialises writes that overlap.
//
//	<dir>/disk        identity                       identity.go
//	<dir>/lock        held while the disk is open
//	<dir>/marks       log of dirty marks             marks.go
//	<dir>/groups      log of group records           groups.go
//	<dir>/inflight    mapped table of writes         inflight.go
//	<dir>/chunks/<group>/<XX>/<layer>.<index>        names.go, format.go
//
// # What survives a crash
//
// Of the process (kill -9): every operation that returned, and every record
// in the in-flight table. A write cut short leaves blocks whose checksum may
// not match; it stands in the in-flight table. Of the machine: what
// SyncLayer, SyncGroup, SetGroup, SetGeneration, Truncate, Cut and the
// deletes covered when they returned; of the rest, any chunk that may be torn
// is listed by Suspect until ClearSuspect. After an error of fsync or write
// nothing at all is served: the disk is lost.
//
// # Lock order
//
//	chunk.wmu           one writer of a chunk; opening it; second reads
//	  nameDir.syncMu    one sync of a directory
//	  nameDir.mu        names in one directory
//	  unsynced.mu       which chunks were written since their last sync
//	  marks.mu, groups.mu
//	    unsynced.mu     (marks.mu is held while the log is compacted)
//	    journal.mu
//	  chunk.mu          cached header and records
//	  handles.mu, dirs.mu, Inflight.mu, space.mu   leaves
package chunkstore
