// Package fusefs shows a volume as a file system of the Linux kernel, through
// FUSE. Node numbers are inode numbers, so that nothing has to be remembered
// for a node and a file handle survives the kernel's caches. It turns requests
// into calls of package file and errors into errnos; it buffers nothing.
//
// # Caching
//
// The kernel asks again at every lookup of a file name and every open, and
// keeps cached pages over an open only while the file's version is what it was
// when they were read: that is close-to-open consistency. Attributes are kept
// for AttrTimeout, entries of directories for EntryTimeout. When an answer
// shows that another client changed a file, the kernel is told to drop its
// pages before the answer is given.
//
// # Interrupts
//
// An interrupt (any signal to the caller, also those that a Go program sends
// itself) never fails a request: what it asked for has perhaps been done. A
// hard mount waits for the cluster for ever, a soft one until its time-out.
//
// # Lock order
//
// table.mu, notifier.mu, bareTable.mu and graves.mu are leaves.
package fusefs
