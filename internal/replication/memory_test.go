package replication

import (
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// alone is a group with one member, which serves.
func alone(t *testing.T, o Options) *Group {
	t.Helper()
	o.Slots, o.Gate = noSlots{}, func(*Op) error { return nil }
	g := New(1, o)
	g.Configure(ashlar.Group{ID: 1, Epoch: 1, Members: []ashlar.Member{{Disk: 1, State: ashlar.InSync}}})
	g.Recorded(1)
	if g.Phase() != Serving {
		t.Fatal(g)
	}
	g.Actions()
	return g
}

// wrote has a write take effect, or returns what became of it.
func wrote(g *Group, session ashlar.SessionID, seq uint64, flags uint32) Verdict {
	w := &wire.Write{Address: wire.Address{Epoch: g.Epoch(), Session: session, Layer: 1, Gen: 1}, Len: 4096, Seq: seq, Lowest: 1, Flags: flags}
	op := &Op{Write: w}
	v, _, _ := g.Order(op)
	if v == Taken {
		g.Actions()
		g.Applied(op, g.Epoch(), nil)
		g.Actions()
	}
	return v
}

// A retry is never applied again, however many sessions there are. I-7
func TestARetryOfASessionThatWasDroppedToMakeRoomIsRefused(t *testing.T) {
	g := alone(t, Options{})
	const first = ashlar.SessionID(10)
	for i := range ashlar.SessionID(sessionsMax + 3) {
		if v := wrote(g, first+i, 1, 0); v != Taken {
			t.Fatalf("session %d: verdict %d", first+i, v)
		}
	}
	if v := wrote(g, first, 1, wire.WriteRetry); v != Refused {
		t.Fatalf("the retry of what took effect has verdict %d", v)
	}
	if v := wrote(g, first, 2, 0); v != Taken {
		t.Fatalf("a new write of that session has verdict %d", v)
	}
	last := first + sessionsMax + 2
	if v := wrote(g, last, 1, wire.WriteRetry); v != Already {
		t.Fatalf("the retry of a session that is known has verdict %d", v)
	}
	// The next primary knows too.
	_, horizons := g.Results()
	if len(horizons) > wire.InflightMax {
		t.Fatalf("%d horizons do not fit a message", len(horizons))
	}
	next := alone(t, Options{})
	for _, z := range horizons {
		next.mem.raise(z)
	}
	if v := wrote(next, first+1, 1, wire.WriteRetry); v != Refused {
		t.Fatalf("at the next primary it has verdict %d", v)
	}
}

// What a member had in flight is handed over even if its results of finished
// writes alone fill the message. I-4, I-5
func TestHandoverNamesWhatIsInFlightBeforeKeptResults(t *testing.T) {
	g := New(1, Options{Slots: noSlots{}, Gate: func(*Op) error { return nil }})
	for i := range uint64(wire.InflightMax + 10) { // more than KeptMax: as after merging others' memory
		s := g.mem.of(ashlar.SessionID(1 + i%7))
		r := &record{session: s, slot: 1, rec: wire.Inflight{Session: s.id, Seq: 1 + i, Done: true}, fate: done}
		s.recs[r.rec.Seq] = r
	}
	s := g.mem.of(100) // after all others
	s.recs[5] = &record{session: s, slot: 1, rec: wire.Inflight{Session: 100, Seq: 5}}
	h := g.Handover()
	if len(h.Inflight) != wire.InflightMax {
		t.Fatalf("%d records", len(h.Inflight))
	}
	if f := h.Inflight[0]; f.Session != 100 || f.Done {
		t.Fatalf("the first is %+v", f)
	}
	told := map[ashlar.SessionID]uint64{}
	for _, z := range h.Horizons {
		told[z.Session] = z.Seq
	}
	listed := map[uint64]bool{}
	for _, f := range h.Inflight[1:] {
		listed[f.Seq] = true
	}
	for i := range uint64(wire.InflightMax + 10) {
		if s := ashlar.SessionID(1 + i%7); !listed[1+i] && told[s] < 1+i {
			t.Fatalf("result %d of session %d is neither handed over nor said to be forgotten", 1+i, s)
		}
	}
}
