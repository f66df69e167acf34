package history

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
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

// synced makes a write one that was synced before it was answered.
func synced(o Op) Op {
	o.Sync = true
	return o
}

func dark(call, ret int64) Op { return Op{Kind: PowerLoss, Call: call, Return: ret} }

// other makes an operation one of another process.
func other(o Op) Op {
	o.Process = 2
	return o
}

func n(k Kind, call, ret int64, name string, v uint64, errno string) Op {
	return Op{Kind: k, Key: "d", Call: call, Return: ret, Name: name, Value: v, Errno: errno}
}

func TestHistoriesThatCanBeTrueAreAcceptedAndOthersNot(t *testing.T) {
	look := func(call, ret int64, name string, v uint64, links uint32) Op {
		o := n(Lookup, call, ret, name, v, "")
		o.Links = links
		return o
	}
	to := func(k Kind, call, ret int64, from, to, errno string) Op {
		o := n(k, call, ret, from, 0, errno)
		o.To = to
		return o
	}
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

		{"created once", true, []Op{n(Create, 0, 5, "a", 1, ""), n(Create, 0, 5, "a", 2, "exist"), look(6, 7, "a", 1, 1)}},
		{"created twice", false, []Op{n(Create, 0, 5, "a", 1, ""), n(Create, 0, 5, "a", 2, "")}},
		{"unlinked twice", false, []Op{n(Create, 0, 1, "a", 1, ""), n(Unlink, 2, 5, "a", 0, ""), n(Unlink, 2, 5, "a", 0, "")}},
		{"a retry was applied after a later create", false, []Op{
			n(Create, 0, 1, "a", 1, ""), n(Unlink, 2, 3, "a", 0, ""), n(Create, 4, 5, "a", 2, ""), n(Lookup, 6, 7, "a", 0, "noent"),
		}},
		{"an unknown unlink explains it", true, []Op{
			n(Create, 0, 1, "a", 1, ""), n(Unlink, 2, Never, "a", 0, ""), n(Lookup, 6, 7, "a", 0, "noent"),
		}},
		{"renamed over", true, []Op{
			n(Create, 0, 1, "a", 1, ""), n(Create, 2, 3, "b", 2, ""), to(Rename, 4, 5, "a", "b", ""),
			look(6, 7, "b", 1, 1), n(Lookup, 8, 9, "a", 0, "noent"),
		}},
		{"rename left the old name", false, []Op{n(Create, 0, 1, "a", 1, ""), to(Rename, 4, 5, "a", "b", ""), look(6, 7, "a", 1, 1)}},
		{"links are counted", true, []Op{n(Create, 0, 1, "a", 1, ""), to(Link, 2, 3, "a", "b", ""), look(4, 5, "a", 1, 2)}},
		{"links are miscounted", false, []Op{n(Create, 0, 1, "a", 1, ""), to(Link, 2, 3, "a", "b", ""), look(4, 5, "a", 1, 1)}},
		{"rename between links does nothing", true, []Op{
			n(Create, 0, 1, "a", 1, ""), to(Link, 2, 3, "a", "b", ""), to(Rename, 4, 5, "a", "b", ""), look(6, 7, "a", 1, 2),
		}},
		{"a file that is gone gets no name", false, []Op{
			n(Create, 0, 1, "a", 1, ""), n(Unlink, 2, 3, "a", 0, ""), {Kind: LinkTo, Key: "d", Call: 4, Return: 5, To: "b", Value: 1},
		}},
		{"listed", true, []Op{n(Create, 0, 1, "a", 1, ""), {Kind: List, Key: "d", Call: 2, Return: 3, Names: []string{"a"}}}},
		{"list misses one", false, []Op{n(Create, 0, 1, "a", 1, ""), {Kind: List, Key: "d", Call: 2, Return: 3}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := Check(c.ops, 10*time.Second, dir)
			if (err == nil) != c.ok {
				t.Fatalf("got %v", err)
			}
			files, _ := os.ReadDir(filepath.Clean(dir))
			if (len(files) == 2) == c.ok {
				t.Errorf("%d files explain it", len(files))
			}
		})
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

// A register and a directory used by one after the other, with times that
// overlap by chance: always right.
func TestHistoriesOfACorrectStoreAreAccepted(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var ops []Op
		var d directory
		block := uint64(0)
		kinds := []Kind{BlockRead, BlockWrite, Create, Unlink, Rename, Link, Lookup}
		for i := range int64(60) {
			o := Op{Kind: kinds[rng.IntN(len(kinds))], Key: "x", Call: 10*i - rng.Int64N(30), Return: 10*i + rng.Int64N(30)}
			switch o.Kind {
			case BlockRead:
				o.Value = block
			case BlockWrite:
				o.Value = uint64(i + 1)
				block = o.Value
			default:
				o.Name, o.To = string(rune('a'+rng.IntN(3))), string(rune('a'+rng.IntN(3)))
				if o.Kind == Create {
					o.Value = uint64(i + 1)
				}
				if o.Kind == Lookup {
					o.Value, _ = d.get(o.Name)
					o.Links = d.links(o.Value)
				}
				d, o.Errno, _ = step(d, &o)
			}
			if rng.IntN(10) == 0 {
				o.Return, o.Errno = Never, ""
			}
			ops = append(ops, o)
		}
		if err := Check(ops, time.Minute, ""); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	rec := NewRecorder(new(bytes.Buffer))
	for _, o := range []Op{w(0, 1, 7), n(Create, 3, Never, "a", 1, ""), n(Unlink, 4, 5, "b", 0, "noent")} {
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

func TestABadHistoryFileIsRefusedByLine(t *testing.T) {
	for text, want := range map[string]string{
		"{\"kind\":\"read\"}\nnonsense":                       "line 2",
		`{"kind":"fly"}`:                                      `no kind "fly"`,
		`{"kind":"read","call":5,"return":1}`:                 "before its call",
		`{"kind":"unlink","errno":"perm"}`:                    `no errno "perm"`,
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
