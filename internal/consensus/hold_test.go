package consensus

import (
	"fmt"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// counting is a transport that counts the appends it carries.
type counting struct {
	Transport
	mu          sync.Mutex
	full, empty int
}

func (c *counting) Send(to uint64, packet []byte) {
	_, _, messages, err := decodePacket(packet)
	c.mu.Lock()
	for _, m := range messages {
		if err != nil || m.GetType() != raftpb.MsgApp {
			continue
		}
		if len(m.Entries) > 0 {
			c.full++
		} else {
			c.empty++
		}
	}
	c.mu.Unlock()
	c.Transport.Send(to, packet)
}

func TestNewsOfACommitTravelsWithTheNextEntry(t *testing.T) {
	counts := map[uint64]*counting{}
	g := newGroup(t, 3, func(c *Config) {
		counts[c.ID] = &counting{Transport: c.Transport}
		c.Transport = counts[c.ID]
	})
	lead := g.leader()
	const n = 200
	for i := range n {
		ok(t, g.put(lead, fmt.Sprint("entry ", i)))
	}
	c := counts[lead]
	c.mu.Lock()
	full, empty := c.full, c.empty
	c.mu.Unlock()
	if full < 2*n {
		t.Fatalf("%d appends with entries for %d entries at two followers", full, n)
	}
	if empty > full/2 {
		t.Errorf("%d appends without entries beside %d with", empty, full)
	}
	// And without a next entry, every follower learns of it all the same.
	for id, m := range g.machines {
		eventually(t, fmt.Sprint("applied everywhere, also at ", id), func() bool {
			d := m.data()
			return len(d) > 0 && d[len(d)-1] == fmt.Sprint("entry ", n-1)
		})
	}
}

func TestAnAppendCoversTheNewsHeldBeforeIt(t *testing.T) {
	msg := func(term, index, commit uint64) *raftpb.Message {
		return &raftpb.Message{Term: &term, Index: &index, Commit: &commit}
	}
	held := msg(2, 10, 9)
	for _, c := range []struct {
		m    *raftpb.Message
		want bool
	}{
		{msg(2, 10, 10), true},
		{msg(2, 12, 9), true},
		{msg(2, 9, 10), false}, // a probe further back
		{msg(2, 12, 8), false},
		{msg(3, 12, 10), false},
	} {
		if got := covers(c.m, held); got != c.want {
			t.Errorf("append after %d with commit %d in term %d covers: %v", c.m.GetIndex(), c.m.GetCommit(), c.m.GetTerm(), got)
		}
	}
}
