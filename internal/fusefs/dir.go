package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// readdirBatch is how many entries are asked for at once.
const readdirBatch = 1024

// openDir is a directory open by the kernel. Positions are 0 before ".", 1
// before "..", and 2 more than the leader's cookies from then on.
type openDir struct {
	mu    sync.Mutex
	reply *wire.ReaddirReply // the last batch
	after uint64             // the cookie it begins after
	plus  bool
}

const dots = 2

// OpenDir implements fuse.RawFileSystem.
func (f *filesystem) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.Fh = f.dirs.add(&openDir{})
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) { f.dirs.remove(in.Fh) }

// FsyncDir implements fuse.RawFileSystem: every answered change of a name is
// durable (I-1).
func (f *filesystem) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// ReadDir implements fuse.RawFileSystem.
func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readdir(in, false, func(d *wire.DirEntry, off uint64) bool {
		return out.AddDirEntry(dirent(d, off))
	})
}

// ReadDirPlus implements fuse.RawFileSystem.
func (f *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readdir(in, true, func(d *wire.DirEntry, off uint64) bool {
		e := out.AddDirLookupEntry(dirent(d, off))
		if e == nil {
			return false
		}
		if d.Name != "." && d.Name != ".." { // those stay without a node
			f.entry("readdir", f.inode(in.NodeId), d.Name, e, d.Attr, nil)
			if e.EntryTimeout() == 0 || e.AttrTimeout() == 0 { // of a batch asked for before something changed
				*e = fuse.EntryOut{}
			}
		}
		return true
	})
}

func dirent(d *wire.DirEntry, off uint64) fuse.DirEntry {
	return fuse.DirEntry{Name: d.Name, Ino: uint64(d.Inode), Mode: uint32(d.Type) << 12, Off: off}
}

// readdir gives add the entries from a position on, until it has no room.
func (f *filesystem) readdir(in *fuse.ReadIn, plus bool, add func(d *wire.DirEntry, off uint64) bool) fuse.Status {
	d, ok := f.dirs.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	ctx, cancel := f.context()
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.Offset == 0 {
		d.reply = nil // from the start: look again
	}
	for pos := in.Offset; ; {
		after := uint64(0)
		if pos > dots {
			after = pos - dots
		}
		if d.reply == nil || plus && !d.plus || !d.covers(after) {
			r, err := f.fs.Readdir(ctx, cred(&in.InHeader), &wire.Readdir{
				Inode: f.inode(in.NodeId), Cookie: after, Limit: readdirBatch, Plus: plus,
			})
			if err != nil {
				return f.status("readdir", err)
			}
			d.reply, d.after, d.plus = r, after, plus
		}
		f.accessed(d.reply.Dir.Attr, in.Flags)
		for ; pos < dots; pos++ {
			e := wire.DirEntry{Name: ".", Inode: f.inode(in.NodeId), Type: ashlar.TypeDir}
			if pos == 1 {
				e.Name, e.Inode = "..", d.reply.Parent
			}
			if !add(&e, pos+1) {
				return fuse.OK
			}
		}
		for k := range d.reply.Entries {
			e := &d.reply.Entries[k]
			if e.Cookie <= after {
				continue
			}
			if !add(e, e.Cookie+dots) {
				return fuse.OK
			}
			after, pos = e.Cookie, e.Cookie+dots
		}
		if d.reply.EOF {
			return fuse.OK
		}
	}
}

// covers tells whether the batch has entries after a cookie, or shows that
// there are none.
func (d *openDir) covers(after uint64) bool {
	if after < d.after {
		return false
	}
	n := len(d.reply.Entries)
	return d.reply.EOF || n > 0 && d.reply.Entries[n-1].Cookie > after
}
