package placement

import (
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Registered is what a registration gave.
type Registered struct {
	Node    ashlar.NodeID
	Session ashlar.SessionID
	Disks   []ashlar.DiskID // in the order of the message
	// Replaced is the session of the incarnation before, 0 if there was none
	// or it is known to be over.
	Replaced ashlar.SessionID
}

// Register takes a new incarnation of a chunkserver under a session of its
// own, which open makes. It is refused with Busy while another data directory
// or another address lives under its name, or one of its disks on another live
// node; with Fenced if a disk was
// opened less often than it was before: it is a copy; with WrongCluster if a
// disk that nobody knows holds chunks. Repeating a registration changes
// nothing.
func Register(tx Tx, now int64, open func(ashlar.NodeID) (ashlar.SessionID, error), m *wire.Register) (*Registered, error) {
	v, err := Load(tx)
	if err != nil {
		return nil, err
	}
	n, err := v.claimNode(m)
	if err != nil {
		return nil, err
	}
	if err := v.claimDisks(m, n); err != nil {
		return nil, err
	}
	if n == nil {
		id, err := issue(tx, key.CounterNode)
		if err != nil {
			return nil, err
		}
		n = &Node{ID: ashlar.NodeID(id), Name: m.Name, UUID: m.UUID}
		v.Nodes[n.ID] = n
		key.StoreNumber(tx, key.NodeName(n.Name), uint64(n.ID))
	}
	out := &Registered{Node: n.ID}
	again := n.Up && n.Incarnation == m.Incarnation
	if n.Up && !again {
		out.Replaced = n.Session
	}
	if !n.Up {
		n.Since = now
	}
	n.UUID, n.Addr, n.Rack, n.Incarnation, n.Process, n.Up = m.UUID, m.Addr, m.Rack, m.Incarnation, m.Process, true
	if !again {
		if n.Session, err = open(n.ID); err != nil {
			return nil, err
		}
	}
	out.Session = n.Session
	putNode(tx, n)
	if out.Disks, err = v.registerDisks(tx, now, m, n); err != nil {
		return nil, err
	}
	if !again {
		v.restarted(tx, now, n.ID)
	}
	return out, nil
}

// Fenced notes that a node has acknowledged every fence up to a revision, if
// session is still the node's. It is logged because a new leader has to know,
// and nobody tells it again.
func Fenced(tx Tx, id ashlar.NodeID, session ashlar.SessionID, revision uint64) error {
	n, ok, err := getNode(tx, id)
	if err != nil || !ok || n.Session != session || n.Fenced >= revision {
		return err
	}
	n.Fenced = revision
	putNode(tx, n)
	return nil
}

func (v *View) claimNode(m *wire.Register) (*Node, error) {
	switch {
	case m.Name == "" || len(m.Name) > ashlar.NameMax:
		return nil, fail("register", ashlar.Invalid, m.Name, "a node needs a name")
	case m.Addr == "" || m.Incarnation == 0 || m.UUID == (wire.UUID{}):
		return nil, fail("register", ashlar.Invalid, m.Name, "address, incarnation and data directory are needed")
	}
	for _, id := range v.NodeIDs() {
		n := v.Nodes[id]
		switch {
		case n.Name == m.Name && n.UUID != m.UUID && n.Up:
			return nil, fail("register", ashlar.Busy, m.Name, "another data directory is served under this name by "+n.Addr)
		case n.Name != m.Name && n.UUID == m.UUID:
			return nil, fail("register", ashlar.Invalid, m.Name, "this data directory belongs to node "+n.Name)
		case n.Name == m.Name && n.Up && n.Incarnation != m.Incarnation && n.Addr != m.Addr:
			// A restart where the old process listened proves that one dead;
			// this may be a copy, and the old one's lease holds (I-6).
			return nil, fail("register", ashlar.Busy, m.Name, "this node is still served by "+n.Addr)
		case n.Name == m.Name:
			return n, nil
		}
	}
	return nil, nil
}

func (v *View) claimDisks(m *wire.Register, n *Node) error {
	seen := map[wire.UUID]bool{}
	for i := range m.Disks {
		in := &m.Disks[i]
		if in.UUID == (wire.UUID{}) || seen[in.UUID] {
			return fail("register", ashlar.Invalid, in.Path, "disk without an id of its own")
		}
		seen[in.UUID] = true
		d := v.diskByUUID(in.UUID)
		if d == nil && in.Chunks > 0 {
			// Taken in, it would be told to delete what nobody knows (I-5).
			return fail("register", ashlar.WrongCluster, in.Path, fmt.Sprintf(
				"disk holds %d chunks and the masters do not know it: they were made anew, or it was removed; bring the old masters back, or empty the disk if its data is not needed", in.Chunks))
		}
		if d == nil {
			continue
		}
		if n == nil || d.Node != n.ID {
			if old := v.Nodes[d.Node]; old != nil && old.Up && d.Attached {
				return fail("register", ashlar.Busy, in.Path, fmt.Sprintf("disk %d is served by node %s", d.ID, old.Name))
			}
		}
		if in.Owner < d.Owner {
			return fail("register", ashlar.Fenced, in.Path,
				fmt.Sprintf("disk %d was opened %d times before, this one %d times: it is an old copy", d.ID, d.Owner, in.Owner))
		}
	}
	return nil
}

func (v *View) diskByUUID(u wire.UUID) *Disk {
	for _, d := range v.Disks {
		if d.UUID == u {
			return d
		}
	}
	return nil
}

// registerDisks records the disks that came and those that did not.
func (v *View) registerDisks(tx Tx, now int64, m *wire.Register, n *Node) ([]ashlar.DiskID, error) {
	ids := make([]ashlar.DiskID, len(m.Disks))
	for i := range m.Disks {
		in := &m.Disks[i]
		d := v.diskByUUID(in.UUID)
		if d == nil {
			id, err := issue(tx, key.CounterDisk)
			if err != nil {
				return nil, err
			}
			d = &Disk{ID: ashlar.DiskID(id), UUID: in.UUID, Added: now}
			v.Disks[d.ID] = d
			key.StoreNumber(tx, key.DiskUUID(d.UUID), uint64(d.ID))
		}
		if d.Node != n.ID {
			v.moveDisk(tx, d, n.ID)
		}
		d.Node, d.Path, d.Owner = n.ID, in.Path, in.Owner
		if !d.Relabeled {
			d.Labels = slices.Clone(in.Labels)
		}
		d.Failed, d.Attached, d.Away = in.Error, true, 0
		d.Damaged = min(d.Damaged, in.Damaged) // it counts from its opening
		if in.Error != "" {
			d.Away = now
		}
		putDisk(tx, d)
		ids[i] = d.ID
	}
	for _, id := range v.DiskIDs() {
		d := v.Disks[id]
		if d.Node == n.ID && d.Attached && !slices.Contains(ids, id) {
			d.Attached, d.Away = false, now
			putDisk(tx, d)
		}
	}
	return ids, nil
}

// moveDisk records in every group of a disk that it is in another node now.
// The epoch need not rise for it: restarted does that.
func (v *View) moveDisk(tx Tx, d *Disk, to ashlar.NodeID) {
	for _, g := range v.Groups {
		if i := g.Index(d.ID); i >= 0 {
			g.Members[i].Node = to
			putGroup(tx, g)
		}
	}
}

// restarted takes the disks of a node that has a new incarnation out of the
// in-sync sets. The seat stays in-sync, and the group is marked, if nobody
// else that could be primary has the data; a seat whose disk did not come
// back goes offline.
func (v *View) restarted(tx Tx, now int64, node ashlar.NodeID) {
	up := func(m *ashlar.Member) bool { return v.Serves(m.Disk) && m.Node != node }
	for _, g := range v.Groups {
		c := edit(g, now)
		for i := range g.Members {
			m := &g.Members[i]
			if m.Node != node {
				continue
			}
			switch serves := v.Serves(m.Disk); {
			case m.State == ashlar.InSync && otherInSync(g, i, up):
				c.set(i, back(serves))
			case m.State == ashlar.InSync && serves && otherInSync(g, i, anyMember):
				// The others in-sync are down: all hold the same (I-5), and this
				// one is here. It goes on alone.
				for j := range g.Members {
					if j != i && g.Members[j].State == ashlar.InSync {
						c.set(j, ashlar.Offline)
					}
				}
				g.LastCopy, c.hit = true, true
			case m.State == ashlar.InSync && serves:
				g.LastCopy, c.hit = true, true
			case m.State != ashlar.InSync:
				c.set(i, back(serves))
				c.hit = true // a catch-up that was under way begins again
			}
		}
		c.save(tx)
	}
}

func back(serves bool) ashlar.MemberState {
	if serves {
		return ashlar.Syncing
	}
	return ashlar.Offline
}
