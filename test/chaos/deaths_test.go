package main

import (
	"strings"
	"testing"
	"time"
)

// A death that was taken as proven must be one.
func TestALivingProcessTakenForDeadIsFound(t *testing.T) {
	at := func(s string) time.Time {
		t.Helper()
		v, err := time.Parse(time.RFC3339Nano, "2026-01-02T03:04:"+s+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	gone := make(chan struct{})
	close(gone)
	first := &process{gone: gone, began: at("01.0005"), killed: at("10"), ended: at("10.1")}
	second := &process{gone: make(chan struct{}), began: at("12")}
	n := &node{name: "n1", lives: []*process{first, second}}
	const log = `time=2026-01-02T03:04:01.000Z level=INFO msg=starting node=n1 process=111
other words
time=2026-01-02T03:04:05.000Z level=WARN msg="a process of the cluster has ended" node=n1 master=n1 node=n2 addr=10.98.0.2:9500 process=333
time=2026-01-02T03:04:12.100Z level=INFO msg=starting node=n1 process=222
time=2026-01-02T03:04:13.000Z level=WARN msg="a process of the cl`
	lives := map[string]*process{}
	proofs, err := n.readDeaths(strings.NewReader(log), lives)
	if err != nil {
		t.Fatal(err)
	}
	if lives["111"] != first || lives["222"] != second || len(lives) != 2 {
		t.Errorf("lives are %v", lives)
	}
	if len(proofs) != 1 || proofs[0].process != "333" || proofs[0].of != "n2" || !proofs[0].at.Equal(at("05")) {
		t.Errorf("proofs are %v", proofs)
	}
	if int(n.logRead) != strings.LastIndexByte(log, '\n')+1 {
		t.Errorf("%d bytes of the log were read", n.logRead)
	}
	if _, err := n.readDeaths(strings.NewReader(log[:n.logRead]+"time=now msg=starting process=1\n"), lives); err == nil {
		t.Error("a line without a time was read")
	}
	for _, c := range []struct {
		p    *process
		when string
		ok   bool
	}{
		{first, "10.000", true},
		{first, "09.9", false},
		{second, "59", false},
		{&process{gone: gone, ended: at("20")}, "19", false},
		{&process{gone: gone, ended: at("20"), suffered: true}, "19", true},
		{&process{gone: gone, killed: at("20"), suffered: true}, "09", false},
	} {
		if err := c.p.mayBeDead(at(c.when)); (err == nil) != c.ok {
			t.Errorf("%+v at %s: %v", c.p, c.when, err)
		}
	}
}
