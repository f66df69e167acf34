package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

var (
	ctx  = context.Background()
	root = ashlar.Cred{Checked: true}
)

const rw = file.Read | file.Write

type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newFS(c *filetest.Cluster) (*file.FS, *filetest.Client) {
	return newFSWith(c, nil)
}

// newFSWith returns a view of a volume and has drop told what caches above it
// are to drop.
func newFSWith(c *filetest.Cluster, drop func(ino ashlar.Inode, off, n uint64)) (*file.FS, *filetest.Client) {
	cl := c.Client()
	lease := func() time.Duration { return time.Minute }
	fs := file.New(file.Options{Meta: cl, Data: cl, Volume: c.Volume(), Lease: lease, Drop: drop})
	cl.Attach(fs)
	return fs, cl
}

func create(t tb, fs *file.FS, name string) *file.Handle {
	t.Helper()
	h, _, err := fs.Create(ctx, root, &wire.Make{Parent: fs.Root(), Name: name, Mode: 0o644}, rw)
	ok(t, err)
	return h
}

func open(t tb, fs *file.FS, name string, flags file.Flags) *file.Handle {
	t.Helper()
	a, err := fs.Lookup(ctx, root, fs.Root(), name)
	ok(t, err)
	h, err := fs.Open(ctx, root, a.Inode, flags)
	ok(t, err)
	return h
}

func ok(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contents(t tb, h *file.Handle) []byte {
	t.Helper()
	b := make([]byte, h.Attr().Size+100)
	n, err := h.ReadAt(ctx, b, 0)
	ok(t, err)
	return b[:n]
}

// waitFor polls until f holds.
func waitFor(t tb, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestAnyMixOfReadsWritesAndTruncationsLooksLikeAByteSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := filetest.New()
		c.Limit = uint32(rapid.IntRange(0, 2).Draw(t, "limit"))
		fss := make([]*file.FS, 2)
		fss[0], _ = newFS(c)
		fss[1], _ = newFS(c)
		at := 0
		h := create(t, fss[at], "f")
		var model []byte
		offset := func() uint64 {
			near := rapid.SampledFrom([]uint64{0, 4096, file.PieceSize, 2 * file.PieceSize}).Draw(t, "near")
			return near + rapid.Uint64Range(0, 20000).Draw(t, "off")
		}
		fill := byte(0)
		write := func(off uint64, n int, put func(p []byte)) {
			fill++
			p := bytes.Repeat([]byte{fill}, n)
			if end := off + uint64(n); end > uint64(len(model)) {
				model = append(model, make([]byte, end-uint64(len(model)))...)
			}
			copy(model[off:], p)
			put(p)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off := offset()
				n := rapid.SampledFrom([]int{1, 100, 4096, 5000, 70000, 1 << 20, 1<<20 + 5}).Draw(t, "n")
				write(off, n, func(p []byte) { ok(t, h.WriteAt(ctx, p, off)) })
			},
			"append": func(t *rapid.T) {
				off := uint64(len(model))
				write(off, rapid.IntRange(1, 9000).Draw(t, "n"), func(p []byte) {
					at, err := h.Append(ctx, p, 0)
					ok(t, err)
					if at != off {
						t.Fatalf("appended at %d, want %d", at, off)
					}
				})
			},
			"read": func(t *rapid.T) {
				off, n := offset(), rapid.IntRange(1, 100000).Draw(t, "n")
				b := make([]byte, n)
				got, err := h.ReadAt(ctx, b, off)
				ok(t, err)
				want := model[min(off, uint64(len(model))):min(off+uint64(n), uint64(len(model)))]
				if !bytes.Equal(b[:got], want) {
					t.Fatalf("read %d bytes at %d: got %d, or other bytes", n, off, got)
				}
			},
			"truncate": func(t *rapid.T) {
				size := offset()
				if rapid.Bool().Draw(t, "empty") {
					size = 0
				}
				ok(t, h.Truncate(ctx, size))
				if size <= uint64(len(model)) {
					model = model[:size:size]
				} else {
					model = append(model, make([]byte, size-uint64(len(model)))...)
				}
			},
			"zero": func(t *rapid.T) {
				off, n, keep := offset(), rapid.Uint64Range(1, 70000).Draw(t, "n"), rapid.Bool().Draw(t, "keep")
				ok(t, h.Zero(ctx, off, n, keep))
				if end := off + n; end > uint64(len(model)) && !keep {
					model = append(model, make([]byte, end-uint64(len(model)))...)
				}
				clear(model[min(off, uint64(len(model))):min(off+n, uint64(len(model)))])
			},
			"allocate": func(t *rapid.T) {
				off, n, keep := offset(), rapid.Uint64Range(1, 70000).Draw(t, "n"), rapid.Bool().Draw(t, "keep")
				ok(t, h.Allocate(ctx, off, n, keep))
				if end := off + n; end > uint64(len(model)) && !keep {
					model = append(model, make([]byte, end-uint64(len(model)))...)
				}
			},
			"copy": func(t *rapid.T) {
				from, to, n := offset(), offset(), rapid.Uint64Range(1, 70000).Draw(t, "n")
				if from < to+n && to < from+n {
					return
				}
				got, err := h.CopyFrom(ctx, h, from, to, n)
				ok(t, err)
				want := bytes.Clone(model[min(from, uint64(len(model))):min(from+n, uint64(len(model)))])
				if got != uint64(len(want)) {
					t.Fatalf("copied %d of %d bytes", got, len(want))
				}
				if end := to + got; got > 0 && end > uint64(len(model)) {
					model = append(model, make([]byte, end-uint64(len(model)))...)
				}
				copy(model[min(to, uint64(len(model))):], want)
			},
			"seek": func(t *rapid.T) {
				off := offset()
				hole, found, err := h.Seek(ctx, off, true)
				ok(t, err)
				if found != (off < uint64(len(model))) || found && (hole < off || hole > uint64(len(model))) {
					t.Fatalf("a hole at %d from %d of %d on, %v", hole, off, len(model), found)
				}
				data, found, err := h.Seek(ctx, off, false)
				ok(t, err)
				end := data
				if !found {
					end = uint64(len(model))
				}
				if off < end && len(bytes.Trim(model[off:end], "\x00")) > 0 {
					t.Fatalf("data between %d and %d is called a hole", off, end)
				}
			},
			"sync":  func(t *rapid.T) { ok(t, h.Sync(ctx, rapid.Bool().Draw(t, "data"))) },
			"flush": func(t *rapid.T) { ok(t, h.Flush(ctx)) },
			"powerloss after sync": func(t *rapid.T) {
				ok(t, h.Sync(ctx, true))
				c.PowerLoss()
			},
			"close here, open there": func(t *rapid.T) {
				ok(t, h.Close(ctx))
				at = 1 - at
				h = open(t, fss[at], "f", rw)
			},
			"": func(t *rapid.T) {
				if got := h.Attr().Size; got != uint64(len(model)) {
					t.Fatalf("size %d, want %d", got, len(model))
				}
			},
		})
		if !bytes.Equal(contents(t, h), model) {
			t.Fatal("contents differ at the end")
		}
		ok(t, h.Close(ctx))
		ok(t, fss[0].Close(ctx))
		ok(t, fss[1].Close(ctx))
	})
}

// The leader does not know that it is open: it is under a lease.
func TestAFileThatIsRemovedHereWhileItIsOpenIsWritten(t *testing.T) {
	c := filetest.New()
	a, _ := newFS(c)
	b, _ := newFS(c)
	h := create(t, a, "f")
	ok(t, h.Close(ctx))
	waitFor(t, "it is released", func() bool { return c.Open(h.Inode()) == 0 })
	ok(t, open(t, b, "f", file.Read).Close(ctx)) // leaves a share of the lease
	h = open(t, a, "f", rw)
	_, err := a.Remove(ctx, root, filetest.Root, "f", false)
	ok(t, err)
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ok(t, h.WriteAt(short, []byte("contents"), 0))
	if got := contents(t, h); string(got) != "contents" {
		t.Fatalf("read %q", got)
	}
	ok(t, h.Close(ctx))
	waitFor(t, "it is gone", func() bool { return !c.Exists(h.Inode()) })
}

func TestAReadAfterAWriteElsewhereSeesItAndCachesAreDroppedOnlyThen(t *testing.T) {
	c := filetest.New()
	var drops atomic.Int32
	a, _ := newFS(c)
	b, cl := newFSWith(c, func(ashlar.Inode, uint64, uint64) { drops.Add(1) })
	h := create(t, a, "f")
	g := open(t, b, "f", file.Read)
	for k := range 20 {
		want := []byte(fmt.Sprint("contents ", k))
		ok(t, h.Truncate(ctx, 0))
		before := drops.Load()
		ok(t, h.WriteAt(ctx, want, 0)) // nothing is flushed or closed
		for range 3 {
			if got := contents(t, g); !bytes.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
			if at, err := b.GetAttr(ctx, root, g.Inode()); err != nil || at.Size != uint64(len(want)) {
				t.Fatalf("size %d, want %d: %v", at.Size, len(want), err)
			}
		}
		if n := drops.Load() - before; n > 1 {
			t.Fatalf("caches were dropped %d times for one write", n)
		}
	}
	asked := c.Count("GetAttr") + c.Count("Lookup") + c.Count("Open") + c.Count("AcquireLease")
	for range 10 {
		ok(t, open(t, b, "f", file.Read).Close(ctx))
		contents(t, g)
	}
	if n := c.Count("GetAttr") + c.Count("Lookup") + c.Count("Open") + c.Count("AcquireLease"); n != asked {
		t.Errorf("%d questions about a file that nobody changed", n-asked)
	}
	_ = cl
	ok(t, g.Close(ctx))
	ok(t, h.Close(ctx))
}

func TestAppendsFromTwoClientsLoseAndTearNothing(t *testing.T) {
	c := filetest.New()
	var wg sync.WaitGroup
	const each = 300
	first, _ := newFS(c)
	ok(t, create(t, first, "log").Close(ctx))
	for k := range 4 {
		fs, _ := newFS(c)
		wg.Add(1)
		go func() {
			defer wg.Done()
			h := open(t, fs, "log", rw|file.Append)
			for n := range each {
				if _, err := h.Append(ctx, fmt.Appendf(nil, "%d:%04d\n", k, n), 0); err != nil {
					t.Error(err)
				}
				if n%50 == 0 {
					ok(t, h.Sync(ctx, false))
				}
			}
			ok(t, h.Close(ctx))
		}()
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, l := range bytes.Split(bytes.TrimSuffix(contents(t, open(t, first, "log", file.Read)), []byte("\n")), []byte("\n")) {
		if len(l) != 6 || seen[string(l)] {
			t.Fatalf("torn or repeated line %q", l)
		}
		seen[string(l)] = true
	}
	if len(seen) != 4*each {
		t.Fatalf("%d lines, want %d", len(seen), 4*each)
	}
}

func TestAWrittenFileCostsOneCommitAndAReadFileNone(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	for k := range 100 {
		ok(t, h.WriteAt(ctx, make([]byte, 1000), uint64(k)*1000))
	}
	ok(t, h.Flush(ctx))
	ok(t, h.Flush(ctx))
	ok(t, h.Close(ctx))
	if n := c.Count("Commit"); n != 1 {
		t.Fatalf("%d commits, want 1", n)
	}
	if w, _ := c.Requests(); w != 1 {
		t.Fatalf("%d writes of 100 adjacent ones, want 1", w)
	}
	h = open(t, fs, "f", rw)
	contents(t, h)
	ok(t, h.Close(ctx))
	if n := c.Count("Commit"); n != 1 {
		t.Fatalf("a read file was committed")
	}
}

func TestSyncedDataSurvivesPowerLossAndSmallSyncsTakeOneRequest(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	ok(t, h.WriteAt(ctx, make([]byte, 1<<20), 0))
	ok(t, h.WriteAt(ctx, make([]byte, 1<<20), 1<<20))
	ok(t, h.Sync(ctx, true))
	w0, s0 := c.Requests()
	commits := c.Count("Commit")
	for k := range 10 {
		p := bytes.Repeat([]byte{byte(k + 1)}, 4096)
		ok(t, h.WriteAt(ctx, p, uint64(k)*8192))
		ok(t, h.Sync(ctx, true))
		c.PowerLoss()
		b := make([]byte, 4096)
		if _, err := h.ReadAt(ctx, b, uint64(k)*8192); err != nil || !bytes.Equal(b, p) {
			t.Fatal("synced data is gone", err)
		}
	}
	w1, s1 := c.Requests()
	if w1-w0 != 10 || s1 != s0 {
		t.Fatalf("10 small fdatasyncs took %d writes and %d syncs", w1-w0, s1-s0)
	}
	if n := c.Count("Commit"); n != commits {
		t.Fatal("fdatasync without a change of size committed")
	}
}

func TestAFailedWriteIsReportedOnceToEveryHandle(t *testing.T) {
	c := filetest.New()
	fs, cl := newFS(c)
	h1, h2 := create(t, fs, "f"), open(t, fs, "f", rw)
	var full atomic.Bool
	full.Store(true)
	cl.Fault = func(op string) error {
		if op == "write" && full.Load() {
			return ashlar.E("write", ashlar.NoSpace, "", nil)
		}
		return nil
	}
	ok(t, h1.WriteAt(ctx, []byte("x"), 0))
	for _, h := range []*file.Handle{h1, h2} {
		if err := h.Sync(ctx, false); !errors.Is(err, ashlar.NoSpace) {
			t.Fatalf("got %v, want no space", err)
		}
	}
	full.Store(false)
	for _, h := range []*file.Handle{h1, h2, open(t, fs, "f", rw)} {
		ok(t, h.Sync(ctx, false))
		ok(t, h.Close(ctx))
	}
}

func TestOverlappingWritesReachTheObjectInOrder(t *testing.T) {
	c := filetest.New()
	fs, cl := newFS(c)
	var slow atomic.Int32
	gate := make(chan struct{})
	cl.Fault = func(op string) error {
		if op == "write" && slow.Add(1) == 1 {
			<-gate // the first write is held up
		}
		return nil
	}
	h := create(t, fs, "f")
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{1}, 1<<20), 0)) // sent at once
	waitFor(t, "the first write is in flight", func() bool { return slow.Load() == 1 })
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{2}, 1<<20), 0))
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{3}, 4096), 4096))
	if b := contents(t, h); b[0] != 2 || b[4096] != 3 || b[8192] != 2 {
		t.Fatal("a read does not see the newest writes")
	}
	if slow.Load() != 1 {
		t.Fatal("a newer write overtook the older one of its range")
	}
	close(gate)
	ok(t, h.Close(ctx))
	if b := contents(t, open(t, fs, "f", file.Read)); b[0] != 2 || b[4096] != 3 || b[8192] != 2 {
		t.Fatal("the object does not hold the newest writes")
	}
}

func TestWritersWaitWhenTooMuchIsDirty(t *testing.T) {
	c := filetest.New()
	fs, cl := newFS(c)
	gate := make(chan struct{})
	cl.Fault = func(op string) error {
		if op == "write" {
			<-gate
		}
		return nil
	}
	h := create(t, fs, "f")
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = h.WriteAt(short, make([]byte, 1<<20), uint64(n)<<20)
	}
	if !errors.Is(err, context.DeadlineExceeded) || n-1 != file.FileDirtyMax>>20 {
		t.Fatalf("after %d MiB: %v", n-1, err)
	}
	close(gate)
	ok(t, h.WriteAt(ctx, make([]byte, 1<<20), 0))
	ok(t, h.Close(ctx))
}

func TestAnUnlinkedOpenFileLivesUntilItIsClosedAndReleasesAreBatched(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	ok(t, h.WriteAt(ctx, []byte("still here"), 0))
	if _, err := fs.Remove(ctx, root, fs.Root(), "f", false); err != nil {
		t.Fatal(err)
	}
	ok(t, h.Sync(ctx, false))
	if got := contents(t, h); string(got) != "still here" {
		t.Fatalf("got %q", got)
	}
	var many []*file.Handle
	for k := range 50 {
		many = append(many, create(t, fs, fmt.Sprint(k)))
	}
	ok(t, h.Close(ctx))
	for _, m := range many {
		ok(t, m.Close(ctx))
	}
	waitFor(t, "the file is gone", func() bool { return !c.Exists(h.Inode()) })
	waitFor(t, "all are released", func() bool { return c.Open(many[49].Inode()) == 0 })
	if n := c.Count("Release"); n > 10 {
		t.Fatalf("%d releases for 51 files", n)
	}
}

func TestReopeningRacesWithReleasingAndStaysRegistered(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	ino := h.Inode()
	for range 300 {
		ok(t, h.Close(ctx))
		if n := len(fs.Opens()); n > 1 {
			t.Fatalf("%d opens", n)
		}
		h = open(t, fs, "f", rw)
		if c.Open(ino) != 1 {
			t.Fatal("open here but not registered")
		}
	}
	ok(t, fs.Close(ctx))
	if c.Open(ino) != 0 {
		t.Fatal("still registered after the FS was closed")
	}
}

func TestALostSessionLosesBufferedDataWithAnError(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	ok(t, h.WriteAt(ctx, []byte("kept"), 0))
	ok(t, h.Flush(ctx))
	quiet := create(t, fs, "g")
	ok(t, h.WriteAt(ctx, []byte("lost"), 0))
	fs.SessionLost()
	if err := h.Sync(ctx, false); !errors.Is(err, ashlar.IO) {
		t.Fatalf("got %v, want an I/O error", err)
	}
	if got := contents(t, h); string(got) != "kept" {
		t.Fatalf("got %q", got)
	}
	ok(t, quiet.Sync(ctx, false))
	ok(t, h.WriteAt(ctx, []byte("more"), 4))
	ok(t, h.Close(ctx))
	if got := contents(t, open(t, fs, "f", file.Read)); string(got) != "keptmore" {
		t.Fatalf("got %q", got)
	}
}

func TestTimesSetWhileDataIsBufferedStay(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	ok(t, h.WriteAt(ctx, []byte("x"), 0))
	if _, err := fs.SetAttr(ctx, root, &wire.SetAttr{Inode: h.Inode(), Valid: wire.SetMtime, Mtime: 42}); err != nil {
		t.Fatal(err)
	}
	ok(t, h.Close(ctx))
	a, err := fs.GetAttr(ctx, root, h.Inode())
	ok(t, err)
	if a.Mtime != 42 || a.Size != 1 {
		t.Fatalf("mtime %d, size %d", a.Mtime, a.Size)
	}
}

func TestATruncationElsewhereIsFollowed(t *testing.T) {
	c := filetest.New()
	a, _ := newFS(c)
	b, _ := newFS(c)
	h := create(t, a, "f")
	ok(t, h.WriteAt(ctx, bytes.Repeat([]byte{1}, 10000), 0))
	ok(t, h.Flush(ctx))
	g := open(t, b, "f", rw)
	ok(t, g.Truncate(ctx, 5000)) // another generation (I-10)
	ok(t, h.WriteAt(ctx, []byte{2}, 6000))
	ok(t, h.Flush(ctx))
	want := append(bytes.Repeat([]byte{1}, 5000), make([]byte, 1001)...)
	want[6000] = 2
	if got := contents(t, open(t, b, "f", file.Read)); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, or others", len(got))
	}
	ok(t, g.Truncate(ctx, 0)) // another layer
	ok(t, h.WriteAt(ctx, []byte("new"), 0))
	ok(t, h.Sync(ctx, false))
	if got := contents(t, open(t, b, "f", file.Read)); string(got) != "new" {
		t.Fatalf("got %q", got)
	}
}

func TestTheKernelsQuestionBeforeAWriteIsAnsweredHereForANewFile(t *testing.T) {
	c := filetest.New()
	fs, _ := newFS(c)
	h := create(t, fs, "f")
	const name = "security.capability"
	if _, err := fs.GetXattr(ctx, root, h.Inode(), name); !errors.Is(err, ashlar.NoAttr) || c.Count("GetXattr") != 0 {
		t.Fatal(err, c.Count("GetXattr"))
	}
	ok(t, fs.SetXattr(ctx, root, h.Inode(), name, []byte("x"), 0))
	if v, err := fs.GetXattr(ctx, root, h.Inode(), name); err != nil || string(v) != "x" {
		t.Fatal(v, err)
	}
	ok(t, h.Close(ctx))
}
