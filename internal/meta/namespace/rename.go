package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// move is a rename under way: a source name, and a target name that may lead
// nowhere yet (to is then nil). oldDir and newDir are one pointer if they are
// one directory.
type move struct {
	*wire.Rename
	oldDir, newDir *Inode
	from, to       *Inode
	fromD, toD     Dentry
	white          *Inode // what a whiteout leaves
}

func (v *move) exchange() bool    { return v.Flags == wire.RenameExchange }
func (v *move) has(f uint32) bool { return v.Flags&f != 0 }
func (v *move) across() bool      { return v.oldDir != v.newDir }

// rename evaluates wire.Rename.
func (o *op) rename(m *wire.Rename) (wire.Message, error) {
	o.name = "rename"
	v := &move{Rename: m}
	if err := o.renameDirs(v); err != nil {
		return nil, err
	}
	if err := o.renameNames(v); err != nil {
		return nil, err
	}
	if err := o.renameLoop(v); err != nil {
		return nil, err
	}
	if v.to != nil && v.from.Attr.Inode == v.to.Attr.Inode {
		return o.entry(v.from), nil // two names of one file: nothing to do
	}
	if err := o.renameAllowed(v); err != nil {
		return nil, err
	}
	if err := o.whiteout(v); err != nil {
		return nil, err
	}
	if v.exchange() {
		o.exchange(v)
		o.say("exchange")
	} else {
		o.moveName(v)
		o.say("rename")
	}
	v.from.Attr.Ctime = o.env.Now
	o.put(v.from)
	o.put(v.oldDir)
	if v.across() {
		o.put(v.newDir)
	}
	o.sayName(m.OldParent, m.OldName).say("to").sayName(m.NewParent, m.NewName).
		say("inode").sayInode(v.from.Attr.Inode)
	return o.entry(v.from), nil
}

// renameDirs reads the two directories and refuses names that are none.
func (o *op) renameDirs(v *move) (err error) {
	switch v.Flags {
	case 0, wire.RenameNoReplace, wire.RenameExchange, wire.RenameWhiteout, wire.RenameWhiteout | wire.RenameNoReplace:
	default:
		return o.fail(ashlar.Invalid, "flags")
	}
	if v.oldDir, err = o.directory(v.OldParent); err != nil {
		return err
	}
	v.newDir = v.oldDir
	if v.NewParent != v.OldParent {
		if v.newDir, err = o.directory(v.NewParent); err != nil {
			return err
		}
	}
	switch {
	case v.oldDir.Volume != v.newDir.Volume:
		return o.fail(ashlar.CrossVolume, "")
	case special(v.OldName):
		return o.fail(ashlar.Busy, v.OldName)
	case special(v.NewName) && v.has(wire.RenameNoReplace):
		return o.fail(ashlar.Exist, v.NewName)
	case special(v.NewName):
		return o.fail(ashlar.Busy, v.NewName)
	}
	if err := o.checkName(v.OldName); err != nil {
		return err
	}
	return o.checkName(v.NewName)
}

// renameNames looks both names up.
func (o *op) renameNames(v *move) error {
	var ok bool
	var err error
	if v.fromD, ok, err = o.find(v.oldDir, v.OldName); err != nil {
		return err
	} else if !ok {
		return o.fail(ashlar.NotExist, v.OldName)
	}
	if v.from, err = o.child(&v.fromD); err != nil {
		return err
	}
	if v.toD, ok, err = o.find(v.newDir, v.NewName); err != nil {
		return err
	}
	switch {
	case ok && v.has(wire.RenameNoReplace):
		return o.fail(ashlar.Exist, v.NewName)
	case !ok && v.exchange():
		return o.fail(ashlar.NotExist, v.NewName)
	case ok:
		v.to, err = o.child(&v.toD)
	}
	return err
}

// renameLoop refuses to put a directory below itself (N-4).
func (o *op) renameLoop(v *move) error {
	if !v.across() {
		return nil
	}
	if v.from.Attr.Type == ashlar.TypeDir {
		if loop, err := o.isAncestor(v.from.Attr.Inode, v.newDir); err != nil {
			return err
		} else if loop {
			return o.fail(ashlar.Loop, "")
		}
	}
	if v.to != nil && v.to.Attr.Type == ashlar.TypeDir {
		if loop, err := o.isAncestor(v.to.Attr.Inode, v.oldDir); err != nil {
			return err
		} else if loop && v.exchange() {
			return o.fail(ashlar.Loop, "")
		} else if loop {
			return o.fail(ashlar.NotEmpty, v.NewName)
		}
	}
	return nil
}

// renameAllowed checks permissions and types in the order of vfs_rename.
func (o *op) renameAllowed(v *move) error {
	if err := o.mayDelete(v.oldDir, v.from); err != nil {
		return err
	}
	fromDir := v.from.Attr.Type == ashlar.TypeDir
	if v.to == nil {
		if err := o.mayCreate(v.newDir); err != nil {
			return err
		}
	} else {
		if err := o.mayDelete(v.newDir, v.to); err != nil {
			return err
		}
		toDir := v.to.Attr.Type == ashlar.TypeDir
		switch {
		case v.exchange():
		case fromDir && !toDir:
			return o.fail(ashlar.NotDir, v.NewName)
		case !fromDir && toDir:
			return o.fail(ashlar.IsDir, v.NewName)
		}
		if v.across() && toDir && v.exchange() { // its ".." changes
			if err := o.may(v.to, mayWrite); err != nil {
				return err
			}
		}
	}
	if v.across() && fromDir {
		if err := o.may(v.from, mayWrite); err != nil {
			return err
		}
	}
	if v.to != nil && !v.exchange() && v.to.Entries > 0 {
		return o.fail(ashlar.NotEmpty, v.NewName)
	}
	return nil
}

// whiteout makes what a whiteout leaves under the old name.
func (o *op) whiteout(v *move) error {
	if !v.has(wire.RenameWhiteout) {
		return nil
	}
	vol, err := o.volumeOf(v.oldDir)
	if err != nil {
		return err
	}
	v.white, err = o.newInode(&wire.Make{Type: ashlar.TypeChar}, v.oldDir, vol)
	return err
}

// moveName takes the source's name away and gives it the target's. A target
// that exists keeps its cookie, so that a listing under way meets the name
// once.
func (o *op) moveName(v *move) {
	o.dropName(v.oldDir, v.OldName, v.fromD)
	var cookie uint64
	if v.to == nil {
		cookie = o.addName(v.newDir, v.NewName, v.from)
	} else {
		cookie = v.toD.Cookie
		o.setName(v.newDir.Attr.Inode, v.NewName, Dentry{v.from.Attr.Inode, v.from.Attr.Type, cookie})
		o.touch(v.newDir)
		o.unlink(v.to, v.newDir.Attr.Inode, cookie)
		// One directory came and one went, or none: newDir's Nlink stands.
	}
	o.relocate(v.from, v.oldDir.Attr.Inode, v.fromD.Cookie, v.newDir.Attr.Inode, cookie)
	if v.white != nil {
		o.attach(v.white, v.oldDir.Attr.Inode, o.addName(v.oldDir, v.OldName, v.white), true)
		o.put(v.white)
		o.count(v.white, 1, 0, 0)
	}
}

// exchange lets each name lead to what the other led to.
func (o *op) exchange(v *move) {
	old, dir := v.oldDir.Attr.Inode, v.newDir.Attr.Inode
	o.setName(old, v.OldName, Dentry{v.to.Attr.Inode, v.to.Attr.Type, v.fromD.Cookie})
	o.setName(dir, v.NewName, Dentry{v.from.Attr.Inode, v.from.Attr.Type, v.toD.Cookie})
	o.relocate(v.from, old, v.fromD.Cookie, dir, v.toD.Cookie)
	o.relocate(v.to, dir, v.toD.Cookie, old, v.fromD.Cookie)
	if v.from.Attr.Type == ashlar.TypeDir {
		v.oldDir.Attr.Nlink--
		v.newDir.Attr.Nlink++
	}
	if v.to.Attr.Type == ashlar.TypeDir {
		v.oldDir.Attr.Nlink++
		v.newDir.Attr.Nlink--
	}
	o.touch(v.oldDir)
	if v.across() {
		o.touch(v.newDir)
	}
	v.to.Attr.Ctime = o.env.Now
	o.put(v.to)
}
