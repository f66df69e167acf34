package file_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

func TestAnFsyncUnderWayDoesNotCoverWhatOthersWroteMeanwhile(t *testing.T) {
	c := filetest.New()
	a, cl := newFS(c)
	b, _ := newFS(c)
	h := create(t, a, "f")
	ok(t, h.WriteAt(ctx, make([]byte, file.PieceSize), 0))
	ok(t, h.Flush(ctx))
	synced, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	cl.Synced = func() { once.Do(func() { close(synced); <-gate }) }
	done := make(chan error)
	go func() { done <- h.Sync(ctx, false) }()
	<-synced
	other := open(t, b, "f", rw)
	ok(t, other.WriteAt(ctx, []byte("other"), 0))
	ok(t, other.Close(ctx))
	if got := contents(t, h); string(got[:5]) != "other" {
		t.Fatalf("read %q", got[:5])
	}
	close(gate)
	ok(t, <-done)
	ok(t, h.Sync(ctx, false))
	c.PowerLoss()
	if got := contents(t, open(t, b, "f", file.Read)); !bytes.HasPrefix(got, []byte("other")) {
		t.Errorf("%q after fsync and a power loss", got[:5])
	}
}

func TestAnFsyncThatCanNotAskForWhatOthersWroteFails(t *testing.T) {
	c := filetest.New()
	a, cl := newFS(c)
	b, _ := newFS(c)
	ok(t, create(t, b, "f").Close(ctx))
	h := open(t, a, "f", rw)
	other := open(t, b, "f", rw)
	ok(t, other.WriteAt(ctx, []byte("other"), 0)) // and not flushed
	cl.Fault = func(op string) error {
		if op == "AcquireLease" {
			return ashlar.E("lease", ashlar.Timeout, "", nil)
		}
		return nil
	}
	if err := h.Sync(ctx, false); !errors.Is(err, ashlar.Timeout) {
		t.Errorf("got %v, want the reason", err)
	}
	ok(t, other.Close(ctx))
}
