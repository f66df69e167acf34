package placement

import (
	"fmt"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// DefaultPool is the name of the pool that a new cluster has.
const DefaultPool = "default"

// SetPool creates a pool or changes one.
func SetPool(tx Tx, m *wire.SetPool) error {
	p, ok, err := FindPool(tx, m.Name)
	switch {
	case err != nil:
		return err
	case m.Update && !ok:
		return fail("change pool", ashlar.NotExist, m.Name, "")
	case !m.Update && ok:
		return fail("create pool", ashlar.Exist, m.Name, "")
	case m.Name == "" || len(m.Name) > ashlar.NameMax:
		return fail("create pool", ashlar.Invalid, m.Name, "a pool needs a name of at most 255 bytes")
	}
	if !ok {
		p = &Pool{Name: m.Name, Replicas: 2, WriteMin: 1, Domain: ashlar.DomainNode, Labels: m.Labels}
	}
	if m.Replicas > 0 {
		p.Replicas = m.Replicas
	}
	if m.WriteMin > 0 {
		p.WriteMin = m.WriteMin
	}
	if m.Domain != 0 {
		p.Domain = m.Domain
	}
	if m.Relabel {
		p.Labels = m.Labels
	}
	p.setRepair(m)
	switch {
	case m.RepairBytes > 0 && m.RepairBytes < RepairBytesMin:
		return fail("set pool", ashlar.Invalid, m.Name, fmt.Sprintf("repair bandwidth of %d bytes a second: want at least %d; to stop repair, pause it", m.RepairBytes, RepairBytesMin))
	case time.Duration(m.RepairAfter) > RepairAfterMax/time.Millisecond || m.RepairAfter > 0 && m.RepairAfter < 1000:
		return fail("set pool", ashlar.Invalid, m.Name, fmt.Sprintf("repair-after of %d ms: want 1s to %v", m.RepairAfter, RepairAfterMax))
	case m.Pause && m.Resume:
		return fail("set pool", ashlar.Invalid, m.Name, "both pause and resume")
	case p.Replicas > ashlar.ReplicasMax:
		return fail("set pool", ashlar.Invalid, m.Name, fmt.Sprintf("%d replicas: want 1 to %d", p.Replicas, ashlar.ReplicasMax))
	case p.WriteMin > p.Replicas:
		return fail("set pool", ashlar.Invalid, m.Name, "write-min is above replicas")
	case p.Domain > ashlar.DomainRack:
		return fail("set pool", ashlar.Invalid, m.Name, "unknown failure domain")
	case len(p.Labels) > wire.LabelsMax:
		return fail("set pool", ashlar.Invalid, m.Name, "too many labels")
	}
	if !ok {
		if v, err := Load(tx); err != nil {
			return err
		} else if len(v.Pools) >= wire.PoolsMax {
			return fail("create pool", ashlar.TooBig, m.Name, fmt.Sprintf("there are %d pools, the most there can be", len(v.Pools)))
		}
		if p.ID, err = issue(tx, key.CounterPool); err != nil {
			return err
		}
	}
	putPool(tx, p)
	key.StoreNumber(tx, key.PoolName(p.Name), uint64(p.ID))
	return nil
}

func (p *Pool) setRepair(m *wire.SetPool) {
	switch m.RepairBytes {
	case 0:
	case wire.RepairDefault:
		p.RepairBytes = 0
	default:
		p.RepairBytes = m.RepairBytes
	}
	if m.RepairAfter > 0 {
		p.RepairAfter = int64(time.Duration(m.RepairAfter) * time.Millisecond)
	}
	p.Paused = (p.Paused || m.Pause) && !m.Resume
}

// FindPool returns a pool by name.
func FindPool(tx Tx, name string) (*Pool, bool, error) {
	id, ok, err := key.LoadNumber(tx, key.PoolName(name))
	if err != nil || !ok {
		return nil, false, err
	}
	p := new(Pool)
	ok, err = key.Load(tx, key.Pool(uint32(id)), p)
	return p, ok, err
}

// DeletePool removes a pool that no volume uses, with its groups. Layers that
// still wait for deletion there go with the groups.
func DeletePool(tx Tx, name string) error {
	p, ok, err := FindPool(tx, name)
	if err != nil {
		return err
	}
	if !ok {
		return fail("delete pool", ashlar.NotExist, name, "")
	}
	used := false
	lo, hi := key.Range32(key.KindPoolVolume, p.ID)
	tx.Scan(lo, hi, func(_, _ []byte) bool { used = true; return false })
	if used {
		return fail("delete pool", ashlar.Busy, name, "a volume uses it")
	}
	groups, err := loadAll[Group](tx, key.KindGroup)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.Pool == p.ID {
			tx.Delete(key.Group(g.ID))
		}
	}
	tx.Delete(key.Pool(p.ID))
	tx.Delete(key.PoolName(name))
	return nil
}

// SetDisk changes or forgets a disk.
func SetDisk(tx Tx, now int64, m *wire.SetDisk) error {
	v, err := Load(tx)
	if err != nil {
		return err
	}
	d, subject := v.Disks[m.Disk], fmt.Sprintf("disk %d", m.Disk)
	switch {
	case d == nil:
		return fail("set disk", ashlar.NotExist, subject, "")
	case m.Drain && m.Undrain, len(m.Labels) > wire.LabelsMax:
		return fail("set disk", ashlar.Invalid, subject, "")
	}
	if m.Drain {
		if err := v.mayDrain("drain disk", subject, func(o *Disk) bool { return o == d }); err != nil {
			return err
		}
	}
	if m.Drain || m.Undrain {
		d.Drain, d.Why = m.Drain, ""
	}
	if m.Relabel {
		d.Labels, d.Relabeled = slices.Clone(m.Labels), true
	}
	if !m.Remove {
		putDisk(tx, d)
		return nil
	}
	return v.removeDisk(tx, now, d, m.Force)
}

// removeDisk forgets a disk. With force its seats are dropped too, but never
// the last in-sync one of a group.
func (v *View) removeDisk(tx Tx, now int64, d *Disk, force bool) error {
	subject := fmt.Sprintf("disk %d", d.ID)
	if v.Serves(d.ID) && !v.Draining(d.ID) {
		return fail("remove disk", ashlar.Busy, subject, "it serves; drain it first (ashlar disk drain)")
	}
	for _, g := range v.Groups {
		i := g.Index(d.ID)
		switch {
		case i < 0:
		case !force:
			return fail("remove disk", ashlar.Busy, subject, fmt.Sprintf("pg %d has a seat on it", g.ID))
		case v.Serves(d.ID) && g.Group.Primary() == i:
			return fail("remove disk", ashlar.Busy, subject, fmt.Sprintf("it is the live primary of pg %d", g.ID))
		case g.Members[i].State == ashlar.InSync && !otherInSync(g, i, anyMember):
			return fail("remove disk", ashlar.Busy, subject, fmt.Sprintf("it has the last copy of pg %d", g.ID))
		}
	}
	for _, g := range v.Groups {
		if i := g.Index(d.ID); i >= 0 {
			c := edit(g, now)
			c.drop(i)
			c.save(tx)
		}
	}
	tx.Delete(key.Disk(d.ID))
	tx.Delete(key.DiskUUID(d.UUID))
	return nil
}

// mayDrain refuses to empty disks if a pool that has groups on them could then
// not keep as many copies as it is to have: they would never be empty.
func (v *View) mayDrain(op, subject string, which func(*Disk) bool) error {
	for _, p := range v.Pools {
		used := slices.ContainsFunc(v.Groups, func(g *Group) bool {
			return g.Pool == p.ID && slices.ContainsFunc(g.Members, func(m ashlar.Member) bool {
				d := v.Disks[m.Disk]
				return d != nil && which(d)
			})
		})
		before := v.domains(p, nil)
		after := v.domains(p, which)
		if !used || after >= int(p.Replicas) || after == before {
			continue
		}
		return fail(op, ashlar.Busy, subject, fmt.Sprintf(
			"pool %s is to have %d copies, and only %s would be left that can take one; add one first, or ask for fewer copies (ashlar pool set %s --replicas %d)",
			p.Name, p.Replicas, count(after, p.Domain.String()), p.Name, max(1, after)))
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// SetNode drains or forgets a chunkserver.
func SetNode(tx Tx, m *wire.SetNode) error {
	v, err := Load(tx)
	if err != nil {
		return err
	}
	for _, id := range v.NodeIDs() {
		n := v.Nodes[id]
		if n.Name != m.Name {
			continue
		}
		if m.Drain && m.Undrain {
			return fail("set node", ashlar.Invalid, m.Name, "")
		}
		if m.Drain {
			if err := v.mayDrain("drain node", m.Name, func(d *Disk) bool { return d.Node == id }); err != nil {
				return err
			}
		}
		if m.Drain || m.Undrain {
			n.Drain = m.Drain
		}
		if !m.Remove {
			putNode(tx, n)
			return nil
		}
		for _, d := range v.Disks {
			if d.Node == id {
				return fail("remove node", ashlar.Busy, m.Name, "its disks are not removed yet (ashlar disk remove)")
			}
		}
		if n.Up {
			return fail("remove node", ashlar.Busy, m.Name, "it is running; stop it first")
		}
		tx.Delete(key.Node(id))
		tx.Delete(key.NodeName(n.Name))
		return nil
	}
	return fail("set node", ashlar.NotExist, m.Name, "")
}
