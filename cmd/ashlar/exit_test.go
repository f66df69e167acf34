package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestEveryErrorHasItsExitStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("whatever"), exitFailed},
		{context.Canceled, exitFailed},
		{context.DeadlineExceeded, exitUnavailable},
		{usagef("wrong"), exitUsage},
		{fmt.Errorf("wrapped: %w", usagef("wrong")), exitUsage},
		{&config.Error{Where: "f:1:1", What: "wrong"}, exitUsage},
		{exitError{exitAtRisk, errors.New("")}, exitAtRisk},
		{os.ErrNotExist, exitNotFound},
		{ashlar.E("x", ashlar.NotExist, "y", nil), exitNotFound},
		{hintf(ashlar.E("x", ashlar.NotExist, "y", nil), "look"), exitNotFound},
		{ashlar.E("x", ashlar.Invalid, "y", nil), exitUsage},
		{ashlar.E("x", ashlar.Unreachable, "y", nil), exitUnavailable},
		{ashlar.E("x", ashlar.Timeout, "y", context.DeadlineExceeded), exitUnavailable},
		{ashlar.E("x", ashlar.NoSpace, "y", nil), exitFailed},
		{ashlar.E("x", ashlar.Auth, "y", nil), exitFailed},
	} {
		if got := exitOf(tt.err); got != tt.want {
			t.Errorf("exitOf(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestErrorsSayWhatToDoNext(t *testing.T) {
	for kind, want := range map[ashlar.Kind]string{
		ashlar.Unreachable:  "dev status",
		ashlar.Auth:         "copy secret",
		ashlar.WrongCluster: "check masters",
		ashlar.NoSpace:      "add a disk",
	} {
		var errs bytes.Buffer
		report(&global{stdio: stdio{Err: &errs}}, ashlar.E("x", kind, "y", nil))
		if !strings.Contains(errs.String(), "next: ") || !strings.Contains(errs.String(), want) {
			t.Errorf("%v: %q", kind, errs.String())
		}
	}
	if hintf(nil, "look") != nil {
		t.Error("a hint made an error of none")
	}
}

func TestNodesAreJoinedByNameAndInOrder(t *testing.T) {
	st := &wire.Status{
		Masters: []wire.MasterStatus{{Name: "n10", Leader: true, Alive: true}, {Name: "n2", Alive: false}},
		Nodes: []wire.NodeStatus{
			{Name: "n2", State: "up", Alive: true, Drain: true}, {Name: "store", State: "silent", Alive: true},
			{Name: "gone", State: "down"}, {Name: "out", State: "up", Alive: true, Drain: true},
		},
		Disks: []wire.DiskStatus{{ID: 1, Node: "n2"}, {ID: 2, Node: "n2", Groups: 1}, {ID: 3, Node: "out"}},
	}
	var got []string
	for _, n := range nodes(st) {
		got = append(got, fmt.Sprintf("%s: %s, %s, %d disks", n.Name, n.roles(), n.state(), len(n.Disks)))
	}
	want := []string{
		"gone: chunkserver, DOWN, 0 disks",
		"n2: master, chunkserver, master DOWN, draining, 2 disks",
		"n10: leader, up, 0 disks",
		"out: chunkserver, up, drained, 1 disks",
		"store: chunkserver, silent, 0 disks",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := findNode(st, "n3"); !errors.Is(err, ashlar.NotExist) {
		t.Errorf("findNode of nothing: %v", err)
	}
}

func TestWhatIsLeftToCopyIsSummed(t *testing.T) {
	st := &wire.Status{Groups: []wire.GroupStatus{
		{State: "ok", Members: []wire.MemberStatus{{State: "in-sync"}, {State: "in-sync"}}},
		{State: "degraded", Members: []wire.MemberStatus{{State: "in-sync"}, {State: "syncing", Left: 1 << 20, Node: "n2", Disk: 3}}},
		{State: "at risk", Members: []wire.MemberStatus{{State: "in-sync", Primary: true, Node: "n1", Disk: 1, Alive: true}}},
	}}
	if left, groups := toSync(st); left != 1<<20 || groups != 2 {
		t.Errorf("%d bytes, %d groups", left, groups)
	}
	if s := memberList([]wire.MemberStatus{{State: "in-sync", Node: "n1", Disk: 1}}); s != "n1/1 (in-sync, out of reach)" {
		t.Errorf("member %q", s)
	}
	if s := summary([]wire.GroupStatus{{State: "read-only"}, {State: "unavailable"}}); s != "1 read-only, 1 unavailable" {
		t.Errorf("summary %q", s)
	}
	if s := summary(st.Groups); s != "1 ok, 1 degraded, 1 at risk" {
		t.Errorf("summary %q", s)
	}
	if s := memberList(st.Groups[1].Members[1:]); s != "n2/3 (syncing, 1 MiB left)" {
		t.Errorf("member %q", s)
	}
	if s := memberList(st.Groups[2].Members); s != "n1/1*" {
		t.Errorf("member %q", s)
	}
}

func TestRemotePathsAreToldFromLocalOnes(t *testing.T) {
	for in, want := range map[string]remote{
		"main:/a/b":  {"main", "a/b", "main:/a/b"},
		"main:":      {"main", ".", "main:"},
		":/x":        {"", "x", ":/x"},
		"main:../up": {"main", "up", "main:../up"},
	} {
		if got, ok := parseRemote(in); !ok || got != want {
			t.Errorf("parseRemote(%q) = %+v, %v", in, got, ok)
		}
	}
	for _, in := range []string{"a", "./a:b", "/a:b", ""} {
		if got, ok := parseRemote(in); ok {
			t.Errorf("parseRemote(%q) = %+v, want a local path", in, got)
		}
	}
}

func TestVolumePoliciesAreChecked(t *testing.T) {
	p, err := (&volumeOptions{chunk: "4MiB", width: 8}).apply(ashlar.DefaultPolicy)
	if err != nil || p != (ashlar.Policy{ChunkSize: 4 << 20, StripeWidth: 8, StripeUnit: 4 << 20}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, o := range []volumeOptions{{chunk: "x"}, {chunk: "8GiB"}, {unit: "3k"}, {unit: "x"}, {width: 9}, {chunk: "1MiB", unit: "2MiB"}} {
		if _, err := o.apply(ashlar.DefaultPolicy); exitOf(err) != exitUsage {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestJSONFlagWithOneDash(t *testing.T) {
	got := singleDashJSON([]string{"a", "-json", "-json=false", "--", "-json"})
	if s := strings.Join(got, " "); s != "a --json --json=false -- -json" {
		t.Errorf("%q", s)
	}
}
