package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// remove evaluates wire.Remove: unlink(2), or rmdir(2) with Dir.
func (o *op) remove(m *wire.Remove) (wire.Message, error) {
	o.name = "unlink"
	if m.Dir {
		o.name = "rmdir"
	}
	dir, err := o.directory(m.Parent)
	if err != nil {
		return nil, err
	}
	switch {
	case special(m.Name) && !m.Dir:
		return nil, o.fail(ashlar.IsDir, m.Name)
	case m.Name == ".":
		return nil, o.fail(ashlar.Invalid, m.Name)
	case m.Name == "..":
		return nil, o.fail(ashlar.NotEmpty, m.Name)
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
	if err := o.mayDelete(dir, i); err != nil {
		return nil, err
	}
	switch {
	case m.Dir && i.Attr.Type != ashlar.TypeDir:
		return nil, o.fail(ashlar.NotDir, m.Name)
	case !m.Dir && i.Attr.Type == ashlar.TypeDir:
		return nil, o.fail(ashlar.IsDir, m.Name)
	case m.Dir && i.Entries > 0:
		return nil, o.fail(ashlar.NotEmpty, m.Name)
	}
	o.dropName(dir, m.Name, d)
	o.unlink(i, dir.Attr.Inode, d.Cookie)
	o.put(dir)
	o.say(o.name).sayName(m.Parent, m.Name).say("inode").sayInode(d.Inode)
	return o.entry(i), nil
}
