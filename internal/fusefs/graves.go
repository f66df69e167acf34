package fusefs

import (
	"errors"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// graves remembers what was removed here last. Somebody may still stand in a
// directory that is gone, or hold a file without having opened it (O_PATH): a
// local file system goes on telling what it was, and changes it when asked.
type graves struct {
	mu   sync.Mutex
	m    map[ashlar.Inode]ashlar.Attr
	list []ashlar.Inode // a ring, oldest at next
	next int
}

// gravesMax is how many are remembered.
const gravesMax = 1024

// bury is told of attributes of what has lost a name.
func (g *graves) bury(a *ashlar.Attr) {
	if a.Nlink > 0 || a.Inode == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		g.m = map[ashlar.Inode]ashlar.Attr{}
	}
	if len(g.list) < gravesMax {
		g.list = append(g.list, a.Inode)
	} else {
		delete(g.m, g.list[g.next])
		g.list[g.next] = a.Inode
		g.next = (g.next + 1) % gravesMax
	}
	g.m[a.Inode] = *a
}

// visit puts what was buried in the place of an error that says it is gone.
func (g *graves) visit(ino ashlar.Inode, a ashlar.Attr, err error) (ashlar.Attr, error) {
	if !errors.Is(err, ashlar.Stale) {
		return a, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.m[ino]; ok {
		return old, nil
	}
	return a, err
}

// change is visit for a change of attributes, which has been checked. Nobody
// will see what it makes but those who still hold what is gone.
func (g *graves) change(m *wire.SetAttr, a ashlar.Attr, err error) (ashlar.Attr, error) {
	if !errors.Is(err, ashlar.Stale) || m.Valid&wire.SetSize != 0 {
		return a, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, ok := g.m[m.Inode]
	if !ok {
		return a, err
	}
	now := time.Now().UnixNano()
	for _, t := range []struct {
		to          *int64
		given       int64
		set, setNow uint32
	}{{&old.Atime, m.Atime, wire.SetAtime, wire.SetAtimeNow}, {&old.Mtime, m.Mtime, wire.SetMtime, wire.SetMtimeNow}} {
		switch {
		case m.Valid&t.set != 0:
			*t.to = t.given
		case m.Valid&t.setNow != 0:
			*t.to = now
		}
	}
	if m.Valid&wire.SetUID != 0 {
		old.UID = m.UID
	}
	if m.Valid&wire.SetGID != 0 {
		old.GID = m.GID
	}
	if m.Valid&(wire.SetUID|wire.SetGID|wire.SetKill) != 0 && old.Type != ashlar.TypeDir {
		old.Mode = withoutSetid(old.Mode)
	}
	if m.Valid&wire.SetMode != 0 {
		old.Mode = m.Mode
	}
	old.Ctime = max(now, old.Ctime)
	g.m[m.Inode] = old
	return old, nil
}

// withoutSetid is a mode after a change of owner.
func withoutSetid(mode uint16) uint16 {
	mode &^= ashlar.ModeSetuid
	if mode&0o010 != 0 {
		mode &^= ashlar.ModeSetgid
	}
	return mode
}
