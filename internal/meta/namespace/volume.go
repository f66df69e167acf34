package namespace

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// DefaultPool is the pool of a volume that names none.
const DefaultPool = "default"

// volumeOf reads the volume an inode is in; if it was deleted, the inode is
// as good as gone.
func (o *op) volumeOf(i *Inode) (*Volume, error) {
	v := new(Volume)
	ok, err := key.Load(o.tx, key.Volume(i.Volume), v)
	if err == nil && !ok {
		err = o.fail(ashlar.Stale, "the volume was deleted")
	}
	return v, err
}

// volumeNamed finds a volume by name.
func (o *op) volumeNamed(name string) (id ashlar.VolumeID, v *Volume, ok bool, err error) {
	n, ok, err := key.LoadNumber(o.tx, key.VolumeName(name))
	if err != nil || !ok {
		return 0, nil, false, err
	}
	v, id = new(Volume), ashlar.VolumeID(n)
	ok, err = key.Load(o.tx, key.Volume(id), v)
	if err == nil && !ok {
		err = ashlar.E(o.name, ashlar.Corrupt, key.String(key.VolumeName(name)), nil)
	}
	return id, v, ok, err
}

// checkVolumeName: letters, digits, '.', '_' and '-', beginning with a letter
// or digit, so that CLUSTER:VOLUME and paths need no quoting.
func (o *op) checkVolumeName(name string) error {
	if len(name) > ashlar.NameMax {
		return o.fail(ashlar.NameTooLong, "volume")
	}
	for n := 0; n < len(name); n++ {
		b := name[n]
		alnum := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		if !alnum && (n == 0 || b != '.' && b != '_' && b != '-') {
			return o.fail(ashlar.Invalid, "volume name")
		}
	}
	if name == "" {
		return o.fail(ashlar.Invalid, "volume name")
	}
	return nil
}

func (v *Volume) reply(id ashlar.VolumeID) *wire.VolumeReply {
	return &wire.VolumeReply{ID: id, Name: v.Name, Root: v.Root, Pool: v.PoolName, Policy: v.Policy}
}

// findVolume evaluates wire.FindVolume.
func (o *op) findVolume(m *wire.FindVolume) (wire.Message, error) {
	o.name = "find volume"
	id, v, ok, err := o.volumeNamed(m.Name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.fail(ashlar.NotExist, m.Name)
	}
	return v.reply(id), nil
}

// setVolume evaluates wire.SetVolume.
func (o *op) setVolume(m *wire.SetVolume) (wire.Message, error) {
	o.name = "set volume"
	if m.Policy.ChunkSize != 0 {
		if err := m.Policy.Validate(); err != nil {
			return nil, ashlar.E(o.name, ashlar.Invalid, m.Name, err)
		}
	}
	id, v, ok, err := o.volumeNamed(m.Name)
	switch {
	case err != nil:
		return nil, err
	case m.Update && !ok:
		return nil, o.fail(ashlar.NotExist, m.Name)
	case m.Update:
		return o.updateVolume(m, id, v)
	case ok:
		return nil, o.fail(ashlar.Exist, m.Name)
	}
	return o.createVolume(m)
}

func (o *op) createVolume(m *wire.SetVolume) (wire.Message, error) {
	if err := o.checkVolumeName(m.Name); err != nil {
		return nil, err
	}
	v := &Volume{Name: m.Name, PoolName: m.Pool, Policy: m.Policy, Created: o.env.Now}
	if v.PoolName == "" {
		v.PoolName = DefaultPool
	}
	if v.Policy.ChunkSize == 0 {
		v.Policy = ashlar.DefaultPolicy
	}
	pool, ok, err := key.LoadNumber(o.tx, key.PoolName(v.PoolName))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.fail(ashlar.NotExist, "pool "+v.PoolName)
	}
	v.Pool = uint32(pool)
	n, err := key.Next(o.tx, 0, key.CounterVolume)
	if err != nil {
		return nil, err
	}
	id := ashlar.VolumeID(n)
	root, err := o.makeRoot(m, id)
	if err != nil {
		return nil, err
	}
	v.Root = root
	key.Store(o.tx, key.Volume(id), v)
	key.StoreNumber(o.tx, key.VolumeName(m.Name), id)
	key.StoreMark(o.tx, key.PoolVolume(v.Pool, id))
	o.say("create volume").say(m.Name).say("root").sayInode(root)
	return v.reply(id), nil
}

func (o *op) makeRoot(m *wire.SetVolume, id ashlar.VolumeID) (ashlar.Inode, error) {
	n, err := key.Next(o.tx, key.VolumePartition, key.CounterID)
	if err != nil {
		return 0, err
	}
	mode := m.Mode & ashlar.ModeMask
	if mode == 0 {
		mode = 0o755
	}
	ino, now := ashlar.InPartition[ashlar.Inode](key.VolumePartition, n), o.env.Now
	i := &Inode{Volume: id, Parent: ino, NextCookie: CookieFirst, Attr: ashlar.Attr{
		Inode: ino, Gen: 1, Type: ashlar.TypeDir, Mode: mode, Nlink: 2, UID: m.UID, GID: m.GID, Size: directorySize,
		Atime: now, Mtime: now, Ctime: now, Btime: now, Version: 1,
	}}
	o.put(i)
	o.count(i, 1, 0, 0)
	return ino, nil
}

func (o *op) updateVolume(m *wire.SetVolume, id ashlar.VolumeID, v *Volume) (wire.Message, error) {
	if m.Rename != "" && m.Rename != v.Name {
		if err := o.checkVolumeName(m.Rename); err != nil {
			return nil, err
		}
		if _, ok := o.tx.Get(key.VolumeName(m.Rename)); ok {
			return nil, o.fail(ashlar.Exist, m.Rename)
		}
		o.tx.Delete(key.VolumeName(v.Name))
		key.StoreNumber(o.tx, key.VolumeName(m.Rename), id)
		v.Name = m.Rename
	}
	if m.Policy.ChunkSize != 0 {
		v.Policy = m.Policy
	}
	key.Store(o.tx, key.Volume(id), v)
	o.say("update volume").say(m.Name)
	return v.reply(id), nil
}

// deleteVolume evaluates wire.DeleteVolume. With Force the volume is gone at
// once and its tree is left to ReapTree.
func (o *op) deleteVolume(m *wire.DeleteVolume) (wire.Message, error) {
	o.name = "delete volume"
	id, v, ok, err := o.volumeNamed(m.Name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, o.fail(ashlar.NotExist, m.Name)
	}
	root, err := o.inode(v.Root)
	if err != nil {
		return nil, err
	}
	if root.Entries > 0 && !m.Force {
		return nil, o.fail(ashlar.NotEmpty, m.Name)
	}
	o.tx.Delete(key.Volume(id))
	o.tx.Delete(key.VolumeName(v.Name))
	o.tx.Delete(key.PoolVolume(v.Pool, id))
	root.Attr.Nlink = 0
	if root.Entries > 0 {
		o.put(root)
		key.StoreMark(o.tx, key.Reaping(v.Root))
	} else {
		o.destroy(root)
	}
	o.say("delete volume").say(m.Name)
	return &wire.Empty{}, nil
}

// VolumeInfo is a volume and what it holds.
type VolumeInfo struct {
	ID ashlar.VolumeID
	Volume
	Usage
}

// Volumes returns all volumes in order of id.
func Volumes(tx key.Tx) ([]VolumeInfo, error) {
	var out []VolumeInfo
	var failed error
	lo, hi := key.Range(0, key.KindVolume)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		i := VolumeInfo{ID: ashlar.VolumeID(key.Tail32(k, 0))}
		failed = key.Decode(v, &i.Volume)
		out = append(out, i)
		return failed == nil
	})
	if failed != nil {
		return nil, failed
	}
	for n := range out {
		i := &out[n]
		if _, err := key.Load(tx, key.Usage(ashlar.PartitionOf(i.Root), i.ID), &i.Usage); err != nil {
			return nil, err
		}
	}
	return out, nil
}
