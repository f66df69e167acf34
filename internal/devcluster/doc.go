// Package devcluster runs a whole cluster of real processes on one machine,
// under one directory, for trying things out and for tests that kill them.
//
//	DIR/
//	├── dev.json        which nodes there are, and what was asked for
//	├── client.toml     names the cluster: ashlar --cluster DIR/client.toml
//	├── secret          of the cluster, mode 0600
//	├── up.pid          the supervisor in the foreground, while there is one
//	├── mount.pid       the mount process, while there is one
//	├── mount.log
//	└── n1/ n2/ ...
//	    ├── ashlar.toml configuration of the node
//	    ├── pid         of its process
//	    ├── log         what it said
//	    ├── data/       its identity and metadata
//	    └── disk/       its one disk
//
// It is for development, not for service: all copies are on one machine, and
// a disk keeps only ReserveDefault free instead of the usual gigabyte. Up
// stays in the foreground; it notices when a node ends but never starts it
// again, because a test or a curious user who killed it decides that.
//
// # Concurrency
//
// Every command may run in a process of its own while Up runs. What they
// share is files: dev.json is changed under a lock on dev.lock and replaced
// by rename, up.lock is held by Up for as long as it lives, and a pid file
// holds the start time of its process besides the number, so that a number
// used again by the system is never mistaken for a node.
//
// # What survives a crash
//
// Everything: nodes are sessions of their own and live on when Up is killed;
// the next Up adopts those it finds.
package devcluster
