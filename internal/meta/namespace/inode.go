package namespace

import (
	"slices"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// inode reads an inode; one that does not exist is ashlar.Stale.
func (o *op) inode(ino ashlar.Inode) (*Inode, error) {
	i := new(Inode)
	ok, err := key.Load(o.tx, key.Inode(ino), i)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.fail(ashlar.Stale, "")
	}
	i.Attr.Inode = ino
	i.Attr.Blocks = blocks(&i.Attr)
	return i, nil
}

// blocks is the st_blocks of an inode. The masters do not know about holes: a
// file counts as if it had none. A symbolic link lives in its inode.
func blocks(a *ashlar.Attr) uint64 {
	if a.Type == ashlar.TypeSymlink {
		return 0
	}
	return (a.Size + 511) / 512
}

// file reads a regular file; a directory is ashlar.IsDir, anything else
// ashlar.Invalid.
func (o *op) file(ino ashlar.Inode) (*Inode, error) {
	i, err := o.inode(ino)
	switch {
	case err != nil:
		return nil, err
	case i.Attr.Type == ashlar.TypeDir:
		return nil, o.fail(ashlar.IsDir, "")
	case i.Attr.Type != ashlar.TypeFile:
		return nil, o.fail(ashlar.Invalid, "not a regular file")
	}
	return i, nil
}

// directory reads a directory that a name is looked up in: it must be one,
// and be searchable by the caller.
func (o *op) directory(ino ashlar.Inode) (*Inode, error) {
	d, err := o.inode(ino)
	if err != nil {
		return nil, err
	}
	if d.Attr.Type != ashlar.TypeDir {
		return nil, o.fail(ashlar.NotDir, "")
	}
	return d, o.may(d, mayExec)
}

// put writes an inode back.
func (o *op) put(i *Inode) {
	i.Attr.Blocks = blocks(&i.Attr)
	o.tx.Set(key.Inode(i.Attr.Inode), key.EncodeSize(i, 160))
	o.changed = append(o.changed, i)
}

// entry is the answer that shows an inode.
func (o *op) entry(i *Inode) *wire.Entry {
	return &wire.Entry{Attr: i.Attr, Object: i.Object, Unsettled: i.Cutting}
}

// also adds the other inodes that were changed to an answer.
func (o *op) also(e *wire.Entry) {
	for n, i := range o.changed {
		ino := i.Attr.Inode
		if ino == e.Attr.Inode || slices.ContainsFunc(o.changed[:n], func(j *Inode) bool { return j.Attr.Inode == ino }) {
			continue
		}
		e.Also = append(e.Also, wire.Leased{Attr: i.Attr})
	}
}

// named is entry with the file's name, for chunks that are about to be
// written.
func (o *op) named(i *Inode) *wire.Entry {
	e := o.entry(i)
	if i.Attr.Type == ashlar.TypeFile {
		e.Hint = FullPath(o.tx, i.Attr.Inode)
	}
	return e
}

// Origin is what chunks of an inode are to note of it; false if it is no file,
// or has no name.
func Origin(tx key.Tx, ino ashlar.Inode) (wire.Origin, bool) {
	i, err := (&op{tx: tx, name: "origin"}).inode(ino)
	if err != nil || i.Attr.Type != ashlar.TypeFile {
		return wire.Origin{}, false
	}
	a, hint := &i.Attr, FullPath(tx, ino)
	return wire.Origin{Owner: ino, UID: a.UID, GID: a.GID, Mode: a.Mode, Mtime: a.Mtime, Hint: hint}, hint != ""
}

// FullPath returns "volume:/path" of an inode, at most wire.HintMax bytes from
// its end; "" if it has no name any more.
func FullPath(tx key.Tx, ino ashlar.Inode) string {
	o := &op{tx: tx, name: "path"}
	i, err := o.inode(ino)
	if err != nil {
		return ""
	}
	vol, err := o.volumeOf(i)
	path, ok := Path(tx, ino)
	if err != nil || !ok { // it is without a name, and only a hint is missing
		return ""
	}
	full := vol.Name + ":" + path
	return full[max(0, len(full)-wire.HintMax):]
}

// setSize changes the size of a regular file and counts it (N-5).
func (o *op) setSize(i *Inode, size uint64) {
	o.count(i, 0, i.Attr.Size, size)
	i.Attr.Size = size
}

// touch notes a change of content.
func (o *op) touch(i *Inode) {
	i.Attr.Mtime, i.Attr.Ctime = o.env.Now, o.env.Now
	i.Attr.Version++
}

// Permission bits as access(2) numbers them.
const (
	mayExec  = 1
	mayWrite = 2
	mayRead  = 4
)

// allowed is the classic check of mode bits: one class decides. Root may do
// all, but execute only what somebody may.
func allowed(c *ashlar.Cred, a *ashlar.Attr, mask uint16) bool {
	if c.UID == 0 {
		return mask&mayExec == 0 || a.Type == ashlar.TypeDir || a.Mode&0o111 != 0
	}
	bits := a.Mode
	switch {
	case c.UID == a.UID:
		bits >>= 6
	case c.Has(a.GID):
		bits >>= 3
	}
	return bits&mask == mask
}

// may checks the caller's permission unless the caller has done so.
func (o *op) may(i *Inode, mask uint16) error {
	if o.cred.Checked {
		return nil
	}
	return o.check(i, mask)
}

// check asks the access control list, if there is one that the group bits do
// not already say all of, and otherwise the mode.
func (o *op) check(i *Inode, mask uint16) error {
	ok := false
	if a, c := &i.Attr, o.cred; a.Flags&ashlar.HasACL == 0 || a.Mode&0o070 == 0 || c.UID == 0 || c.UID == a.UID {
		ok = allowed(c, a, mask)
	} else {
		l, err := o.aclOf(i, accessACL)
		if err != nil {
			return err
		}
		ok = l.allows(c, a.GID, mask)
	}
	if !ok {
		return o.fail(ashlar.Permission, "")
	}
	return nil
}

// owns tells whether the caller is trusted as the owner of an inode.
func (o *op) owns(i *Inode) bool {
	return o.cred.Checked || o.cred.UID == 0 || o.cred.UID == i.Attr.UID
}

// mayDelete checks that the caller may take a name of i out of dir: write
// permission, and under the sticky bit ownership of either.
func (o *op) mayDelete(dir, i *Inode) error {
	if err := o.may(dir, mayWrite); err != nil {
		return err
	}
	if dir.Attr.Mode&ashlar.ModeSticky != 0 && !o.owns(i) && !o.owns(dir) {
		return o.fail(ashlar.NotOwner, "sticky directory")
	}
	return nil
}

// mayCreate checks that the caller may put a name into dir.
func (o *op) mayCreate(dir *Inode) error {
	if dir.Attr.Nlink == 0 {
		return o.fail(ashlar.NotExist, "the directory was removed")
	}
	return o.may(dir, mayWrite)
}

// dropPrivileges clears setuid and setgid, as a change of content by anybody
// but root does; whoever it is, capabilities go.
func (o *op) dropPrivileges(i *Inode) {
	if o.cred.UID != 0 && i.Attr.Mode&(ashlar.ModeSetuid|ashlar.ModeSetgid) != 0 {
		o.dropSetid(i)
	}
	o.dropCapability(i)
}

// dropSetid clears setuid, and setgid of what the group may execute or of a
// group that the caller is not in.
func (o *op) dropSetid(i *Inode) {
	i.Attr.Mode &^= ashlar.ModeSetuid
	if i.Attr.Mode&0o010 != 0 || o.cred.UID != 0 && !o.cred.Has(i.Attr.GID) {
		i.Attr.Mode &^= ashlar.ModeSetgid
	}
}

// dropCapability takes a file's capabilities away. The caller writes the
// inode.
func (o *op) dropCapability(i *Inode) {
	if i.Attr.Flags&ashlar.HasCapability != 0 {
		o.tx.Delete(key.Xattr(i.Attr.Inode, capability))
		i.Xattrs--
		i.Attr.Flags &^= ashlar.HasCapability
	}
}

// checkName refuses what can not be the name of anything.
func (o *op) checkName(name string) error {
	switch {
	case len(name) > ashlar.NameMax:
		return o.fail(ashlar.NameTooLong, "")
	case name == "" || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return o.fail(ashlar.Invalid, "name")
	}
	return nil
}

// special tells whether a name is "." or "..".
func special(name string) bool { return name == "." || name == ".." }
