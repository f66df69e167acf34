package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/lock"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// locking is the masters' lock manager, with who waits and who is to be told.
type locking struct {
	mu      sync.Mutex
	mem     metatest.Mem
	queue   *lock.Queue
	now     int64
	last    ashlar.SessionID
	live    map[ashlar.SessionID]chan struct{}
	waiting map[lock.WaitID]chan lock.Outcome
	watched map[lock.Notice]chan lock.Notice // by session, name and holder
}

func newLocking() *locking {
	return &locking{
		queue: lock.NewQueue(), live: map[ashlar.SessionID]chan struct{}{},
		waiting: map[lock.WaitID]chan lock.Outcome{}, watched: map[lock.Notice]chan lock.Notice{},
	}
}

func (k *locking) env() *lock.Env {
	k.now++
	return &lock.Env{Now: k.now, Queue: k.queue, Live: func(s ashlar.SessionID) bool { return k.live[s] != nil }}
}

// settle tells everybody what an evaluation has made of them. mu must be held.
func (k *locking) settle() {
	k.mem.Commit()
	_, outcomes, notices := k.queue.Settle()
	for _, o := range outcomes {
		if ch := k.waiting[o.Waiter.WaitID]; ch != nil {
			ch <- o
			delete(k.waiting, o.Waiter.WaitID)
		}
	}
	for _, n := range notices {
		of := lock.Notice{Session: n.Session, Name: n.Name, Holder: n.Holder}
		if ch := k.watched[of]; ch != nil {
			ch <- n
			delete(k.watched, of)
		}
	}
}

// evaluate returns the answer, or where it will come.
func (k *locking) evaluate(s ashlar.SessionID, body wire.Message) (reply wire.Message, outcome chan lock.Outcome, notice chan lock.Notice, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.live[s] == nil {
		return nil, nil, nil, ashlar.NoSession
	}
	reply, _, _, err = lock.Evaluate(&k.mem, k.env(), &lock.Call{Session: s, Body: body})
	if reply == nil && err == nil {
		switch m := body.(type) {
		case *wire.WaitName:
			outcome = make(chan lock.Outcome, 1)
			k.waiting[lock.WaitID{Session: s, ID: m.ID}] = outcome
		case *wire.WatchName:
			notice = make(chan lock.Notice, 1)
			k.watched[lock.Notice{Session: s, Name: m.Name, Holder: m.Holder}] = notice
		}
	}
	k.settle()
	return reply, outcome, notice, err
}

// end ends a session: what it held goes to others.
func (k *locking) end(s ashlar.SessionID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ended := k.live[s]
	delete(k.live, s)
	k.queue.End(s)
	if _, _, err := lock.Release(&k.mem, k.env(), s, 100); err != nil {
		panic(err)
	}
	k.settle()
	close(ended)
}

// waits is how many wait.
func (k *locking) waits() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.queue.Len()
}

// fakeConn is a client's session with them, and the next when that is lost.
type fakeConn struct {
	k *locking

	mu    sync.Mutex
	id    ashlar.SessionID
	until time.Time     // the lease
	hang  chan struct{} // no request is answered until it is closed
	waits []uint64      // numbers of requests that wait
	// refuse, if set, is asked before a request is sent.
	refuse func(body wire.Message) error
}

func (k *locking) client() *fakeConn {
	c := &fakeConn{k: k}
	c.open()
	return c
}

func (c *fakeConn) open() {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.k.last++
	c.id = c.k.last
	c.k.live[c.id] = make(chan struct{})
	c.until = time.Now().Add(time.Hour)
}

// lose ends the session and opens another.
func (c *fakeConn) lose() {
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	c.k.end(id)
	c.open()
}

// cutOff makes requests wait until the function it returns is called.
func (c *fakeConn) cutOff() (mend func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hang = make(chan struct{})
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.hang)
		c.hang = nil
	})
}

// renewed makes the lease hold for a time from now.
func (c *fakeConn) renewed(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Now().Add(d)
}

func (c *fakeConn) LeaseLeft() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Until(c.until)
}

func (c *fakeConn) WaitSession(context.Context) (ashlar.SessionID, <-chan struct{}, error) {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id, c.k.live[c.id], nil
}

func (c *fakeConn) connected(ctx context.Context) error {
	c.mu.Lock()
	hang := c.hang
	c.mu.Unlock()
	if hang == nil {
		return endOf(ctx)
	}
	select {
	case <-hang:
		return nil
	case <-ctx.Done():
		return endOf(ctx)
	}
}

// endOf is what masterconn says of a context that has ended.
func endOf(ctx context.Context) error {
	switch err := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return ashlar.E("masters", ashlar.Timeout, "", err)
	default:
		return ashlar.E("masters", ashlar.Canceled, "", err)
	}
}

func (c *fakeConn) DoIn(ctx context.Context, in ashlar.SessionID, _ ashlar.Cred, body, reply wire.Message) error {
	if err := c.connected(ctx); err != nil {
		return err
	}
	if m, ok := body.(*wire.WaitName); ok {
		c.waits = append(c.waits, m.ID)
	}
	if c.refuse != nil {
		if err := c.refuse(body); err != nil {
			return err
		}
	}
	r, outcome, notice, err := c.k.evaluate(in, body)
	switch {
	case err != nil:
		return err
	case outcome != nil:
		select {
		case o := <-outcome:
			if o.Err != nil {
				return o.Err
			}
			r = o.NameReply
		case <-ctx.Done():
			return endOf(ctx)
		}
	case notice != nil:
		select {
		case n := <-notice:
			r = &wire.WatchNameReply{Held: n.Held, Wanted: n.Wanted}
		case <-ctx.Done():
			return endOf(ctx)
		}
	}
	if err := c.connected(ctx); err != nil { // the answer is lost
		return err
	}
	switch r := r.(type) {
	case *wire.NameReply:
		*reply.(*wire.NameReply) = *r
	case *wire.WatchNameReply:
		*reply.(*wire.WatchNameReply) = *r
	}
	return nil
}

// isLost tells whether a lock was told to be lost.
func isLost(l *Lock) bool {
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

// free checks that nobody holds or waits for a lock.
func (k *locking) free(t *testing.T, name string) {
	t.Helper()
	l, err := tryAcquire(t.Context(), k.client(), name, EX)
	if err != nil || l == nil {
		t.Errorf("%s is not free: %v", name, err)
		return
	}
	ok(t, l.Unlock(t.Context()))
	if n := k.waits(); n > 0 {
		t.Errorf("%d wait still", n)
	}
}
