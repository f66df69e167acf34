package history

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func w(call, ret int64, v uint64) Op {
	return Op{Kind: BlockWrite, Key: "b", Call: call, Return: ret, Value: v}
}
func r(call, ret int64, v uint64) Op {
	return Op{Kind: BlockRead, Key: "b", Call: call, Return: ret, Value: v}
}

// late is a write that was given up.
func late(call, gave int64, v uint64) Op {
	o := w(call, Never, v)
	o.GaveUp = gave
	return o
}

// other makes an operation one of another process.
func other(o Op) Op {
	o.Process = 2
	return o
}

// synced makes a write one that was synced before it was answered.
func synced(o Op) Op {
	o.Sync = true
	return o
}

func dark(call, ret int64) Op { return Op{Kind: PowerLoss, Call: call, Return: ret} }

func TestWhatIsToldOfABlockIsAcceptedIfItCanBeTrue(t *testing.T) {
	for _, c := range []struct {
		name string
		ok   bool
		ops  []Op
	}{
		{"read what was written", true, []Op{w(0, 1, 7), r(2, 3, 7)}},
		{"either of two at once", true, []Op{w(0, 9, 7), w(0, 9, 8), r(10, 11, 7), r(12, 13, 7)}},
		{"stale read", false, []Op{w(0, 1, 7), w(2, 3, 8), r(4, 5, 7)}},
		{"lost write", false, []Op{w(0, 1, 7), r(2, 3, 0)}},
		{"a read goes back", false, []Op{w(0, 1, 7), w(2, 20, 8), r(4, 5, 8), r(6, 7, 7)}},
		{"unknown took effect late", true, []Op{w(0, Never, 7), r(2, 3, 0), r(4, 5, 7)}},
		{"unknown took effect never", true, []Op{w(0, Never, 7), r(2, 3, 0)}},
		{"unknown took effect twice", false, []Op{w(0, Never, 7), r(2, 3, 7), w(4, 5, 8), r(6, 7, 8), r(8, 9, 7)}},
		{"given up and then late", false, []Op{late(0, 2, 7), w(3, 4, 8), r(5, 6, 8), r(7, 8, 7)}},
		{"given up and late before the next write ends", true, []Op{late(0, 2, 7), w(3, 9, 8), r(4, 5, 7), r(10, 11, 8)}},
		{"given up and never", true, []Op{late(0, 2, 7), w(3, 4, 8), r(5, 6, 8), r(7, 8, 8)}},
		{"given up, late, another's write between", true, []Op{late(0, 2, 7), other(w(3, 4, 8)), r(5, 6, 8), r(7, 8, 7)}},
		{"read of what nobody wrote", false, []Op{w(0, 1, 7), r(2, 3, 9)}},
		{"unanswered reads say nothing", true, []Op{w(0, 1, 7), r(2, Never, 9)}},

		{"synced and kept over a loss of power", true, []Op{synced(w(0, 1, 7)), dark(2, 3), r(4, 5, 7)}},
		{"synced and lost with the power", false, []Op{synced(w(0, 1, 7)), dark(2, 3), r(4, 5, 0)}},
		{"not synced and lost with the power", true, []Op{w(0, 1, 7), dark(2, 3), r(4, 5, 0)}},
		{"not synced and lost before the power was", false, []Op{w(0, 1, 7), r(2, 3, 0), dark(4, 5), r(6, 7, 0)}},
		{"written again after it was synced, and one of both kept", true, []Op{synced(w(0, 1, 7)), w(2, 3, 8), dark(4, 5), r(6, 7, 7)}},
		{"what was before the synced one comes back", false, []Op{w(0, 1, 7), synced(w(2, 3, 8)), dark(4, 5), r(6, 7, 7)}},
		{"synced by a call of its own", false, []Op{w(0, 1, 7), {Kind: BlockSync, Key: "b", Call: 2, Return: 3}, dark(4, 5), r(6, 7, 0)}},
		{"a sync without an answer", true, []Op{w(0, 1, 7), {Kind: BlockSync, Key: "b", Call: 2, Return: Never}, dark(4, 5), r(6, 7, 0)}},
		{"a write at the time of the sync", true, []Op{w(0, 4, 7), {Kind: BlockSync, Key: "b", Call: 2, Return: 5}, dark(6, 7), r(8, 9, 0)}},
		{"found after one loss of power, lost by the next", true, []Op{w(0, 1, 7), dark(2, 3), r(4, 5, 7), dark(6, 7), r(8, 9, 0)}},
		{"lost, and there again without another", false, []Op{w(0, 1, 7), dark(2, 3), r(4, 5, 0), r(8, 9, 7)}},
	} {
		t.Run(c.name, func(t *testing.T) { decide(t, c.ops, c.ok) })
	}
}

// decide fails the test unless a history is found true or not. What is not is
// explained in three files.
func decide(t *testing.T, ops []Op, ok bool) {
	t.Helper()
	dir := t.TempDir()
	err := Check(ops, 10*time.Second, dir)
	if (err == nil) != ok {
		t.Fatalf("got %v", err)
	}
	files, _ := os.ReadDir(dir)
	if (len(files) == 3) == ok {
		t.Errorf("%d files explain it", len(files))
	}
}

func TestTornBlocksAreFound(t *testing.T) {
	b := make([]byte, BlockSize)
	for _, v := range []uint64{0, 1, 1 << 63} {
		Fill(b, v)
		if got, err := Value(b); err != nil || got != v {
			t.Fatalf("value %d: %d, %v", v, got, err)
		}
	}
	other := make([]byte, BlockSize)
	Fill(other, 5)
	copy(b[512:1024], other[512:1024])
	if v, err := Value(b); err == nil {
		t.Errorf("torn block has value %d", v)
	}
	if got := Values(b); !slices.Equal(got, []uint64{1 << 63, 5}) {
		t.Errorf("torn block has values %v", got)
	}
	Fill(b, 0)
	b[BlockSize-1] = 1
	if v, err := Value(b); err == nil {
		t.Errorf("torn zero block has value %d", v)
	}
}

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	rec := NewRecorder(new(bytes.Buffer))
	for _, o := range []Op{w(0, 1, 7), {Kind: Create, Call: 3, Return: Never, Name: "a", Value: 1}, {Kind: Unlink, Call: 4, Return: 5, Dir: 7, Name: "b", Errno: "noent"}} {
		rec.Add(o)
	}
	ops, err := rec.Ops()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, ops); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&b)
	if err != nil || !slices.EqualFunc(got, ops, func(a, b Op) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestOfAKilledClientWhatWasAskedCountsWithoutAnAnswer(t *testing.T) {
	const (
		asked  = `{"client":8,"kind":"write","key":"f0/1","call":5,"return":9223372036854775807,"value":7}` + "\n"
		told   = `{"client":8,"kind":"write","key":"f0/1","call":5,"return":9,"value":7}` + "\n"
		second = `{"client":8,"kind":"write","key":"f0/1","call":10,"return":9223372036854775807,"value":8}` + "\n"
	)
	ops, err := ReadNotes([]byte(asked + told + second + told[:20]))
	if err != nil || len(ops) != 2 {
		t.Fatalf("%v, %v", ops, err)
	}
	if ops[0].Return != 9 || !ops[1].Unknown() || ops[1].Kind != BlockWrite {
		t.Errorf("got %v", ops)
	}
	if _, err := ReadNotes([]byte("{}\n")); err == nil {
		t.Error("a line of nothing was taken")
	}
}

func TestABadHistoryFileIsRefusedByLine(t *testing.T) {
	for text, want := range map[string]string{
		"{\"kind\":\"read\"}\nnonsense":                       "line 2",
		`{"kind":"fly"}`:                                      `no kind "fly"`,
		`{"kind":"read","call":5,"return":1}`:                 "before its call",
		`{"kind":"unlink","errno":"late"}`:                    `no errno "late"`,
		`{"kind":"read","x":"` + strings.Repeat("x", LineMax): "too long",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func TestAPartThatTakesTooLongIsUndecided(t *testing.T) {
	var ops []Op
	for i := range uint64(40) {
		ops = append(ops, w(0, Never, i+1))
	}
	for i := range int64(40) {
		ops = append(ops, r(i+1, 1000, uint64(i+1)))
	}
	ops = append(ops, r(2000, 2001, 99))
	if err := Check(ops, time.Millisecond, ""); !errors.Is(err, ErrUndecided) {
		t.Errorf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"kind":"read","call":1,"return":2}`)
	f.Fuzz(func(t *testing.T, text string) {
		ops, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, ops); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&b); err != nil {
			t.Fatal(err)
		}
	})
}
