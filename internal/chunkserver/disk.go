package chunkserver

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// disk is one disk of the chunkserver, open or detached. One that did not open
// is none of a life's; it is tried again, and opened between two lives.
type disk struct {
	s      *Server
	conf   DiskConfig
	path   string
	labels []string
	store  *chunkstore.Disk // nil if it did not open
	broken error            // why it did not
	opened *chunkstore.Disk // since, for the next life; guarded by Server.openMu
	id     atomic.Uint32    // its number, 0 before the first registration
	slots  slots

	repaired atomic.Uint64
	differed atomic.Uint64 // blocks that a scrub found to differ between members
}

// openDisk opens a disk, formatting an empty directory. A disk that is not
// ours, or open already, is an error; one that fails is detached.
func (s *Server) openDisk(c DiskConfig) (*disk, error) {
	d := &disk{s: s, conf: c, path: c.Path, labels: c.Labels}
	store, err := d.open(true)
	switch ashlar.KindOf(err) {
	case ashlar.WrongCluster, ashlar.Version, ashlar.Busy, ashlar.Invalid:
		return nil, err
	}
	if err != nil {
		s.log.Error("disk does not open; it is left out and tried again", "disk", c.Path, "err", err)
		d.broken = err
		return d, nil
	}
	d.take(store)
	return d, nil
}

func (d *disk) take(store *chunkstore.Disk) {
	d.store, d.broken = store, nil
	d.slots.t = store.Inflight()
}

// errEmpty is why an empty directory is not opened later: what was there when
// the process began is not mounted any more.
var errEmpty = errors.New("the directory is empty: mount the disk, or restart the node to begin a new one there")

// open opens the disk; fresh allows to format an empty directory in which none
// of this node was open before.
func (d *disk) open(fresh bool) (*chunkstore.Disk, error) {
	c, cfg := &d.conf, &d.s.cfg
	ok, err := chunkstore.Formatted(cfg.FS, c.Path)
	switch {
	case err != nil || ok:
	case d.s.known.missing(c.Path) != nil:
		err = d.s.known.missing(c.Path)
	case fresh:
		err = chunkstore.Format(cfg.FS, c.Path, cfg.Cluster)
	default:
		err = errEmpty
	}
	if err != nil {
		return nil, err
	}
	store, err := chunkstore.Open(chunkstore.Config{
		FS: cfg.FS, Dir: c.Path, Cluster: cfg.Cluster, BootID: cfg.BootID, Reserve: cmp.Or(c.Reserve, cfg.Reserve),
		Clock: d.s.clk, Logger: d.s.log, Labels: c.Labels, OnFail: d.onFail,
	})
	if err != nil {
		return nil, err
	}
	if err := d.s.known.note(c.Path, store); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func (d *disk) close() error {
	if d.store == nil && d.opened == nil {
		return nil
	}
	return cmp.Or(d.store, d.opened).Close()
}

// errReopened ends a life: the next has a disk more.
var errReopened = errors.New("a disk that did not open does now")

// present returns the disks that are open, which are those of a life. One that
// opened since the last is among them. Only run calls it.
func (s *Server) present() (out []*disk) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	for _, d := range s.disks {
		if d.opened != nil {
			d.take(d.opened)
			d.opened = nil
		}
		if d.store != nil {
			out = append(out, d)
		}
	}
	return out
}

// reopenLoop tries disks that are left out again.
func (l *life) reopenLoop() {
	s := l.s
	if len(l.present) == len(s.disks) {
		return
	}
	tick := s.clk.NewTicker(reopenEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C():
		}
		for _, d := range s.disks {
			if d.store != nil {
				continue
			}
			store, err := d.open(false)
			if err != nil {
				s.openMu.Lock()
				if err.Error() != d.broken.Error() {
					s.log.Error("disk does not open", "disk", d.path, "err", err)
				}
				d.broken = err
				s.openMu.Unlock()
				continue
			}
			s.log.Info("disk opens again", "disk", d.path)
			s.openMu.Lock()
			d.opened = store
			s.openMu.Unlock()
			l.cancel(errReopened)
			return
		}
	}
}

// number is the disk's number in the cluster.
func (d *disk) number() ashlar.DiskID { return ashlar.DiskID(d.id.Load()) }

// failed tells why the disk does not serve.
func (d *disk) failed() error {
	if d.store == nil {
		return d.broken
	}
	return d.store.Failed()
}

// onFail gives up the seats on a disk that was lost and tells the masters;
// the process lives on.
func (d *disk) onFail(cause error) {
	l, err := d.s.current()
	if err != nil {
		return // the next registration tells
	}
	defer l.leave()
	for _, t := range l.all() {
		if t.d == d {
			l.remove(seatKey{d.number(), t.group})
			t.close(ashlar.NotReady)
		}
	}
	for l.ctx.Err() == nil {
		err := d.s.cfg.Leader.Call(l.ctx, &wire.ReportDisk{Session: l.session, Disk: d.number(), Reason: cause.Error()}, nil)
		if err == nil || l.lost(err) {
			return
		}
		d.s.sleep(l.ctx, retryMax)
	}
}

func infos(disks []*disk) []wire.DiskInfo {
	out := make([]wire.DiskInfo, len(disks))
	for i, d := range disks {
		out[i] = d.info()
	}
	return out
}

func (d *disk) info() wire.DiskInfo {
	i := wire.DiskInfo{Path: d.path, Labels: d.labels, Repaired: d.repaired.Load()}
	if err := d.failed(); err != nil {
		i.Error = err.Error()
	}
	if d.store != nil {
		i.UUID, i.Owner = d.store.UUID(), d.store.Owner()
		i.Total, i.Free = d.store.Usage()
		i.Chunks = d.store.Chunks()
		i.Damaged = d.store.Damaged() + d.differed.Load()
		i.Repaired += d.store.Healed()
	}
	return i
}

// force writes although the disk is full, as a repair does: other members
// have applied the write. Blocks written in part are merged here.
func (d *disk) force(k chunkstore.Key, w *chunkstore.Write) error {
	const b = ashlar.BlockSize
	lo, hi := w.Off/b*b, (w.Off+w.Len+b-1)/b*b
	buf := make([]byte, hi-lo)
	_, zero, err := d.store.Read(k, lo, hi-lo, buf)
	if err != nil {
		return err
	}
	if zero {
		clear(buf)
	}
	if w.Zero {
		clear(buf[w.Off-lo : w.Off-lo+w.Len])
	} else {
		copy(buf[w.Off-lo:], w.Data)
	}
	c := &wire.Copy{ChunkSize: w.ChunkSize, Origin: w.Origin, Off: lo, Data: buf, Sums: checksum.Append(nil, 0, buf)}
	for range len(buf) / b {
		c.States = append(c.States, chunkstore.Data)
	}
	return d.store.Import(k, c, w.Epoch)
}

// slots gives replication the disk's table of writes in flight. The table
// forgets the oldest results when it is full, so a slot here carries a serial
// number: what is said of one that was taken over by another write is void.
//
//	Slot: serial 19 bits, place 13 bits
type slots struct {
	t *chunkstore.Inflight

	mu     sync.Mutex
	serial [wire.InflightMax]uint32
}

const placeBits = 13

var _ = [1]struct{}{}[1<<placeBits-wire.InflightMax]

// groupSlots is the table as one group sees it.
type groupSlots struct {
	s     *slots
	group ashlar.PGID
}

var _ replication.Slots = groupSlots{}

func (s *slots) of(g ashlar.PGID) groupSlots { return groupSlots{s, g} }

// take makes a place a new slot. s.mu must be held.
func (s *slots) take(place int) replication.Slot {
	s.serial[place]++
	return replication.Slot(s.serial[place]<<placeBits | uint32(place))
}

// with calls f for the place of a slot that is still its own.
func (s *slots) with(slot replication.Slot, f func(place int)) {
	place := int(slot & (1<<placeBits - 1))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serial[place]<<placeBits == uint32(slot)&^(1<<placeBits-1) {
		f(place)
	}
}

// Begin implements replication.Slots.
func (g groupSlots) Begin(e ashlar.Epoch, num uint64, rec *wire.Inflight) (replication.Slot, error) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	place, err := g.s.t.Begin(g.group, e, num, rec)
	if err != nil {
		return replication.NoSlot, err
	}
	return g.s.take(place), nil
}

// Applied implements replication.Slots.
func (g groupSlots) Applied(slot replication.Slot) { g.s.with(slot, g.s.t.Applied) }

// Done implements replication.Slots.
func (g groupSlots) Done(slot replication.Slot) { g.s.with(slot, g.s.t.Done) }

// Free implements replication.Slots.
func (g groupSlots) Free(slot replication.Slot) { g.s.with(slot, g.s.t.Free) }

// restore returns what is noted of a group.
func (s *slots) restore(g ashlar.PGID) []replication.Restored {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []replication.Restored
	for _, e := range s.t.List(g) {
		out = append(out, replication.Restored{Inflight: e.Inflight, Slot: s.take(e.Slot)})
	}
	return out
}

// forgotten returns the horizons of the table: those of sessions, and the
// lowest session of which everything is known.
func (s *slots) forgotten() (horizons []wire.Horizon, known ashlar.SessionID) {
	for _, z := range s.t.Horizons() {
		if z.Session == 0 {
			known = ashlar.SessionID(z.Seq) + 1
		} else {
			horizons = append(horizons, z)
		}
	}
	return horizons, known
}
