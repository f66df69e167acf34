// Package placement decides where data lives: pools, nodes, disks and
// placement groups, their seats and epochs, what to create, replace, drain
// and balance, and in which order. Only it changes a group, and every change
// of a group raises its epoch (I-4).
//
// It is pure: everything it knows comes from the Tx and from Facts, everything
// it decides goes to the Tx. It sends nothing; what needs a chunkserver's
// consent is returned as a Yield for the caller to drive.
//
// # Rules kept here
//
//   - A group never loses its last in-sync seat (I-5).
//   - A seat is taken from a live primary only after its consent; NodesDown is
//     called only when the lease of those nodes is surely over (I-6).
//   - A new incarnation of a chunkserver leaves every in-sync set, unless it is
//     the last that has the data; then the group is marked LastCopy.
//   - Ids of nodes, disks and groups are never reused.
//
// # Locks and crashes
//
// There are no locks; callers serialise. State survives as the Tx does.
package placement

import (
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// Tx is the state.
type Tx = key.Tx

// Numbers that decide how groups are made and moved.
const (
	// GroupsPerDisk is the number of seats a disk should have.
	GroupsPerDisk = 16
	// GroupsMax is the most groups of a cluster; an answer of all of them fits
	// one message.
	GroupsMax = 4096
	// SettleTime is how long the set of disks must have been still before
	// groups are made.
	SettleTime = 500 * time.Millisecond
	// ShortTime is how long a pool waits for more failure domains before it
	// makes groups with fewer seats than it wants.
	ShortTime = 10 * time.Second
	// RetryTime is how long a seat that failed on a live disk stays offline
	// before it is tried again, doubled with each failure up to RetryMax.
	RetryTime = time.Second
	RetryMax  = 30 * time.Second
	// CalmTime without failure forgets a seat's earlier failures.
	CalmTime = time.Minute
	// RepairAfterDefault is how long a disk may be away before its seats are
	// given to others.
	RepairAfterDefault = 10 * time.Minute
	// RepairAfterMax bounds what a pool may be set to.
	RepairAfterMax = 365 * 24 * time.Hour
	// RepairBytesDefault is how many bytes a second a chunkserver sends to
	// members that are brought up to date, and RepairBytesMin the least that
	// may be set.
	RepairBytesDefault = 200 << 20
	RepairBytesMin     = 64 << 10
	// DamagedMax is how many more damaged blocks than the last time make a disk
	// be drained.
	DamagedMax = 32
	// unevenUse is by how much of their size the fullest and the emptiest disk
	// may differ in use before data is moved.
	unevenUse = 0.05
	// levelStep is by how much a move has to lower the fullest disk's use.
	levelStep = 0.002
	// unevenPercent is by how much the fullest disk's seats may exceed the
	// mean before one is moved.
	unevenPercent = 20
)

// Facts are what decisions need to know beside the state.
type Facts struct {
	// Now is the operation time, nanoseconds since 1970.
	Now int64
	// RepairAfter is how long a disk may be away before it is replaced; 0
	// means RepairAfterDefault.
	RepairAfter time.Duration
	// Usage tells the space of a disk as of its last report.
	Usage func(ashlar.DiskID) (Usage, bool)
	// Size tells how many bytes a group has on each disk, if that was measured;
	// nil if nobody knows.
	Size func(ashlar.PGID) (uint64, bool)
	// Damaged tells how many damaged blocks were found on a disk since it was
	// opened; nil if nobody knows.
	Damaged func(ashlar.DiskID) uint64
}

// Usage is the fill of a disk, in bytes; Free has the reserve taken off.
type Usage struct {
	Total, Free uint64
}

// RepairTime is how long a disk of a pool may be away before it is replaced.
func (f *Facts) RepairTime(p *Pool) time.Duration {
	switch {
	case p != nil && p.RepairAfter > 0:
		return time.Duration(p.RepairAfter)
	case f.RepairAfter > 0:
		return f.RepairAfter
	}
	return RepairAfterDefault
}

func (f *Facts) usage(d ashlar.DiskID) (Usage, bool) {
	if f.Usage == nil {
		return Usage{}, false
	}
	return f.Usage(d)
}

// since tells whether d has passed since t.
func (f *Facts) since(t int64, d time.Duration) bool { return f.Now-t >= int64(d) }

// Yield asks for the consent of a group's live primary; when it has been
// given (or the primary's lease is over), the caller calls Rotate.
type Yield struct {
	Group ashlar.PGID
	Epoch ashlar.Epoch
	Node  ashlar.NodeID // of the primary
	To    ashlar.DiskID // of the next primary; 0 for any
}

func fail(op string, kind ashlar.Kind, subject, detail string) error {
	if detail == "" {
		return ashlar.E(op, kind, subject, nil)
	}
	return ashlar.E(op, kind, subject, text(detail))
}

type text string

func (t text) Error() string { return string(t) }
