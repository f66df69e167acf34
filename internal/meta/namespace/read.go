package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// lookup evaluates wire.Lookup.
func (o *op) lookup(m *wire.Lookup) (wire.Message, error) {
	o.name = "lookup"
	dir, err := o.directory(m.Parent)
	if err != nil {
		return nil, err
	}
	switch m.Name {
	case ".":
		return o.entry(dir), nil
	case "..":
		up, err := o.inode(dir.Parent)
		if err != nil {
			return nil, err
		}
		return o.entry(up), nil
	}
	if err := o.checkName(m.Name); err != nil {
		return nil, err
	}
	d, ok, err := o.find(dir, m.Name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.fail(ashlar.NotExist, m.Name)
	}
	i, err := o.child(&d)
	if err != nil {
		return nil, err
	}
	e := o.entry(i)
	e.Also = []wire.Leased{{Attr: dir.Attr}}
	return e, nil
}

// getAttr evaluates wire.GetAttr.
func (o *op) getAttr(m *wire.GetAttr) (wire.Message, error) {
	o.name = "getattr"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	return o.entry(i), nil
}

// readlink evaluates wire.Readlink.
func (o *op) readlink(m *wire.Readlink) (wire.Message, error) {
	o.name = "readlink"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	if i.Attr.Type != ashlar.TypeSymlink {
		return nil, o.fail(ashlar.Invalid, "not a symbolic link")
	}
	return &wire.ReadlinkReply{Target: i.Target}, nil
}

// access evaluates wire.Access; it asks, so Cred.Checked means nothing.
func (o *op) access(m *wire.Access) (wire.Message, error) {
	o.name = "access"
	i, err := o.inode(m.Inode)
	switch {
	case err != nil:
		return nil, err
	case m.Mask > mayRead|mayWrite|mayExec:
		return nil, o.fail(ashlar.Invalid, "mask")
	}
	if err := o.check(i, uint16(m.Mask)); err != nil {
		return nil, err
	}
	return &wire.Empty{}, nil
}

// readdirBytes bounds an answer well below a frame's body.
const readdirBytes = 2 << 20

// readdir evaluates wire.Readdir. With Plus the caller must also be able to
// search the directory; one that is not asks without.
func (o *op) readdir(m *wire.Readdir) (wire.Message, error) {
	o.name = "readdir"
	dir, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	if dir.Attr.Type != ashlar.TypeDir {
		return nil, o.fail(ashlar.NotDir, "")
	}
	mask := uint16(mayRead)
	if m.Plus {
		mask |= mayExec
	}
	if err := o.may(dir, mask); err != nil {
		return nil, err
	}
	r := &wire.ReaddirReply{Plus: m.Plus, Parent: dir.Parent, Dir: wire.Leased{Attr: dir.Attr}}
	if dir.Entries == 0 || m.Cookie >= dir.NextCookie {
		r.EOF = true
		return r, nil
	}
	if err := o.list(r, m); err != nil {
		return nil, err
	}
	if m.Plus {
		return r, o.listAttrs(r)
	}
	return r, nil
}

// list fills in names by cookie.
func (o *op) list(r *wire.ReaddirReply, m *wire.Readdir) error {
	limit := int(m.Limit)
	if limit == 0 || limit > wire.ReaddirMax {
		limit = wire.ReaddirMax
	}
	_, hi := key.Range64(key.KindCookie, m.Inode)
	var failed error
	size := 0
	r.EOF = true
	o.tx.Scan(key.Cookie(m.Inode, m.Cookie+1), hi, func(k, v []byte) bool {
		if len(r.Entries) == limit || size > readdirBytes {
			r.EOF = false
			return false
		}
		var l Listed
		if failed = key.Decode(v, &l); failed != nil {
			failed = ashlar.E(o.name, ashlar.Corrupt, key.String(k), failed)
			return false
		}
		r.Entries = append(r.Entries, wire.DirEntry{
			Name: l.Name, Inode: l.Inode, Type: l.Type, Cookie: key.Tail64(k, 1),
		})
		size += 300 + len(l.Name)
		return true
	})
	return failed
}

func (o *op) listAttrs(r *wire.ReaddirReply) error {
	for n := range r.Entries {
		e := &r.Entries[n]
		i, err := o.child(&Dentry{Inode: e.Inode})
		if err != nil {
			return err
		}
		e.Attr, e.Object, e.Unsettled = i.Attr, i.Object, i.Cutting
	}
	return nil
}

// statFS evaluates wire.StatFS.
func (o *op) statFS(m *wire.StatFS) (wire.Message, error) {
	o.name = "statfs"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	vol, err := o.volumeOf(i)
	if err != nil {
		return nil, err
	}
	var u Usage
	if _, err := key.Load(o.tx, key.Usage(ashlar.PartitionOf(m.Inode), i.Volume), &u); err != nil {
		return nil, err
	}
	r := &wire.StatFSReply{Used: u.Bytes, Inodes: u.Inodes}
	r.Total, r.Free = o.env.Space.Space(vol.Pool)
	return r, nil
}
