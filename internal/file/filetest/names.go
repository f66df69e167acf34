package filetest

import (
	"fmt"
	"sort"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func typeName(v any) string { return fmt.Sprintf("%T", v) }

func (c *Cluster) lookup(parent ashlar.Inode, name string) (*node, error) {
	d, err := c.dir(parent)
	if err != nil {
		return nil, err
	}
	switch name {
	case ".":
		return d, nil
	case "..":
		return c.nodes[d.parent], nil
	}
	if len(name) > ashlar.NameMax {
		return nil, e(ashlar.NameTooLong, name)
	}
	de := d.names[name]
	if de == nil {
		return nil, e(ashlar.NotExist, name)
	}
	return c.nodes[de.ino], nil
}

func (c *Cluster) enter(d *node, name string, n *node) {
	d.cookie++
	d.names[name] = &dent{n.attr.Inode, d.cookie}
	if n.attr.Type == ashlar.TypeDir {
		n.parent = d.attr.Inode
	}
	d.attr.Mtime = c.tick()
	d.attr.Ctime = d.attr.Mtime
	d.attr.Version++
}

func (c *Cluster) make(cl *Client, cred ashlar.Cred, m *wire.Make) (*node, bool, error) {
	d, err := c.dir(m.Parent)
	if err != nil {
		return nil, false, err
	}
	if len(m.Name) > ashlar.NameMax {
		return nil, false, e(ashlar.NameTooLong, m.Name)
	}
	if de := d.names[m.Name]; de != nil {
		n := c.nodes[de.ino]
		switch {
		case m.Exclusive || m.Type != ashlar.TypeFile:
			return nil, false, e(ashlar.Exist, m.Name)
		case n.attr.Type == ashlar.TypeDir:
			return nil, false, e(ashlar.IsDir, m.Name)
		}
		if m.Open {
			c.register(cl, de.ino)
		}
		return n, false, nil
	}
	c.next++
	now := c.tick()
	n := &node{
		attr: ashlar.Attr{
			Inode: ashlar.Inode(1<<52 | c.next), Gen: 1, Type: m.Type, Mode: m.Mode &^ m.Umask, Nlink: 1, UID: cred.UID, GID: cred.GID,
			Rdev: m.Rdev, Size: uint64(len(m.Target)), Atime: now, Mtime: now, Ctime: now, Btime: now, Version: 1,
		},
		target: m.Target, xattrs: map[string][]byte{},
	}
	switch m.Type {
	case ashlar.TypeDir:
		n.names, n.attr.Nlink = map[string]*dent{}, 2
		d.attr.Nlink++
	case ashlar.TypeFile:
		c.fresh(n)
	}
	c.nodes[n.attr.Inode] = n
	c.enter(d, m.Name, n)
	if m.Open {
		c.register(cl, n.attr.Inode)
	}
	return n, true, nil
}

func (c *Cluster) link(m *wire.Link) (*node, error) {
	d, err := c.dir(m.Parent)
	if err != nil {
		return nil, err
	}
	n := c.nodes[m.Inode]
	switch {
	case n == nil || n.attr.Nlink == 0:
		return nil, e(ashlar.NotExist, "inode")
	case n.attr.Type == ashlar.TypeDir:
		return nil, e(ashlar.NotOwner, "directory")
	case d.names[m.Name] != nil:
		return nil, e(ashlar.Exist, m.Name)
	}
	n.attr.Nlink++
	n.attr.Ctime = c.tick()
	c.enter(d, m.Name, n)
	return n, nil
}

func (c *Cluster) remove(m *wire.Remove) (*node, error) {
	n, err := c.lookup(m.Parent, m.Name)
	if err != nil {
		return nil, err
	}
	isDir := n.attr.Type == ashlar.TypeDir
	switch {
	case m.Dir && !isDir:
		return nil, e(ashlar.NotDir, m.Name)
	case !m.Dir && isDir:
		return nil, e(ashlar.IsDir, m.Name)
	case m.Dir && len(n.names) > 0:
		return nil, e(ashlar.NotEmpty, m.Name)
	}
	c.unlink(c.nodes[m.Parent], m.Name, n)
	return n, nil
}

func (c *Cluster) unlink(d *node, name string, n *node) {
	delete(d.names, name)
	d.attr.Version++
	d.attr.Mtime = c.tick()
	d.attr.Ctime = d.attr.Mtime
	n.attr.Ctime = d.attr.Mtime
	if n.attr.Type == ashlar.TypeDir {
		d.attr.Nlink--
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
	}
	c.reap(n.attr.Inode)
}

func (c *Cluster) rename(m *wire.Rename) (*node, error) {
	from, err := c.dir(m.OldParent)
	if err != nil {
		return nil, err
	}
	to, err := c.dir(m.NewParent)
	if err != nil {
		return nil, err
	}
	n, err := c.lookup(m.OldParent, m.OldName)
	if err != nil {
		return nil, err
	}
	var old *node
	if de := to.names[m.NewName]; de != nil {
		old = c.nodes[de.ino]
	}
	switch {
	case m.Flags&wire.RenameExchange != 0 && old == nil:
		return nil, e(ashlar.NotExist, m.NewName)
	case m.Flags&wire.RenameExchange != 0:
		c.enter(from, m.OldName, old)
		c.enter(to, m.NewName, n)
		return n, nil
	case m.Flags&wire.RenameNoReplace != 0 && old != nil:
		return nil, e(ashlar.Exist, m.NewName)
	case old == n:
		return n, nil
	case old != nil && old.attr.Type == ashlar.TypeDir && len(old.names) > 0:
		return nil, e(ashlar.NotEmpty, m.NewName)
	}
	if old != nil {
		c.unlink(to, m.NewName, old)
	}
	delete(from.names, m.OldName)
	from.attr.Version++
	n.attr.Ctime = c.tick()
	if n.attr.Type == ashlar.TypeDir {
		from.attr.Nlink--
		to.attr.Nlink++
	}
	c.enter(to, m.NewName, n)
	return n, nil
}

func (c *Cluster) setattr(m *wire.SetAttr) (*node, error) {
	n := c.nodes[m.Inode]
	if n == nil {
		return nil, e(ashlar.Stale, "inode")
	}
	now := c.tick()
	a := &n.attr
	if m.Valid&wire.SetMode != 0 {
		a.Mode = m.Mode
	}
	if m.Valid&wire.SetUID != 0 {
		a.UID = m.UID
	}
	if m.Valid&wire.SetGID != 0 {
		a.GID = m.GID
	}
	if m.Valid&wire.SetSize != 0 {
		c.resize(n, m.Size)
	}
	if m.Valid&wire.SetAtime != 0 {
		a.Atime = m.Atime
	}
	if m.Valid&wire.SetAtimeNow != 0 {
		a.Atime = now
	}
	if m.Valid&(wire.SetMtime|wire.SetMtimeNow) != 0 {
		a.Mtime = m.Mtime
		if m.Valid&wire.SetMtimeNow != 0 {
			a.Mtime = now
		}
		if m.Valid&wire.SetSize == 0 {
			a.Version++
		}
	}
	a.Ctime = now
	return n, nil
}

func (c *Cluster) xattr(body, reply wire.Message) error {
	var n *node
	find := func(ino ashlar.Inode) error {
		if n = c.nodes[ino]; n == nil {
			return e(ashlar.Stale, "inode")
		}
		return nil
	}
	switch m := body.(type) {
	case *wire.GetXattr:
		if err := find(m.Inode); err != nil {
			return err
		}
		v, ok := n.xattrs[m.Name]
		if !ok {
			return e(ashlar.NoAttr, m.Name)
		}
		reply.(*wire.XattrReply).Value = v
	case *wire.SetXattr:
		if err := find(m.Inode); err != nil {
			return err
		}
		_, ok := n.xattrs[m.Name]
		if ok && m.Flags == wire.XattrCreate {
			return e(ashlar.Exist, m.Name)
		}
		if !ok && m.Flags == wire.XattrReplace {
			return e(ashlar.NoAttr, m.Name)
		}
		n.xattrs[m.Name] = append([]byte(nil), m.Value...)
		n.attr.Ctime = c.tick()
		if m.Name == "security.capability" {
			n.attr.Flags |= ashlar.HasCapability
		}
	case *wire.ListXattr:
		if err := find(m.Inode); err != nil {
			return err
		}
		r := reply.(*wire.ListXattrReply)
		for k := range n.xattrs {
			r.Names = append(r.Names, k)
		}
		sort.Strings(r.Names)
	case *wire.RemoveXattr:
		if err := find(m.Inode); err != nil {
			return err
		}
		if _, ok := n.xattrs[m.Name]; !ok {
			return e(ashlar.NoAttr, m.Name)
		}
		delete(n.xattrs, m.Name)
		n.attr.Ctime = c.tick()
		if m.Name == "security.capability" {
			n.attr.Flags &^= ashlar.HasCapability
		}
	}
	return nil
}
