package fusefs

import (
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
)

// bareTable remembers, for as long as the kernel keeps attributes, which
// inodes have no access control lists and no capability: the kernel asks for
// them at nearly every look at a file, and nearly none has any.
type bareTable struct {
	timeout time.Duration

	mu sync.Mutex
	m  map[ashlar.Inode]bareEntry
}

// bareMax is how many inodes are remembered.
const bareMax = 1 << 16

type bareEntry struct {
	flags uint8
	until time.Time
}

// unsure says that an inode may have any.
const unsure = 0xff

// flagOf says by what attributes tell that there is such an extended one.
var flagOf = map[string]uint8{
	"system.posix_acl_access": ashlar.HasACL, "system.posix_acl_default": ashlar.HasDefaultACL,
	"security.capability": ashlar.HasCapability,
}

// saw is told of attributes that were just asked for.
func (t *bareTable) saw(a *ashlar.Attr) {
	if t.timeout <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[ashlar.Inode]bareEntry{}
	}
	now := time.Now()
	old, ok := t.m[a.Inode]
	if ok && old.flags == unsure && a.Flags != unsure && now.Before(old.until) {
		return
	}
	if !ok && len(t.m) >= bareMax {
		for k := range t.m { // any one
			delete(t.m, k)
			break
		}
	}
	t.m[a.Inode] = bareEntry{a.Flags, now.Add(t.timeout)}
}

// without tells whether an inode is known to have no attribute of a name.
func (t *bareTable) without(ino ashlar.Inode, name string) bool {
	flag := flagOf[name]
	if flag == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.m[ino]
	return ok && e.flags&flag == 0 && time.Now().Before(e.until)
}

// forget drops what is known of an inode that was changed. Answers that are
// still on their way may be from before: nothing is taken for a while.
func (t *bareTable) forget(ino ashlar.Inode) {
	t.saw(&ashlar.Attr{Inode: ino, Flags: unsure})
}
