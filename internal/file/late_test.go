package file_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

// What was written between a flush and its commit is in the object only later:
// whoever cached the file in between has to be told.
func TestDataWrittenDuringACommitRaisesTheVersionOnceItIsThere(t *testing.T) {
	c := filetest.New()
	fs, cl := newFS(c)
	other, _ := newFS(c)
	h := create(t, fs, "f")
	second := open(t, fs, "f", rw)
	var once sync.Once
	cl.Fault = func(op string) error {
		if op == "write" { // the flush below has decided what it waits for
			once.Do(func() { ok(t, second.WriteAt(ctx, []byte("second"), 4096)) })
		}
		return nil
	}
	ok(t, h.WriteAt(ctx, []byte("first"), 0))
	ok(t, h.Flush(ctx))
	r := open(t, other, "f", file.Read)
	seen := contents(t, r)
	ok(t, r.Close(ctx))
	ok(t, second.Close(ctx))
	r = open(t, other, "f", file.Read)
	if got := contents(t, r); string(got[4096:]) != "second" {
		t.Fatalf("got %q after the close", got[4096:])
	} else if !bytes.Equal(seen, got) {
		t.Fatalf("the first read saw %q, after the write had returned", seen)
	}
}

// I-7
func TestAWriteUnderWayWhenTheSessionIsLostIsNotSentUnderTheNext(t *testing.T) {
	c := filetest.New()
	fs, cl := newFS(c)
	h := create(t, fs, "f")
	var tries atomic.Int32
	gate := make(chan struct{})
	cl.Fault = func(op string) error {
		if op == "write" && tries.Add(1) == 1 {
			<-gate
			return ashlar.E("write", ashlar.OutcomeUnknown, "", nil)
		}
		return nil
	}
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{1}, file.PieceSize), 0))
	waitFor(t, "the write is under way", func() bool { return tries.Load() == 1 })
	fs.SessionLost()
	close(gate)
	if err := h.Sync(ctx, false); !errors.Is(err, ashlar.IO) {
		t.Fatalf("got %v, want an I/O error", err)
	}
	if n, _ := c.Requests(); n != 0 {
		t.Fatal("it was written under the next session")
	}
	ok(t, h.WriteAt(ctx, []byte("next"), 0))
	ok(t, h.Close(ctx))
	if got := contents(t, open(t, fs, "f", file.Read)); string(got) != "next" {
		t.Fatalf("got %d bytes", len(got))
	}
}

func TestDataThatCanNotBeCommittedWhenOthersWantTheFileIsLostWithAnError(t *testing.T) {
	c := filetest.New()
	a, cl := newFS(c)
	b, _ := newFS(c)
	h := create(t, a, "f")
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{1}, 10000), 0))
	ok(t, h.Flush(ctx))
	var hold atomic.Bool
	hold.Store(true)
	cl.Fault = func(op string) error {
		if op == "Commit" && hold.Load() {
			return ashlar.E("commit", ashlar.Timeout, "", nil)
		}
		return nil
	}
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{2}, 10000), 10000))
	if err := h.Flush(ctx); !errors.Is(err, ashlar.Timeout) {
		t.Fatal(err)
	}
	g := open(t, b, "f", rw)
	ok(t, g.Truncate(ctx, 5000))
	hold.Store(false)
	if err := h.Flush(ctx); !errors.Is(err, ashlar.Timeout) {
		t.Fatalf("got %v, want the error that the data was lost with", err)
	}
	ok(t, h.Flush(ctx)) // told once
	want := bytes.Repeat([]byte{1}, 5000)
	if got := contents(t, open(t, b, "f", file.Read)); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
}

func TestAFileClosedBeforeItsDataIsWrittenIsOpenedWithIt(t *testing.T) {
	c := filetest.New()
	fs, cl := newFS(c)
	h := create(t, fs, "f")
	var tries atomic.Int32
	gate := make(chan struct{})
	cl.Fault = func(op string) error {
		if op == "write" && tries.Add(1) == 1 {
			<-gate
		}
		return nil
	}
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{1}, file.PieceSize), 0))
	waitFor(t, "the write is under way", func() bool { return tries.Load() == 1 })
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := h.Close(gone); err == nil {
		t.Fatal("a close that was given up reports no error")
	}
	h = open(t, fs, "f", rw)
	if got := contents(t, h); len(got) != file.PieceSize || got[0] != 1 {
		t.Fatalf("%d bytes", len(got))
	}
	ok(t, h.WriteAt(ctx, []byte("new"), 0))
	done := make(chan error)
	go func() { done <- h.Close(ctx) }()
	close(gate)
	ok(t, <-done)
	if got := contents(t, open(t, fs, "f", file.Read)); string(got[:4]) != "new\x01" {
		t.Fatalf("got %q", got[:4])
	}
}

// I-7, for what is told to the leader.
func TestACommitUnderWayWhenTheSessionIsLostIsNotMadeInTheNext(t *testing.T) {
	c := filetest.New()
	a, cl := newFS(c)
	b, _ := newFS(c)
	h := create(t, a, "f")
	waits, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	cl.Fault = func(op string) error {
		if op == "Commit" {
			once.Do(func() { close(waits); <-gate })
		}
		return nil
	}
	ok(t, h.WriteAt(ctx, make([]byte, 1000), 0))
	done := make(chan error)
	go func() { done <- h.Flush(ctx) }()
	<-waits
	cl.Lose()
	close(gate)
	if err := <-done; !errors.Is(err, ashlar.IO) {
		t.Errorf("got %v, want an I/O error", err)
	}
	other := open(t, b, "f", rw)
	if _, err := other.Append(ctx, []byte("next"), 0); err != nil {
		t.Fatal(err)
	}
	ok(t, other.Close(ctx))
	if at, err := b.GetAttr(ctx, root, h.Inode()); err != nil || at.Size != 4 {
		t.Errorf("size %d: %v", at.Size, err)
	}
	ok(t, h.WriteAt(ctx, []byte("later"), 4)) // the file goes on under the next session
	ok(t, h.Close(ctx))
	if got := contents(t, open(t, b, "f", file.Read)); string(got) != "nextlater" {
		t.Errorf("got %q", got)
	}
}

// I-7, for what had its lease and was not even in the buffers.
func TestAWriteThatWaitsForRoomWhenTheSessionIsLostIsRefused(t *testing.T) {
	c := filetest.New()
	a, cl := newFS(c)
	h := create(t, a, "f")
	gate := make(chan struct{})
	var tries atomic.Int32
	cl.Fault = func(op string) error {
		if op == "write" {
			tries.Add(1)
			<-gate
		}
		return nil
	}
	done := make(chan error)
	go func() { done <- h.WriteAt(ctx, make([]byte, file.FileDirtyMax+file.PieceSize), 0) }()
	waitFor(t, "much is in flight", func() bool { return tries.Load() >= file.FileFlightMax/file.PieceSize })
	cl.Lose()
	close(gate)
	if err := <-done; !errors.Is(err, ashlar.IO) {
		t.Errorf("got %v, want an I/O error", err)
	}
	_ = h.Sync(ctx, false)
	if n, _ := c.Requests(); n != 0 {
		t.Errorf("%d pieces were written under the next session", n)
	}
}

// I-7, for what changes the object at once.
func TestZeroingAndCopyingEndWithTheSession(t *testing.T) {
	for name, change := range map[string]func(h, src *file.Handle) error{
		"zero": func(h, _ *file.Handle) error { return h.Zero(ctx, 0, 5000, false) },
		"copy": func(h, src *file.Handle) error { _, err := h.CopyFrom(ctx, src, 0, 0, 5000); return err },
	} {
		c := filetest.New()
		a, cl := newFS(c)
		b, _ := newFS(c)
		h, src := create(t, a, "f"), create(t, a, "src")
		want := bytes.Repeat([]byte{1}, 5000)
		ok(t, h.WriteAt(ctx, want, 0))
		ok(t, h.Sync(ctx, false))
		ok(t, src.WriteAt(ctx, bytes.Repeat([]byte{2}, 5000), 0))
		ok(t, src.Sync(ctx, false))
		waits, gate := make(chan struct{}), make(chan struct{})
		var once sync.Once
		cl.Fault = func(op string) error {
			if op == "write" {
				once.Do(func() { close(waits); <-gate })
			}
			return nil
		}
		done := make(chan error)
		go func() { done <- change(h, src) }()
		<-waits
		cl.Lose()
		close(gate)
		if err := <-done; !errors.Is(err, ashlar.IO) {
			t.Errorf("%s: got %v, want an I/O error", name, err)
		}
		if got := contents(t, open(t, b, "f", file.Read)); !bytes.Equal(got, want) {
			t.Errorf("%s: it was done under the next session", name)
		}
	}
}
