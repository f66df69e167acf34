package client

import (
	"context"
	"sync"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// returns is leases on their way back to the leader: what is ready at a time
// goes in one message.
type returns struct {
	mu      sync.Mutex
	waiting []returned
	sending bool
}

// returned is a lease with the session that it was held in: in the next it may be
// held again.
type returned struct {
	lease wire.HeldLease
	in    ashlar.SessionID
}

// leases are those held in all volumes, for a hello.
func (c *Client) leases() []wire.HeldLease {
	var out []wire.HeldLease
	for _, f := range c.volumes() {
		out = append(out, f.Leases()...)
	}
	return out
}

// recall gives a lease back.
func (c *Client) recall(r wire.Recall) {
	h, in := wire.HeldLease{Inode: r.Inode}, c.conn.Session()
	for _, f := range c.volumes() { // in one of them, if in any
		got := f.Recall(r.Inode, r.Keep)
		h.Mode, h.Open = max(h.Mode, got.Mode), h.Open || got.Open
	}
	q := &c.returns
	q.mu.Lock()
	q.waiting = append(q.waiting, returned{h, in})
	start := !q.sending
	q.sending = true
	q.mu.Unlock()
	if start {
		c.sendReturns()
	}
}

// sendReturns sends what is ready until nothing is.
func (c *Client) sendReturns() {
	q := &c.returns
	for {
		q.mu.Lock()
		n := 0
		for n < min(len(q.waiting), wire.ReturnsMax) && q.waiting[n].in == q.waiting[0].in {
			n++
		}
		batch := q.waiting[:n]
		q.waiting = q.waiting[n:]
		q.sending = len(batch) > 0
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		m := &wire.ReturnLeases{}
		var inos []ashlar.Inode
		for _, r := range batch {
			m.Leases = append(m.Leases, r.lease)
			inos = append(inos, r.lease.Inode)
		}
		// Tried until the leader has it, or the session is over.
		if err := c.meta.DoIn(context.Background(), batch[0].in, ashlar.Cred{Checked: true}, m, nil); err != nil {
			c.conf.Logger.Debug("leases not returned", "err", err)
		}
		for _, f := range c.volumes() {
			f.Returned(inos)
		}
	}
}
