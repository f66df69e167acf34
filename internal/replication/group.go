package replication

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Phase is how far a Group is in its epoch.
type Phase uint8

// The phases, in order.
const (
	Idle Phase = iota // no configuration yet
	Recording
	Following
	Adopting
	Equalising
	Resolving
	Serving
	Closed
)

var phaseText = [...]string{
	"idle", "recording", "following", "adopting", "equalising", "resolving", "serving", "closed",
}

// String names the phase.
func (p Phase) String() string { return phaseText[p] }

// target is another member that the primary sends to.
type target struct {
	disk  ashlar.DiskID
	bit   uint64
	state ashlar.MemberState
	inc   ashlar.Incarnation
	// handed: it recorded the epoch. attached: it gets writes.
	handed, attached, resolved, reported bool
	// barrier is the last write that a syncing member did not get; when it is
	// committed the catch-up may begin.
	barrier uint64
	caught  bool // ActCatchup was given
	// pass numbers the attachments; promised: the masters were told that it
	// is synced, so that it may be in-sync any moment.
	pass     uint64
	promised bool
}

// Group is one disk's seat in one placement group.
type Group struct {
	me    ashlar.DiskID
	gate  func(*Op) error
	cfg   ashlar.Group
	phase Phase

	targets []target
	selfBit uint64

	line spanList
	mem  memory

	// The primary's writes that were started, by number.
	oldest, newest *Op
	held           []*Op // granted while not serving, in order
	next           uint64
	committed      uint64

	// notes are a member's writes of this epoch above committed, by number.
	notes map[uint64]*Note

	applying int // writes to the local disk that were begun and not reported
	union    []wire.Inflight
	ranges   int // not yet equal
	yielded  bool
	broken   error
	closing  error
	passes   uint64
	// amnesia: power was lost, so what was noted before is gone, and a retry
	// without a record, by a session below it, can not be judged (I-7).
	amnesia ashlar.SessionID

	granted []*Span
	out     []Action
}

// Options of New.
type Options struct {
	Slots Slots
	// Gate is asked about a write after its span was granted and before it is
	// started; it refuses lower generations (I-10) and fenced sessions (I-7).
	Gate func(*Op) error
	// Restored are the writes noted before the process died, with their slots.
	Restored []Restored
	// Horizons tell what was forgotten before.
	Horizons []wire.Horizon
	// Amnesia says that notes of sessions with lower ids may be missing
	// because power was lost; 0 that none are.
	Amnesia ashlar.SessionID
}

// Restored is a note found in the table at start.
type Restored struct {
	wire.Inflight
	Slot Slot
}

// New returns the seat of disk me, which knows no configuration yet.
func New(me ashlar.DiskID, o Options) *Group {
	g := &Group{me: me, gate: o.Gate, mem: newMemory(o.Slots), notes: map[uint64]*Note{}, amnesia: o.Amnesia}
	for i := range o.Restored {
		f := o.Restored[i]
		s := g.mem.of(f.Session)
		if old := s.recs[f.Seq]; old != nil { // noted in two epochs
			if old.fate == done || old.rec.Applied && !f.Done {
				o.Slots.Free(f.Slot)
				continue
			}
			g.mem.drop(old)
		}
		r := &record{session: s, slot: f.Slot, rec: f.Inflight}
		s.recs[f.Seq] = r
		if f.Done {
			g.mem.finish(r)
		}
	}
	for _, z := range o.Horizons {
		if s := g.mem.of(z.Session); z.Seq > s.horizon {
			s.horizon = z.Seq
		}
	}
	return g
}

// Actions returns what is to be done, in order, and forgets it. The slice is
// good until the next call of any method.
func (g *Group) Actions() []Action {
	out := g.out
	g.out = g.out[:0]
	return out
}

func (g *Group) emit(a Action) { g.out = append(g.out, a) }

// Config returns the configuration of the current epoch.
func (g *Group) Config() *ashlar.Group { return &g.cfg }

// Epoch returns the highest epoch this seat was told of.
func (g *Group) Epoch() ashlar.Epoch { return g.cfg.Epoch }

// Phase returns how far it is.
func (g *Group) Phase() Phase { return g.phase }

// Committed returns the number up to which every write of this epoch is on
// every member.
func (g *Group) Committed() uint64 { return g.committed }

// Idle tells whether no write is in flight.
func (g *Group) Idle() bool { return g.oldest == nil }

// Primary tells whether this seat is the primary of its epoch.
func (g *Group) Primary() bool {
	p := g.cfg.Primary()
	return p >= 0 && g.cfg.Members[p].Disk == g.me
}

// Ready returns nil if client requests of an epoch can be taken, or why not:
// WrongEpoch, NotReady.
func (g *Group) Ready(e ashlar.Epoch) error {
	switch {
	case g.phase == Closed:
		return ashlar.NotReady
	case e < g.cfg.Epoch:
		return ashlar.WrongEpoch
	case e > g.cfg.Epoch || g.broken != nil:
		return ashlar.NotReady
	case g.phase == Following:
		return ashlar.WrongEpoch // not the primary: the asker's map is wrong
	case g.phase != Serving || g.yielded:
		return ashlar.NotReady
	}
	return nil
}

// Answers tells whether what was read here in an epoch may be told: a seat
// whose disk failed has asked to be replaced, and may be already.
func (g *Group) Answers(e ashlar.Epoch) bool {
	return e == g.cfg.Epoch && g.phase == Serving && g.broken == nil
}

// Configure tells of a configuration; an older one is ignored, and of the
// same epoch only addresses and incarnations are taken.
func (g *Group) Configure(cfg ashlar.Group) {
	if g.phase == Closed || cfg.Epoch < g.cfg.Epoch {
		return
	}
	if cfg.Epoch == g.cfg.Epoch && g.phase != Idle {
		g.moved(cfg)
		return
	}
	g.cfg = cfg
	g.phase = Recording
	g.yielded, g.broken = false, nil
	g.targets = g.targets[:0]
	g.emit(Action{Kind: ActStop, Epoch: cfg.Epoch})
	g.drained()
}

// moved takes the addresses of the same epoch: a syncing member that
// restarted has forgotten what it got.
func (g *Group) moved(cfg ashlar.Group) {
	g.cfg = cfg
	for i := range g.targets {
		t := &g.targets[i]
		at := cfg.Index(t.disk)
		if at < 0 || cfg.Members[at].Incarnation == t.inc {
			continue
		}
		t.inc = cfg.Members[at].Incarnation
		if t.state == ashlar.Syncing {
			g.Failed(t.disk, cfg.Epoch, ashlar.Fenced)
		}
	}
}

// Enter counts a change of the local disk that was ordered by the primary of
// an epoch (a copy, a cut); Leave must follow. I-4: it is refused unless the
// epoch is this member's.
func (g *Group) Enter(e ashlar.Epoch) error {
	switch {
	case g.phase == Closed || e > g.cfg.Epoch:
		return ashlar.NotReady
	case e < g.cfg.Epoch:
		return ashlar.WrongEpoch
	case g.phase == Recording:
		return ashlar.NotReady
	}
	g.applying++
	return nil
}

// Leave ends what Enter began.
func (g *Group) Leave() { g.applied() }

func (g *Group) applied() {
	if g.applying--; g.applying < 0 {
		panic("replication: more local writes ended than begun")
	}
	g.drained()
}

// drained goes on with what waits for the local disk to be quiet: nothing of
// an older epoch is written after the new one was recorded.
func (g *Group) drained() {
	if g.applying > 0 {
		return
	}
	switch {
	case g.closing != nil && g.phase != Closed:
		g.phase = Closed
		g.abandon(g.closing)
	case g.phase == Recording:
		g.emit(Action{Kind: ActRecord, Epoch: g.cfg.Epoch})
	}
}

// Recorded reports that an epoch's configuration is durable here.
func (g *Group) Recorded(e ashlar.Epoch) {
	if e != g.cfg.Epoch || g.phase != Recording {
		return
	}
	g.next, g.committed, g.ranges = 0, 0, 0
	clear(g.notes)
	if !g.Primary() {
		g.phase = Following
		g.abandon(ashlar.WrongEpoch)
		return
	}
	g.phase = Adopting
	g.union = g.union[:0]
	for i := range g.cfg.Members {
		m := &g.cfg.Members[i]
		bit := uint64(1) << i
		switch {
		case m.Disk == g.me:
			g.selfBit = bit
		case m.State != ashlar.Offline:
			g.targets = append(g.targets, target{disk: m.Disk, bit: bit, state: m.State, inc: m.Incarnation})
			g.emit(Action{Kind: ActAdopt, Disk: m.Disk, Epoch: e})
		}
	}
	g.adopted()
}

func (g *Group) target(d ashlar.DiskID) *target {
	for i := range g.targets {
		if g.targets[i].disk == d {
			return &g.targets[i]
		}
	}
	return nil
}

// HandedOver reports a member's answer to ActAdopt.
func (g *Group) HandedOver(d ashlar.DiskID, e ashlar.Epoch, h *wire.Handover) {
	t := g.target(d)
	if e != g.cfg.Epoch || g.phase < Adopting || g.phase == Closed || t == nil || t.handed {
		return
	}
	t.handed = true
	if t.state == ashlar.Syncing {
		if g.phase == Serving {
			g.attach(t)
		}
		return // what it noted itself it asks for in its catch-up
	}
	for _, z := range h.Horizons {
		g.mem.raise(z)
	}
	for i := range h.Inflight {
		if f := &h.Inflight[i]; f.Done {
			g.mem.keep(f)
		} else {
			g.union = append(g.union, *f)
		}
	}
	g.adopted()
}

// adopted begins to make equal once every in-sync member has recorded the
// epoch (I-4).
func (g *Group) adopted() {
	if g.phase != Adopting {
		return
	}
	for i := range g.targets {
		if t := &g.targets[i]; t.state == ashlar.InSync && !t.handed {
			return
		}
	}
	g.phase = Equalising
	type key struct {
		s ashlar.SessionID
		q uint64
	}
	seen := map[key]bool{}
	for _, r := range g.mem.all() {
		if r.op == nil && r.fate == flying {
			seen[key{r.rec.Session, r.rec.Seq}] = true
			g.equalise(r.rec)
		}
	}
	for _, f := range g.union {
		s := g.mem.sessions[f.Session]
		if k := (key{f.Session, f.Seq}); seen[k] {
			continue
		} else {
			seen[k] = true
		}
		// That it is below the session's horizon proves nothing: the session
		// may have given it up.
		if s != nil && s.recs[f.Seq] != nil {
			continue // alive here and sent again, or finished
		}
		g.equalise(f)
	}
	g.union = g.union[:0]
	g.equal()
}

func (g *Group) equalise(f wire.Inflight) {
	g.ranges++
	g.applying++
	g.emit(Action{Kind: ActEqualise, Epoch: g.cfg.Epoch, Range: f})
}

// Equalised reports that the content of a range is the same on every in-sync
// member, or that the epoch is over.
func (g *Group) Equalised(e ashlar.Epoch, f *wire.Inflight) {
	g.applied()
	if e != g.cfg.Epoch || g.phase != Equalising {
		return
	}
	g.ranges--
	if s := g.mem.sessions[f.Session]; s != nil {
		if r := s.recs[f.Seq]; r != nil && r.op == nil && r.fate == flying {
			if r.rec.Applied {
				g.mem.finish(r)
			} else { // begun here and cut short: neither done nor undone
				r.fate = torn
				g.mem.torn++
			}
		}
	}
	g.equal()
}

func (g *Group) equal() {
	if g.ranges > 0 {
		return
	}
	g.phase = Resolving
	for i := range g.targets {
		if t := &g.targets[i]; t.state == ashlar.InSync {
			g.emit(Action{Kind: ActResolve, Disk: t.disk, Epoch: g.cfg.Epoch})
		}
	}
	g.resolve()
}

// Resolved reports that an in-sync member holds the same results as this one.
func (g *Group) Resolved(d ashlar.DiskID, e ashlar.Epoch) {
	t := g.target(d)
	if e != g.cfg.Epoch || g.phase != Resolving || t == nil {
		return
	}
	t.resolved = true
	g.resolve()
}

func (g *Group) resolve() {
	for i := range g.targets {
		if t := &g.targets[i]; t.state == ashlar.InSync && !t.resolved {
			return
		}
	}
	g.phase = Serving
	g.emit(Action{Kind: ActServe, Epoch: g.cfg.Epoch})
	for i := range g.targets {
		if t := &g.targets[i]; t.state == ashlar.InSync {
			t.attached = true
		}
	}
	// L-4: what was in flight is sent again under this epoch.
	op := g.oldest
	g.oldest, g.newest = nil, nil
	for op != nil {
		next := op.next
		op.prev, op.next = nil, nil
		g.launch(op)
		op = next
	}
	held := g.held
	g.held = nil
	for _, op := range held {
		g.start(op)
	}
	for i := range g.targets {
		if t := &g.targets[i]; t.state == ashlar.Syncing && t.handed {
			g.attach(t)
		}
	}
	g.settle()
}

// attach lets a syncing member have every write from now on.
func (g *Group) attach(t *target) {
	g.passes++
	t.attached, t.caught, t.barrier, t.pass = true, false, g.next, g.passes
	g.catchups()
}

// detach takes a syncing member out until it has adopted the epoch again;
// what it has stays, but it must be caught up anew.
func (g *Group) detach(t *target) {
	g.emit(Action{Kind: ActStop, Disk: t.disk, Epoch: g.cfg.Epoch})
	t.handed, t.attached, t.caught = false, false, false
	for op := g.oldest; op != nil; {
		next := op.next
		op.pending &^= t.bit
		g.complete(op)
		op = next
	}
	g.emit(Action{Kind: ActAdopt, Disk: t.disk, Epoch: g.cfg.Epoch})
	g.settle()
}

// Promise is asked before the masters are told that a member is synced: it
// must still be attached as it was when that catch-up began. From then on it
// counts as in-sync: a write waits for it until the next epoch (I-5).
func (g *Group) Promise(d ashlar.DiskID, e ashlar.Epoch, pass uint64) bool {
	t := g.target(d)
	if e != g.cfg.Epoch || g.phase != Serving || t == nil || !t.attached || t.pass != pass {
		return false
	}
	t.promised = true
	return true
}

// Attached tells whether a syncing member gets every write of an epoch.
func (g *Group) Attached(d ashlar.DiskID, e ashlar.Epoch) bool {
	t := g.target(d)
	return e == g.cfg.Epoch && g.phase == Serving && t != nil && t.attached
}

// Members lists the other members that get every write now.
func (g *Group) Members() []ashlar.DiskID {
	var out []ashlar.DiskID
	for i := range g.targets {
		if g.targets[i].attached {
			out = append(out, g.targets[i].disk)
		}
	}
	return out
}

func (g *Group) catchups() {
	for i := range g.targets {
		t := &g.targets[i]
		if t.state == ashlar.Syncing && t.attached && !t.caught && g.committed >= t.barrier {
			t.caught = true
			g.emit(Action{Kind: ActCatchup, Disk: t.disk, Epoch: g.cfg.Epoch, Num: t.pass, Committed: t.barrier})
		}
	}
}

// Failed reports that a member did not answer in time or refused. An in-sync
// one is reported to the masters, who decide; a syncing one begins again.
func (g *Group) Failed(d ashlar.DiskID, e ashlar.Epoch, err error) {
	t := g.target(d)
	if e != g.cfg.Epoch || g.phase < Adopting || g.phase == Closed || t == nil {
		return
	}
	if t.state == ashlar.Syncing && !t.promised {
		if t.attached {
			g.detach(t)
		}
		return
	}
	if !t.reported {
		t.reported = true
		g.emit(Action{Kind: ActReport, Disk: d, Epoch: e, Err: err})
	}
}

// Reportable lets the next failure of a member be reported again; that of the
// local disk is, at once.
func (g *Group) Reportable(d ashlar.DiskID, e ashlar.Epoch) {
	if e != g.cfg.Epoch || g.phase == Closed {
		return
	}
	if t := g.target(d); t != nil {
		t.reported = false
	}
	if d == g.me && g.broken != nil {
		g.emit(Action{Kind: ActReport, Disk: g.me, Epoch: e, Err: g.broken})
	}
}

// Broken reports that the local disk failed: this seat orders and answers
// nothing more in its epoch.
func (g *Group) Broken(err error) {
	if g.broken == nil {
		g.broken = err
		g.emit(Action{Kind: ActReport, Disk: g.me, Epoch: g.cfg.Epoch, Err: err})
	}
}

// Yield stops admission until the next epoch or Resume; what was admitted
// goes on. The caller waits for a ScopeGroup span to know that it is over.
func (g *Group) Yield(e ashlar.Epoch) error {
	if err := g.Ready(e); err != nil && !(g.yielded && e == g.cfg.Epoch) {
		return err
	}
	g.yielded = true
	return nil
}

// Resume takes back a Yield of the same epoch.
func (g *Group) Resume(e ashlar.Epoch) {
	if e == g.cfg.Epoch {
		g.yielded = false
	}
}

// Close ends the seat: once the local disk is quiet every write is finished
// with err. What was noted stays noted.
func (g *Group) Close(err error) {
	if g.closing != nil {
		return
	}
	g.closing = err
	g.emit(Action{Kind: ActStop})
	g.drained()
}

// String is for logs and tests.
func (g *Group) String() string {
	return fmt.Sprintf("%v epoch=%d committed=%d/%d kept=%d", g.phase, g.cfg.Epoch, g.committed, g.next, g.mem.kept)
}
