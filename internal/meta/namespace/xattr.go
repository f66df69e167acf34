package namespace

import (
	"bytes"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// capability is what makes a program run with more than its caller may.
const capability = "security.capability"

// checkXattr checks name, namespace and permission as xattr(7) has it: user.
// belongs to files and directories and goes by their mode; trusted. is root's,
// and not there for others; security. is read by all and set by root; of
// system. there are the access control lists, which setACL checks.
func (o *op) checkXattr(i *Inode, name string, write bool) error {
	if name == "" || len(name) > ashlar.XattrNameMax || strings.IndexByte(name, 0) >= 0 {
		return o.fail(ashlar.Range, "attribute name")
	}
	if aclFlags[name] != 0 {
		if i.Attr.Type == ashlar.TypeSymlink {
			return o.fail(ashlar.Unsupported, name)
		}
		return nil
	}
	space, rest, ok := strings.Cut(name, ".")
	if !ok || space != "user" && space != "trusted" && space != "security" {
		return o.fail(ashlar.Unsupported, name)
	}
	if rest == "" {
		return o.fail(ashlar.Invalid, name)
	}
	root := o.cred.Checked || o.cred.UID == 0
	refusal := ashlar.NoAttr
	if write {
		refusal = ashlar.NotOwner
	}
	switch {
	case space == "trusted" && !root, space == "security" && write && !root:
		return o.fail(refusal, name)
	case space != "user":
		return nil
	case i.Attr.Type != ashlar.TypeFile && i.Attr.Type != ashlar.TypeDir:
		return o.fail(refusal, name)
	case write && i.Attr.Type == ashlar.TypeDir && i.Attr.Mode&ashlar.ModeSticky != 0 && !o.owns(i):
		return o.fail(ashlar.NotOwner, name)
	case write:
		return o.may(i, mayWrite)
	}
	return o.may(i, mayRead)
}

func (o *op) findXattr(i *Inode, name string) (x Xattr, ok bool, err error) {
	if i.Xattrs == 0 { // most files; the kernel asks about each of them
		return x, false, nil
	}
	ok, err = key.Load(o.tx, key.Xattr(i.Attr.Inode, name), &x)
	return x, ok, err
}

// getXattr evaluates wire.GetXattr.
func (o *op) getXattr(m *wire.GetXattr) (wire.Message, error) {
	o.name = "getxattr"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	if err := o.checkXattr(i, m.Name, false); err != nil {
		return nil, err
	}
	x, ok, err := o.findXattr(i, m.Name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.fail(ashlar.NoAttr, m.Name)
	}
	return &wire.XattrReply{Value: x.Value}, nil
}

// setXattr evaluates wire.SetXattr.
func (o *op) setXattr(m *wire.SetXattr) (wire.Message, error) {
	o.name = "setxattr"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	if m.Flags&^(wire.XattrCreate|wire.XattrReplace|wire.XattrKillSetgid) != 0 {
		return nil, o.fail(ashlar.Invalid, "flags")
	}
	if err := o.checkXattr(i, m.Name, true); err != nil {
		return nil, err
	}
	if len(m.Value) > ashlar.XattrValueMax {
		return nil, o.fail(ashlar.TooBig, m.Name)
	}
	if aclFlags[m.Name] != 0 {
		changed, err := o.setACL(i, m.Name, m.Value, m.Flags&wire.XattrKillSetgid != 0)
		if err != nil {
			return nil, err
		}
		if !changed {
			return &wire.Empty{}, nil
		}
		return o.xattrsChanged(i, m.Name)
	}
	old, ok, err := o.findXattr(i, m.Name)
	switch {
	case err != nil:
		return nil, err
	case ok && m.Flags&wire.XattrCreate != 0:
		return nil, o.fail(ashlar.Exist, m.Name)
	case !ok && m.Flags&wire.XattrReplace != 0:
		return nil, o.fail(ashlar.NoAttr, m.Name)
	case !ok && i.Xattrs >= XattrsMax:
		return nil, o.fail(ashlar.NoSpace, "too many attributes")
	}
	if ok && bytes.Equal(old.Value, m.Value) {
		return &wire.Empty{}, nil // nothing changes, ctime neither
	}
	if !ok {
		i.Xattrs++
	}
	x := Xattr{Value: m.Value}
	o.tx.Set(key.Xattr(m.Inode, m.Name), key.EncodeSize(&x, 8+len(m.Value)))
	if m.Name == capability {
		i.Attr.Flags |= ashlar.HasCapability
	}
	return o.xattrsChanged(i, m.Name)
}

// xattrsChanged ends a change of an attribute.
func (o *op) xattrsChanged(i *Inode, name string) (wire.Message, error) {
	i.Attr.Ctime = o.env.Now
	o.put(i)
	o.say(o.name).sayName(i.Attr.Inode, name)
	return &wire.Empty{}, nil
}

// listXattr evaluates wire.ListXattr.
func (o *op) listXattr(m *wire.ListXattr) (wire.Message, error) {
	o.name = "listxattr"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	r := &wire.ListXattrReply{}
	if i.Xattrs == 0 {
		return r, nil
	}
	root := o.cred.UID == 0
	lo, hi := key.Range64(key.KindXattr, m.Inode)
	o.tx.Scan(lo, hi, func(k, _ []byte) bool {
		name := string(k[len(lo):])
		if root || !strings.HasPrefix(name, "trusted.") {
			r.Names = append(r.Names, name)
		}
		return true
	})
	return r, nil
}

// removeXattr evaluates wire.RemoveXattr.
func (o *op) removeXattr(m *wire.RemoveXattr) (wire.Message, error) {
	o.name = "removexattr"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	if err := o.checkXattr(i, m.Name, true); err != nil {
		return nil, err
	}
	if aclFlags[m.Name] != 0 {
		return o.removeACL(i, m.Name)
	}
	if _, ok, err := o.findXattr(i, m.Name); err != nil {
		return nil, err
	} else if !ok {
		return nil, o.fail(ashlar.NoAttr, m.Name)
	}
	o.tx.Delete(key.Xattr(m.Inode, m.Name))
	i.Xattrs--
	if m.Name == capability {
		i.Attr.Flags &^= ashlar.HasCapability
	}
	return o.xattrsChanged(i, m.Name)
}

// removeACL removes a list; there may be none.
func (o *op) removeACL(i *Inode, name string) (wire.Message, error) {
	if !o.owns(i) {
		return nil, o.fail(ashlar.NotOwner, name)
	}
	if i.Attr.Flags&aclFlags[name] == 0 {
		return &wire.Empty{}, nil
	}
	o.storeACL(i, name, nil)
	return o.xattrsChanged(i, name)
}
