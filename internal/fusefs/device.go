package fusefs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is the file that a mount is served through, beside the library, which
// has no call for two things: to have a name asked for again but not dropped; and
// a new epoch, in which the kernel asks again for every name (Linux 6.16), and
// which needs no lock as the others do.
type device struct {
	mu sync.RWMutex // shared while something is told
	fd int          // 0 for none
}

// opening keeps mounts apart: each finds the device that it has opened.
var opening sync.Mutex

// open runs mount, which opens the kernel's device, and keeps a copy of that.
func (d *device) open(mount func() error) error {
	opening.Lock()
	defer opening.Unlock()
	before := devices()
	if err := mount(); err != nil {
		return err
	}
	var found []int
	for fd := range devices() {
		if !before[fd] {
			found = append(found, fd)
		}
	}
	if len(found) != 1 { // it is done without
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(found[0]), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		d.mu.Lock()
		d.fd = fd
		d.mu.Unlock()
	}
	return nil
}

// devices returns the descriptors of this process that FUSE is served through.
func devices() map[int]bool {
	out := map[int]bool{}
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		if to, err := os.Readlink(name); err != nil || to != "/dev/fuse" {
			continue
		}
		fd := 0
		for _, c := range filepath.Base(name) {
			fd = 10*fd + int(c-'0')
		}
		out[fd] = true
	}
	return out
}

// newEpoch has the kernel ask again for every name, and tells whether it can.
func (d *device) newEpoch() bool { return d.notify(incEpoch, nil) }

// expire has the kernel ask again for one name, for which it waits for the lock
// of the directory. Before Linux 6.2 it drops the name.
//
//	directory            8 bytes
//	length of the name   4
//	FUSE_EXPIRE_ONLY     4
//	name, 0
func (d *device) expire(dir uint64, name string) bool {
	m := binary.NativeEndian.AppendUint64(nil, dir)
	m = binary.NativeEndian.AppendUint32(m, uint32(len(name)))
	m = binary.NativeEndian.AppendUint32(m, fuse.EXPIRE_ONLY)
	m = append(append(m, name...), 0)
	return d.notify(invalEntry, m)
}

// What the kernel is told, FUSE_NOTIFY_INVAL_ENTRY and FUSE_NOTIFY_INC_EPOCH.
const (
	invalEntry = 3
	incEpoch   = 8
)

// notify tells the kernel something, and whether it knows what that is.
//
//	length of all   4 bytes
//	what            4
//	0               8
//	the rest
func (d *device) notify(what uint32, rest []byte) bool {
	m := make([]byte, 16, 16+len(rest))
	binary.NativeEndian.PutUint32(m, uint32(len(m)+len(rest)))
	binary.NativeEndian.PutUint32(m[4:], what)
	m = append(m, rest...)
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.fd == 0 {
		return false
	}
	_, err := unix.Write(d.fd, m)
	return err == nil || err == unix.ENOENT // it does not hold that any more
}

// close gives the copy up.
func (d *device) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd != 0 {
		_ = unix.Close(d.fd) // nothing was buffered
		d.fd = 0
	}
}
