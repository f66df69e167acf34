package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// freshObject is the data of a new file: a layer and one group for the first
// chunk. If no group can be had now, the layout is empty and Grow asks again:
// an inode needs no data space.
func (o *op) freshObject(layer ashlar.LayerID, vol *Volume) wire.Object {
	obj := wire.Object{Layer: layer, Gen: 1, Layout: ashlar.Layout{ChunkSize: vol.Policy.ChunkSize}}
	groups, err := o.env.Placer.Choose(vol.Pool, 1, uint64(layer))
	if err == nil && len(groups) > 0 {
		firstSegment(&obj.Layout, groups[:1])
	}
	return obj
}

func firstSegment(l *ashlar.Layout, groups []ashlar.PGID) {
	l.Segments = []ashlar.Segment{{First: 0, StripeUnit: l.ChunkSize, Groups: groups}}
	l.Limit = 1
}

// discard puts a file's layer into the delete queue.
func (o *op) discard(i *Inode) {
	if i.Attr.Type != ashlar.TypeFile || len(i.Object.Layout.Segments) == 0 {
		return
	}
	key.Store(o.tx, key.Deletion(i.Object.Layer), &Deletion{Groups: i.Object.Layout.AllGroups()})
}

// open evaluates wire.Open: the leader registers the file as open when this
// succeeds; here permission is checked, and the file emptied if asked.
func (o *op) open(m *wire.Open) (wire.Message, error) {
	o.name = "open"
	i, err := o.inode(m.Inode)
	if err != nil {
		return nil, err
	}
	switch {
	case i.Attr.Type == ashlar.TypeSymlink:
		return nil, o.fail(ashlar.TooManySymlinks, "")
	case i.Attr.Type == ashlar.TypeDir && (m.Write || m.Truncate):
		return nil, o.fail(ashlar.IsDir, "")
	}
	mask := uint16(mayRead)
	if m.Write {
		mask = mayWrite
	}
	if m.Truncate {
		mask |= mayWrite
	}
	if err := o.may(i, mask); err != nil {
		return nil, err
	}
	if !m.Truncate || i.Attr.Type != ashlar.TypeFile {
		if m.Write {
			return o.named(i), nil
		}
		return o.entry(i), nil
	}
	if err := o.resize(i, 0); err != nil {
		return nil, err
	}
	o.put(i)
	o.say("truncate").sayInode(m.Inode).say("at open")
	return o.named(i), nil
}

// writable reads a file whose data is being changed, which waits for a cut.
func (o *op) writable(ino ashlar.Inode) (*Inode, error) {
	i, err := o.file(ino)
	if err == nil && i.Cutting {
		return nil, o.fail(ashlar.NotReady, "a cut is pending")
	}
	return i, err
}

// reserve evaluates wire.Reserve.
func (o *op) reserve(m *wire.Reserve) (wire.Message, error) {
	o.name = "reserve"
	i, err := o.writable(m.Inode)
	if err != nil {
		return nil, err
	}
	off := max(i.Attr.Size, m.Size)
	if off > ashlar.FileSizeMax-uint64(m.Len) {
		return nil, o.fail(ashlar.TooBig, "")
	}
	o.dropPrivileges(i)
	o.setSize(i, off+uint64(m.Len))
	o.touch(i)
	o.put(i)
	o.say("reserve").sayInode(m.Inode).say("at").sayNumber(off).say("length").sayNumber(uint64(m.Len))
	return &wire.ReserveReply{Off: off, Entry: *o.entry(i)}, nil
}

// commit evaluates wire.Commit.
func (o *op) commit(m *wire.Commit) (wire.Message, error) {
	o.name = "commit"
	i, err := o.committable(m)
	if err != nil {
		return nil, err
	}
	o.written(i, m)
	o.say("commit").sayInode(m.Inode).say("size").sayNumber(i.Attr.Size)
	return o.entry(i), nil
}

// committable returns the file of a commit if that can be made.
func (o *op) committable(m *wire.Commit) (*Inode, error) {
	i, err := o.writable(m.Inode)
	switch {
	case err != nil:
		return nil, err
	case m.Layer != i.Object.Layer || m.Gen != i.Object.Gen:
		return nil, o.fail(ashlar.WrongGeneration, "")
	case m.Size > ashlar.FileSizeMax:
		return nil, o.fail(ashlar.TooBig, "")
	case m.Set.Valid&^wire.SetBehind != 0:
		return nil, o.fail(ashlar.Invalid, "attributes that are not set behind")
	}
	return i, o.maySetAttr(behind(&m.Set), i)
}

// behind is times set under a lease as the operation that it stands for.
func behind(b *wire.Behind) *wire.SetAttr {
	return &wire.SetAttr{Valid: b.Valid, Atime: b.Atime, Mtime: b.Mtime}
}

// written notes data that was written.
func (o *op) written(i *Inode, m *wire.Commit) {
	o.dropPrivileges(i)
	o.setSize(i, max(i.Attr.Size, m.Size))
	changed := i.Attr.Ctime
	o.touch(i)
	if m.Mtime != 0 { // the data was written then, and something else changed perhaps since
		i.Attr.Mtime, i.Attr.Ctime = m.Mtime, max(m.Mtime, changed)
	}
	if set := behind(&m.Set); set.Valid != 0 {
		i.Attr.Ctime = max(i.Attr.Ctime, m.Set.Ctime)
		o.setTimes(set, i)
	}
	o.put(i)
}

// commits evaluates wire.Commits.
func (o *op) commits(m *wire.Commits) (wire.Message, error) {
	o.name = "commit"
	files := make([]*Inode, len(m.List))
	seen := map[ashlar.Inode]bool{}
	for k := range m.List {
		i, err := o.committable(&m.List[k])
		switch {
		case err != nil:
			return nil, err
		case seen[i.Attr.Inode] || k > 0 && i.Volume != files[0].Volume:
			return nil, o.fail(ashlar.Invalid, "a file twice, or files of several volumes")
		}
		seen[i.Attr.Inode] = true
		files[k] = i
	}
	r := &wire.CommitsReply{}
	for k, i := range files {
		o.written(i, &m.List[k])
		r.Attrs = append(r.Attrs, i.Attr)
	}
	o.say("commit of").sayNumber(uint64(len(files))).say("files")
	return r, nil
}

// grow evaluates wire.Grow: a file starts with one group for its first chunk
// and goes on, as wide as the volume's policy says, without an end.
func (o *op) grow(m *wire.Grow) (wire.Message, error) {
	o.name = "grow"
	i, err := o.writable(m.Inode)
	if err != nil {
		return nil, err
	}
	l := &i.Object.Layout
	switch {
	case m.Layer != i.Object.Layer:
		return nil, o.fail(ashlar.WrongGeneration, "")
	case uint64(m.Chunk)*uint64(l.ChunkSize) >= ashlar.FileSizeMax:
		return nil, o.fail(ashlar.TooBig, "")
	case covers(l, m.Chunk):
		return o.named(i), nil
	}
	vol, err := o.volumeOf(i)
	if err != nil {
		return nil, err
	}
	if len(l.Segments) == 0 {
		groups, err := o.choose(vol, 1, uint64(i.Object.Layer))
		if err != nil {
			return nil, err
		}
		firstSegment(l, groups)
	}
	if !covers(l, m.Chunk) {
		groups, err := o.choose(vol, int(vol.Policy.StripeWidth), uint64(i.Object.Layer)+1)
		if err != nil {
			return nil, err
		}
		unit := min(vol.Policy.StripeUnit, l.ChunkSize)
		l.Segments = append(l.Segments, ashlar.Segment{First: l.Limit, StripeUnit: unit, Groups: groups})
		l.Limit = 0
	}
	o.put(i)
	o.say("grow").sayInode(m.Inode).say("segments").sayNumber(uint64(len(l.Segments)))
	return o.named(i), nil
}

func covers(l *ashlar.Layout, chunk uint32) bool {
	return len(l.Segments) > 0 && (l.Limit == 0 || chunk < l.Limit)
}

func (o *op) choose(vol *Volume, n int, seed uint64) ([]ashlar.PGID, error) {
	groups, err := o.env.Placer.Choose(vol.Pool, n, seed)
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return nil, o.fail(ashlar.NoSpace, "")
	}
	return groups[:min(n, len(groups))], nil
}
