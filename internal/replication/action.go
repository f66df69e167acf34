package replication

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// ActionKind says what the caller is to do.
type ActionKind uint8

// The actions. Each names the call that reports it done.
const (
	// ActApply: write Op to the local disk under Epoch; then Acked for Me.
	ActApply ActionKind = iota + 1
	// ActSend: send Op to Disk under Epoch, again until it answers or the
	// epoch is over; then Acked. Call Failed when it does not answer in time.
	ActSend
	// ActFinish: the write Op is over; Err is its outcome.
	ActFinish
	// ActGrant: Span (not of a write) is granted.
	ActGrant
	// ActRecord: make Epoch's configuration durable; then Recorded.
	ActRecord
	// ActAdopt: send Adopt to Disk until it answers; then HandedOver.
	ActAdopt
	// ActEqualise: write the local content of Range again, here and on every
	// other in-sync member, under Epoch; then Equalised.
	ActEqualise
	// ActResolve: send Results to Disk; then Resolved.
	ActResolve
	// ActServe: the group serves from now on.
	ActServe
	// ActCatchup: every write that Disk did not get is committed; bring it up
	// to date.
	ActCatchup
	// ActStop: whatever is being done for Disk (0: any) is void.
	ActStop
	// ActReport: tell the masters that Disk failed; Err says how.
	ActReport
)

var actionText = map[ActionKind]string{
	ActApply: "apply", ActSend: "send", ActFinish: "finish", ActGrant: "grant",
	ActRecord: "record", ActAdopt: "adopt", ActEqualise: "equalise", ActResolve: "resolve",
	ActServe: "serve", ActCatchup: "catchup", ActStop: "stop", ActReport: "report",
}

// String names the action.
func (k ActionKind) String() string { return actionText[k] }

// Action is one thing to do.
type Action struct {
	Kind  ActionKind
	Disk  ashlar.DiskID
	Epoch ashlar.Epoch
	Num   uint64 // of Op in Epoch
	// Committed goes along with ActSend and ActCatchup.
	Committed uint64
	Op        *Op
	Span      *Span
	Range     wire.Inflight
	Err       error
}

// Slot is a place in the table of noted writes.
type Slot uint32

// NoSlot is no place.
const NoSlot = ^Slot(0)

// Slots notes writes so that they are known after the process was killed.
// Begin refuses with Overloaded when the table is full.
type Slots interface {
	Begin(epoch ashlar.Epoch, num uint64, rec *wire.Inflight) (Slot, error)
	Applied(s Slot)
	Done(s Slot)
	Free(s Slot)
}
