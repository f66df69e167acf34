package master

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/kv"
)

// wallClock is the real clock with another time of day.
type wallClock struct {
	clock.Clock
	off atomic.Int64
	at  atomic.Int64 // if not 0, Now
}

func (c *wallClock) Wall() int64 { return c.Clock.Wall() + c.off.Load() }

func (c *wallClock) Now() clock.Time {
	if at := c.at.Load(); at != 0 {
		return clock.Time(at)
	}
	return c.Clock.Now()
}

// After a leader whose clock was an hour ahead, time neither goes back nor
// stands still.
func TestOperationTimeGoesOnAfterAClockThatWasAhead(t *testing.T) {
	clk := &wallClock{Clock: clock.Real}
	clk.at.Store(1)
	l := &lead{m: &Master{clk: clk}}
	l.now, l.nowAt = clk.Wall()+int64(time.Hour), clk.Now()
	first := l.opTime()
	clk.at.Add(int64(10 * time.Minute))
	if got := time.Duration(l.opTime() - first); got != 5*time.Minute {
		t.Fatalf("in ten minutes time went on by %v", got)
	}
	clk.off.Store(int64(2 * time.Hour))
	if got, want := l.opTime(), clk.Wall(); want-got > int64(time.Minute) || want < got {
		t.Fatalf("time is %v behind the clock", time.Duration(want-got))
	}
}

// A session gets a fresh ticket at its next renewal when the time of day
// jumps past the expiry of the one it has.
func TestAJumpOfTheClockRenewsTickets(t *testing.T) {
	clk := &wallClock{Clock: clock.Real}
	l := &lead{m: &Master{clk: clk, store: memoryStore(t)}}
	l.m.cfg.Secret = testSecret
	s := &clientSession{id: ashlar.SessionID(1), hello: true}
	if l.renew(s).Ticket == nil {
		t.Fatal("no first ticket")
	}
	if l.renew(s).Ticket != nil {
		t.Fatal("a ticket at every renewal")
	}
	clk.off.Store(int64(time.Hour))
	if l.renew(s).Ticket == nil {
		t.Fatal("the session is left with an expired ticket")
	}
}

func memoryStore(t *testing.T) *kv.Store {
	t.Helper()
	s, err := kv.Open(kv.Options{Dir: "store", InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// The masters' clock jumps. Chunkservers judge tickets by the time they heard
// at their last renewal, so a fence may not be dropped by the new time at once.
// I-7
func TestWhatIsDroppedByTimeIsDroppedAfterEverybodyKnowsTheTime(t *testing.T) {
	clk := &wallClock{Clock: clock.Real}
	clk.at.Store(1)
	l := &lead{m: &Master{clk: clk}}
	l.m.cfg.Dead = 3500 * time.Millisecond
	l.now, l.nowAt = clk.Wall(), clk.Now()
	if _, ok := l.longPast(); ok {
		t.Fatal("a leader that is new knows what time it was")
	}
	before := l.opTime()
	for range 10 {
		clk.at.Add(int64(time.Second))
		l.longPast()
	}
	clk.off.Store(int64(time.Hour))
	jumped := l.opTime()
	for range 3 { // 3 s: somebody may not have renewed since
		if at, ok := l.longPast(); !ok || at-before > int64(time.Minute) {
			t.Fatalf("%v after the start it counts as long past what came with the jump", time.Duration(at-before))
		}
		clk.at.Add(int64(time.Second))
	}
	clk.at.Add(int64(2 * time.Second))
	if at, ok := l.longPast(); !ok || at < jumped {
		t.Fatalf("what came with the jump is never long past: %v before it", time.Duration(jumped-at))
	}
}
