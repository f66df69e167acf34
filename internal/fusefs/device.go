package fusefs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// device is the file that a mount is served through, beside the library, which
// has no call for one thing: a new epoch, in which the kernel asks again for
// every name (Linux 6.16). Other than to drop a name that needs no lock.
type device struct {
	mu sync.Mutex
	fd int // 0 for none
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
//
//	length of this, 16   4 bytes
//	FUSE_NOTIFY_INC_EPOCH 4
//	0                    8
func (d *device) newEpoch() bool {
	const incEpoch = 8
	m := make([]byte, 16)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint32(m[4:], incEpoch)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd == 0 {
		return false
	}
	_, err := unix.Write(d.fd, m)
	return err == nil
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
