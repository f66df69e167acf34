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
	// UntoldMax is how many files are remembered that are not open and have an
	// error that nobody was told.
	UntoldMax = 4096
)

// behind is closed files that are to be written. mu guards it.
type behind struct {
	mu      sync.Mutex
	waiting []closed
	n       int // waiting, and being written
	running bool
	failed  time.Time // when one could not be written
}

// closed is a file with the flags of the handle that was closed, and how many of
// the file's errors that has told.
type closed struct {
	i     *inode
	flags Flags
	errs  uint64
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
func (i *inode) letGoLater(flags Flags, errs uint64) {
	fs := i.fs
	b := &fs.behind
	fs.mu.Lock()
	i.closing++
	fs.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, closed{i, flags, errs})
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
	var g errgroup.Group
	g.SetLimit(behindAtOnce)
	for _, c := range all {
		g.Go(func() error { return c.i.flush(ctx, false) })
	}
	if g.Wait() == nil {
		var files []*inode
		for _, c := range all {
			if c.i.failures() == c.errs { // otherwise its size would tell of data that is not there
				files = append(files, c.i)
			}
		}
		fs.commitAll(ctx, files)
	}
	for _, c := range all {
		c.i.wroteOut(ctx, c.errs)
		c.i.letGo(c.flags)
	}
}

// wroteOut commits what is not, and keeps the error of a closed file, of which
// that many were told, for whoever opens it next. Nothing is committed of one
// that could not be written.
func (i *inode) wroteOut(ctx context.Context, errs uint64) {
	fs := i.fs
	err := i.flush(ctx, false)
	if err == nil && i.failures() == errs {
		err = i.commit(ctx)
	}
	if i.writeAgain(ctx) {
		err, errs = nil, i.failures()
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	i.closing--
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
	if i.writes <= 1 && i.left == 0 && i.dirty.bytes == 0 { // nobody else wrote
		i.changed, i.localEnd, i.set.Valid = false, 0, 0
	}
	fs.behind.mu.Lock()
	fs.behind.failed = time.Now()
	fs.behind.mu.Unlock()
}

// keepUntold remembers the error of a file whose last handle goes. FS.mu must be
// held.
func (fs *FS) keepUntold(i *inode) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.untold {
		return
	}
	if len(fs.untold) >= UntoldMax {
		for ino := range fs.untold { // any
			delete(fs.untold, ino)
			break
		}
	}
	fs.untold[i.id] = i.err
}

// tell returns, once, the error of a file that is not open.
func (fs *FS) tell(ino ashlar.Inode) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	err := fs.untold[ino]
	delete(fs.untold, ino)
	return err
}

// owes tells whether there may be closed files that are not written, or could
// not be.
func (fs *FS) owes() bool {
	fs.mu.Lock()
	untold := len(fs.untold)
	fs.mu.Unlock()
	fs.behind.mu.Lock()
	defer fs.behind.mu.Unlock()
	return fs.behind.n > 0 || untold > 0
}

// settle writes a file before a rename gives it the place of another: who
// replaces a file by a whole new one finds one of the two after a crash. One that
// could not be written replaces nothing.
func (fs *FS) settle(ctx context.Context, cred ashlar.Cred, parent ashlar.Inode, name string) error {
	ino, ok := fs.cachedName(parent, name)
	if !ok {
		if !fs.owes() {
			return nil
		}
		a, err := fs.Lookup(ctx, cred, parent, name)
		if err != nil {
			return err
		}
		ino = a.Inode
	}
	if ino == 0 {
		return nil
	}
	i := fs.state(ino)
	if i == nil {
		return fs.tell(ino)
	}
	i.mu.Lock()
	errs := i.errs
	if i.untold {
		i.untold = false
		errs--
	}
	i.mu.Unlock()
	if err := i.flush(ctx, false); err != nil {
		return err
	}
	i.mu.Lock()
	err := i.err
	failed := i.errs != errs
	i.mu.Unlock()
	if failed {
		return err
	}
	return i.commit(ctx)
}
