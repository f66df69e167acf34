// Package history is what clients asked and what they were told, and whether
// that can be true. Simulated and real runs record into it alike.
//
// An Op is one request of one client. A request that was never answered, or
// answered with "outcome unknown", may have taken effect at any time from its
// call on, or never: it returns at Never. One that was certainly refused
// without effect is not recorded, except where the refusal itself is checked
// (a name that exists already).
//
// Check divides a history by key, block or directory, and asks porcupine
// whether each part is linearizable. A durable system's history goes on after
// a crash: reads of the end, recorded as any other, show what was lost.
//
// A Recorder may be used by several goroutines; its mutex is a leaf. Nothing
// here survives a crash, but Write and Read keep a history in a file.
package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
)

// Never is the time at which an operation without an answer returns.
const Never = math.MaxInt64

// LineMax is the longest line of a history file, in bytes.
const LineMax = 1 << 20

// Kind is what an operation does.
type Kind string

// The kinds. The first four are of blocks, the others of names.
const (
	BlockRead  Kind = "read"
	BlockWrite Kind = "write"
	BlockSync  Kind = "sync"   // of what was written to the block before
	PowerLoss  Kind = "power"  // of machines, whatever the key
	Create     Kind = "create" // exclusive
	Unlink     Kind = "unlink"
	Rename     Kind = "rename" // replaces what is there
	Link       Kind = "link"   // of a name
	LinkTo     Kind = "linkto" // of the file with identity Value
	Lookup     Kind = "lookup"
	List       Kind = "list"
)

// Op is one request and its answer. Key is the block or the directory; names
// are within it. Times are nanoseconds on one clock.
type Op struct {
	Client int    `json:"client"`
	Kind   Kind   `json:"kind"`
	Key    string `json:"key"`
	Call   int64  `json:"call"`
	Return int64  `json:"return"`

	// GaveUp is when the client stopped waiting for an answer, 0 if it is not
	// known; Process is whose session the operation was of. A write that was
	// given up takes effect before a later write of the same process to the
	// block is answered, or never (I-7).
	GaveUp  int64 `json:"gave_up,omitempty"`
	Process int   `json:"process,omitempty"`

	// Value is what was written or read; 0 is a block never written. Of a
	// create it is the identity that the file was made with, of a look-up the
	// one that was found.
	Value uint64 `json:"value,omitempty"`
	Sync  bool   `json:"sync,omitempty"` // of a write: synced before it was answered
	Name  string `json:"name,omitempty"`
	To    string `json:"to,omitempty"` // of rename and link
	// Errno is "" for success, or "exist" or "noent". An operation that
	// returns Never has none.
	Errno string   `json:"errno,omitempty"`
	Links uint32   `json:"links,omitempty"` // of a look-up
	Names []string `json:"names,omitempty"` // of a list, sorted
}

// Unknown tells that the operation was not answered.
func (o *Op) Unknown() bool { return o.Return == Never }

// String is the operation as a line for people.
func (o *Op) String() string {
	end := fmt.Sprint(o.Return)
	if o.Unknown() {
		end = "never"
	}
	s := fmt.Sprintf("%d..%s client %d %s %s", o.Call, end, o.Client, o.Kind, o.Key)
	if o.Name != "" {
		s += " " + o.Name
	}
	if o.To != "" {
		s += " -> " + o.To
	}
	if o.Value != 0 {
		s += fmt.Sprintf(" value %d", o.Value)
	}
	if o.Sync {
		s += " synced"
	}
	if o.Links != 0 {
		s += fmt.Sprintf(" links %d", o.Links)
	}
	if o.Names != nil {
		s += fmt.Sprintf(" %v", o.Names)
	}
	if o.Errno != "" {
		s += " " + o.Errno
	}
	return s
}

// Recorder collects operations.
type Recorder struct {
	mu  sync.Mutex
	ops []Op
	out *json.Encoder // nil for none
	err error         // of out
}

// NewRecorder returns an empty recorder. Operations also go to w, as they end,
// in the format of Write, if w is not nil.
func NewRecorder(w io.Writer) *Recorder {
	r := &Recorder{}
	if w != nil {
		r.out = json.NewEncoder(w)
	}
	return r
}

// Add records an operation that has ended, one way or the other.
func (r *Recorder) Add(o Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, o)
	if r.out != nil && r.err == nil {
		r.err = r.out.Encode(&o)
	}
}

// Ops returns the operations recorded, and the first error of writing them.
func (r *Recorder) Ops() ([]Op, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops), r.err
}

// Write writes operations, one JSON object a line.
func Write(w io.Writer, ops []Op) error {
	e := json.NewEncoder(w)
	for i := range ops {
		if err := e.Encode(&ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// Read reads what Write wrote. It names the line that is wrong.
func Read(r io.Reader) ([]Op, error) {
	var out []Op
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, LineMax)
	for n := 1; sc.Scan(); n++ {
		var o Op
		if err := json.Unmarshal(sc.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("history: line %d: %w", n, err)
		}
		if err := o.valid(); err != nil {
			return nil, fmt.Errorf("history: line %d: %w", n, err)
		}
		out = append(out, o)
	}
	return out, sc.Err()
}

func (o *Op) valid() error {
	switch o.Kind {
	case BlockRead, BlockWrite, BlockSync, PowerLoss, Create, Unlink, Rename, Link, LinkTo, Lookup, List:
	default:
		return fmt.Errorf("no kind %q", o.Kind)
	}
	switch {
	case o.Return < o.Call:
		return fmt.Errorf("%s returns before its call", o.Kind)
	case o.Errno != "" && o.Errno != "exist" && o.Errno != "noent":
		return fmt.Errorf("no errno %q", o.Errno)
	case o.Unknown() && o.Errno != "":
		return fmt.Errorf("%s has an answer and never returns", o.Kind)
	}
	return nil
}
