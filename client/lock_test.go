package client

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// locked acquires a lock that is free.
func locked(t *testing.T, c *fakeConn, name string, mode LockMode) *Lock {
	t.Helper()
	l, err := acquire(t.Context(), c, name, mode)
	ok(t, err)
	if l.Mode() != mode || l.Name() != name || isLost(l) {
		t.Fatalf("%s held in %v, want %s in %v", l.Name(), l.Mode(), name, mode)
	}
	return l
}

func given(t *testing.T, l *Lock) {
	t.Helper()
	ok(t, l.Unlock(t.Context()))
}

// want checks the kind of an error.
func want(t *testing.T, what string, err error, kind ashlar.Kind) {
	t.Helper()
	if ashlar.KindOf(err) != kind || err == nil {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestANamedLockExcludesAndIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		a, b := k.client(), k.client()
		l := locked(t, a, "n", EX)
		refused, err := tryAcquire(t.Context(), b, "n", PR)
		if refused != nil || err != nil {
			t.Fatalf("%v, %v", refused, err)
		}
		got := make(chan *Lock)
		go func() {
			l, err := acquire(t.Context(), b, "n", EX)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("held twice")
		default:
		}
		given(t, l)
		given(t, l) // as often as one likes
		next := <-got
		want(t, "one that was given up", l.Convert(t.Context(), PR), ashlar.Invalid)
		given(t, next)
		k.free(t, "n")
	})
}

func TestAWaitThatIsGivenUpLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		a, b := k.client(), k.client()
		l := locked(t, a, "n", EX)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := acquire(ctx, b, "n", EX)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		given(t, l)
		k.free(t, "n")
	})
}

// No master answers while somebody stops waiting: what is granted then is given
// up when one does.
func TestWhatIsGrantedToNobodyIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		a, b := k.client(), k.client()
		l := locked(t, a, "n", EX)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := acquire(ctx, b, "n", EX)
			failed <- err
		}()
		synctest.Wait()
		mend := b.cutOff()
		given(t, l) // b's now, which it does not hear
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if l, err := tryAcquire(t.Context(), a, "n", NL); err != nil || l == nil {
			t.Fatal(err)
		} else if again, _ := tryAcquire(t.Context(), a, "n", CR); again != nil {
			t.Fatal("it was not b's")
		} else {
			given(t, l)
		}
		mend()
		synctest.Wait()
		k.free(t, "n")
	})
}

// The wait ends and the lock is granted at the same time: it is held.
func TestALockGrantedWhileItsWaitEndsIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		a, b := k.client(), k.client()
		l := locked(t, a, "n", EX)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan *Lock)
		go func() {
			l, err := acquire(ctx, b, "n", EX)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		synctest.Wait()
		mend := b.cutOff()
		given(t, l)
		cancel()
		synctest.Wait()
		mend()
		if l := <-got; l == nil || l.Mode() != EX {
			t.Errorf("%+v", l)
		} else {
			given(t, l)
		}
		k.free(t, "n")
	})
}

func TestConversionsWaitAndDoNotDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		a, b := locked(t, k.client(), "n", PR), locked(t, k.client(), "n", PR)
		if ok, err := a.TryConvert(t.Context(), EX); ok || err != nil || a.Mode() != PR {
			t.Errorf("%v %v %v", ok, err, a.Mode())
		}
		done := make(chan error)
		go func() { done <- a.Convert(t.Context(), EX) }()
		synctest.Wait()
		want(t, "the second", b.Convert(t.Context(), EX), ashlar.Deadlock)
		if b.Mode() != PR {
			t.Errorf("%v", b.Mode())
		}
		ok(t, b.Convert(t.Context(), NL))
		ok(t, <-done)
		if a.Mode() != EX || b.Mode() != NL {
			t.Errorf("%v %v", a.Mode(), b.Mode())
		}
		want(t, "no mode", a.Convert(t.Context(), wire.NoLock), ashlar.Invalid)
		given(t, a)
		given(t, b)
		k.free(t, "n")
	})
}

// A conversion that nobody waits for any more, and whose outcome no master
// tells: the lock's mode is what the masters say in the end.
func TestTheModeIsRightAfterAConversionOfUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		a, b := locked(t, conn, "n", CR), locked(t, k.client(), "n", PR)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Convert(ctx, PW) }()
		synctest.Wait()
		mend := conn.cutOff()
		given(t, b) // a has PW now
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		mend()
		synctest.Wait()
		if a.Mode() != PW {
			t.Errorf("%v", a.Mode())
		}
		given(t, a)
		k.free(t, "n")
	})
}

func TestUnlockEndsAConversionThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		a, b := locked(t, k.client(), "n", PR), locked(t, k.client(), "n", PR)
		done := make(chan error)
		go func() { done <- a.Convert(t.Context(), EX) }()
		synctest.Wait()
		given(t, a)
		want(t, "the conversion", <-done, ashlar.Canceled)
		given(t, b)
		k.free(t, "n")
	})
}

func TestTheValueBlockIsWrittenByWhoHoldsItAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		null, l := locked(t, k.client(), "n", NL), locked(t, conn, "n", EX)
		ok(t, l.ConvertWith(t.Context(), PR, []byte("v1")))
		want(t, "a reader", l.ConvertWith(t.Context(), PR, []byte("v2")), ashlar.Invalid)
		want(t, "too much", l.ConvertWith(t.Context(), PR, make([]byte, 65)), ashlar.TooBig)
		r := locked(t, k.client(), "n", PR)
		value, valid := r.Value()
		if string(value) != "v1" || !valid {
			t.Errorf("%q %v", value, valid)
		}
		given(t, r)
		ok(t, l.Convert(t.Context(), PW))
		conn.lose() // and what it was about to write
		ok(t, null.Convert(t.Context(), EX))
		if value, valid = null.Value(); string(value) != "v1" || valid {
			t.Errorf("%q %v", value, valid)
		}
		ok(t, null.ConvertWith(t.Context(), EX, bytes.Repeat([]byte("x"), LockValueMax)))
		if value, valid = null.Value(); len(value) != LockValueMax || !valid {
			t.Errorf("%q %v", value, valid)
		}
		given(t, null)
	})
}

func TestAHolderIsToldThatItsSessionWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		l := locked(t, conn, "n", EX)
		waiting := locked(t, conn, "w", PR)
		reader := locked(t, k.client(), "w", PR)
		converts := make(chan error)
		go func() { converts <- waiting.Convert(t.Context(), EX) }()
		watches := make(chan error)
		go func() { _, err := l.Wanted(t.Context()); watches <- err }()
		synctest.Wait()
		if isLost(l) {
			t.Fatal("lost too early")
		}
		conn.lose()
		<-l.Lost()
		want(t, "converting", <-converts, ashlar.NoSession)
		want(t, "watching", <-watches, ashlar.NoSession)
		want(t, "using it", l.Convert(t.Context(), PR), ashlar.NoSession)
		other := locked(t, k.client(), "n", EX)
		want(t, "giving it up", l.Unlock(t.Context()), ashlar.NoSession)
		if isLost(other) {
			t.Error("the next holder's lock is gone")
		}
		given(t, other)
		given(t, reader)
		k.free(t, "n")
		k.free(t, "w")
	})
}

// The lease ends before the masters may take the session for lost.
func TestAHolderIsToldWhenItsLeaseIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		conn.renewed(3 * time.Second)
		l := locked(t, conn, "n", EX)
		time.AfterFunc(2*time.Second, func() { conn.renewed(3 * time.Second) })
		began := time.Now()
		<-l.Lost()
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("told after %v", d)
		}
		want(t, "using it", l.Convert(t.Context(), PR), ashlar.NoSession)
		conn.renewed(time.Hour)
		given(t, l) // nobody else has had it
		k.free(t, "n")
	})
}

func TestWhoWaitsGoesOnUnderTheNextSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		l := locked(t, k.client(), "n", EX)
		got := make(chan *Lock)
		go func() {
			l, err := acquire(t.Context(), conn, "n", EX)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		synctest.Wait()
		conn.lose()
		synctest.Wait()
		if n := k.waits(); n != 1 {
			t.Fatalf("%d wait", n)
		}
		given(t, l)
		given(t, <-got)
		k.free(t, "n")
	})
}

func TestAHolderHearsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		l := locked(t, k.client(), "n", PR)
		heard := make(chan LockMode)
		hear := func() {
			mode, err := l.Wanted(t.Context())
			if err != nil {
				t.Error(err)
			}
			heard <- mode
		}
		go hear()
		time.Sleep(3 * watchTime) // one request after the other
		done := make(chan error)
		go func() {
			w, err := acquire(t.Context(), k.client(), "n", CW)
			if err == nil {
				err = w.Unlock(t.Context())
			}
			done <- err
		}()
		if mode := <-heard; mode != CW {
			t.Errorf("%v", mode)
		}
		ok(t, l.Convert(t.Context(), CR))
		ok(t, <-done)
		given(t, l)
		_, err := l.Wanted(t.Context())
		want(t, "given up", err, ashlar.Invalid)
	})
}

// Unlock can be called again when no master has answered it.
func TestUnlockIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		l := locked(t, conn, "n", EX)
		mend := conn.cutOff()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Unlock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		mend()
		given(t, l)
		k.free(t, "n")
	})
}

// The masters can not tell any more whether a request that has waited for long
// was withdrawn: it is made again under another number.
func TestALongWaitIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newLocking()
		conn := k.client()
		conn.refuse = func(wire.Message) error {
			conn.refuse = nil
			return ashlar.E("lock", ashlar.OutcomeUnknown, "n", nil)
		}
		l := locked(t, conn, "n", EX)
		if len(conn.waits) != 2 || conn.waits[0] == conn.waits[1] {
			t.Errorf("asked as %v", conn.waits)
		}
		given(t, l)
	})
}
