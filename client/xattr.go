package client

import "github.com/ashlarfs/ashlar"

// Flags of SetXattr, as setxattr(2) numbers them.
const (
	XattrCreate  = 1 // refuse if it is there
	XattrReplace = 2 // refuse if it is not
)

// on calls f with the inode that a name leads to.
func (v *Volume) on(op, name string, f func(ashlar.Inode) error) error {
	a, err := v.find(v.ctx, name, true)
	if err == nil {
		err = f(a.Inode)
	}
	return pathError(op, name, err)
}

// GetXattr reads an extended attribute.
func (v *Volume) GetXattr(name, attr string) (value []byte, err error) {
	err = v.on("getxattr", name, func(i ashlar.Inode) (err error) {
		value, err = v.fs.GetXattr(v.ctx, v.cred, i, attr)
		return err
	})
	return value, err
}

// SetXattr sets an extended attribute.
func (v *Volume) SetXattr(name, attr string, value []byte, flags int) error {
	return v.on("setxattr", name, func(i ashlar.Inode) error {
		return v.fs.SetXattr(v.ctx, v.cred, i, attr, value, uint32(flags))
	})
}

// ListXattr lists the names of extended attributes.
func (v *Volume) ListXattr(name string) (names []string, err error) {
	err = v.on("listxattr", name, func(i ashlar.Inode) (err error) {
		names, err = v.fs.ListXattr(v.ctx, v.cred, i)
		return err
	})
	return names, err
}

// RemoveXattr removes an extended attribute.
func (v *Volume) RemoveXattr(name, attr string) error {
	return v.on("removexattr", name, func(i ashlar.Inode) error {
		return v.fs.RemoveXattr(v.ctx, v.cred, i, attr)
	})
}
