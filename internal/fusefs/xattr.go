package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// flagOf says by what attributes tell that there is such an extended one: the
// kernel asks for them at nearly every look at a file, and nearly none has any.
var flagOf = map[string]uint8{
	"system.posix_acl_access": ashlar.HasACL, "system.posix_acl_default": ashlar.HasDefaultACL,
	"security.capability": ashlar.HasCapability,
}

// GetXAttr implements fuse.RawFileSystem. A dest too short gets ERANGE and the
// size, of which an empty one is told the size alone.
func (f *filesystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if flag := flagOf[name]; flag != 0 {
		if a, ok := f.fs.Known(f.inode(h.NodeId)); ok && a.Flags&flag == 0 {
			return 0, fuse.ENODATA
		}
	}
	ctx, cancel := f.context()
	defer cancel()
	v, err := f.fs.GetXattr(ctx, cred(h), f.inode(h.NodeId), name)
	if err != nil {
		return 0, f.status("getxattr", err)
	}
	return copyOut(dest, v)
}

func copyOut(dest, v []byte) (uint32, fuse.Status) {
	if len(v) > len(dest) {
		return uint32(len(v)), fuse.ERANGE
	}
	copy(dest, v)
	return uint32(len(v)), fuse.OK
}

// ListXAttr implements fuse.RawFileSystem.
func (f *filesystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx, cancel := f.context()
	defer cancel()
	names, err := f.fs.ListXattr(ctx, cred(h), f.inode(h.NodeId))
	if err != nil {
		return 0, f.status("listxattr", err)
	}
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	return copyOut(dest, b)
}

// SetXAttr implements fuse.RawFileSystem.
func (f *filesystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	value := append([]byte(nil), data...) // data is reused after a time-out
	flags := in.Flags
	if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		flags |= wire.XattrKillSetgid
	}
	return f.status("setxattr", f.fs.SetXattr(ctx, cred(&in.InHeader), f.inode(in.NodeId), name, value, flags))
}

// RemoveXAttr implements fuse.RawFileSystem.
func (f *filesystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, cancel := f.context()
	defer cancel()
	return f.status("removexattr", f.fs.RemoveXattr(ctx, cred(h), f.inode(h.NodeId), name))
}
