// Package filetest is a whole cluster in memory for tests of the client side:
// names and attributes as the leader would keep them, and objects as the
// chunkservers would. It checks what a cluster checks (generations, layouts,
// reservations) and knows nothing of replicas, sessions' liveness or
// permissions. Everything is lost with it.
package filetest

import (
	"context"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Cluster is one volume in memory, shared by any number of Clients.
type Cluster struct {
	mu      sync.Mutex
	nodes   map[ashlar.Inode]*node
	objects map[ashlar.LayerID]*object
	next    uint64
	now     int64
	opens   map[ashlar.Inode]map[*Client]bool
	leases  map[ashlar.Inode]map[*Client]ashlar.LeaseMode
	// Limit bounds new layouts, in chunks; 0 for none.
	Limit uint32
	// ChunkSize of new layouts.
	ChunkSize uint32

	count         map[string]int // operations served, by type
	writes, syncs int
}

type node struct {
	attr   ashlar.Attr
	obj    wire.Object
	target string
	names  map[string]*dent
	cookie uint64
	parent ashlar.Inode
	xattrs map[string][]byte
}

type dent struct {
	ino    ashlar.Inode
	cookie uint64
}

// Root is the inode of the volume's root directory: not 1, as in a cluster.
const Root ashlar.Inode = 1<<52 | 7

// New returns an empty volume.
func New() *Cluster {
	c := &Cluster{
		nodes: map[ashlar.Inode]*node{}, objects: map[ashlar.LayerID]*object{},
		opens: map[ashlar.Inode]map[*Client]bool{}, leases: map[ashlar.Inode]map[*Client]ashlar.LeaseMode{}, next: 1000, now: 1_700_000_000_000_000_000,
		ChunkSize: ashlar.ChunkSizeMin, count: map[string]int{},
	}
	c.nodes[Root] = &node{
		attr:  ashlar.Attr{Inode: Root, Gen: 1, Type: ashlar.TypeDir, Mode: 0o755, Nlink: 2, Version: 1},
		names: map[string]*dent{}, parent: Root, xattrs: map[string][]byte{},
	}
	return c
}

// Volume describes the volume.
func (c *Cluster) Volume() wire.VolumeReply {
	return wire.VolumeReply{ID: 1, Name: "main", Root: Root, Policy: ashlar.DefaultPolicy}
}

// Count returns how many operations of a type were served, such as "Commit".
func (c *Cluster) Count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[name]
}

// Open tells how many clients have an inode open.
func (c *Cluster) Open(ino ashlar.Inode) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.opens[ino])
}

// Exists tells whether an inode exists, named or not.
func (c *Cluster) Exists(ino ashlar.Inode) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[ino] != nil
}

// Client is one session of a Cluster. It serves as file.Meta and file.Data.
type Client struct {
	c *Cluster
	// Fault, if set, is asked before every data request ("read", "write",
	// "sync") and operation; an error is returned in its place.
	Fault func(op string) error
	// Synced, if set, is called when an object is synced and that not yet answered.
	Synced func()
	hang   atomic.Pointer[chan struct{}]
	copies atomic.Int64
	// session is 0 while one is lost and the next not opened.
	session atomic.Uint64
	// holder has the session's leases; guarded by Cluster.mu.
	holder Holder
}

// Hang makes operations wait, as when no master answers, until the function
// that it returns is called or their context ends.
func (cl *Client) Hang() (resume func()) {
	ch := make(chan struct{})
	cl.hang.Store(&ch)
	return func() {
		cl.hang.Store(nil)
		close(ch)
	}
}

// Client opens a session.
func (c *Cluster) Client() *Client {
	cl := &Client{c: c}
	cl.session.Store(1)
	return cl
}

// Lose ends the session, as when it was fenced: its leases go, what holds them is
// told, and then there is another session.
func (cl *Client) Lose() {
	cl.c.mu.Lock()
	next := cl.session.Swap(0) + 1
	for ino := range cl.c.leases {
		delete(cl.c.leases[ino], cl)
	}
	for ino := range cl.c.opens {
		delete(cl.c.opens[ino], cl)
	}
	holder := cl.holder
	cl.c.mu.Unlock()
	if h, ok := holder.(interface{ SessionLost() }); ok {
		h.SessionLost()
	}
	cl.session.Store(next)
}

func e(kind ashlar.Kind, what string) error { return ashlar.E("fake", kind, what, nil) }

// tick advances the leader's clock.
func (c *Cluster) tick() int64 {
	c.now += 1000
	return c.now
}

// Session implements file.Meta.
func (cl *Client) Session() ashlar.SessionID { return ashlar.SessionID(cl.session.Load()) }

// DoIn implements file.Meta.
func (cl *Client) DoIn(ctx context.Context, in ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error {
	return cl.do(ctx, &in, cred, body, reply)
}

// Do implements file.Meta.
func (cl *Client) Do(ctx context.Context, cred ashlar.Cred, body, reply wire.Message) error {
	return cl.do(ctx, nil, cred, body, reply)
}

// do does an operation, in one session only if in is set.
func (cl *Client) do(ctx context.Context, in *ashlar.SessionID, cred ashlar.Cred, body, reply wire.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ch := cl.hang.Load(); ch != nil {
		select {
		case <-*ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	name := strings.TrimPrefix(typeName(body), "*wire.")
	if cl.Fault != nil {
		if err := cl.Fault(name); err != nil {
			return err
		}
	}
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if in != nil && (*in == 0 || *in != cl.Session()) {
		return e(ashlar.NoSession, name)
	}
	c.count[name]++
	c.clear(cl, body)
	switch m := body.(type) {
	case *wire.ReturnLeases:
		for _, h := range m.Leases {
			cl.keep(h)
		}
		return nil
	case *wire.Readlink:
		n := c.nodes[m.Inode]
		if n == nil {
			return e(ashlar.Stale, "")
		}
		reply.(*wire.ReadlinkReply).Target = n.target
		return nil
	case *wire.Readdir:
		return c.readdir(cl, m, reply.(*wire.ReaddirReply))
	case *wire.Release:
		for _, ino := range m.Inodes {
			delete(c.opens[ino], cl)
			c.reap(ino)
		}
		return nil
	case *wire.Accessed:
		for _, a := range m.List {
			if n := c.nodes[a.Inode]; n != nil && n.attr.Atime == a.Was {
				n.attr.Atime = a.At
			}
		}
		return nil
	case *wire.StatFS:
		*reply.(*wire.StatFSReply) = wire.StatFSReply{Total: 1 << 40, Free: 1 << 39, Used: 1 << 39, Inodes: uint64(len(c.nodes))}
		return nil
	case *wire.Access:
		return nil
	case *wire.GetXattr, *wire.SetXattr, *wire.ListXattr, *wire.RemoveXattr:
		return c.xattr(body, reply)
	case *wire.Reserve:
		return c.reserve(m, reply.(*wire.ReserveReply))
	case *wire.Commits:
		return c.commits(cl, m, reply.(*wire.CommitsReply))
	}
	n, created, err := c.change(cl, cred, body)
	if err != nil {
		return err
	}
	r := reply.(*wire.Entry)
	*r = wire.Entry{Attr: n.attr, Created: created, Object: n.obj}
	c.leased(cl, body, r, dirsOf(body)...)
	return nil
}

// commits runs several commits.
func (c *Cluster) commits(cl *Client, m *wire.Commits, r *wire.CommitsReply) error {
	for k := range m.List { // all or none
		if n := c.nodes[m.List[k].Inode]; n == nil || n.obj.Layer != m.List[k].Layer || n.obj.Gen != m.List[k].Gen {
			return e(ashlar.WrongGeneration, "commit")
		}
	}
	for k := range m.List {
		n, _, err := c.change(cl, ashlar.Cred{}, &m.List[k])
		if err != nil {
			return err
		}
		r.Attrs = append(r.Attrs, n.attr)
	}
	return nil
}

// dirsOf returns the directories that an operation is told to look into.
func dirsOf(body wire.Message) []ashlar.Inode {
	switch m := body.(type) {
	case *wire.Lookup:
		return []ashlar.Inode{m.Parent}
	case *wire.Make:
		return []ashlar.Inode{m.Parent}
	case *wire.Link:
		return []ashlar.Inode{m.Parent}
	case *wire.Remove:
		return []ashlar.Inode{m.Parent}
	case *wire.Rename:
		return []ashlar.Inode{m.OldParent, m.NewParent}
	}
	return nil
}

// change runs the operations that answer with an Entry.
func (c *Cluster) change(cl *Client, cred ashlar.Cred, body wire.Message) (*node, bool, error) {
	var n *node
	var err error
	switch m := body.(type) {
	case *wire.Lookup:
		n, err = c.lookup(m.Parent, m.Name)
	case *wire.GetAttr:
		if n = c.nodes[m.Inode]; n == nil {
			err = e(ashlar.Stale, "inode")
		}
	case *wire.AcquireLease:
		if n = c.nodes[m.Inode]; n == nil {
			err = e(ashlar.Stale, "inode")
		}
	case *wire.SetAttr:
		n, err = c.setattr(m)
	case *wire.Make:
		return c.make(cl, cred, m)
	case *wire.Link:
		n, err = c.link(m)
	case *wire.Remove:
		n, err = c.remove(m)
	case *wire.Rename:
		n, err = c.rename(m)
	case *wire.Open:
		if n = c.nodes[m.Inode]; n == nil {
			return nil, false, e(ashlar.Stale, "inode")
		}
		if m.Truncate {
			c.resize(n, 0)
		}
		c.register(cl, m.Inode)
	case *wire.Commit:
		if n = c.nodes[m.Inode]; n == nil {
			return nil, false, e(ashlar.Stale, "inode")
		}
		if m.Layer != n.obj.Layer || m.Gen != n.obj.Gen {
			return nil, false, e(ashlar.WrongGeneration, "commit")
		}
		n.attr.Size = max(n.attr.Size, m.Size)
		n.attr.Blocks = (n.attr.Size + 511) / 512
		n.attr.Ctime = c.tick()
		n.attr.Mtime = m.Mtime
		n.attr.Version++
		if b := m.Set; b.Valid != 0 {
			_, err = c.setattr(&wire.SetAttr{Inode: m.Inode, Valid: b.Valid, Atime: b.Atime, Mtime: b.Mtime})
			n.attr.Ctime = b.Ctime
		}
	case *wire.Grow:
		if n = c.nodes[m.Inode]; n == nil {
			return nil, false, e(ashlar.Stale, "inode")
		}
		n.obj.Layout.Limit = max(n.obj.Layout.Limit, m.Chunk+1)
	default:
		err = e(ashlar.Unsupported, typeName(body))
	}
	return n, false, err
}

func (c *Cluster) register(cl *Client, ino ashlar.Inode) {
	if c.opens[ino] == nil {
		c.opens[ino] = map[*Client]bool{}
	}
	c.opens[ino][cl] = true
}

// reap removes an inode that has no name and is not open.
func (c *Cluster) reap(ino ashlar.Inode) {
	if n := c.nodes[ino]; n != nil && n.attr.Nlink == 0 && len(c.opens[ino]) == 0 && len(c.leases[ino]) == 0 {
		delete(c.nodes, ino)
		delete(c.objects, n.obj.Layer)
	}
}

func (c *Cluster) dir(ino ashlar.Inode) (*node, error) {
	n := c.nodes[ino]
	if n == nil {
		return nil, e(ashlar.Stale, "directory")
	}
	if n.attr.Type != ashlar.TypeDir {
		return nil, e(ashlar.NotDir, "")
	}
	return n, nil
}

func (c *Cluster) readdir(cl *Client, m *wire.Readdir, r *wire.ReaddirReply) error {
	d, err := c.dir(m.Inode)
	if err != nil {
		return err
	}
	*r = wire.ReaddirReply{Plus: m.Plus, EOF: true, Parent: d.parent, Dir: wire.Leased{Attr: d.attr, Lease: c.grant(cl, &d.attr, ashlar.LeaseShared)}}
	for name, de := range d.names {
		if de.cookie > m.Cookie {
			n := c.nodes[de.ino]
			r.Entries = append(r.Entries, wire.DirEntry{
				Name: name, Inode: de.ino, Type: n.attr.Type, Cookie: de.cookie, Attr: n.attr, Object: n.obj,
			})
		}
	}
	sort.Slice(r.Entries, func(a, b int) bool { return r.Entries[a].Cookie < r.Entries[b].Cookie })
	if m.Limit > 0 && len(r.Entries) > int(m.Limit) {
		r.Entries, r.EOF = r.Entries[:m.Limit], false
	}
	for k := range r.Entries {
		if e := &r.Entries[k]; m.Plus {
			e.Lease = c.grant(cl, &e.Attr, ashlar.LeaseShared)
		}
	}
	return nil
}

// Inode returns the inode that a name in the root leads to, 0 if there is none.
func (c *Cluster) Inode(name string) ashlar.Inode {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.nodes[Root].names[name]; d != nil {
		return d.ino
	}
	return 0
}
