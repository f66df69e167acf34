package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestWithoutALeaderStatusSaysWhatMastersSay(t *testing.T) {
	up := func(name, leader string) masterWord {
		return masterWord{Name: name, Addr: name + ":1", Answers: true, Leader: leader, Term: 4}
	}
	down := func(name string) masterWord { return masterWord{Name: name, Addr: name + ":1", Error: "refused"} }
	learner := masterWord{Name: "l", Addr: "l:1", Answers: true, learner: true}
	for _, c := range []struct {
		masters    []masterWord
		what, next string
	}{
		{[]masterWord{down("a"), down("b"), down("c")}, "none of the 3 masters that are known answers", "systemctl status ashlar"},
		{[]masterWord{up("a", ""), down("b"), down("c"), learner}, "there is no leader: 1 of 3 masters answer, 2 are needed", "start b, c"},
		{[]masterWord{up("a", "c:1"), up("b", "c:1"), down("c")}, "masters follow c:1, which does not answer in time", "elect another"},
		{[]masterWord{up("a", ""), up("b", ""), up("c", "")}, "3 of 3 masters answer, and none knows a leader", "elect one within seconds"},
	} {
		s := judge(c.masters, context.DeadlineExceeded)
		if s.Health != "unknown" || len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0].What, c.what) || !strings.Contains(s.Problems[0].Next, c.next) {
			t.Errorf("%+v: %+v", c.masters, s)
		}
		b, err := json.Marshal(s)
		var st wire.Status
		if err != nil || json.Unmarshal(b, &st) != nil || st.Health != "unknown" || len(st.Masters) != len(c.masters) || st.Redundant {
			t.Errorf("no reader of a status can read %s", b)
		}
	}
}

// A master that takes connections and says nothing is as good as none, and
// must not hold status up.
func TestStatusWithoutALeader(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ASHLAR_SECRET_FILE", secret)
	began := time.Now()
	out, _, code := run(t, "status", "--timeout", "300ms", "--cluster", l.Addr().String()+","+gone.Addr().String())
	if took := time.Since(began); took > 300*time.Millisecond+probeTimeout+5*time.Second {
		t.Errorf("it took %v", took)
	}
	if code != exitUnavailable {
		t.Errorf("exit status %d", code)
	}
	for _, want := range []string{"health: unknown", "none of the 2 masters that are known answers", l.Addr().String(), "no answer: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
