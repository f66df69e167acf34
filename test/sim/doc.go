// Package sim runs whole clusters in one process under one seed: masters,
// chunkservers and clients from the real packages, over a network and disks
// that fail, in virtual time. The same seed and commit give the same run,
// event for event.
//
//	scripts/sim.sh -seed 7            one run
//	scripts/sim.sh -seed 1 -runs 100  seeds 1 to 100
//	make sim SEED=1 RUNS=100
//
// # How it is made to repeat
//
// Nothing of the product is rewritten as an event loop, and none of it knows
// that it is simulated. Its goroutines run in a bubble of testing/synctest on
// one processor, on a Go runtime in which every choice follows the seed; the
// overlay that makes it so is test/sim/runtime. docs/testing.md says more, and
// docs/decisions/0004 why.
//
// # What fails
//
// A schedule is a list of faults with times (Schedule). Processes are killed
// (their goroutines never run again, the kernel closes their sockets), paused
// and woken; machines lose power (what was not synced is forgotten, sector by
// sector); links are cut one way or both, slowed, or lose, repeat and reorder
// consensus packets; connections are reset; disks err, stall, fill up and flip
// bits; clocks of the day jump, and lease clocks run at different rates.
//
// # What is checked
//
// Every answer that a client got, by package history; that no lock is granted
// which somebody is sure to hold in a mode that excludes it; what was
// acknowledged is there at the end; all redundancy is back; members are equal;
// the cluster stops in order and leaves no goroutine.
//
// Lock order: Network.mu and Disk.mu are leaves. Nobody waits while holding
// one.
package sim
