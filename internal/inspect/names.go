package inspect

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// LostFound is the directory for what has no name, below that of a rebuild.
const LostFound = "lost+found"

// File is a file put together from chunks.
type File struct {
	Inode  string `json:"inode"`
	Layer  string `json:"layer"`
	Volume string `json:"volume,omitempty"`
	Path   string `json:"path,omitempty"` // as the chunks say, possibly an old name
	// Place is where it is extracted to, relative to the output directory.
	Place string `json:"place"`
	// Why says why it is not under its name.
	Why   string  `json:"why,omitempty"`
	UID   uint32  `json:"uid"`
	GID   uint32  `json:"gid"`
	Mode  uint16  `json:"mode"`
	Size  uint64  `json:"size"`
	Mtime int64   `json:"mtime_ns"`
	Parts []*Part `json:"chunks"`
	// Absent counts chunks before the last that no disk has: holes of the file,
	// or lost with disks that are not here.
	Absent int `json:"chunks_absent"`
	// OnlyStale counts chunks that only disks have which were out of sync: the
	// file was cut, or they are all that is left. They are left out unless
	// asked for.
	OnlyStale int `json:"chunks_only_stale"`
	// Result is set once it was extracted.
	Result *Result `json:"result,omitempty"`

	inode     ashlar.Inode
	layer     ashlar.LayerID
	chunkSize uint32
}

// Part is one chunk of a file.
type Part struct {
	Index uint32   `json:"index"`
	Group uint32   `json:"group"`
	Disk  string   `json:"disk"` // with the best copy
	Epoch uint64   `json:"epoch"`
	Disks []string `json:"disks"`
	Stale bool     `json:"stale,omitempty"`

	copies []*chunkCopy
}

// Files puts the chunks together to files and gives each a place. With stale,
// chunks count that only disks out of sync have. Of several layers of an inode
// the newest is the file; the others are what it was before it was emptied and
// go to lost+found.
func (s *Scan) Files(stale bool) []*File {
	byLayer := map[ashlar.LayerID]*File{}
	for id, copies := range s.copies {
		f := byLayer[id.layer]
		if f == nil {
			f = &File{layer: id.layer, Layer: fmt.Sprintf("%x", uint64(id.layer))}
			byLayer[id.layer] = f
		}
		p := &Part{Index: id.index, copies: copies, Stale: !copies[0].current}
		p.Group, p.Disk, p.Epoch = uint32(copies[0].key.Group), copies[0].disk.Dir, uint64(copies[0].epoch)
		for _, c := range copies {
			p.Disks = append(p.Disks, c.disk.Dir)
		}
		if p.Stale && !stale {
			f.OnlyStale++
			continue
		}
		f.Parts = append(f.Parts, p)
	}
	var out []*File
	for _, f := range byLayer {
		if len(f.Parts) > 0 {
			f.describe()
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *File) int {
		return cmp.Or(cmp.Compare(b.inode, a.inode), cmp.Compare(b.layer, a.layer))
	})
	giveNames(out)
	slices.SortFunc(out, func(a, b *File) int { return cmp.Compare(a.Place, b.Place) })
	return out
}

// describe fills in what the chunks say of the file. Of those that know a name
// the one that was written or told last knows best.
func (f *File) describe() {
	slices.SortFunc(f.Parts, func(a, b *Part) int { return cmp.Compare(a.Index, b.Index) })
	var o wire.Origin
	told := int64(math.MinInt64)
	for _, p := range f.Parts {
		c := p.copies[0]
		for _, x := range p.copies {
			named := x.origin.Hint != ""
			if x.current == c.current && (named && o.Hint == "" || named == (o.Hint != "") && x.told >= told) {
				o, told = x.origin, x.told
			}
		}
		f.chunkSize = c.size
		f.Mtime = max(f.Mtime, c.mtime)
		if c.end > 0 {
			f.Size = max(f.Size, offsetOf(&c.origin, c.size, p.Index, c.end-1)+1)
		}
	}
	f.inode, f.Inode = o.Owner, fmt.Sprintf("%x", uint64(o.Owner))
	f.UID, f.GID, f.Mode = o.UID, o.GID, o.Mode
	f.Volume, f.Path, _ = strings.Cut(o.Hint, ":")
	if !strings.HasPrefix(f.Path, "/") { // cut off at the front
		f.Volume, f.Path = "", o.Hint
	}
	f.Absent = int(f.Parts[len(f.Parts)-1].Index) + 1 - len(f.Parts) - f.OnlyStale
	f.Absent = max(f.Absent, 0)
}

// offsetOf returns where a byte of a chunk is in its file; see ashlar.Layout.
func offsetOf(o *wire.Origin, chunkSize, index, off uint32) uint64 {
	c, w, u := uint64(chunkSize), uint64(o.Width), uint64(o.Unit)
	if w <= 1 || u == 0 || u >= c || index < o.First {
		return uint64(index)*c + uint64(off)
	}
	rel, at := uint64(index-o.First), uint64(off)
	set, lane := rel/w, rel%w
	return uint64(o.First)*c + set*c*w + (at/u*w+lane)*u + at%u
}

// giveNames decides which file gets which place: of two that say they had one
// name, the younger inode. files are in descending order of inode and layer.
func giveNames(files []*File) {
	taken, dirs := map[string]bool{}, map[string]bool{}
	var last *File
	for _, f := range files {
		name, ok := placeOf(f)
		switch {
		case last != nil && last.inode == f.inode:
			f.Why = "what the file held before it was emptied"
		case !ok:
			f.Why = "its chunks do not say its whole name"
		case taken[name] || dirs[name] || underFile(taken, name):
			f.Why = "a younger file has that name"
		}
		last = f
		if f.Why != "" {
			f.Place = path.Join(LostFound, f.Inode+"."+f.Layer)
			if base := path.Base(f.Path); ok && base != "/" {
				f.Place += "." + base[max(0, len(base)-ashlar.NameMax/2):]
			}
			continue
		}
		f.Place = name
		taken[name] = true
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
	}
}

func underFile(taken map[string]bool, name string) bool {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		if taken[d] {
			return true
		}
	}
	return false
}

// placeOf is volume/path, if that is a name which stays below the output.
func placeOf(f *File) (string, bool) {
	if f.Volume == "" || f.Volume == LostFound || strings.Contains(f.Volume, "/") || f.Volume == ".." || f.Volume == "." {
		return "", false
	}
	if f.Path == "/" || path.Clean(f.Path) != f.Path || strings.Contains(f.Path, "\x00") {
		return "", false
	}
	for _, part := range strings.Split(f.Path[1:], "/") {
		if part == "" || part == "." || part == ".." || len(part) > ashlar.NameMax {
			return "", false
		}
	}
	return f.Volume + f.Path, true
}
