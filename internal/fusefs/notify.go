package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
)

// notifier tells the kernel to drop the cached pages of files that others
// changed. It does so in its own goroutine, because the kernel may first wait
// for requests that it has under way for those pages.
type notifier struct {
	mu      sync.Mutex
	cond    *sync.Cond
	pending map[ashlar.Inode]bool // true while being told
	queue   []ashlar.Inode
	stopped bool
}

func (n *notifier) init() {
	n.cond = sync.NewCond(&n.mu)
	n.pending = map[ashlar.Inode]bool{}
}

// drop schedules an inode; it is file.Options.Changed.
func (n *notifier) drop(ino ashlar.Inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if busy, ok := n.pending[ino]; n.stopped || ok && !busy {
		return
	}
	n.pending[ino] = false
	n.queue = append(n.queue, ino)
	n.cond.Broadcast()
}

// settle waits until the kernel has been told about an inode. Reads and writes
// of data must not wait here: telling waits for them.
func (n *notifier) settle(ino ashlar.Inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.stopped {
		if _, ok := n.pending[ino]; !ok {
			return
		}
		n.cond.Wait()
	}
}

// serve starts telling.
func (n *notifier) serve(s *fuse.Server, node func(ashlar.Inode) uint64) {
	go func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for {
			for len(n.queue) == 0 && !n.stopped {
				n.cond.Wait()
			}
			if n.stopped {
				return
			}
			ino := n.queue[0]
			n.queue = n.queue[1:]
			n.pending[ino] = true
			n.mu.Unlock()
			s.InodeNotify(node(ino), 0, 0) // ENOENT: the kernel holds nothing of it
			n.mu.Lock()
			if n.pending[ino] {
				delete(n.pending, ino)
			}
			n.cond.Broadcast()
		}
	}()
}

func (n *notifier) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
	n.cond.Broadcast()
}
