package master

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar/internal/kv"
)

// An overlay over a store shows at every moment what a plain map does that
// takes every write at once, through rollbacks and settling in any rhythm.
func TestTheOverlayShowsWhatIsProposedOverWhatIsApplied(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		store, err := kv.Open(kv.Options{Dir: "store", InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		over := &overlay{}
		tx := &layered{store: store, over: over}
		model := map[string]string{}
		var flying []proposal
		settle := func() {
			p := flying[0]
			flying = flying[1:]
			if err := store.Apply(p.ops, p.index); err != nil {
				t.Fatal(err)
			}
			over.settle(p.index, p.ops)
		}
		for index := uint64(1); index < 60; index++ {
			tx.index, tx.ops, tx.bytes = index, nil, 0
			for range r.IntN(4) {
				tx.begin()
				trial := map[string]string{}
				for k, v := range model {
					trial[k] = v
				}
				for range r.IntN(5) {
					k := fmt.Sprint("k", r.IntN(12))
					if r.IntN(3) == 0 {
						tx.Delete([]byte(k))
						delete(trial, k)
					} else {
						v := fmt.Sprint(index, r.IntN(100))
						tx.Set([]byte(k), []byte(v))
						trial[k] = v
					}
				}
				if len(flying) > 0 && r.IntN(3) == 0 {
					settle()
				}
				if r.IntN(3) == 0 {
					tx.rollback()
				} else {
					model = trial
				}
				compareTx(t, tx, model)
			}
			flying = append(flying, proposal{index: index, ops: tx.ops})
			for len(flying) > r.IntN(4) {
				settle()
			}
		}
		for len(flying) > 0 {
			settle()
		}
		if n := over.items.Len(); n != 0 {
			t.Fatalf("seed %d: %d items are left", seed, n)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func compareTx(t *testing.T, tx *layered, model map[string]string) {
	t.Helper()
	var keys []string
	for k, want := range model {
		keys = append(keys, k)
		if v, ok := tx.Get([]byte(k)); !ok || string(v) != want {
			t.Fatalf("%s is %q, %v; want %q", k, v, ok, want)
		}
	}
	slices.Sort(keys)
	var got []string
	tx.Scan([]byte("k"), []byte("l"), func(k, v []byte) bool {
		if !bytes.Equal(v, []byte(model[string(k)])) {
			t.Fatalf("scan: %s is %q", k, v)
		}
		got = append(got, string(k))
		return true
	})
	if !slices.Equal(got, keys) {
		t.Fatalf("scan: %v, want %v", got, keys)
	}
}

func TestAReadNotesWhatItDependsOn(t *testing.T) {
	store, err := kv.Open(kv.Options{Dir: "store", InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tx := &layered{store: store, over: &overlay{}}
	tx.index = 5
	tx.begin()
	tx.Set([]byte("a"), []byte("1"))
	ops := tx.ops
	tx.index, tx.ops = 6, nil
	for name, read := range map[string]func(){
		"get":            func() { tx.Get([]byte("a")) },
		"scan":           func() { tx.Scan([]byte("a"), []byte("b"), func(_, _ []byte) bool { return true }) },
		"get of nothing": func() { tx.Get([]byte("x")) },
	} {
		tx.begin()
		read()
		want := uint64(5)
		if name == "get of nothing" {
			want = 0
		}
		if tx.depends != want {
			t.Fatalf("%s depends on %d, want %d", name, tx.depends, want)
		}
	}
	if err := store.Apply(ops, 5); err != nil {
		t.Fatal(err)
	}
	tx.over.settle(5, ops)
	tx.begin()
	if v, ok := tx.Get([]byte("a")); !ok || string(v) != "1" || tx.depends != 0 {
		t.Fatalf("once applied: %q, %v, depends on %d", v, ok, tx.depends)
	}
}
