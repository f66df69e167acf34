package vfs

import (
	"bytes"
	"maps"
)

// KillClone returns the disk as the death of the process that uses it leaves
// it: everything done is there and no lock is held, but what was not synced is
// still not durable. A CrashClone of the clone may lose it.
func (m *Mem) KillClone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := killCloner{}
	out := NewMem()
	out.capacity, out.used = m.capacity, m.used
	out.root = c.clone(m.root)
	for _, op := range m.ops {
		op.node = c.clone(op.node)
		op.to.dir, op.from.dir = c.clone(op.to.dir), c.clone(op.from.dir)
		out.ops = append(out.ops, op)
	}
	return out
}

// killCloner holds the copies made so far: a node has many names.
type killCloner map[*memNode]*memNode

func (c killCloner) clone(n *memNode) *memNode {
	if n == nil {
		return nil
	}
	if done := c[n]; done != nil {
		return done
	}
	out := new(memNode)
	*out = *n
	c[n] = out
	out.dir, out.durable = c.names(n.dir), c.names(n.durable)
	out.pages, out.old = copyPages(n.pages), copyPages(n.old)
	out.region, out.syncedRegion = bytes.Clone(n.region), bytes.Clone(n.syncedRegion)
	return out
}

func (c killCloner) names(names map[string]*memNode) map[string]*memNode {
	out := maps.Clone(names)
	for name, n := range names {
		out[name] = c.clone(n)
	}
	return out
}

func copyPages(pages map[int64][]byte) map[int64][]byte {
	out := maps.Clone(pages)
	for i, p := range pages {
		out[i] = bytes.Clone(p)
	}
	return out
}
