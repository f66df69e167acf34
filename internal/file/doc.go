// Package file makes files out of metadata and objects: the view that one
// mount or one SDK client has of a volume. It keeps names and attributes with
// the leader and bytes in objects, caches what it has leases on, buffers writes,
// and is coherent with other clients: what was done before a call returned on
// one is seen by a call that begins on another afterwards. It is not a kernel
// file system (fusefs), does not resolve paths (client) and knows nothing of
// replicas (object).
//
// # Writing
//
// A write is copied into extents of dirty data, bounded per file and per FS.
// Extents become runs: pieces of at most PieceSize that are on their way to
// the object and do not change any more. A run waits for every older run that
// it overlaps. Runs are made when a piece is full, when much is dirty, after
// FlushAge, and by Flush, Sync, Truncate and Close.
//
//	write -> extents (mutable) -> runs waiting -> runs in flight -> object
//	read  <- object, then the runs and extents above it, oldest first
//
// After data has been written, size and mtime are committed to the leader: at
// Flush, at Sync, when the lease is given back, and once in FlushAge while a
// file stays open. Data is always in the object before the commit that tells of
// it.
//
// A failed run is dropped and its error reported once to every handle that
// was open then, at its next Flush, Sync or Close, as Linux does.
//
// # Leases
//
// To read a file's data takes a shared lease, to write it an exclusive one
// (use.go); attributes and names are kept, and answered without asking, for as
// long as there is a lease on their inode and the session's own lease holds
// (lease.go, I-6). When the leader wants a lease back, what is buffered is
// written and committed and caches above are told to drop theirs (giveback.go).
//
// Answers come in any order, and leases are not in the log: what operation an
// answer belongs to is numbered, and it gives no lease if it was asked before
// one on the same inode was given back, or before a hello.
//
// # What is lost
//
// With this process: everything not yet flushed, as with a page cache. With
// its session: the same, and every file that had such data reports EIO.
// Nothing for which Sync returned.
//
// # Lock order
//
//	inode.io            writers share it, truncation holds it
//	  inode.commitMu    one Commit of a file at a time
//	    FS.mu           the table of inodes, releases
//	      leases.mu     leases and what is known under them
//	    inode.mu        one file's attributes, extents and runs
//
// leases.mu and inode.mu are leaves: neither is taken under the other, and no
// call that may block is made under any of the three.
package file
