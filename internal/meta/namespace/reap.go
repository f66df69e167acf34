package namespace

import (
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// Orphans returns up to limit inodes without names of a partition, from one
// on.
func Orphans(tx key.Tx, from ashlar.Inode, limit int) []ashlar.Inode {
	var out []ashlar.Inode
	_, hi := key.Range(partitionFrom(from), key.KindOrphan)
	tx.Scan(key.Orphan(inPartition(from)), hi, func(k, _ []byte) bool {
		out = append(out, ashlar.Inode(key.Tail64(k, 0)))
		return len(out) < limit
	})
	return out
}

// partitionFrom lets a listing begin with 0.
func partitionFrom[T ~uint64](from T) ashlar.Partition {
	if p := ashlar.PartitionOf(from); p != 0 {
		return p
	}
	return key.VolumePartition
}

func inPartition[T ~uint64](from T) T {
	return ashlar.InPartition[T](partitionFrom(from), uint64(from))
}

// Reap removes an orphan that nobody has open any more. It does nothing if
// the inode is not one.
func Reap(tx key.Tx, ino ashlar.Inode) error {
	o := &op{tx: tx, name: "reap"}
	if _, ok := tx.Get(key.Orphan(ino)); !ok {
		return nil
	}
	i, err := o.inode(ino)
	if err != nil {
		return err
	}
	tx.Delete(key.Orphan(ino))
	o.destroy(i)
	return o.settle()
}

// Deletions returns up to limit layers whose chunks are to be deleted, from
// one on. An entry stays until DeletionDone was called for all its groups.
func Deletions(tx key.Tx, from ashlar.LayerID, limit int) ([]Deletion, error) {
	var out []Deletion
	var failed error
	_, hi := key.Range(partitionFrom(from), key.KindDeletion)
	tx.Scan(key.Deletion(inPartition(from)), hi, func(k, v []byte) bool {
		d := Deletion{Layer: ashlar.LayerID(key.Tail64(k, 0))}
		if failed = key.Decode(v, &d); failed != nil {
			return false
		}
		out = append(out, d)
		return len(out) < limit
	})
	return out, failed
}

// DeletionDone notes that a group has deleted its chunks of layers.
func DeletionDone(tx key.Tx, group ashlar.PGID, layers []ashlar.LayerID) error {
	for _, l := range layers {
		var d Deletion
		k := key.Deletion(l)
		ok, err := key.Load(tx, k, &d)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		d.Groups = slices.DeleteFunc(d.Groups, func(g ashlar.PGID) bool { return g == group })
		if len(d.Groups) == 0 {
			tx.Delete(k)
		} else {
			key.Store(tx, k, &d)
		}
	}
	return nil
}

// ReapTree removes up to about limit names of volumes deleted by force, and
// tells whether there are more. Files that are open become orphans.
func ReapTree(tx key.Tx, now int64, opens OpenTable, limit int) (more bool, err error) {
	for limit > 0 {
		o := &op{tx: tx, env: &Env{Now: now, Opens: opens}, name: "reap tree"}
		dir, ok := o.nextReaping()
		if !ok {
			return false, nil
		}
		n, err := o.reapDirectory(dir, limit)
		if err != nil {
			return false, err
		}
		limit -= n + 1
	}
	return true, nil
}

func (o *op) nextReaping() (dir ashlar.Inode, ok bool) {
	lo, hi := key.Range(key.VolumePartition, key.KindReaping)
	o.tx.Scan(lo, hi, func(k, _ []byte) bool {
		dir, ok = ashlar.Inode(key.Tail64(k, 0)), true
		return false
	})
	return dir, ok
}

// reapDirectory removes up to limit names of a directory, and the directory
// once it is empty. Directories in it are queued in its place.
func (o *op) reapDirectory(ino ashlar.Inode, limit int) (int, error) {
	dir, err := o.inode(ino)
	if err != nil {
		return 0, err
	}
	var names []Listed
	var cookies []uint64
	var failed error
	lo, hi := key.Range64(key.KindCookie, ino)
	o.tx.Scan(lo, hi, func(k, v []byte) bool {
		var l Listed
		failed = key.Decode(v, &l)
		names, cookies = append(names, l), append(cookies, key.Tail64(k, 1))
		return failed == nil && len(names) < limit
	})
	if failed != nil {
		return 0, failed
	}
	children := make([]*Inode, len(names))
	for n, l := range names {
		if children[n], err = o.child(&Dentry{Inode: l.Inode}); err != nil {
			return 0, err
		}
	}
	for n, l := range names {
		o.dropName(dir, l.Name, Dentry{Inode: l.Inode, Type: l.Type, Cookie: cookies[n]})
		if i := children[n]; l.Type == ashlar.TypeDir {
			i.Attr.Nlink = 0
			o.put(i)
			key.StoreMark(o.tx, key.Reaping(l.Inode))
		} else if i, err = o.child(&Dentry{Inode: l.Inode}); err != nil { // again: two names of one file
			return 0, err
		} else {
			o.unlink(i, ino, cookies[n])
		}
	}
	if dir.Entries == 0 {
		o.tx.Delete(key.Reaping(ino))
		o.destroy(dir)
	} else {
		o.put(dir)
	}
	return len(names), o.settle()
}
