package wire

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
)

func TestTheStatusOfTheLargestClusterFitsAMessage(t *testing.T) {
	s := &Status{Cluster: "c"}
	for g := range 4096 {
		x := GroupStatus{ID: uint32(g), Pool: strings.Repeat("p", 200), Epoch: 1 << 40, State: "at risk"}
		for m := range 2 * ashlar.ReplicasMax {
			x.Members = append(x.Members, MemberStatus{
				Disk: uint32(m), Node: fmt.Sprint(strings.Repeat("n", 200), m), State: "syncing", Left: uint64(g*m) * 7919,
				Why: fmt.Sprintf("disk %d is emptied by an operator; its copy goes to another disk, %d before it", m, g),
			})
		}
		s.Groups = append(s.Groups, x)
	}
	var m StatusReply
	if err := m.Set(s); err != nil {
		t.Fatal(err)
	}
	if len(m.JSON) > BodyMax-64 {
		t.Fatalf("%d bytes", len(m.JSON))
	}
	got, err := m.Get()
	if err != nil || len(got.Groups) != 4096 || got.Groups[4095].Members[9] != s.Groups[4095].Members[9] {
		t.Fatalf("%d groups came back, %v", len(got.Groups), err)
	}
}

func TestAStatusThatUnfoldsWithoutEndIsRefused(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range StatusMax>>20 + 1 {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{"too long": b.Bytes(), "cut short": b.Bytes()[:20]} {
		if _, err := (&StatusReply{JSON: in}).Get(); !errors.Is(err, ashlar.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzStatusReply(f *testing.F) {
	var m StatusReply
	if err := m.Set(&Status{Cluster: strings.Repeat("c", 1<<20)}); err != nil {
		f.Fatal(err)
	}
	f.Add(m.JSON)
	f.Add([]byte(`{"cluster":"c"}`))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := (&StatusReply{JSON: b}).Get()
		if (s == nil) == (err == nil) {
			t.Fatalf("%v, %v", s, err)
		}
	})
}
