package file

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Times of a new file are set behind the caller's back: they go to the leader with
// its first commit. What copies files and unpacks archives sets those of each.

// setBehind sets times of an open file here, and tells whether that could be: the
// file was made here, nothing of it is committed, and nobody else can look at it.
func (fs *FS) setBehind(ctx context.Context, i *inode, m *wire.SetAttr) (bool, error) {
	const now = wire.SetAtimeNow | wire.SetMtimeNow
	if !fs.o.WriteBehind || m.Valid == 0 || m.Valid&^(wire.SetBehind|now) != 0 || fs.holds(i.id) != ashlar.LeaseExclusive {
		return false, nil
	}
	t, end, err := fs.useIn(ctx, i, demand{mode: ashlar.LeaseExclusive})
	if err != nil {
		return false, err
	}
	defer end()
	i.mu.Lock()
	defer i.mu.Unlock()
	if fs.term.Load() != t || !i.bare || i.attr.Size > 0 {
		return false, nil
	}
	i.noteSet(m)
	return true, nil
}

// noteSet takes times in. mu must be held.
func (i *inode) noteSet(m *wire.SetAttr) {
	if !i.changed {
		i.changed, i.localEnd, i.mtime = true, 0, i.attr.Mtime
	}
	i.writeSeq++
	s := &i.set
	s.Ctime = max(i.fs.now(), i.attr.Ctime, s.Ctime)
	for _, t := range []struct {
		to              *int64
		given           int64
		field, fieldNow uint32
	}{{&s.Atime, m.Atime, wire.SetAtime, wire.SetAtimeNow}, {&s.Mtime, m.Mtime, wire.SetMtime, wire.SetMtimeNow}} {
		switch {
		case m.Valid&t.field != 0:
			s.Valid, *t.to = s.Valid|t.field, t.given
		case m.Valid&t.fieldNow != 0:
			s.Valid, *t.to = s.Valid|t.field, s.Ctime
		}
	}
	i.age()
}

// shown puts times that were set here and are not committed into attributes. mu
// must be held.
func (i *inode) shown(a *ashlar.Attr) {
	s := &i.set
	if s.Valid == 0 {
		return
	}
	if s.Valid&wire.SetAtime != 0 {
		a.Atime = s.Atime
	}
	if s.Valid&wire.SetMtime != 0 {
		a.Mtime = s.Mtime
	}
	a.Ctime = max(a.Ctime, s.Ctime)
}

// setFirst has the leader know what was set here, before something else is.
func (i *inode) setFirst(ctx context.Context) error {
	if !i.setHere() {
		return nil
	}
	if err := i.flush(ctx, false); err != nil {
		return err
	}
	return i.commit(ctx)
}

// setHere tells whether times were set here and are not committed.
func (i *inode) setHere() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.set.Valid != 0
}
