package file

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Files that are new, small and closed are written behind the close: many
// together, while whoever closed them goes on. Nobody else can tell, as their
// lease is exclusive until then. What was closed and not synced may be lost with
// this process, as with a page cache.
const (
	// BehindSize is the largest of them, in bytes.
	BehindSize = 1 << 20
	// BehindMax is how many wait, or are being written, at most; a close waits
	// for its own beyond.
	BehindMax = 1024
	// BehindDelay is how long they wait for others.
	BehindDelay = 20 * time.Millisecond
	// behindAtOnce and behindGroups are how many are written at a time: of those
	// that are committed together, and such groups.
	behindAtOnce = 16
	behindGroups = 4
	// behindPause is how long nothing is written behind after it failed: a close
	// is to report that there is no room.
	behindPause = 10 * time.Second
)

// behind is closed files that are to be written. mu guards it.
type behind struct {
	mu      sync.Mutex
	waiting []closed
	n       int // waiting, and being written
	running bool
	failed  time.Time // when one could not be written
}

// closed is a file with the flags of the handle that was closed.
type closed struct {
	i     *inode
	flags Flags
}

// later tells whether closing a handle may leave its data to be written behind.
func (i *inode) later(flags Flags) bool {
	fs := i.fs
	if !fs.o.WriteBehind || flags&(Write|Through) != Write || fs.holds(i.id) != ashlar.LeaseExclusive {
		return false
	}
	i.mu.Lock()
	ok := i.bare && i.attr.Size == 0 && i.localEnd <= BehindSize && i.attr.Nlink > 0
	i.mu.Unlock()
	b := &fs.behind
	b.mu.Lock()
	defer b.mu.Unlock()
	return ok && b.n < BehindMax && time.Since(b.failed) > behindPause
}

// letGoLater is letGo for a file whose data is not written yet: its state stays
// until then, so that an open meanwhile finds it, and no write of that one is
// overtaken by an older run.
func (i *inode) letGoLater(flags Flags) {
	fs := i.fs
	b := &fs.behind
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, closed{i, flags})
	if b.n++; !b.running {
		b.running = true
		fs.work.Add(1)
		go func() {
			defer fs.work.Done()
			fs.writeBehind()
		}()
	}
}

// writeBehind writes closed files until there are none.
func (fs *FS) writeBehind() {
	b := &fs.behind
	for {
		_ = fs.waitAtMost(fs.base, nil, BehindDelay)
		b.mu.Lock()
		all := b.waiting
		b.waiting = nil
		b.running = len(all) > 0
		b.mu.Unlock()
		if len(all) == 0 {
			return
		}
		var g errgroup.Group
		g.SetLimit(behindGroups)
		for part := range slices.Chunk(all, wire.CommitsMax) {
			g.Go(func() error {
				fs.writeOut(part)
				b.mu.Lock()
				b.n -= len(part)
				b.mu.Unlock()
				return nil
			})
		}
		_ = g.Wait()
	}
}

// writeOut writes and commits what is buffered of closed files.
func (fs *FS) writeOut(all []closed) {
	ctx, cancel := fs.background()
	defer cancel()
	errs := make([]uint64, len(all))
	files := make([]*inode, len(all))
	var g errgroup.Group
	g.SetLimit(behindAtOnce)
	for k, c := range all {
		files[k] = c.i
		c.i.mu.Lock()
		errs[k] = c.i.errs
		c.i.mu.Unlock()
		g.Go(func() error { return c.i.flush(ctx, false) })
	}
	if g.Wait() == nil {
		fs.commitAll(ctx, files)
	}
	for k, c := range all {
		c.i.wroteOut(ctx, errs[k])
		c.i.letGo(c.flags)
	}
}

// wroteOut commits what is not, and keeps the error of a closed file, which had
// that many before, for whoever opens it next.
func (i *inode) wroteOut(ctx context.Context, errs uint64) {
	fs := i.fs
	err := i.flush(ctx, false)
	if err == nil {
		err = i.commit(ctx)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil && i.errs == errs || fs.base.Err() != nil {
		return
	}
	if err != nil {
		i.fail(err)
		fs.o.Logger.Error("write lost: its file was closed", "inode", i.id, "err", err)
	}
	i.untold = true
	fs.behind.mu.Lock()
	fs.behind.failed = time.Now()
	fs.behind.mu.Unlock()
}

// settle writes a file before a rename gives it the place of another: who
// replaces a file by a whole new one finds one of the two after a crash.
func (fs *FS) settle(ctx context.Context, parent ashlar.Inode, name string) error {
	ino, ok := fs.cachedName(parent, name)
	if !ok || ino == 0 {
		return nil
	}
	i := fs.state(ino)
	if i == nil || !i.pending() {
		return nil
	}
	if err := i.flush(ctx, false); err != nil {
		return err
	}
	return i.commit(ctx)
}
