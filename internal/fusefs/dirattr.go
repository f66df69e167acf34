package fusefs

import (
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
)

// dirAttrs remembers attributes of directories for as long as the kernel
// would. The kernel forgets them whenever it has changed a name, and asks for
// them before the next: to look whether it may change names there, it fetches
// everything. What a change of a name here makes of them is known, though:
// the times are those of the change. What others changed shows as late as it
// does in the kernel's own cache, after Options.AttrTimeout.
//
// Answers that were on their way while a name was changed are not kept: they
// may be from before.
type dirAttrs struct {
	timeout time.Duration

	mu sync.Mutex
	m  map[ashlar.Inode]*dirAttr
}

// dirAttrsMax is how many directories are remembered.
const dirAttrsMax = 4096

// dirAttr is what is remembered of one; guarded by dirAttrs.mu.
type dirAttr struct {
	attr     ashlar.Attr
	until    time.Time // zero while nothing is known
	changes  uint64    // begun or ended so far
	changing int       // under way
}

// entry returns a directory's, made if needed. mu must be held.
func (c *dirAttrs) entry(dir ashlar.Inode) *dirAttr {
	if d := c.m[dir]; d != nil {
		return d
	}
	if c.m == nil {
		c.m = map[ashlar.Inode]*dirAttr{}
	}
	if len(c.m) >= dirAttrsMax {
		for k, old := range c.m {
			if old.changing == 0 { // any one
				delete(c.m, k)
				break
			}
		}
	}
	d := &dirAttr{}
	c.m[dir] = d
	return d
}

// get returns a directory's attributes and how long they may be kept.
func (c *dirAttrs) get(dir ashlar.Inode) (a ashlar.Attr, left time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.m[dir]
	if d == nil || d.until.IsZero() {
		return a, 0, false
	}
	if left = time.Until(d.until); left <= 0 {
		return a, 0, false
	}
	return d.attr, left, true
}

// asking is a request for attributes on its way.
type asking struct {
	d       *dirAttr
	changes uint64
	at      time.Time
}

// ask is called before a directory's attributes are asked for.
func (c *dirAttrs) ask(dir ashlar.Inode) asking {
	if c.timeout <= 0 {
		return asking{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.m[dir]
	if d == nil {
		return asking{} // no name was changed in it
	}
	return asking{d, d.changes, time.Now()}
}

// answered keeps the answer to ask.
func (c *dirAttrs) answered(q asking, a *ashlar.Attr) {
	if q.d == nil || a.Type != ashlar.TypeDir {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m[a.Inode] != q.d || q.d.changes != q.changes || q.d.changing > 0 {
		return
	}
	q.d.attr, q.d.until = *a, q.at.Add(c.timeout)
}

// change is called before a name in dir is changed; done must follow.
func (c *dirAttrs) change(dir ashlar.Inode) *dirAttr {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.entry(dir)
	d.changes++
	d.changing++
	return d
}

// done ends a change. at is its time if nothing but the directory's times is
// changed by it, otherwise 0: then they are forgotten.
func (c *dirAttrs) done(d *dirAttr, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.changes++
	d.changing--
	if at == 0 {
		d.until = time.Time{}
	} else if at > d.attr.Ctime { // not overtaken by a later change
		d.attr.Mtime, d.attr.Ctime = at, at
	}
}

// saw is told of attributes that came with a name. If they are newer than
// what is remembered, that is dropped: time does not go back.
func (c *dirAttrs) saw(a *ashlar.Attr) {
	if a.Type != ashlar.TypeDir {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.m[a.Inode]; d != nil && a.Ctime > d.attr.Ctime {
		d.until = time.Time{}
	}
}

// forget drops what is known of an inode.
func (c *dirAttrs) forget(ino ashlar.Inode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.m[ino]; d != nil {
		d.changes++
		d.until = time.Time{}
	}
}

// changedAt returns for done the time of a change that yielded a, if a is of
// something other than a directory.
func changedAt(a *ashlar.Attr, err error) int64 {
	if err != nil || a.Type == ashlar.TypeDir {
		return 0
	}
	return a.Ctime
}
