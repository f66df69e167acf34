package placement

import (
	"testing"

	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestANodeRecordOfVersion1IsRead(t *testing.T) {
	n := &Node{ID: 3, Name: "n3", UUID: wire.UUID{3}, Addr: "10.0.0.3:9500", Incarnation: 7, Process: 9, Session: 11, Up: true, Fenced: 5}
	now := key.Encode(n)
	old := append([]byte(nil), now[:len(now)-8]...)
	old[0] = 1
	var got Node
	if err := key.Decode(old, &got); err != nil {
		t.Fatal(err)
	}
	want := *n
	want.Process = 0 // version 1 had none: its death is not proven
	if got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	now[0] = 3
	if err := key.Decode(now, &got); err == nil {
		t.Fatal("a record of a later version was taken")
	}
}
