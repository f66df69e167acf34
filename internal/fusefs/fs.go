package fusefs

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
)

// Options are how a volume is mounted.
type Options struct {
	// Source is what df shows.
	Source string
	// Dir is where to mount.
	Dir      string
	ReadOnly bool
	// Timeout makes the mount soft: a request that takes longer fails. 0 waits
	// for ever.
	Timeout time.Duration
	// AttrTimeout and EntryTimeout bound how long the kernel keeps attributes,
	// and names, while the leases they are known under hold.
	AttrTimeout  time.Duration
	EntryTimeout time.Duration
	// AccessTimes says which reads change access times.
	AccessTimes AccessTimes
	// OwnerOnly refuses users other than the one who mounts.
	OwnerOnly bool
	// Extra are mount options for the kernel, such as noexec.
	Extra  []string
	Logger *slog.Logger
}

// The defaults of Options, and limits.
const (
	DefaultTimeout = time.Minute
	// RequestMax is the largest read or write, in bytes.
	RequestMax = 1 << 20
	// readAheadKB is how far the kernel reads ahead, in KiB.
	readAheadKB = 4096
	// backgroundMax is the most requests the kernel has under way that nobody
	// waits for (read-ahead, asynchronous I/O).
	backgroundMax = 64
	// blockSize is the size of I/O that programs are advised to use, in bytes.
	blockSize = 128 << 10
)

// filesystem answers the kernel's requests.
type filesystem struct {
	fuse.RawFileSystem
	o  Options
	fs *file.FS
	// server is where the kernel is told things, nil before and after the mount.
	server atomic.Pointer[fuse.Server]
	files  table[*openFile]
	dirs   table[*openDir]
	shown  shown
	told   told
	device device
	below  below
	gone   graves
}

// String names the file system in the kernel's list of mounts.
func (f *filesystem) String() string { return "ashlar" }

// Init implements fuse.RawFileSystem.
func (f *filesystem) Init(s *fuse.Server) { f.server.Store(s) }

// OnUnmount implements fuse.RawFileSystem: there is nobody to tell any more.
func (f *filesystem) OnUnmount() {
	f.server.Store(nil)
	f.device.close()
	f.below.close()
}

// rootNode is the kernel's number of the root directory.
const rootNode = fuse.FUSE_ROOT_ID

// node returns the kernel's number of an inode: the same, but for the root,
// which changes places with inode 1.
func (f *filesystem) node(ino ashlar.Inode) uint64 {
	switch root := f.fs.Root(); ino {
	case root:
		return rootNode
	case rootNode:
		return uint64(root)
	}
	return uint64(ino)
}

// inode is the inverse of node.
func (f *filesystem) inode(node uint64) ashlar.Inode {
	return ashlar.Inode(f.node(ashlar.Inode(node))) // the exchange is its own inverse
}

// context returns the context of one request.
func (f *filesystem) context() (context.Context, context.CancelFunc) {
	if f.o.Timeout > 0 {
		return context.WithTimeout(context.Background(), f.o.Timeout)
	}
	return context.Background(), func() {}
}

// cred is on whose behalf a request is. The kernel has checked permissions.
func cred(h *fuse.InHeader) ashlar.Cred {
	return ashlar.Cred{UID: h.Uid, GID: h.Gid, Checked: true}
}
