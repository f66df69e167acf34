package namespace

import (
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

const setTimes = wire.SetAtime | wire.SetMtime | wire.SetCtime
const setNow = wire.SetAtimeNow | wire.SetMtimeNow

// setAttr evaluates wire.SetAttr: chmod(2), chown(2), utimensat(2) and
// truncate(2) in one, with the checks of each.
func (o *op) setAttr(m *wire.SetAttr) (wire.Message, error) {
	o.name = "setattr"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	if err := o.maySetAttr(m, i); err != nil {
		return nil, err
	}
	if m.Valid&wire.SetSize != 0 {
		if err := o.resize(i, m.Size); err != nil {
			return nil, err
		}
	}
	o.setOwner(m, i)
	if m.Valid&wire.SetMode != 0 {
		if err := o.setMode(m, i); err != nil {
			return nil, err
		}
	}
	if m.Valid != 0 {
		i.Attr.Ctime = o.env.Now
	}
	o.setTimes(m, i)
	o.put(i)
	o.say("setattr").sayInode(m.Inode).say("fields").sayNumber(uint64(m.Valid))
	if m.Valid&wire.SetSize != 0 {
		o.say("size").sayNumber(m.Size)
	}
	return o.entry(i), nil
}

// maySetAttr checks that the fields make sense and that the caller may set
// them.
func (o *op) maySetAttr(m *wire.SetAttr, i *Inode) error {
	a, c := &i.Attr, o.cred
	if m.Valid&wire.SetSize != 0 {
		switch {
		case a.Type == ashlar.TypeDir:
			return o.fail(ashlar.IsDir, "")
		case a.Type != ashlar.TypeFile:
			return o.fail(ashlar.Invalid, "not a regular file")
		case m.Size > ashlar.FileSizeMax:
			return o.fail(ashlar.TooBig, "")
		}
		if err := o.may(i, mayWrite); err != nil {
			return err
		}
	}
	if c.Checked || c.UID == 0 {
		return nil
	}
	switch {
	case m.Valid&wire.SetUID != 0 && (m.UID != a.UID || c.UID != a.UID):
		return o.fail(ashlar.NotOwner, "owner")
	case m.Valid&wire.SetGID != 0 && (c.UID != a.UID || m.GID != a.GID && !c.Has(m.GID)):
		return o.fail(ashlar.NotOwner, "group")
	case m.Valid&wire.SetMode != 0 && c.UID != a.UID:
		return o.fail(ashlar.NotOwner, "mode")
	case m.Valid&setTimes != 0 && c.UID != a.UID:
		return o.fail(ashlar.NotOwner, "times")
	case m.Valid&setNow != 0 && c.UID != a.UID:
		return o.may(i, mayWrite)
	}
	return nil
}

// setOwner changes owner and group; whoever does it, a file loses its setuid
// and setgid bits and its capabilities (chown(2)), unless a mode comes with it.
func (o *op) setOwner(m *wire.SetAttr, i *Inode) {
	if m.Valid&(wire.SetUID|wire.SetGID|wire.SetKill) == 0 {
		return
	}
	if i.Attr.Type != ashlar.TypeDir {
		o.dropSetid(i) // by the group that it was in
		o.dropCapability(i)
	}
	if m.Valid&wire.SetUID != 0 {
		i.Attr.UID = m.UID
	}
	if m.Valid&wire.SetGID != 0 {
		i.Attr.GID = m.GID
	}
}

// setMode changes the mode; setgid is dropped for a caller outside the group.
func (o *op) setMode(m *wire.SetAttr, i *Inode) error {
	i.Attr.Mode = m.Mode & ashlar.ModeMask
	if !o.cred.Checked && o.cred.UID != 0 && !o.cred.Has(i.Attr.GID) {
		i.Attr.Mode &^= ashlar.ModeSetgid
	}
	return o.chmodACL(i)
}

func (o *op) setTimes(m *wire.SetAttr, i *Inode) {
	a, was := &i.Attr, i.Attr.Mtime
	if m.Valid&wire.SetAtime != 0 {
		a.Atime = m.Atime
	}
	if m.Valid&wire.SetAtimeNow != 0 {
		a.Atime = o.env.Now
	}
	if m.Valid&wire.SetMtime != 0 {
		a.Mtime = m.Mtime
	}
	if m.Valid&wire.SetMtimeNow != 0 {
		a.Mtime = o.env.Now
	}
	if m.Valid&wire.SetCtime != 0 {
		a.Ctime = m.Ctime
	}
	if a.Mtime != was {
		a.Version++
	}
}

// accessed evaluates wire.Accessed.
func (o *op) accessed(m *wire.Accessed) (wire.Message, error) {
	o.name = "accessed"
	set := uint64(0)
	for _, a := range m.List {
		i, err := o.inode(a.Inode)
		if err == nil {
			err = o.may(i, mayRead)
		}
		switch {
		case errors.Is(err, ashlar.Stale) || errors.Is(err, ashlar.Permission) || err == nil && i.Attr.Atime != a.Was:
			continue
		case err != nil:
			return nil, err
		}
		i.Attr.Atime = a.At
		o.put(i)
		set++
	}
	if set > 0 {
		o.say("accessed").sayNumber(set)
	}
	return &wire.Empty{}, nil
}
