package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Disk is a disk whose chunks are looked at.
type Disk struct {
	Dir    string `json:"dir"`
	UUID   string `json:"uuid"`
	Chunks int    `json:"chunks"`
	Broken int    `json:"chunks_unreadable"` // headers that can not be read
	// NoGroups says that the group records can not be read: nothing on the disk
	// is preferred to what another one has.
	NoGroups bool `json:"no_group_records,omitempty"`

	cluster ashlar.ClusterID
	synced  map[ashlar.PGID]ashlar.Epoch // last in-sync epoch
}

// chunkCopy is one disk's copy of a chunk.
type chunkCopy struct {
	disk   *Disk
	key    chunkstore.Key
	name   string
	size   uint32
	epoch  ashlar.Epoch // of the last change
	end    uint32
	mtime  int64 // of the file of which this is a chunk, as far as it tells
	told   int64 // when its own file was changed: what it notes is as of then
	origin wire.Origin
	synced ashlar.Epoch // the disk's last in-sync epoch of the group
	// current says that no disk was in-sync in the group longer than this one:
	// what it has, and what it has not, is what the group had (I-5). A copy
	// that is not current may hold what was deleted, cut or overwritten since,
	// and one that was being filled may have empty regions of a later epoch.
	current bool
}

// chunkID is a chunk, whichever group it is in.
type chunkID struct {
	layer ashlar.LayerID
	index uint32
}

// Scan is what some disks of one cluster hold.
type Scan struct {
	Cluster string  `json:"cluster"`
	Disks   []*Disk `json:"disks"`

	fs     vfs.FS
	copies map[chunkID][]*chunkCopy // the best first
}

// ScanDisks looks at every chunk of the disks. It refuses directories that are
// no disks, disks of different clusters, and one disk given twice.
func ScanDisks(ctx context.Context, fsys vfs.FS, dirs []string, progress func(chunks int)) (*Scan, error) {
	s := &Scan{fs: fsys, copies: map[chunkID][]*chunkCopy{}}
	seen := map[string]string{}
	for _, dir := range dirs {
		d, err := s.openDisk(dir)
		if err != nil {
			return nil, err
		}
		if other, ok := seen[d.UUID]; ok {
			return nil, ashlar.E("scan disks", ashlar.Invalid, dir, fmt.Errorf("it is the same disk as %s, or a copy of it: name the newer one only", other))
		}
		if len(s.Disks) > 0 && d.cluster != s.Disks[0].cluster {
			return nil, ashlar.E("scan disks", ashlar.WrongCluster, dir,
				fmt.Errorf("it belongs to cluster %s, %s to %s", d.cluster, s.Disks[0].Dir, s.Disks[0].cluster))
		}
		seen[d.UUID] = dir
		s.Disks, s.Cluster = append(s.Disks, d), d.cluster.String()
	}
	hints := map[string]string{} // chunks of one file share its name
	n := 0
	for _, d := range s.Disks {
		err := s.eachChunk(ctx, d, func(name string, k chunkstore.Key) {
			s.add(d, name, k, hints)
			if n++; progress != nil {
				progress(n)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	s.rank()
	return s, nil
}

func (s *Scan) openDisk(dir string) (*Disk, error) {
	b, err := ReadFile(s.fs, path.Join(dir, chunkstore.IdentityName), smallMax)
	if isNotExist(err) {
		return nil, ashlar.E("scan disks", ashlar.NotExist, dir, errors.New("it is no disk: it has no file \"disk\""))
	}
	if err != nil {
		return nil, err
	}
	id, err := chunkstore.ReadIdentityFile(b, path.Join(dir, chunkstore.IdentityName))
	if err != nil {
		return nil, err
	}
	d := &Disk{Dir: dir, UUID: chunkstore.FormatUUID(id.UUID), cluster: id.Cluster, synced: map[ashlar.PGID]ashlar.Epoch{}}
	b, err = ReadFile(s.fs, path.Join(dir, chunkstore.GroupsName), journalMax)
	if err != nil {
		d.NoGroups = true
		return d, nil
	}
	g, err := chunkstore.ReadGroupsFile(b, path.Join(dir, chunkstore.GroupsName))
	if err != nil || g.Missing {
		d.NoGroups = true
	}
	if g != nil {
		for _, r := range g.Groups {
			d.synced[r.Config.ID] = r.LastInSync
		}
	}
	return d, nil
}

// eachChunk calls f for the file of every chunk on a disk.
func (s *Scan) eachChunk(ctx context.Context, d *Disk, f func(name string, k chunkstore.Key)) error {
	top := path.Join(d.Dir, chunkstore.ChunksName)
	groups, err := s.fs.List(top)
	if err != nil {
		return err
	}
	for _, g := range groups {
		slots, err := s.fs.List(path.Join(top, g))
		if err != nil {
			continue // not a directory
		}
		for _, slot := range slots {
			names, err := s.fs.List(path.Join(top, g, slot))
			if err != nil {
				continue
			}
			for _, n := range names {
				if err := ctx.Err(); err != nil {
					return err
				}
				if k, ok := chunkstore.ParseChunkPath(g, slot, n); ok {
					f(path.Join(top, g, slot, n), k)
				}
			}
		}
	}
	return nil
}

// add takes a chunk in.
func (s *Scan) add(d *Disk, name string, k chunkstore.Key, hints map[string]string) {
	f, err := s.fs.Open(name)
	if err != nil {
		d.Broken++
		return
	}
	defer f.Close()
	c, err := chunkstore.OpenChunkFile(f, name)
	if err != nil || c.Info.Key != k {
		if !errors.Is(err, chunkstore.ErrUnborn) {
			d.Broken++
		}
		return
	}
	d.Chunks++
	x := &chunkCopy{disk: d, key: k, name: name, size: c.Info.ChunkSize, epoch: c.Info.ChangedEpoch, origin: c.Info.Origin, synced: d.synced[k.Group]}
	if kept, ok := hints[x.origin.Hint]; ok {
		x.origin.Hint = kept
	} else {
		hints[x.origin.Hint] = x.origin.Hint
	}
	if st, err := s.fs.Stat(name); err == nil {
		x.told = st.ModTime().UnixNano()
	}
	if x.mtime = x.origin.Mtime; x.mtime == 0 { // written since the masters told it
		x.mtime = x.told
	}
	for i := range c.Regions() {
		if _, end, ok := c.Region(i); end > 0 {
			x.end = uint32(i)*ashlar.RegionSize + end
		} else if !ok {
			x.end = uint32(i+1) * ashlar.RegionSize // something was there
		}
	}
	id := chunkID{k.Layer, k.Index}
	s.copies[id] = append(s.copies[id], x)
}

// rank finds the disks that were in-sync longest in each group, and puts the
// best copy of each chunk first.
func (s *Scan) rank() {
	best := map[ashlar.PGID]ashlar.Epoch{}
	for _, d := range s.Disks {
		for g, e := range d.synced {
			best[g] = max(best[g], e)
		}
	}
	for _, list := range s.copies {
		for _, x := range list {
			x.current = x.synced == best[x.key.Group]
		}
		slices.SortStableFunc(list, func(a, b *chunkCopy) int {
			if a.current != b.current {
				if a.current {
					return -1
				}
				return 1
			}
			return cmp.Or(cmp.Compare(b.synced, a.synced), cmp.Compare(b.epoch, a.epoch))
		})
	}
}
