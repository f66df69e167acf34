package fusefs

import (
	"errors"
	"sync"

	"github.com/ashlarfs/ashlar"
)

// graves remembers what was removed here last. Somebody may still stand in a
// directory that is gone, or hold a file without having opened it (O_PATH): a
// local file system goes on telling what it was.
type graves struct {
	mu   sync.Mutex
	m    map[ashlar.Inode]ashlar.Attr
	list []ashlar.Inode // a ring, oldest at next
	next int
}

// gravesMax is how many are remembered.
const gravesMax = 1024

// bury is told of attributes of what has lost a name.
func (g *graves) bury(a *ashlar.Attr) {
	if a.Nlink > 0 || a.Inode == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		g.m = map[ashlar.Inode]ashlar.Attr{}
	}
	if len(g.list) < gravesMax {
		g.list = append(g.list, a.Inode)
	} else {
		delete(g.m, g.list[g.next])
		g.list[g.next] = a.Inode
		g.next = (g.next + 1) % gravesMax
	}
	g.m[a.Inode] = *a
}

// visit puts what was buried in the place of an error that says it is gone.
func (g *graves) visit(ino ashlar.Inode, a ashlar.Attr, err error) (ashlar.Attr, error) {
	if !errors.Is(err, ashlar.Stale) {
		return a, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.m[ino]; ok {
		return old, nil
	}
	return a, err
}
