package fusefs

import (
	"bufio"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// below tells whether something is mounted within this mount, as far as this
// process can see: what the kernel drops a name for good of, it unmounts from
// there, too.
type below struct {
	mu     sync.Mutex
	device string // of the mount, major:minor; "" before that is known
	list   *os.File
	any    bool
}

// serve begins it for a device.
func (b *below) serve(device string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.device = device
}

// found tells whether something is. The kernel's list of mounts is read when it
// has changed.
func (b *below) found() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.device == "" {
		return false
	}
	if b.list == nil {
		list, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return b.any
		}
		b.list = list
	} else {
		p := []unix.PollFd{{Fd: int32(b.list.Fd()), Events: unix.POLLPRI}}
		if n, err := unix.Poll(p, 0); err == nil && n == 0 {
			return b.any
		}
	}
	if _, err := b.list.Seek(0, io.SeekStart); err == nil {
		b.any = mountedOn(b.list, b.device)
	}
	return b.any
}

// close ends it.
func (b *below) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.device = ""
	if b.list != nil {
		b.list.Close()
		b.list = nil
	}
}

// mountedOn tells whether a mount of a list (scanMounts) is on one of a device.
func mountedOn(r io.Reader, device string) bool {
	of, parents := map[string]bool{}, []string{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 3 {
			continue
		}
		if parents = append(parents, f[1]); f[2] == device {
			of[f[0]] = true
		}
	}
	for _, p := range parents {
		if of[p] {
			return true
		}
	}
	return false
}
