package placement

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// Concerns tells whether a key is of a kind that a View is made of: a change
// of it makes the View old.
func Concerns(k []byte) bool {
	if len(k) < 3 || k[0] != 0 || k[1] != 0 {
		return false
	}
	switch key.Kind(k[2]) {
	case key.KindPool, key.KindNode, key.KindDisk, key.KindGroup:
		return true
	}
	return false
}

func getNode(tx Tx, id ashlar.NodeID) (n *Node, ok bool, err error) {
	n = new(Node)
	ok, err = key.Load(tx, key.Node(id), n)
	return n, ok, err
}

func getDisk(tx Tx, id ashlar.DiskID) (d *Disk, ok bool, err error) {
	d = new(Disk)
	ok, err = key.Load(tx, key.Disk(id), d)
	return d, ok, err
}

func getGroup(tx Tx, id ashlar.PGID) (g *Group, ok bool, err error) {
	g = new(Group)
	ok, err = key.Load(tx, key.Group(id), g)
	return g, ok, err
}

func putPool(tx Tx, p *Pool)   { key.Store(tx, key.Pool(p.ID), p) }
func putNode(tx Tx, n *Node)   { key.Store(tx, key.Node(n.ID), n) }
func putDisk(tx Tx, d *Disk)   { key.Store(tx, key.Disk(d.ID), d) }
func putGroup(tx Tx, g *Group) { key.Store(tx, key.Group(g.ID), g) }

func issue(tx Tx, which uint8) (uint32, error) {
	n, err := key.Next(tx, 0, which)
	return uint32(n), err
}

func loadAll[T any, P interface {
	*T
	key.Record
}](tx Tx, kind key.Kind) (out []P, err error) {
	lo, hi := key.Range(0, kind)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		r := P(new(T))
		if err = key.Decode(v, r); err != nil {
			err = ashlar.E("read metadata", ashlar.Corrupt, key.String(k), err)
			return false
		}
		out = append(out, r)
		return true
	})
	return out, err
}
