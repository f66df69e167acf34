package master

import (
	"reflect"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
)

func sampleBatch() *batch {
	return &batch{Term: 3, Index: 9, Time: 77, Note: "session 1 op 2: make /x", Ops: []kv.Op{
		{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Delete: true},
	}}
}

func TestABatchSurvivesItsEncoding(t *testing.T) {
	b := sampleBatch()
	data := appendBatch(nil, b)
	got, err := decodeBatch(data)
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range data {
		if _, err := decodeBatch(data[:n]); ashlar.KindOf(err) != ashlar.Corrupt {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	data[1] = 9
	if _, err := decodeBatch(data); ashlar.KindOf(err) != ashlar.Version {
		t.Fatalf("unknown version: %v", err)
	}
}

// I-3: a batch changes nothing in any place but its own.
func TestABatchIsAppliedOnlyInItsPlace(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	m := c.leader().master
	store, err := kv.Open(kv.Options{Dir: "alone", InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	other := &Master{ctx: m.ctx, store: store, log: m.log, moved: make(chan struct{})}
	data := appendBatch(nil, sampleBatch())
	entries := []consensus.Entry{{Index: 8, Term: 3, Data: data}}
	if err := (*machine)(other).Apply(entries); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := store.Get([]byte("a")); ok || store.Applied() != 8 {
		t.Fatalf("applied in place 8: %v, applied %d", ok, store.Applied())
	}
	if err := (*machine)(other).Apply([]consensus.Entry{{Index: 9, Term: 4, Data: data}, {Index: 10, Term: 4}}); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := store.Get([]byte("a")); ok {
		t.Fatal("applied in another term")
	}
	data = appendBatch(nil, &batch{Term: 4, Index: 11, Time: 80, Ops: sampleBatch().Ops})
	if err := (*machine)(other).Apply([]consensus.Entry{{Index: 11, Term: 4, Data: data}}); err != nil {
		t.Fatal(err)
	}
	if v, ok, _ := store.Get([]byte("a")); !ok || string(v) != "1" {
		t.Fatalf("in its place: %q, %v", v, ok)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(appendBatch(nil, sampleBatch()))
	f.Add([]byte{entryMagic, entryVersion, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBatch(data)
		if err != nil {
			return
		}
		again, err := decodeBatch(appendBatch(nil, b))
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Fatalf("%+v became %+v: %v", b, again, err)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	m := &Master{cfg: Config{Cluster: testCluster}}
	f.Add(m.identityHeader().Encode())
	f.Fuzz(func(_ *testing.T, b []byte) {
		if id, err := decodeIdentity(b, header.Header{Magic: m.identityHeader().Magic, Version: 1}, "MASTER"); err == nil {
			_ = id.ID
		}
	})
}
