package masterconn

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func remove() *wire.Remove { return &wire.Remove{Parent: 1, Name: "x"} }

func TestASessionIsOpenedGreetedAndClosed(t *testing.T) {
	f := newFakes(t, 3)
	f.elect(1)
	var tickets atomic.Int64
	c := f.dial(t, func(cfg *Config) {
		cfg.Opens = func() []ashlar.Inode { return []ashlar.Inode{5, 6} }
		cfg.OnTicket = func([]byte) { tickets.Add(1) }
	})
	if err := c.Do(t.Context(), ashlar.Cred{}, remove(), nil); err != nil {
		t.Fatal(err)
	}
	err := c.Do(t.Context(), ashlar.Cred{}, &wire.Lookup{Name: "n"}, new(wire.Entry))
	if !errors.Is(err, ashlar.NotExist) {
		t.Errorf("%v", err)
	}
	f.get(func() {
		if len(f.opens) != 2 || f.evaluated != 1 {
			t.Errorf("opens %v, evaluated %d", f.opens, f.evaluated)
		}
	})
	cl, h := c.Cluster()
	if c.Session() != 101 || string(c.Ticket()) != "t" || tickets.Load() != 1 || cl != id.Cluster || h != 1 || !c.LeaseValid() {
		t.Errorf("session %v ticket %q", c.Session(), c.Ticket())
	}
	waitFor(t, func() (ok bool) { f.get(func() { ok = f.lowest == 2 }); return ok })
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.get(func() {
		if len(f.sessions) != 0 {
			t.Error("the session is there still")
		}
	})
	if err := c.Do(t.Context(), ashlar.Cred{}, remove(), nil); !errors.Is(err, ashlar.Canceled) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAnOperationFollowsTheLeaderAndTakesEffectOnce(t *testing.T) { // I-3
	for name, lose := range map[string]func(*fakeMaster){
		"the leader dies after evaluating": func(m *fakeMaster) {
			m.mute.Store(true)
			go func() {
				for m.ops.Load() == 0 {
					<-time.After(time.Millisecond)
				}
				m.all.elect(2)
				m.stop()
			}()
		},
		"the leader is stopped": func(m *fakeMaster) {
			m.silent.Store(true)
			time.AfterFunc(50*time.Millisecond, func() { m.all.elect(2) })
		},
		"the leader evaluates, and then is stopped": func(m *fakeMaster) {
			m.mute.Store(true)
			time.AfterFunc(50*time.Millisecond, func() { m.silent.Store(true); m.all.elect(2) })
		},
		"the leader steps down": func(m *fakeMaster) { m.all.elect(-1); time.AfterFunc(50*time.Millisecond, func() { m.all.elect(0) }) },
		"the same leader is elected again": func(m *fakeMaster) {
			m.all.elect(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakes(t, 3)
			f.elect(1)
			c := f.dial(t, nil)
			lose(f.nodes[1])
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					if err := c.Do(ctx, ashlar.Cred{}, remove(), nil); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("took %v", d)
			}
			f.get(func() {
				if f.evaluated != 10 {
					t.Errorf("10 changes took effect %d times", f.evaluated)
				}
			})
		})
	}
}

func TestALostSessionIsReplaced(t *testing.T) {
	f := newFakes(t, 1)
	f.elect(0)
	var lost atomic.Int64
	c := f.dial(t, func(cfg *Config) { cfg.OnLost = func() { lost.Add(1) } })
	if err := c.Do(t.Context(), ashlar.Cred{}, remove(), nil); err != nil {
		t.Fatal(err)
	}
	_, gone, err := c.WaitSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.get(func() { clear(f.sessions) })
	// It was never evaluated anywhere, so it goes on under the new session.
	if err := c.Do(t.Context(), ashlar.Cred{}, remove(), nil); err != nil {
		t.Fatal(err)
	}
	<-gone
	if lost.Load() != 1 || c.Session() != 102 {
		t.Errorf("lost %d times, session %d", lost.Load(), c.Session())
	}
}

func TestWhatIsForOneSessionIsNotSentInTheNext(t *testing.T) {
	f := newFakes(t, 1)
	f.elect(0)
	c := f.dial(t, nil)
	in, gone, err := c.WaitSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DoIn(t.Context(), in, ashlar.Cred{}, remove(), nil); err != nil {
		t.Fatal(err)
	}
	f.get(func() { clear(f.sessions) })
	if err := c.DoIn(t.Context(), in, ashlar.Cred{}, remove(), nil); !errors.Is(err, ashlar.NoSession) {
		t.Errorf("%v", err)
	}
	<-gone
	for _, in := range []ashlar.SessionID{in, 0} {
		if err := c.DoIn(t.Context(), in, ashlar.Cred{}, remove(), nil); !errors.Is(err, ashlar.NoSession) {
			t.Errorf("in session %d: %v", in, err)
		}
	}
	f.get(func() {
		if f.evaluated != 1 {
			t.Errorf("%d changes took effect", f.evaluated)
		}
	})
}

func TestAChangeUnderWayWhenTheSessionIsLostHasAnUnknownOutcome(t *testing.T) {
	f := newFakes(t, 1)
	f.elect(0)
	c := f.dial(t, nil)
	m := f.nodes[0]
	m.mute.Store(true)
	errs := make(chan error, 1)
	go func() { errs <- c.Do(t.Context(), ashlar.Cred{}, remove(), nil) }()
	waitFor(t, func() bool { return m.ops.Load() == 1 })
	f.get(func() { clear(f.sessions) })
	// The attempt ends when the leader changes its connection.
	m.srv.Close()
	m.mute.Store(false)
	m.start(m.addr)
	if err := <-errs; !errors.Is(err, ashlar.OutcomeUnknown) {
		t.Errorf("%v", err)
	}
	if err := c.Do(t.Context(), ashlar.Cred{}, remove(), nil); err != nil {
		t.Errorf("the next operation: %v", err)
	}
}

func TestALeaseEndsOnTheLeaseClock(t *testing.T) { // I-6
	f := newFakes(t, 1)
	f.elect(0)
	clk := &skewed{Clock: clock.Real}
	c := f.dial(t, func(cfg *Config) { cfg.Clock = clk })
	f.elect(-1) // no renewals any more
	if !c.LeaseValid() {
		t.Error("no lease at the start")
	}
	clk.off.Store(int64(3 * time.Second))
	if c.LeaseValid() {
		t.Error("the lease outlives its time")
	}
	f.elect(0)
	waitFor(t, c.LeaseValid)
}

func TestUnansweredOperationsAreBounded(t *testing.T) {
	f := newFakes(t, 1)
	f.elect(0)
	c := f.dial(t, nil)
	s := c.now
	for range ashlar.SessionWindow {
		if _, err := s.operations.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Do(ctx, ashlar.Cred{}, remove(), nil); !errors.Is(err, ashlar.Timeout) {
		t.Errorf("%v", err)
	}
	s.operations.Settle(2) // not the lowest: no room yet
	done := make(chan error, 1)
	go func() { done <- c.Do(t.Context(), ashlar.Cred{}, remove(), nil) }()
	s.operations.Settle(1)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.operations.Lowest(); n != 3 {
		t.Errorf("lowest is %d", n)
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	f := newFakes(t, 3)
	f.elect(0)
	c := f.dial(t, nil)
	f.elect(-1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.Do(ctx, ashlar.Cred{}, remove(), nil); !errors.Is(err, ashlar.Timeout) {
		t.Errorf("%v", err)
	}
}

func TestDialFailsAtOnceWithTheWrongSecret(t *testing.T) {
	f := newFakes(t, 3)
	f.elect(0)
	cli := rpc.NewClient(rpc.Identity{Role: wire.RoleClient, Secret: []byte("other")}, rpc.ClientOptions{})
	defer cli.Close()
	_, err := Dial(t.Context(), Config{RPC: cli, Masters: f.addrs()})
	if !errors.Is(err, ashlar.Auth) {
		t.Errorf("%v", err)
	}
}

func TestASleepingRetryWakesWhenALeaderIsFound(t *testing.T) {
	f := newFakes(t, 3)
	f.elect(-1)
	cli := rpc.NewClient(rpc.Identity{Role: wire.RoleClient, Secret: []byte("s")}, rpc.ClientOptions{})
	defer cli.Close()
	l := NewLeader(cli, f.addrs()[:1], nil, nil)
	time.AfterFunc(300*time.Millisecond, func() { f.elect(2) })
	err := l.Call(t.Context(), &wire.SessionRenew{Session: 1}, new(wire.SessionRenewReply))
	if !errors.Is(err, ashlar.NoSession) || l.Addr() != f.nodes[2].addr {
		t.Errorf("%v, leader %q", err, l.Addr())
	}
}
