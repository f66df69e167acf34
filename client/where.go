package client

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
)

// Info is where a file's data is.
type Info struct {
	Attr   ashlar.Attr
	Layer  ashlar.LayerID
	Gen    ashlar.Generation
	Layout ashlar.Layout
	// Chunks are those that the file may use, in order.
	Chunks []Chunk
	// Groups are the placement groups of Chunks, once each.
	Groups []ashlar.Group
}

// Chunk is one chunk of a file.
type Chunk struct {
	Index uint32
	Len   uint32 // bytes of it that belong to the file
	Group ashlar.PGID
}

// Info tells where the data of a file is, and who has copies.
func (v *Volume) Info(name string) (*Info, error) {
	i, err := v.info(name)
	if err != nil {
		return nil, pathError("info", name, err)
	}
	return i, nil
}

// InfoInode is Info of an inode of the volume, for paths on a mount.
func (v *Volume) InfoInode(inode ashlar.Inode) (*Info, error) {
	i, err := v.infoInode(inode)
	if err != nil {
		return nil, pathError("info", fmt.Sprintf("inode %d", inode), err)
	}
	return i, nil
}

func (v *Volume) info(name string) (*Info, error) {
	a, err := v.find(v.ctx, name, true)
	if err != nil {
		return nil, err
	}
	return v.infoInode(a.Inode)
}

func (v *Volume) infoInode(inode ashlar.Inode) (*Info, error) {
	e, err := v.fs.Entry(v.ctx, v.cred, inode)
	if err != nil {
		return nil, err
	}
	a := e.Attr
	out := &Info{Attr: a, Layer: e.Object.Layer, Gen: e.Object.Gen, Layout: e.Object.Layout}
	if a.Type != ashlar.TypeFile {
		return out, nil
	}
	seen := map[ashlar.PGID]bool{}
	var ids []ashlar.PGID
	for c := range out.Layout.Chunks(a.Size) {
		g, ok := out.Layout.Group(c)
		if !ok {
			continue
		}
		n := out.Layout.ChunkLen(c, a.Size)
		if n == 0 {
			continue
		}
		out.Chunks = append(out.Chunks, Chunk{Index: c, Len: n, Group: g})
		if !seen[g] {
			seen[g] = true
			ids = append(ids, g)
		}
	}
	if len(ids) > 0 {
		out.Groups, err = v.c.Groups(v.ctx, ids...)
	}
	return out, err
}
