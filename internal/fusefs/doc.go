// Package fusefs shows a volume as a file system of the Linux kernel, through
// FUSE. Node numbers are inode numbers, so that nothing has to be remembered
// for a node and a file handle survives the kernel's caches. It turns requests
// into calls of package file and errors into errnos; it buffers nothing.
//
// # Caching
//
// The kernel keeps names, attributes and pages for as long as package file has
// leases on them, and is told to drop them before one is given back (kernel.go):
// the mount is coherent with others, as package file is. Names and attributes
// end by themselves with the session's lease; pages do not, and are dropped
// shortly before. While this process is stopped (SIGSTOP) for longer than that
// nobody drops them: a program that reads a page then may see it as it was.
//
// # Interrupts
//
// An interrupt (any signal to the caller, also those that a Go program sends
// itself) never fails a request: what it asked for has perhaps been done. A
// hard mount waits for the cluster for ever, a soft one until its time-out.
//
// # Lock order
//
// table.mu, shown.mu, told.mu, device.mu, below.mu and graves.mu are leaves; opening comes
// before all of them.
package fusefs
