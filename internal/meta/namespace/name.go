package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// find reads the dentry of a name.
func (o *op) find(dir *Inode, name string) (d Dentry, ok bool, err error) {
	ok, err = key.Load(o.tx, key.Dentry(dir.Attr.Inode, name), &d)
	return d, ok, err
}

// child reads the inode of a dentry, which N-2 says is there.
func (o *op) child(d *Dentry) (*Inode, error) {
	i, err := o.inode(d.Inode)
	if ashlar.KindOf(err) == ashlar.Stale {
		return nil, ashlar.E(o.name, ashlar.Corrupt, key.String(key.Inode(d.Inode)), err)
	}
	return i, err
}

// setName writes both keys of a name (N-2).
func (o *op) setName(dir ashlar.Inode, name string, d Dentry) {
	key.Store(o.tx, key.Dentry(dir, name), &d)
	l := Listed{Inode: d.Inode, Type: d.Type, Name: name}
	o.tx.Set(key.Cookie(dir, d.Cookie), key.EncodeSize(&l, 16+len(name)))
}

// addName puts a new name into a directory under its next cookie. The caller
// writes the directory back.
func (o *op) addName(dir *Inode, name string, i *Inode) (cookie uint64) {
	cookie = dir.NextCookie
	dir.NextCookie++
	dir.Entries++
	if i.Attr.Type == ashlar.TypeDir {
		dir.Attr.Nlink++
	}
	o.touch(dir)
	o.setName(dir.Attr.Inode, name, Dentry{Inode: i.Attr.Inode, Type: i.Attr.Type, Cookie: cookie})
	return cookie
}

// dropName takes a name out of a directory. The caller writes the directory
// back.
func (o *op) dropName(dir *Inode, name string, d Dentry) {
	o.tx.Delete(key.Dentry(dir.Attr.Inode, name))
	o.tx.Delete(key.Cookie(dir.Attr.Inode, d.Cookie))
	dir.Entries--
	if d.Type == ashlar.TypeDir {
		dir.Attr.Nlink--
	}
	o.touch(dir)
}

// attach gives an inode one more place (N-3): its home if it has no name yet.
func (o *op) attach(i *Inode, dir ashlar.Inode, cookie uint64, first bool) {
	if first {
		i.Parent, i.Cookie = dir, cookie
		return
	}
	key.StoreMark(o.tx, key.Link(i.Attr.Inode, dir, cookie))
}

// detach takes a place from an inode that has others left, making another one
// its home if need be.
func (o *op) detach(i *Inode, dir ashlar.Inode, cookie uint64) {
	if i.Parent != dir || i.Cookie != cookie {
		o.tx.Delete(key.Link(i.Attr.Inode, dir, cookie))
		return
	}
	var next []byte
	lo, hi := key.Range64(key.KindLink, i.Attr.Inode)
	o.tx.Scan(lo, hi, func(k, _ []byte) bool {
		next = append(next, k...)
		return false
	})
	if next == nil {
		return // its last name
	}
	i.Parent, i.Cookie = ashlar.Inode(key.Tail64(next, 1)), key.Tail64(next, 2)
	o.tx.Delete(next)
}

// relocate moves one place of an inode to another.
func (o *op) relocate(i *Inode, from ashlar.Inode, fromCookie uint64, to ashlar.Inode, toCookie uint64) {
	if i.Parent == from && i.Cookie == fromCookie {
		i.Parent, i.Cookie = to, toCookie
		return
	}
	o.tx.Delete(key.Link(i.Attr.Inode, from, fromCookie))
	key.StoreMark(o.tx, key.Link(i.Attr.Inode, to, toCookie))
}

// unlink takes the place (dir, cookie) from an inode whose name there is gone
// already, and the inode with it if that was its last and nobody has it open.
func (o *op) unlink(i *Inode, dir ashlar.Inode, cookie uint64) {
	if i.Attr.Type == ashlar.TypeDir {
		i.Attr.Nlink = 0
	} else {
		i.Attr.Nlink--
	}
	i.Attr.Ctime = o.env.Now
	switch {
	case i.Attr.Nlink > 0:
		o.detach(i, dir, cookie)
		o.put(i)
	case o.env.Opens.IsOpen(i.Attr.Inode):
		key.StoreMark(o.tx, key.Orphan(i.Attr.Inode))
		o.put(i)
	default:
		o.destroy(i)
	}
}

// destroy removes an inode without names and all that hangs on it; its data
// goes to the delete queue.
func (o *op) destroy(i *Inode) {
	ino := i.Attr.Inode
	o.tx.Delete(key.Inode(ino))
	if i.Xattrs > 0 {
		lo, hi := key.Range64(key.KindXattr, ino)
		var gone [][]byte
		o.tx.Scan(lo, hi, func(k, _ []byte) bool {
			gone = append(gone, append([]byte(nil), k...))
			return true
		})
		for _, k := range gone {
			o.tx.Delete(k)
		}
	}
	if i.Cutting {
		o.tx.Delete(key.Cut(i.Object.Layer))
	}
	o.discard(i)
	o.count(i, -1, i.Attr.Size, 0)
}

// isAncestor tells whether a is d or above d (N-4).
func (o *op) isAncestor(a ashlar.Inode, d *Inode) (bool, error) {
	for {
		if d.Attr.Inode == a {
			return true, nil
		}
		if d.Parent == d.Attr.Inode {
			return false, nil
		}
		up, err := o.inode(d.Parent)
		if err != nil {
			return false, err
		}
		d = up
	}
}

// Path returns a path of an inode within its volume, for people and for
// hints; ok is false if it has no name any more or a directory above it has
// none.
func Path(tx key.Tx, ino ashlar.Inode) (path string, ok bool) {
	o := &op{tx: tx, name: "path"}
	i, err := o.inode(ino)
	if err != nil || i.Attr.Nlink == 0 {
		return "", false
	}
	for i.Parent != i.Attr.Inode && len(path) <= ashlar.PathMax {
		var l Listed
		if ok, err := key.Load(tx, key.Cookie(i.Parent, i.Cookie), &l); !ok || err != nil {
			return "", false
		}
		path = "/" + l.Name + path
		if i, err = o.inode(i.Parent); err != nil {
			return "", false
		}
	}
	if path == "" {
		path = "/"
	}
	return path, len(path) <= ashlar.PathMax
}
