package file

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// granting is a leader that gives whatever lease is asked for, when it is let.
type granting struct {
	mu      sync.Mutex
	granted []ashlar.LeaseMode
	gate    chan struct{} // nil: at once
}

func (g *granting) Do(ctx context.Context, _ ashlar.Cred, body, reply wire.Message) error {
	g.mu.Lock()
	gate := g.gate
	if m, ok := body.(*wire.AcquireLease); ok {
		g.granted = append(g.granted, m.Mode)
		*reply.(*wire.Entry) = wire.Entry{Attr: attrOf(m.Inode, 1), Lease: m.Mode}
	}
	g.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return nil
}

func (g *granting) Session() ashlar.SessionID { return 1 }

func (g *granting) DoIn(ctx context.Context, _ ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error {
	return g.Do(ctx, cred, body, reply)
}

func attrOf(ino ashlar.Inode, version uint64) ashlar.Attr {
	return ashlar.Attr{Inode: ino, Type: ashlar.TypeFile, Nlink: 1, Version: version, Ctime: int64(version)}
}

func leasedFS(t *testing.T, g *granting, left *atomic.Int64, drop func(ashlar.Inode, uint64, uint64)) *FS {
	fs := New(Options{Meta: g, Lease: func() time.Duration { return time.Duration(left.Load()) }, Drop: drop})
	t.Cleanup(func() { fs.cancel(); fs.work.Wait() })
	return fs
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func hour() *atomic.Int64 {
	var left atomic.Int64
	left.Store(int64(time.Hour))
	return &left
}

// An answer to what was asked before a lease was given back gives none, however
// late it comes; nor does one that comes while it is on its way back.
func TestALateAnswerGivesNoLease(t *testing.T) {
	fs := leasedFS(t, &granting{}, hour(), nil)
	l := &fs.leases
	a, o := attrOf(7, 1), &wire.Object{}
	early := l.ask()
	fs.learn(l.ask(), &a, o, ashlar.LeaseShared)
	if fs.holds(7) != ashlar.LeaseShared {
		t.Fatal("an answer gives no lease")
	}
	if got := fs.Recall(7, ashlar.LeaseNone); got.Mode != ashlar.LeaseNone {
		t.Fatalf("kept %v", got.Mode)
	}
	meanwhile := l.ask()
	fs.learn(meanwhile, &a, o, ashlar.LeaseShared)
	if _, ok := fs.Known(7); ok {
		t.Error("answered under a lease that is on its way back")
	}
	fs.Returned([]ashlar.Inode{7})
	for _, asked := range []uint64{early, meanwhile} {
		if fs.learn(asked, &a, o, ashlar.LeaseExclusive); fs.holds(7) != ashlar.LeaseNone {
			t.Fatal("a late answer gave a lease")
		}
	}
	// One that is not known here may be on its way in an answer.
	asked := l.ask()
	fs.Recall(9, ashlar.LeaseNone)
	fs.Returned([]ashlar.Inode{9})
	b := attrOf(9, 1)
	if fs.learn(asked, &b, o, ashlar.LeaseShared); fs.holds(9) != ashlar.LeaseNone {
		t.Fatal("a lease was learnt of after it was recalled")
	}
	// A hello names what is held; nothing that was asked before adds to it.
	asked = l.ask()
	fs.learn(l.ask(), &a, o, ashlar.LeaseShared)
	if got := fs.Leases(); len(got) != 1 || got[0] != (wire.HeldLease{Inode: 7, Mode: ashlar.LeaseShared}) {
		t.Fatalf("hello: %v", got)
	}
	if fs.learn(asked, &b, o, ashlar.LeaseShared); fs.holds(9) != ashlar.LeaseNone {
		t.Fatal("a lease was learnt of after the hello")
	}
	if len(l.m) != 1 {
		t.Errorf("%d leases are remembered", len(l.m))
	}
}

// Whoever waits for a lease may hold pages locked that the kernel waits for when
// it is told to drop the file. It is told to drop what is around them.
func TestDroppingGoesAroundPagesOfWhoWaits(t *testing.T) {
	g := &granting{}
	locked := make(chan struct{})
	var mu sync.Mutex
	var dropped []span
	fs := leasedFS(t, g, hour(), func(_ ashlar.Inode, off, n uint64) {
		if n == 0 {
			<-locked // all: the page of the writer below among it
			return
		}
		mu.Lock()
		defer mu.Unlock()
		dropped = append(dropped, span{off, off + n})
	})
	i, err := fs.hold(t.Context(), 7, Read|Write)
	if err != nil {
		t.Fatal(err)
	}
	end, err := fs.use(t.Context(), i, demand{mode: ashlar.LeaseShared, span: span{0, 4096}, paged: true})
	if err != nil {
		t.Fatal(err)
	}
	end()
	gate := make(chan struct{})
	g.mu.Lock()
	g.gate = gate // it waits at the leader for others' leases, which wait for ours
	g.mu.Unlock()
	wrote := make(chan error, 1)
	h := fs.handle(i, Read|Write)
	go func() {
		before := h.Drops()
		end, err := fs.use(t.Context(), i, demand{mode: ashlar.LeaseExclusive, span: span{8192, 8200}, paged: true})
		if err == nil {
			end()
		}
		h.Rewritten(before, 8192, 8)
		wrote <- err
	}()
	until(t, "it waits", func() bool { return len(fs.leases.around(7)) > 0 })
	began := time.Now()
	fs.Recall(7, ashlar.LeaseNone)
	if took := time.Since(began); took > dropMax/2 {
		t.Errorf("given back after %v", took)
	}
	fs.Returned([]ashlar.Inode{7})
	mu.Lock()
	if !slices.Contains(dropped, span{0, 8192}) || !slices.Contains(dropped, span{12288, ashlar.FileSizeMax}) {
		t.Errorf("dropped: %v", dropped)
	}
	mu.Unlock()
	close(locked)
	g.mu.Lock()
	g.gate = nil
	g.mu.Unlock()
	close(gate)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	// Others may have read its page again before it was written.
	until(t, "its page is dropped", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return dropped[len(dropped)-1] == span{8192, 12288}
	})
}

// The kernel's pages do not end with the session's lease: they are dropped when
// it is about to (I-6), and nothing is answered from here any more.
func TestCachesAreDroppedBeforeTheSessionsLeaseIsOver(t *testing.T) {
	var left atomic.Int64
	left.Store(int64(leaseMargin + 20*time.Millisecond))
	var drops, names atomic.Int32
	fs := leasedFS(t, &granting{}, &left, func(ino ashlar.Inode, _, _ uint64) {
		if ino == everyName {
			names.Add(1)
		} else {
			drops.Add(1)
		}
	})
	a := attrOf(7, 1)
	fs.learn(fs.leases.ask(), &a, &wire.Object{}, ashlar.LeaseShared)
	if _, ok := fs.Known(7); !ok || drops.Load() > 0 {
		t.Fatal("not known under a lease")
	}
	left.Store(int64(leaseMargin / 2))
	until(t, "it is dropped", func() bool { return drops.Load() == 1 })
	if names.Load() != 1 {
		t.Error("names in answers on their way are kept")
	}
	if _, ok := fs.Known(7); ok || fs.Keep(7) > 0 {
		t.Error("caches above are filled again when they were dropped")
	}
	left.Store(0)
	if _, ok := fs.Known(7); ok {
		t.Error("answered when the lease was over")
	}
	left.Store(int64(time.Minute)) // renewed in time after all
	if _, ok := fs.Known(7); !ok {
		t.Error("forgotten although the session lives")
	}
	fs.SessionLost()
	if _, ok := fs.Known(7); ok {
		t.Error("answered after the session was lost")
	}
	until(t, "it is dropped again", func() bool { return drops.Load() == 2 && fs.holds(7) == ashlar.LeaseNone })
	if names.Load() < 2 {
		t.Error("names are kept that the lost session knew")
	}
}

// A reader does not fill again what was dropped because the session's lease is
// about to be over; what one has read that began before is dropped once more.
// What caches above give back is taken in: they wait for that.
func TestNothingIsReadBetweenDroppingAndTheEndOfTheSessionsLease(t *testing.T) {
	left := hour()
	var drops atomic.Int32
	fs := leasedFS(t, &granting{}, left, func(ino ashlar.Inode, _, _ uint64) {
		if ino != everyName {
			drops.Add(1)
		}
	})
	i, err := fs.hold(t.Context(), 7, Read|Write)
	if err != nil {
		t.Fatal(err)
	}
	use := func(ctx context.Context, mode ashlar.LeaseMode, cached bool) (func(), error) {
		return fs.use(ctx, i, demand{mode: mode, span: span{0, 4096}, paged: true, cached: cached})
	}
	end, err := use(t.Context(), ashlar.LeaseExclusive, false)
	if err != nil {
		t.Fatal(err)
	}
	left.Store(int64(leaseMargin / 2))
	fs.work.Add(1)
	go fs.watchLease() // the other one sleeps for an hour
	until(t, "it is dropped", func() bool { return drops.Load() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 4*leasePause)
	defer cancel()
	if _, err := use(ctx, ashlar.LeaseShared, false); err == nil {
		t.Fatal("read after caches were dropped")
	}
	n := drops.Load()
	until(t, "what is being read is dropped again", func() bool { return drops.Load() > n })
	end()
	n = drops.Load()
	until(t, "and when it is read", func() bool { return drops.Load() > n })
	back, err := use(t.Context(), ashlar.LeaseExclusive, true)
	if err != nil {
		t.Fatal(err)
	}
	back()
	left.Store(int64(time.Hour))
	if end, err = use(t.Context(), ashlar.LeaseShared, false); err != nil {
		t.Fatal(err)
	}
	end()
}

// Whoever copies uses two leases, and may have one while the other is given
// back: that one does not wait for the first.
func TestALeaseIsReturnedBeforeOthersOfItsBatchAreReady(t *testing.T) {
	fs := leasedFS(t, &granting{}, hour(), nil)
	use := func(ino ashlar.Inode) (func(), error) {
		i, err := fs.hold(t.Context(), ino, Read)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return fs.use(ctx, i, demand{mode: ashlar.LeaseShared, span: span{0, 4096}})
	}
	both := []ashlar.Inode{9, 7}
	for _, ino := range both {
		a := attrOf(ino, 1)
		fs.learn(fs.leases.ask(), &a, &wire.Object{}, ashlar.LeaseShared)
	}
	first, err := use(7)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fs.giveBack(both)
	}()
	until(t, "the used one waits", func() bool {
		fs.leases.mu.Lock()
		defer fs.leases.mu.Unlock()
		g := fs.leases.m[7].giving
		return g != nil && g.gate
	})
	second, err := use(9)
	if err != nil {
		t.Fatal("the other lease is not returned: ", err)
	}
	second()
	first()
	<-done
}

// An open that is under way knows nothing of the file yet; whoever asks for its
// attributes meanwhile is told what is known under the lease.
func TestAttributesAreToldWhileAnOpenIsUnderWay(t *testing.T) {
	fs := leasedFS(t, &granting{}, hour(), nil)
	a := ashlar.Attr{Inode: 7, Type: ashlar.TypeFile, Mode: 0o644, Nlink: 1, Size: 5}
	fs.learn(fs.leases.ask(), &a, &wire.Object{}, ashlar.LeaseShared)
	if _, err := fs.hold(t.Context(), 7, Read); err != nil {
		t.Fatal(err)
	}
	if got, ok := fs.Known(7); !ok || got != a {
		t.Errorf("%+v, %v", got, ok)
	}
}

// Reads of many pages of a file may be stuck at a chunkserver, and others come
// and wait for its lease: each drop in the kernel waits for some of them, and is
// not asked for again and again.
func TestAPageThatCanNotBeDroppedHoldsFewThreads(t *testing.T) {
	stuck := make(chan struct{})
	var now, most, all atomic.Int32
	fs := leasedFS(t, &granting{gate: stuck}, hour(), func(_ ashlar.Inode, _, n uint64) {
		for k := now.Add(1); ; {
			if m := most.Load(); k <= m || most.CompareAndSwap(m, k) {
				break
			}
		}
		if n == 0 {
			all.Add(1)
		}
		<-stuck
		now.Add(-1)
	})
	i, err := fs.hold(t.Context(), 7, Read)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // recalls of it
		go fs.drop(7)
	}
	var readers sync.WaitGroup
	for k := range uint64(4 * dropsOfOne) { // come one by one: what is around them changes
		readers.Add(1)
		go func() {
			defer readers.Done()
			end, err := fs.use(t.Context(), i, demand{mode: ashlar.LeaseShared, span: span{k << 13, k<<13 + 1}, paged: true})
			if err == nil {
				end()
			}
		}()
		until(t, "it waits", func() bool { return uint64(len(fs.leases.around(7))) > k })
	}
	until(t, "drops are under way", func() bool { return now.Load() > 1 })
	last := now.Load()
	until(t, "no more are begun", func() bool {
		was := last
		_ = fs.waitAtMost(t.Context(), nil, 20*dropLook)
		last = now.Load()
		return last == was
	})
	if n := most.Load(); n > dropsOfOne+1 || all.Load() > 1 {
		t.Errorf("%d drops at a time, %d of all", n, all.Load())
	}
	close(stuck)
	readers.Wait()
	until(t, "all are over", func() bool {
		fs.drops.mu.Lock()
		defer fs.drops.mu.Unlock()
		return len(fs.drops.m) == 0
	})
}

// Files of which a page can not be dropped hold up no others when the session's
// lease is about to be over.
func TestStuckPagesHoldUpNoOtherFilesWhenTheSessionsLeaseIsOver(t *testing.T) {
	left, stuck := hour(), make(chan struct{})
	var drops atomic.Int32
	fs := leasedFS(t, &granting{}, left, func(ino ashlar.Inode, _, _ uint64) {
		if ino != everyName {
			drops.Add(1)
			<-stuck
		}
	})
	defer close(stuck)
	const files = 3 * dropsMax
	for ino := range ashlar.Inode(files) {
		a := attrOf(ino+1, 1)
		fs.learn(fs.leases.ask(), &a, &wire.Object{}, ashlar.LeaseShared)
	}
	left.Store(int64(leaseMargin / 2))
	fs.work.Add(1)
	go fs.watchLease()
	began := time.Now()
	until(t, "all are dropped", func() bool { return drops.Load() >= files })
	if took := time.Since(began); took > dropMax/2 {
		t.Errorf("after %v", took)
	}
}

// A mount has more files open than it may hold leases: it gives back some that
// are open, too, and the leader knows that they are.
func TestLeasesOfOpenFilesAreGivenBackWhenThereAreTooMany(t *testing.T) {
	fs := leasedFS(t, &granting{}, hour(), nil)
	const files = LeasesMax + evictBatch + 10
	for ino := ashlar.Inode(1); ino <= files; ino++ {
		if _, err := fs.hold(t.Context(), ino, Read); err != nil {
			t.Fatal(err)
		}
		a := attrOf(ino, 1)
		fs.learn(fs.leases.ask(), &a, &wire.Object{}, ashlar.LeaseShared)
	}
	until(t, "some are given back", func() bool {
		fs.leases.mu.Lock()
		n, evicting := len(fs.leases.m), fs.leases.evicting
		fs.leases.mu.Unlock()
		if n < LeasesMax+evictBatch {
			return !evicting
		}
		fs.kickEvict()
		return false
	})
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := 0
	for ino, i := range fs.inodes {
		if fs.holds(ino) == ashlar.LeaseNone && !i.registered {
			n++
		}
	}
	if n > 0 {
		t.Errorf("%d files are open without a lease and without the leader's knowledge", n)
	}
}

// Others wait for a lease for as long as the kernel takes to drop what it has of
// the file: it would show it.
func TestALeaseIsNotGivenBackBeforeCachesAreDropped(t *testing.T) {
	dropped := make(chan struct{})
	var warned counting
	fs := New(Options{
		Meta: &granting{}, Clock: fast{clock.Real}, Logger: slog.New(&warned),
		Drop: func(ashlar.Inode, uint64, uint64) { <-dropped },
	})
	t.Cleanup(func() { fs.cancel(); fs.work.Wait() })
	a := attrOf(7, 1)
	fs.learn(fs.leases.ask(), &a, &wire.Object{}, ashlar.LeaseShared)
	given := make(chan struct{})
	go func() {
		defer close(given)
		fs.Recall(7, ashlar.LeaseNone)
	}()
	until(t, "the kernel takes long", func() bool { return isClosed(given) || warned.n.Load() >= 3 })
	if isClosed(given) {
		t.Error("given back although the kernel has the file cached")
	}
	close(dropped)
	<-given
}

// fast is a clock a thousand times as fast.
type fast struct{ clock.Clock }

func (c fast) Now() clock.Time { return 1000 * c.Clock.Now() }

func (c fast) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return c.Clock.AfterFunc(d/1000, f)
}

// counting counts what is logged.
type counting struct {
	slog.Handler
	n atomic.Int32
}

func (c *counting) Enabled(context.Context, slog.Level) bool { return true }

func (c *counting) Handle(context.Context, slog.Record) error {
	c.n.Add(1)
	return nil
}

// A use that is under way when a recall looks for what it has to write and to
// drop may end after that, and leave data and pages behind. It looks again.
func TestARecallLooksAgainAfterAUseThatWasUnderWay(t *testing.T) {
	var drops atomic.Int64
	var end func()
	fs := leasedFS(t, &granting{}, hour(), func(_ ashlar.Inode, _, n uint64) {
		if n == 0 && drops.Add(1) == 1 {
			end()
		}
	})
	i, err := fs.hold(t.Context(), 7, Read|Write)
	if err != nil {
		t.Fatal(err)
	}
	if end, err = fs.use(t.Context(), i, demand{mode: ashlar.LeaseExclusive, span: span{0, 4096}}); err != nil {
		t.Fatal(err)
	}
	fs.Recall(7, ashlar.LeaseNone)
	if n := drops.Load(); n != 2 {
		t.Errorf("pages were dropped %d times, want once during the use and once after it", n)
	}
	fs.Returned([]ashlar.Inode{7})
}

// While a name is being taken away, the leader is asked for it: it may have taken
// it away already, and what the name led to is Stale to whoever is sent there.
func TestANameThatIsBeingTakenAwayIsNotAnsweredFromHere(t *testing.T) {
	cred := ashlar.Cred{Checked: true}
	for what, take := range map[string]func(*FS) error{
		"remove": func(fs *FS) error { _, err := fs.Remove(t.Context(), cred, 7, "f", false); return err },
		"rename over it": func(fs *FS) error {
			_, err := fs.Rename(t.Context(), cred, &wire.Rename{OldParent: 7, OldName: "g", NewParent: 7, NewName: "f"})
			return err
		},
		"rename it": func(fs *FS) error {
			_, err := fs.Rename(t.Context(), cred, &wire.Rename{OldParent: 7, OldName: "f", NewParent: 7, NewName: "g"})
			return err
		},
	} {
		g := &granting{}
		fs := leasedFS(t, g, hour(), nil)
		d := attrOf(7, 1)
		d.Type = ashlar.TypeDir
		fs.learn(fs.leases.ask(), &d, nil, ashlar.LeaseShared)
		fs.leases.mu.Lock()
		fs.leases.name(7, "f", 9, 1)
		fs.leases.mu.Unlock()
		if !fs.Leads(7, "f", 9) {
			t.Fatal("the name is not known")
		}
		gate := make(chan struct{})
		g.mu.Lock()
		g.gate = gate
		g.mu.Unlock()
		done := make(chan error, 1)
		go func() { done <- take(fs) }()
		until(t, what+": asked of the leader", func() bool { return !fs.Leads(7, "f", 9) })
		close(gate)
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if n := len(fs.leases.changing); n > 0 {
			t.Errorf("%s: %d names are still being changed", what, n)
		}
	}
}
