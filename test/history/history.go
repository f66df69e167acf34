// Package history is what clients asked and what they were told, and whether
// that can be true. Simulated and real runs record into it alike.
//
// An Op is one request of one client. A request that was never answered, or
// answered with "outcome unknown", may have taken effect at any time from its
// call on, or never: it returns at Never. One that was certainly refused
// without effect is not recorded, except where the refusal itself is checked
// (a name that exists already).
//
// Check divides a history by key, block or tree of names, and asks porcupine
// whether each part is linearizable. A durable system's history goes on after
// a crash: reads of the end, recorded as any other, show what was lost.
//
// A Recorder may be used by several goroutines; its mutex is a leaf. Nothing
// here survives a crash, but Write and Read keep a history in a file.
package history

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/ashlarfs/ashlar"
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
	Mkdir      Kind = "mkdir"
	Unlink     Kind = "unlink"
	Rmdir      Kind = "rmdir"
	Rename     Kind = "rename"     // replaces what is there
	RenameNew  Kind = "rename-new" // refuses to
	Exchange   Kind = "exchange"
	Link       Kind = "link" // of the file with identity Value
	Lookup     Kind = "lookup"
	Stat       Kind = "stat" // of the file or directory with identity Value
	List       Kind = "list"
)

// kinds tells of each kind whether it changes something.
var kinds = map[Kind]bool{
	BlockRead: false, BlockWrite: true, BlockSync: false, PowerLoss: true, Create: true, Mkdir: true, Unlink: true, Rmdir: true, Rename: true, RenameNew: true,
	Exchange: true, Link: true, Lookup: false, Stat: false, List: false,
}

// Changes tells whether an operation of the kind may change something.
func (k Kind) Changes() bool { return kinds[k] }

// block tells whether the kind is one of blocks.
func (k Kind) block() bool {
	return k == BlockRead || k == BlockWrite || k == BlockSync || k == PowerLoss
}

// Op is one request and its answer. Key is the block or the tree. Directories
// are told by identity, 0 is the top of the tree. Times are nanoseconds on one
// clock.
type Op struct {
	Client int    `json:"client"`
	Kind   Kind   `json:"kind"`
	Key    string `json:"key"`
	Call   int64  `json:"call"`
	Return int64  `json:"return"`

	// GaveUp is when the client stopped waiting for an answer, 0 if it is not
	// known; Process is whose session the operation was of. A write that was
	// given up takes effect before a later write of the same process to the
	// block is answered, or never (I-7); a change of names before any later
	// change of names of the same process is answered, or never (I-3).
	GaveUp  int64 `json:"gave_up,omitempty"`
	Process int   `json:"process,omitempty"`

	// Value is what was written or read; 0 is a block never written. Of names
	// it is an identity: that which Create and Mkdir gave, which Link and Stat
	// are about, which a look-up found; of a change of names that was answered
	// what was removed or moved, 0 if that is not known.
	Value uint64 `json:"value,omitempty"`
	Sync  bool   `json:"sync,omitempty"` // of a write: synced before it was answered
	Dir   uint64 `json:"dir,omitempty"`
	Name  string `json:"name,omitempty"`
	ToDir uint64 `json:"to_dir,omitempty"` // of renames, exchange and link
	To    string `json:"to,omitempty"`
	// Errno is "" for success, or a word of Errno. An operation that returns
	// Never has none.
	Errno string `json:"errno,omitempty"`
	// Links is the link count afterwards: of a look-up and a stat always, of a
	// change 0 if it is not known (of one that removes: if Value is not).
	Links  uint32   `json:"links,omitempty"`
	IsDir  bool     `json:"is_dir,omitempty"` // of a look-up and a stat
	Names  []string `json:"names,omitempty"`  // of a list, sorted
	Values []uint64 `json:"values,omitempty"` // of a list: whose they are, if that is known
}

// Unknown tells that the operation was not answered.
func (o *Op) Unknown() bool { return o.Return == Never }

// Errno is the word of an error of a change or look-up of names. ok is false
// for one that leaves open what happened.
func Errno(err error) (word string, ok bool) {
	if err == nil {
		return "", true
	}
	switch ashlar.KindOf(err) {
	case ashlar.NotExist:
		word = "noent"
	case ashlar.Exist:
		word = "exist"
	case ashlar.NotDir:
		word = "notdir"
	case ashlar.IsDir:
		word = "isdir"
	case ashlar.NotEmpty:
		word = "notempty"
	case ashlar.Loop, ashlar.Invalid:
		word = "inval"
	case ashlar.NotOwner:
		word = "perm"
	case ashlar.Stale:
		word = "stale"
	}
	return word, word != ""
}

// String is the operation as a line for people.
func (o *Op) String() string {
	end := fmt.Sprint(o.Return)
	if o.Unknown() {
		end = "never"
	}
	s := fmt.Sprintf("%d..%s client %d %s %s", o.Call, end, o.Client, o.Kind, o.Key)
	place := func(dir uint64, name string) string {
		if dir == 0 {
			return name
		}
		return fmt.Sprintf("%d/%s", dir, name)
	}
	if o.Name != "" || o.Dir != 0 {
		s += " " + place(o.Dir, o.Name)
	}
	if o.To != "" {
		s += " -> " + place(o.ToDir, o.To)
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
	if o.Values != nil {
		s += fmt.Sprintf(" of %v", o.Values)
	}
	if o.Errno != "" {
		s += " " + o.Errno
	}
	if o.GaveUp != 0 {
		s += fmt.Sprintf(" given up at %d", o.GaveUp)
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

// ReadNotes reads what a process noted that may have been killed: a change is
// noted before it is asked for and again with its answer, so of each operation
// the last line counts, and the last line of all may be half of one.
func ReadNotes(text []byte) ([]Op, error) {
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	all, err := Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	type id struct {
		client int
		call   int64
		kind   Kind
		key    string
	}
	last := map[id]Op{}
	for _, o := range all {
		last[id{o.Client, o.Call, o.Kind, o.Key}] = o
	}
	return slices.SortedFunc(maps.Values(last), func(a, b Op) int {
		return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	}), nil
}

func (o *Op) valid() error {
	if _, ok := kinds[o.Kind]; !ok {
		return fmt.Errorf("no kind %q; there are %v", o.Kind, slices.Sorted(maps.Keys(kinds)))
	}
	switch {
	case o.Return < o.Call:
		return fmt.Errorf("%s returns before its call", o.Kind)
	case o.Errno != "" && errnos[o.Errno] == 0:
		return fmt.Errorf("no errno %q; there are %v", o.Errno, slices.Sorted(maps.Keys(errnos)))
	case o.Unknown() && o.Errno != "":
		return fmt.Errorf("%s has an answer and never returns", o.Kind)
	}
	return nil
}
