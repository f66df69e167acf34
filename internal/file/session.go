package file

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// scheduleRelease sends what waits in releases soon. mu must be held.
func (fs *FS) scheduleRelease() {
	if fs.timer {
		return
	}
	fs.timer = true
	fs.work.Add(1)
	delay := ReleaseDelay
	if len(fs.releases) >= ReleaseBatch {
		delay = 0
	}
	fs.o.Clock.AfterFunc(delay, func() {
		defer fs.work.Done()
		fs.sendReleases(fs.base) // until the leader has them: what comes late would close a file opened since
	})
}

// sendReleases tells the leader which files are closed. A failure is left: the
// session's end, or its hello to the next leader, says the same.
func (fs *FS) sendReleases(ctx context.Context) {
	fs.mu.Lock()
	fs.timer = false
	batch := fs.releases
	fs.releases = nil
	done := make(chan struct{})
	for _, ino := range batch {
		fs.releasing[ino] = done
	}
	fs.mu.Unlock()
	fs.leases.returned(ctx, batch) // a return may say that one is open
	for rest := batch; len(rest) > 0; {
		n := min(len(rest), wire.ReleaseMax)
		if err := fs.o.Meta.Do(ctx, ashlar.Cred{Checked: true}, &wire.Release{Inodes: rest[:n]}, nil); err != nil {
			break
		}
		rest = rest[n:]
	}
	fs.mu.Lock()
	for _, ino := range batch {
		delete(fs.releasing, ino)
	}
	fs.mu.Unlock()
	close(done)
}

// errSessionLost is reported by files whose unwritten data went with the
// session.
var errSessionLost = ashlar.E("write", ashlar.IO, "", errors.New("the session was lost before buffered data was written"))

// SessionLost is called when the session is gone and another takes its place
// (I-7): data not yet written is dropped and reported as an error by the files
// it belonged to, caches are dropped, and what is open is opened again.
func (fs *FS) SessionLost() {
	fs.nextTerm()
	for _, i := range fs.open() {
		i.lose()
		i.loseLocks()
	}
	fs.endLocking()
	fs.loseLeases()
	fs.work.Add(1)
	go func() {
		defer fs.work.Done()
		ctx, cancel := fs.background()
		defer cancel()
		for _, i := range fs.open() {
			i.reopen(ctx)
		}
	}()
}

// lose drops what is not written.
func (i *inode) lose() {
	alone := i.isClosed()
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.changed && i.left == 0 && i.dirty.bytes == 0 {
		return
	}
	i.keep(alone)
	i.sealAll(false)
	i.lost = i.made
	if i.sending != nil { // those in flight fail with errSessionLost
		i.stopSending()
		i.sending = nil
	}
	i.start()
	i.fail(errSessionLost)
	i.changed, i.localEnd, i.set.Valid = false, 0, 0
}

// reopen registers the file under the new session.
func (i *inode) reopen(ctx context.Context) {
	fs := i.fs
	fs.mu.Lock()
	held, write := fs.inodes[i.id] == i, i.writes > 0
	fs.mu.Unlock()
	if !held {
		return
	}
	var e wire.Entry
	err := fs.openAtLeader(ctx, i, ashlar.Cred{Checked: true}, &wire.Open{Inode: i.id, Write: write}, &e)
	if err != nil {
		fs.o.Logger.Error("file lost with the session", "inode", i.id, "err", err)
		return
	}
	i.merge(&e, false)
}
