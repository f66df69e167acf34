package file

import (
	"context"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits of access times.
const (
	// AccessDelay is how long after a read the leader is told, together with
	// what else was read meanwhile.
	AccessDelay = 2 * time.Second
	// AccessesMax is how many inodes are remembered that were read and of which
	// the leader was not told; beyond it reads leave no trace.
	AccessesMax = 64 << 10
)

// accesses is when what was read here. It is only told, and only shown, while
// the access time that it takes the place of is the one that was known.
type accesses struct {
	mu    sync.Mutex
	m     map[ashlar.Inode]access
	timer bool // telling is scheduled
}

type access struct {
	was, at int64
	told    bool // kept for attributes of before that are still on their way
}

// Accessed notes that something was read, given its attributes as Shown left
// them.
func (fs *FS) Accessed(a *ashlar.Attr) {
	at := max(fs.now(), a.Mtime, a.Ctime)
	x := &fs.read
	x.mu.Lock()
	defer x.mu.Unlock()
	old, ok := x.m[a.Inode]
	switch {
	case at == a.Atime || !ok && len(x.m) >= AccessesMax:
		return
	case ok && !old.told:
		old.at = at
	default:
		old = access{was: a.Atime, at: at}
	}
	if x.m == nil {
		x.m = map[ashlar.Inode]access{}
	}
	x.m[a.Inode] = old
	fs.scheduleAccessed()
}

// Shown puts the time of a read that the leader does not know of yet into
// attributes that it told.
func (fs *FS) Shown(a *ashlar.Attr) {
	x := &fs.read
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.m[a.Inode]; ok && old.was == a.Atime {
		a.Atime = old.at
	}
}

// Unread forgets that an inode was read: its access time is being set.
func (fs *FS) Unread(ino ashlar.Inode) {
	x := &fs.read
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.m, ino)
}

// scheduleAccessed tells the leader soon. read.mu must be held.
func (fs *FS) scheduleAccessed() {
	if fs.read.timer || fs.base.Err() != nil {
		return
	}
	fs.read.timer = true
	fs.o.Clock.AfterFunc(AccessDelay, func() {
		if fs.base.Err() != nil {
			return
		}
		ctx, cancel := fs.background()
		defer cancel()
		fs.tellAccessed(ctx)
	})
}

// tellAccessed tells the leader what was read. A failure loses access times,
// and nothing else.
func (fs *FS) tellAccessed(ctx context.Context) {
	x := &fs.read
	x.mu.Lock()
	x.timer = false
	list := make([]wire.AccessTime, 0, len(x.m))
	for ino, a := range x.m {
		if a.told {
			delete(x.m, ino)
			continue
		}
		list = append(list, wire.AccessTime{Inode: ino, Was: a.was, At: a.at})
	}
	x.mu.Unlock()
	for len(list) > 0 {
		part := list[:min(len(list), wire.AccessedMax)]
		list = list[len(part):]
		err := fs.o.Meta.Do(ctx, ashlar.Cred{Checked: true}, &wire.Accessed{List: part}, nil)
		for _, a := range part {
			fs.toldAccess(a, err == nil)
		}
	}
}

// toldAccess ends the telling of one access.
func (fs *FS) toldAccess(a wire.AccessTime, ok bool) {
	x := &fs.read
	x.mu.Lock()
	defer x.mu.Unlock()
	switch old, there := x.m[a.Inode]; {
	case !there:
		return
	case !ok:
		delete(x.m, a.Inode)
		return
	case old.at == a.At:
		x.m[a.Inode] = access{was: a.Was, at: a.At, told: true}
	default: // read again meanwhile
		x.m[a.Inode] = access{was: a.At, at: old.at}
	}
	fs.scheduleAccessed()
	l := &fs.leases
	l.mu.Lock()
	if y := l.m[a.Inode]; y != nil && y.attr.Atime == a.Was {
		y.attr.Atime = a.At
	}
	l.mu.Unlock()
	if i := fs.state(a.Inode); i != nil {
		i.mu.Lock()
		if i.attr.Atime == a.Was {
			i.attr.Atime = a.At
		}
		i.mu.Unlock()
	}
}
