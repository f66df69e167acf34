package masterconn

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// watchLeases waits for recalls, of one session after the other, until ctx
// ends.
func (c *Conn) watchLeases(ctx context.Context) {
	for ctx.Err() == nil {
		id, lost, err := c.WaitSession(ctx)
		if err != nil {
			return
		}
		sctx, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			select {
			case <-lost:
				cancel()
			case <-stop:
			}
		}()
		c.watchSession(sctx, id)
		close(stop)
		cancel()
	}
}

// watchSession asks for recalls of one session until ctx ends. A leader tells
// them again until they are answered, so nothing is lost with an answer; its
// numbers mean nothing to the next.
func (c *Conn) watchSession(ctx context.Context, id ashlar.SessionID) {
	var term, after uint64
	var b backoff
	for ctx.Err() == nil {
		var r wire.LeaseRecalls
		err := c.leader.Call(ctx, &wire.WatchLeases{Session: id, After: after}, &r)
		if err != nil {
			// Whether the session is lost is for its renewal to find out.
			c.kick()
			if !b.wait(ctx, c.clock, nil) {
				return
			}
			continue
		}
		b = backoff{}
		if r.Term != term {
			asked := after
			if term, after = r.Term, 0; asked > 0 {
				continue
			}
		}
		for _, recall := range r.Recalls {
			after = max(after, recall.Number)
			go c.cfg.OnRecall(recall)
		}
	}
}
