package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// The names under which access control lists are set and read.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// A list is kept, as an extended attribute, as Linux passes it
// (linux/posix_acl_xattr.h), integers little-endian:
//
//	+-------------+  +---------+-----------+--------+
//	| version u32 |  | tag u16 | perms u16 | id u32 | ...
//	| 2           |  |         | rwx       |        |
//	+-------------+  +---------+-----------+--------+
//
// Entries are in the order of their tags; id is that of a named user or
// group, otherwise all ones.
const (
	aclVersion    = 2
	aclHeaderSize = 4
	aclEntrySize  = 8
	aclNoID       = ^uint32(0)
	// aclEntriesMax is the most entries of a list.
	aclEntriesMax = 1024
)

// Tags of entries.
const (
	tagOwner = 0x01
	tagUser  = 0x02
	tagGroup = 0x04 // the file's group
	tagNamed = 0x08 // another group
	tagMask  = 0x10
	tagOther = 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// acl is an access control list. One that is valid has an owner, a group and
// an other, and a mask if anything is named.
type acl []aclEntry

// parseACL reads a list, empty for one without entries.
func parseACL(b []byte) (acl, error) {
	if len(b) < aclHeaderSize || (len(b)-aclHeaderSize)%aclEntrySize != 0 {
		return nil, fmt.Errorf("an access control list of %d bytes", len(b))
	}
	if v := binary.LittleEndian.Uint32(b); v != aclVersion {
		return nil, fmt.Errorf("access control list of version %d", v)
	}
	n := (len(b) - aclHeaderSize) / aclEntrySize
	if n > aclEntriesMax {
		return nil, fmt.Errorf("access control list of %d entries, at most %d", n, aclEntriesMax)
	}
	l := make(acl, 0, n)
	for b = b[aclHeaderSize:]; len(b) > 0; b = b[aclEntrySize:] {
		e := aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		if e.tag != tagUser && e.tag != tagNamed {
			e.id = aclNoID
		}
		l = append(l, e)
	}
	return l, l.check()
}

// check tells what is wrong with a list.
func (l acl) check() error {
	if len(l) == 0 {
		return nil
	}
	var seen uint16
	for i, e := range l {
		single := e.tag != tagUser && e.tag != tagNamed
		switch {
		case e.perm&^(mayRead|mayWrite|mayExec) != 0:
			return fmt.Errorf("permissions %o of entry %d", e.perm, i)
		case e.tag != tagOwner && e.tag != tagUser && e.tag != tagGroup && e.tag != tagNamed && e.tag != tagMask && e.tag != tagOther:
			return fmt.Errorf("tag %x of entry %d", e.tag, i)
		case i > 0 && e.tag < l[i-1].tag, single && seen&e.tag != 0:
			return errors.New("entries out of order")
		}
		seen |= e.tag
	}
	const least = tagOwner | tagGroup | tagOther
	if seen&least != least || seen&(tagUser|tagNamed) != 0 && seen&tagMask == 0 {
		return errors.New("an entry is missing")
	}
	return nil
}

func (l acl) encode() []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, aclHeaderSize+aclEntrySize*len(l)), aclVersion)
	for _, e := range l {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// plain tells whether a list says no more than a mode.
func (l acl) plain() bool { return len(l) == 3 }

// find returns the entry of a tag that there is once.
func (l acl) find(tag uint16) *aclEntry {
	for i := range l {
		if l[i].tag == tag {
			return &l[i]
		}
	}
	return nil
}

// group returns the entry that a mode's group bits are: the mask if there is
// one.
func (l acl) group() *aclEntry {
	if m := l.find(tagMask); m != nil {
		return m
	}
	return l.find(tagGroup)
}

// mode returns the permission bits that stand for a list.
func (l acl) mode() uint16 {
	return l.find(tagOwner).perm<<6 | l.group().perm<<3 | l.find(tagOther).perm
}

// chmod sets the entries that a mode stands for.
func (l acl) chmod(mode uint16) {
	l.find(tagOwner).perm = mode >> 6 & 7
	l.group().perm = mode >> 3 & 7
	l.find(tagOther).perm = mode & 7
}

// inherit makes a default list the one of something that is made with a mode:
// neither grants what the other does not. It returns the mode that results.
func (l acl) inherit(mode uint16) uint16 {
	l.chmod(mode & l.mode())
	return mode&^ashlar.ModePerm | l.mode()
}

// allows is the check of acl(5) for anybody but the owner.
func (l acl) allows(c *ashlar.Cred, gid uint32, mask uint16) bool {
	limit := uint16(mayRead | mayWrite | mayExec)
	if m := l.find(tagMask); m != nil {
		limit = m.perm
	}
	grouped := false
	for _, e := range l {
		switch {
		case e.tag == tagUser && e.id == c.UID:
			return e.perm&limit&mask == mask
		case e.tag == tagGroup && c.Has(gid), e.tag == tagNamed && c.Has(e.id):
			if e.perm&limit&mask == mask {
				return true
			}
			grouped = true
		case e.tag == tagOther:
			return !grouped && e.perm&mask == mask
		}
	}
	return false
}

// aclFlags say which list an attribute is.
var aclFlags = map[string]uint8{accessACL: ashlar.HasACL, defaultACL: ashlar.HasDefaultACL}

// aclOf reads a list of an inode, nil if it has none.
func (o *op) aclOf(i *Inode, name string) (acl, error) {
	if i.Attr.Flags&aclFlags[name] == 0 {
		return nil, nil
	}
	var x Xattr
	ok, err := key.Load(o.tx, key.Xattr(i.Attr.Inode, name), &x)
	if !ok || err != nil {
		return nil, err
	}
	l, err := parseACL(x.Value)
	if err != nil {
		return nil, ashlar.E(o.name, ashlar.Corrupt, key.String(key.Xattr(i.Attr.Inode, name)), err)
	}
	return l, nil
}

// storeACL writes a list of an inode or, if it is empty, removes it. The
// caller writes the inode.
func (o *op) storeACL(i *Inode, name string, l acl) {
	had := i.Attr.Flags&aclFlags[name] != 0
	switch {
	case len(l) > 0:
		x := Xattr{Value: l.encode()}
		o.tx.Set(key.Xattr(i.Attr.Inode, name), key.EncodeSize(&x, 8+len(x.Value)))
		if !had {
			i.Xattrs++
		}
		i.Attr.Flags |= aclFlags[name]
	case had:
		o.tx.Delete(key.Xattr(i.Attr.Inode, name))
		i.Xattrs--
		i.Attr.Flags &^= aclFlags[name]
	}
}

// setACL evaluates the setting of a list; an empty one removes it. A list for
// access decides the mode, and is kept only if it says more. It tells whether
// anything is different now; the caller writes the inode.
func (o *op) setACL(i *Inode, name string, value []byte, killSetgid bool) (changed bool, err error) {
	l, err := parseACL(value)
	switch {
	case i.Attr.Type == ashlar.TypeSymlink:
		return false, o.fail(ashlar.Unsupported, name)
	case err != nil:
		return false, ashlar.E(o.name, ashlar.Invalid, name, err)
	case !o.owns(i):
		return false, o.fail(ashlar.NotOwner, name)
	case name == defaultACL && i.Attr.Type != ashlar.TypeDir && len(l) > 0:
		return false, o.fail(ashlar.Permission, "only a directory has a default list")
	}
	old, err := o.aclOf(i, name)
	if err != nil {
		return false, err
	}
	mode := i.Attr.Mode
	if name == accessACL && len(l) > 0 {
		i.Attr.Mode = i.Attr.Mode&^ashlar.ModePerm | l.mode()
		if killSetgid || !o.cred.Checked && o.cred.UID != 0 && !o.cred.Has(i.Attr.GID) {
			i.Attr.Mode &^= ashlar.ModeSetgid
		}
		if l.plain() {
			l = nil
		}
	}
	if slices.Equal(l, old) {
		return i.Attr.Mode != mode, nil
	}
	o.storeACL(i, name, l)
	return true, nil
}

// inheritACL gives a new inode the lists that its directory has for it, and
// takes the umask from its mode if there are none.
func (o *op) inheritACL(i *Inode, dir *Inode, umask uint16) error {
	if i.Attr.Type == ashlar.TypeSymlink {
		return nil
	}
	l, err := o.aclOf(dir, defaultACL)
	if err != nil {
		return err
	}
	if l == nil {
		i.Attr.Mode &^= umask & ashlar.ModePerm
		return nil
	}
	if i.Attr.Type == ashlar.TypeDir {
		o.storeACL(i, defaultACL, l)
	}
	i.Attr.Mode = l.inherit(i.Attr.Mode)
	if !l.plain() {
		o.storeACL(i, accessACL, l)
	}
	return nil
}

// chmodACL lets a list follow a change of the mode.
func (o *op) chmodACL(i *Inode) error {
	l, err := o.aclOf(i, accessACL)
	if err != nil || l == nil {
		return err
	}
	l.chmod(i.Attr.Mode)
	o.storeACL(i, accessACL, l)
	return nil
}
