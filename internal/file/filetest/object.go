package filetest

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// object is the bytes of a layer: what clients see, and what a power loss
// leaves.
type object struct {
	gen    ashlar.Generation
	data   []byte
	stable []byte
}

// fresh gives a file a new layer.
func (c *Cluster) fresh(n *node) {
	c.next++
	delete(c.objects, n.obj.Layer)
	n.obj = wire.Object{
		Layer: ashlar.LayerID(c.next), Gen: 1,
		Layout: ashlar.Layout{
			ChunkSize: c.ChunkSize, Limit: c.Limit,
			Segments: []ashlar.Segment{{First: 0, StripeUnit: c.ChunkSize, Groups: []ashlar.PGID{1}}},
		},
	}
	c.objects[n.obj.Layer] = &object{gen: 1}
}

// resize does what SetAttr and Open do to data: a fresh layer when nothing is
// left, a cut with a raised generation otherwise.
func (c *Cluster) resize(n *node, size uint64) {
	o := c.objects[n.obj.Layer]
	switch {
	case size == 0 && n.attr.Size > 0:
		c.fresh(n)
	case size < n.attr.Size:
		n.obj.Gen++
		o.gen = n.obj.Gen
		o.data = o.data[:min(uint64(len(o.data)), size)]
		o.stable = o.stable[:min(uint64(len(o.stable)), size)]
	}
	n.attr.Size = size
	n.attr.Blocks = (size + 511) / 512
	n.attr.Mtime = c.tick()
	n.attr.Ctime = n.attr.Mtime
	n.attr.Version++
}

func (c *Cluster) reserve(m *wire.Reserve, r *wire.ReserveReply) error {
	n := c.nodes[m.Inode]
	if n == nil {
		return e(ashlar.Stale, "inode")
	}
	r.Off = max(n.attr.Size, m.Size)
	n.attr.Size = r.Off + uint64(m.Len)
	n.attr.Mtime = c.tick()
	n.attr.Ctime = n.attr.Mtime
	n.attr.Version++
	r.Entry = wire.Entry{Attr: n.attr, Object: n.obj}
	return nil
}

// find admits a data request (I-10). c.mu must be held.
func (c *Cluster) find(ref *file.Ref, off, n uint64) (*object, error) {
	o := c.objects[ref.Layer]
	if o == nil || ref.Gen != o.gen {
		return nil, e(ashlar.WrongGeneration, "object")
	}
	for n > 0 {
		x, err := ref.Layout.Locate(off, n)
		if err != nil {
			return nil, err
		}
		off, n = off+uint64(x.Len), n-uint64(x.Len)
	}
	return o, nil
}

func (cl *Client) fault(ctx context.Context, op string) error {
	if cl.Fault != nil {
		if err := cl.Fault(op); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// ReadAt implements file.Data.
func (cl *Client) ReadAt(ctx context.Context, ref *file.Ref, p []byte, off uint64) error {
	if err := cl.fault(ctx, "read"); err != nil {
		return err
	}
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.find(ref, off, uint64(len(p)))
	if err != nil {
		return err
	}
	n := 0
	if off < uint64(len(o.data)) {
		n = copy(p, o.data[off:])
	}
	clear(p[n:])
	return nil
}

// WriteAt implements file.Data.
func (cl *Client) WriteAt(ctx context.Context, ref *file.Ref, p []byte, off uint64, flags uint32) error {
	if err := cl.fault(ctx, "write"); err != nil {
		return err
	}
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.find(ref, off, uint64(len(p)))
	if err != nil {
		return err
	}
	c.writes++
	o.data = put(o.data, p, off)
	if flags&wire.WriteSync != 0 {
		o.stable = put(o.stable, p, off)
	}
	return nil
}

func put(b, p []byte, off uint64) []byte {
	if end := off + uint64(len(p)); end > uint64(len(b)) {
		if end > uint64(cap(b)) {
			b = append(make([]byte, 0, 2*end), b...)
		}
		old := len(b)
		b = b[:end]
		clear(b[old:])
	}
	copy(b[off:], p)
	return b
}

// Sync implements file.Data.
func (cl *Client) Sync(ctx context.Context, ref *file.Ref, _ uint64) error {
	if err := cl.fault(ctx, "sync"); err != nil {
		return err
	}
	if cl.Synced != nil {
		defer cl.Synced()
	}
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.find(ref, 0, 0)
	if err != nil {
		return err
	}
	c.syncs++
	o.stable = append(o.stable[:0], o.data...)
	return nil
}

// Zero implements file.Data.
func (cl *Client) Zero(ctx context.Context, ref *file.Ref, off, n uint64) error {
	return cl.WriteAt(ctx, ref, make([]byte, n), off, 0)
}

// seekBlock is what data is told by, in bytes.
const seekBlock = ashlar.BlockSize

// Seek implements file.Data: blocks of zeros are holes.
func (cl *Client) Seek(ctx context.Context, ref *file.Ref, off, size uint64, hole bool) (uint64, error) {
	if err := cl.fault(ctx, "seek"); err != nil {
		return 0, err
	}
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.find(ref, 0, 0)
	if err != nil {
		return 0, err
	}
	for off < size {
		end := (off/seekBlock + 1) * seekBlock
		data := false
		for at := end - seekBlock; at < min(end, uint64(len(o.data))); at++ {
			data = data || o.data[at] != 0
		}
		if data != hole {
			return off, nil
		}
		off = min(end, size)
	}
	return size, nil
}

// Copy implements file.Data: every other one is refused.
func (cl *Client) Copy(ctx context.Context, from *file.Ref, fromOff uint64, to *file.Ref, off, n uint64) error {
	if cl.copies.Add(1)%2 == 0 {
		return e(ashlar.Unsupported, "copy")
	}
	p := make([]byte, n)
	if err := cl.ReadAt(ctx, from, p, fromOff); err != nil {
		return e(ashlar.Unsupported, "copy")
	}
	return cl.WriteAt(ctx, to, p, off, 0)
}

// Requests returns how many data writes and syncs were served.
func (c *Cluster) Requests() (writes, syncs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.syncs
}

// PowerLoss drops all data that was not synced.
func (c *Cluster) PowerLoss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.objects {
		o.data = append([]byte(nil), o.stable...)
	}
}
