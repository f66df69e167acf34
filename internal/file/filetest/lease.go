package filetest

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Holder gives leases back. file.FS is one.
type Holder interface {
	Recall(ino ashlar.Inode, keep ashlar.LeaseMode) wire.HeldLease
	Returned(inos []ashlar.Inode)
}

// Attach makes h the holder of the session's leases. Without one it gets none
// that anybody would ask back.
func (cl *Client) Attach(h Holder) {
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	cl.holder = h
}

// conflict is a lease that stands against an operation.
type conflict struct {
	cl   *Client
	ino  ashlar.Inode
	keep ashlar.LeaseMode
}

// conflicts returns the leases of others that stand against an operation.
func (c *Cluster) conflicts(cl *Client, body wire.Message) (out []conflict) {
	against := func(ino ashlar.Inode, keep ashlar.LeaseMode) {
		for o, m := range c.leases[ino] {
			if o != cl && m > keep {
				out = append(out, conflict{o, ino, keep})
			}
		}
	}
	child := func(parent ashlar.Inode, name string, keep ashlar.LeaseMode) {
		if n, err := c.lookup(parent, name); err == nil && n != nil {
			against(n.attr.Inode, keep)
		}
	}
	const none, shared = ashlar.LeaseNone, ashlar.LeaseShared
	switch m := body.(type) {
	case *wire.SetAttr:
		against(m.Inode, none)
	case *wire.Commit:
		against(m.Inode, none)
	case *wire.Commits:
		for k := range m.List {
			against(m.List[k].Inode, none)
		}
	case *wire.Grow:
		against(m.Inode, none)
	case *wire.SetXattr:
		against(m.Inode, none)
	case *wire.RemoveXattr:
		against(m.Inode, none)
	case *wire.Make:
		against(m.Parent, none)
		child(m.Parent, m.Name, shared)
	case *wire.Link:
		against(m.Parent, none)
		against(m.Inode, none)
	case *wire.Remove:
		against(m.Parent, none)
		child(m.Parent, m.Name, none)
	case *wire.Rename:
		against(m.OldParent, none)
		against(m.NewParent, none)
		child(m.OldParent, m.OldName, none)
		child(m.NewParent, m.NewName, none)
	case *wire.Open:
		if m.Truncate {
			against(m.Inode, none)
		}
		against(m.Inode, shared)
	case *wire.Lookup:
		child(m.Parent, m.Name, shared)
	case *wire.GetAttr:
		against(m.Inode, shared)
	case *wire.AcquireLease:
		if against(m.Inode, shared); m.Mode == ashlar.LeaseExclusive {
			against(m.Inode, none)
		}
	case *wire.Readdir:
		if d := c.nodes[m.Inode]; d != nil && m.Plus {
			for _, de := range d.names {
				against(de.ino, shared)
			}
		}
	}
	return out
}

// clear has others give back what stands against an operation. c.mu must be
// held; it is let go meanwhile.
func (c *Cluster) clear(cl *Client, body wire.Message) {
	for {
		all := c.conflicts(cl, body)
		if len(all) == 0 {
			return
		}
		c.mu.Unlock()
		for _, x := range all {
			h := wire.HeldLease{Inode: x.ino}
			if x.cl.holder != nil {
				h = x.cl.holder.Recall(x.ino, x.keep)
			}
			c.mu.Lock()
			x.cl.keep(h)
			c.mu.Unlock()
			if x.cl.holder != nil {
				x.cl.holder.Returned([]ashlar.Inode{x.ino})
			}
		}
		c.mu.Lock()
	}
}

// keep records what is left of a lease. c.mu must be held.
func (cl *Client) keep(h wire.HeldLease) {
	c := cl.c
	if h.Open {
		c.register(cl, h.Inode)
	}
	if h.Mode == ashlar.LeaseNone {
		delete(c.leases[h.Inode], cl)
	} else if c.leases[h.Inode][cl] > h.Mode {
		c.leases[h.Inode][cl] = h.Mode
	}
	c.reap(h.Inode)
}

// grant gives a lease if it can be had. c.mu must be held.
func (c *Cluster) grant(cl *Client, a *ashlar.Attr, m ashlar.LeaseMode) ashlar.LeaseMode {
	if a.Type != ashlar.TypeFile {
		m = min(m, ashlar.LeaseShared)
	}
	if a.Nlink == 0 {
		return ashlar.LeaseNone
	}
	for o, have := range c.leases[a.Inode] {
		switch {
		case o == cl:
		case have == ashlar.LeaseExclusive:
			return ashlar.LeaseNone
		default:
			m = min(m, ashlar.LeaseShared)
		}
	}
	if c.leases[a.Inode] == nil {
		c.leases[a.Inode] = map[*Client]ashlar.LeaseMode{}
	}
	m = max(m, c.leases[a.Inode][cl])
	c.leases[a.Inode][cl] = m
	return m
}

// leased fills in the leases that come with an answer.
func (c *Cluster) leased(cl *Client, body wire.Message, e *wire.Entry, also ...ashlar.Inode) {
	mode := ashlar.LeaseShared
	switch m := body.(type) {
	case *wire.AcquireLease:
		mode = m.Mode
	case *wire.Make:
		if e.Created && m.Open {
			mode = ashlar.LeaseExclusive
		}
	case *wire.Open:
		if m.Write {
			mode = ashlar.LeaseExclusive
		}
	}
	a := e.Attr
	if _, ok := body.(*wire.AcquireLease); ok {
		a.Nlink = max(a.Nlink, 1) // who asks has it open
	}
	e.Lease = c.grant(cl, &a, mode)
	for k, ino := range also {
		n := c.nodes[ino]
		if n == nil || ino == e.Attr.Inode || k > 0 && ino == also[0] {
			continue
		}
		l := wire.Leased{Attr: n.attr}
		if n.attr.Type == ashlar.TypeDir {
			l.Lease = c.grant(cl, &n.attr, ashlar.LeaseShared)
		}
		e.Also = append(e.Also, l)
	}
}
