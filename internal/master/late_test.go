package master

import (
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// I-3: a request that its session does not wait for any more is refused for
// good, though nothing of its sequence was ever evaluated: it was overtaken, and
// must not take effect after what was asked for later.
func TestARequestThatItsSessionGaveUpDoesNotComeLate(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.startAll()
	c.fakeServer("s1", 1, 1)
	conn := c.dial("client")
	dir := c.makeVolume(conn)
	open := &wire.SessionOpen{Name: "late", Incarnation: 5, Nonce: 6}
	var opened wire.SessionOpenReply
	call := func(m, reply wire.Message) error { return conn.Leader().Call(c.ctx(), m, reply) }
	if err := call(open, &opened); err != nil {
		t.Fatal(err)
	}
	make := func(seq, lowest uint64, name string) error {
		return call(&wire.Operation{Session: opened.Session, Generation: 2, Seq: seq, Lowest: lowest, Cred: root,
			Body: &wire.Make{Parent: dir, Name: name, Type: ashlar.TypeDir}}, &wire.Entry{})
	}
	hello := func(generation, lowest uint64) {
		t.Helper()
		m := &wire.SessionHello{Session: opened.Session, Incarnation: open.Incarnation, Generation: generation, Lowest: lowest}
		if err := call(m, &wire.SessionRenewReply{}); err != nil {
			t.Fatal(err)
		}
	}
	hello(1, 1)
	if err := make(9, 9, "first"); err != nil {
		t.Fatal(err)
	}
	if err := make(8, 1, "overtaken"); !errors.Is(err, ashlar.OutcomeUnknown) {
		t.Errorf("a request below a later one's lowest: %v", err)
	}
	if err := make(9, 1, "first"); err != nil { // a retry has its result
		t.Errorf("a retry of what is waited for: %v", err)
	}
	hello(2, 12)
	if err := make(11, 1, "before"); !errors.Is(err, ashlar.OutcomeUnknown) {
		t.Errorf("a request below a hello's lowest: %v", err)
	}
	if err := make(12, 12, "second"); err != nil {
		t.Error(err)
	}
	var list wire.ReaddirReply
	c.do(conn, &wire.Readdir{Inode: dir, Limit: 10}, &list)
	for _, e := range list.Entries {
		if e.Name != "first" && e.Name != "second" {
			t.Errorf("%s was made", e.Name)
		}
	}
}
