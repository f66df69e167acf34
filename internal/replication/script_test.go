package replication

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fakeSlots is a slot table that survives restart.
type fakeSlots struct {
	next Slot
	recs map[Slot]wire.Inflight
	full bool
}

func (f *fakeSlots) Begin(_ ashlar.Epoch, _ uint64, rec *wire.Inflight) (Slot, error) {
	if f.full {
		return NoSlot, ashlar.Overloaded
	}
	f.next++
	f.recs[f.next] = *rec
	return f.next, nil
}

func (f *fakeSlots) set(s Slot, done bool) {
	r, ok := f.recs[s]
	if !ok {
		panic("no such slot")
	}
	r.Applied, r.Done = true, r.Done || done
	f.recs[s] = r
}
func (f *fakeSlots) Applied(s Slot) { f.set(s, false) }
func (f *fakeSlots) Done(s Slot)    { f.set(s, true) }
func (f *fakeSlots) Free(s Slot)    { delete(f.recs, s) }

// block is what a fake disk holds of 4 KiB: a letter and the epoch that
// stamped it.
type block struct {
	val   string
	epoch ashlar.Epoch
}

// seat is one member with its disk.
type seat struct {
	g      *Group
	slots  *fakeSlots
	data   map[uint32]block
	down   bool
	frozen bool // the disk does not finish writes
	queue  []Action
	since  ashlar.Epoch
	gens   map[ashlar.LayerID]ashlar.Generation
	fenced map[ashlar.SessionID]bool
}

// cluster runs seats one action at a time, in a fixed order.
type cluster struct {
	seats map[ashlar.DiskID]*seat
	vals  map[*wire.Write]string
	names map[*Op]string
	out   strings.Builder
}

func newCluster(ids []ashlar.DiskID) *cluster {
	c := &cluster{seats: map[ashlar.DiskID]*seat{}, vals: map[*wire.Write]string{}, names: map[*Op]string{}}
	for _, id := range ids {
		s := &seat{
			slots: &fakeSlots{recs: map[Slot]wire.Inflight{}}, data: map[uint32]block{},
			gens: map[ashlar.LayerID]ashlar.Generation{}, fenced: map[ashlar.SessionID]bool{},
		}
		c.seats[id] = s
		c.boot(id, 0)
	}
	return c
}

func (c *cluster) boot(id ashlar.DiskID, amnesia ashlar.SessionID) {
	s := c.seats[id]
	var restored []Restored
	for slot, r := range s.slots.recs {
		restored = append(restored, Restored{r, slot})
	}
	slices.SortFunc(restored, func(a, b Restored) int { return int(a.Slot) - int(b.Slot) })
	s.queue, s.down, s.frozen = nil, false, false
	s.g = New(id, Options{Slots: s.slots, Restored: restored, Amnesia: amnesia, Gate: func(op *Op) error {
		if s.fenced[op.Write.Session] {
			return ashlar.NoSession
		}
		if op.Write.Gen < s.gens[op.Write.Layer] {
			return ashlar.WrongGeneration
		}
		return nil
	}})
}

func (c *cluster) ids() []ashlar.DiskID {
	var out []ashlar.DiskID
	for id := range c.seats {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (c *cluster) printf(f string, a ...any) { fmt.Fprintf(&c.out, f+"\n", a...) }

// run carries out what can be, until nothing can.
func (c *cluster) run() {
	for progress := true; progress; {
		progress = false
		for _, id := range c.ids() {
			s := c.seats[id]
			if s.down {
				continue
			}
			s.queue = append(s.queue, s.g.Actions()...)
			for i := 0; i < len(s.queue); i++ {
				a := s.queue[i]
				s.queue = slices.Delete(s.queue, i, i+1)
				if c.do(id, s, a) {
					progress = true
					break
				}
				s.queue = slices.Insert(s.queue, i, a)
			}
		}
	}
}

func (s *seat) apply(w *wire.Write, val string, e ashlar.Epoch) {
	for b := w.Off / 4096; b < (w.Off+w.Len)/4096; b++ {
		s.data[b] = block{val, e}
	}
}

func (c *cluster) do(id ashlar.DiskID, s *seat, a Action) bool {
	to := c.seats[a.Disk]
	if a.Disk != 0 && a.Disk != id && a.Kind != ActReport && a.Kind != ActStop {
		if to == nil || to.down {
			return false
		}
	}
	switch a.Kind {
	case ActApply:
		if s.frozen {
			return false
		}
		s.apply(a.Op.Write, c.vals[a.Op.Write], a.Epoch)
		c.printf("%d: apply %s e%d/%d", id, c.names[a.Op], a.Epoch, a.Num)
		s.g.Applied(a.Op, a.Epoch, nil)
	case ActSend:
		if to.frozen {
			return false
		}
		w := *a.Op.Write
		w.Epoch = a.Epoch
		v, n, err := to.g.Replicate(&wire.Replicate{Disk: a.Disk, Op: a.Num, Committed: a.Committed, Write: w}, nil)
		switch v {
		case Do:
			to.apply(&w, c.vals[a.Op.Write], a.Epoch)
			to.g.NoteApplied(n, nil)
			c.printf("%d->%d: %s e%d/%d committed=%d", id, a.Disk, c.names[a.Op], a.Epoch, a.Num, a.Committed)
		case Already:
			c.printf("%d->%d: %s e%d/%d already", id, a.Disk, c.names[a.Op], a.Epoch, a.Num)
		default:
			c.printf("%d->%d: %s e%d/%d refused: %v", id, a.Disk, c.names[a.Op], a.Epoch, a.Num, err)
			return errors.Is(err, ashlar.WrongEpoch)
		}
		s.g.Acked(a.Op, a.Disk, a.Epoch)
	case ActFinish:
		if a.Err != nil {
			c.printf("%d: %s: %v", id, c.names[a.Op], a.Err)
		} else {
			c.printf("%d: %s: ok", id, c.names[a.Op])
		}
	case ActGrant:
		c.printf("%d: granted %v", id, a.Span.Owner)
	case ActRecord:
		cfg := s.g.Config()
		if at := cfg.Index(id); at >= 0 && cfg.Members[at].State == ashlar.InSync {
			s.since = cfg.Epoch
		}
		c.printf("%d: record e%d", id, a.Epoch)
		s.g.Recorded(a.Epoch)
	case ActAdopt:
		to.g.Configure(*s.g.Config())
		if to.g.Epoch() == a.Epoch && to.g.Phase() < Following {
			to.queue = append(to.queue, to.g.Actions()...)
			return false
		}
		h := to.g.Handover()
		c.printf("%d->%d: adopt e%d, handed over %d", id, a.Disk, a.Epoch, len(h.Inflight))
		s.g.HandedOver(a.Disk, a.Epoch, h)
	case ActEqualise:
		if s.frozen {
			return false
		}
		var members []ashlar.DiskID
		for _, m := range s.g.Config().Members {
			if m.State == ashlar.InSync {
				members = append(members, m.Disk)
				for b := a.Range.Off / 4096; b < (a.Range.Off+a.Range.Len)/4096; b++ {
					if d, ok := s.data[b]; ok {
						c.seats[m.Disk].data[b] = block{d.val, a.Epoch}
					} else {
						delete(c.seats[m.Disk].data, b)
					}
				}
			}
		}
		c.printf("%d: equalise s%d/%d [%d,%d) on %v", id, a.Range.Session, a.Range.Seq,
			a.Range.Off/4096, (a.Range.Off+a.Range.Len)/4096, members)
		s.g.Equalised(a.Epoch, &a.Range)
	case ActResolve:
		res, hor := s.g.Results()
		err := to.g.Resolve(a.Epoch, res, hor)
		c.printf("%d->%d: resolve %d results, %d horizons %v", id, a.Disk, len(res), len(hor), err)
		s.g.Resolved(a.Disk, a.Epoch)
	case ActServe:
		c.printf("%d: serving e%d", id, a.Epoch)
	case ActCatchup:
		c.printf("%d->%d: catch up beyond %d", id, a.Disk, a.Committed)
		c.catchup(s, to, a)
	case ActStop:
		s.queue = slices.DeleteFunc(s.queue, func(b Action) bool {
			return (a.Disk == 0 || a.Disk == b.Disk) && (b.Kind == ActSend || b.Kind == ActAdopt || b.Kind == ActResolve || b.Kind == ActCatchup) &&
				(b.Epoch < a.Epoch || a.Disk != 0 && b.Epoch == a.Epoch)
		})
	case ActReport:
		c.printf("%d: report %d: %v", id, a.Disk, a.Err)
	}
	return true
}

// catchup is what a chunkserver does in steps: regions changed since the
// member was in-sync, and what it had in flight itself.
func (c *cluster) catchup(s, to *seat, a Action) {
	to.g.Commit(a.Epoch, a.Committed)
	ranges := to.g.Flying()
	copied := []uint32{}
	for b, d := range s.data {
		want := d.epoch > to.since
		for _, f := range ranges {
			want = want || b >= f.Off/4096 && b < (f.Off+f.Len)/4096
		}
		if want {
			to.data[b] = block{d.val, a.Epoch}
			copied = append(copied, b)
		}
	}
	slices.Sort(copied)
	res, hor := s.g.Results()
	if err := to.g.Resolve(a.Epoch, res, hor); err != nil {
		c.printf("resolve: %v", err)
	}
	if err := to.g.Caught(a.Epoch); err != nil {
		c.printf("caught: %v", err)
	}
	c.printf("  copied blocks %v beyond e%d", copied, to.since)
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var c *cluster
		ops := map[string]*Op{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if c != nil {
				c.out.Reset()
			}
			disk := func(key string) ashlar.DiskID {
				var n int
				d.ScanArgs(t, key, &n)
				return ashlar.DiskID(n)
			}
			list := func(key string) (out []ashlar.DiskID) {
				for _, a := range d.CmdArgs {
					if a.Key == key {
						for _, v := range a.Vals {
							var n int
							fmt.Sscan(v, &n)
							out = append(out, ashlar.DiskID(n))
						}
					}
				}
				return out
			}
			num := func(key string, def uint64) uint64 {
				if d.HasArg(key) {
					d.ScanArgs(t, key, &def)
				}
				return def
			}
			switch d.Cmd {
			case "cluster":
				c, ops = newCluster(list("disks")), map[string]*Op{}
			case "epoch":
				e := num("e", 0)
				cfg := ashlar.Group{ID: 1, Epoch: ashlar.Epoch(e)}
				for _, state := range []struct {
					key string
					st  ashlar.MemberState
				}{{"insync", ashlar.InSync}, {"syncing", ashlar.Syncing}, {"offline", ashlar.Offline}} {
					for _, id := range list(state.key) {
						cfg.Members = append(cfg.Members, ashlar.Member{Disk: id, State: state.st, Incarnation: 1})
					}
				}
				for _, id := range list("to") {
					c.seats[id].g.Configure(cfg)
				}
				c.run()
			case "write":
				s := c.seats[disk("at")]
				var name string
				d.ScanArgs(t, "name", &name)
				w := &wire.Write{
					Address: wire.Address{
						Group: 1, Epoch: ashlar.Epoch(num("e", uint64(s.g.Epoch()))), Layer: 1,
						Session: ashlar.SessionID(num("s", 7)), Gen: ashlar.Generation(num("gen", 1)),
					},
					Seq: num("seq", 0), Lowest: num("lowest", 1), Off: uint32(num("block", 0)) * 4096,
					Len: uint32(num("n", 1)) * 4096,
				}
				if d.HasArg("retry") {
					w.Flags |= wire.WriteRetry
				}
				op := &Op{Write: w}
				c.vals[w], c.names[op] = name, name
				v, _, err := s.g.Order(op)
				switch v {
				case Refused:
					c.printf("%s: refused: %v", name, err)
				case Already:
					c.printf("%s: already done", name)
				case Joined:
					c.printf("%s: joined", name)
				default:
					ops[name] = op
				}
				c.run()
			case "withdraw":
				var name string
				d.ScanArgs(t, "name", &name)
				c.printf("withdrawn: %v", c.seats[disk("at")].g.Withdraw(ops[name], ashlar.Timeout))
				c.run()
			case "down":
				c.seats[disk("disk")].down = true
			case "up":
				c.seats[disk("disk")].down = false
				c.run()
			case "freeze":
				c.seats[disk("disk")].frozen = true
			case "thaw":
				c.seats[disk("disk")].frozen = false
				c.run()
			case "fail":
				s := c.seats[disk("at")]
				s.g.Failed(disk("disk"), s.g.Epoch(), ashlar.Timeout)
				c.run()
			case "restart": // the process: what was written and noted stays
				if d.HasArg("power") { // the machine: notes are gone
					clear(c.seats[disk("disk")].slots.recs)
				}
				c.boot(disk("disk"), ashlar.SessionID(num("amnesia", 0)))
			case "fence":
				s := c.seats[disk("at")]
				id := ashlar.SessionID(num("s", 0))
				s.fenced[id] = true
				c.printf("clean: %v", s.g.Fence(id))
				c.run()
			case "raise":
				c.seats[disk("at")].gens[1] = ashlar.Generation(num("gen", 0))
			case "line":
				s := c.seats[disk("at")]
				sp := &Span{Layer: 1, Off: uint32(num("block", 0)) * 4096, Scope: Scope(num("scope", 0)), Shared: d.HasArg("shared")}
				sp.End = sp.Off + uint32(num("n", 1))*4096
				var name string
				d.ScanArgs(t, "name", &name)
				sp.Owner = name
				c.printf("granted: %v", s.g.Line(sp))
			case "yield":
				c.printf("%v", c.seats[disk("at")].g.Yield(c.seats[disk("at")].g.Epoch()))
			case "resume":
				c.seats[disk("at")].g.Resume(c.seats[disk("at")].g.Epoch())
			case "show":
				for _, id := range c.ids() {
					s := c.seats[id]
					var blocks []string
					for b := uint32(0); b < 16; b++ {
						if v, ok := s.data[b]; ok {
							blocks = append(blocks, fmt.Sprintf("%d=%s@%d", b, v.val, v.epoch))
						}
					}
					c.printf("%d: %v; %s", id, s.g, strings.Join(blocks, " "))
				}
			default:
				t.Fatalf("unknown command %s", d.Cmd)
			}
			return c.out.String()
		})
	})
}
