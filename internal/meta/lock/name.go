package lock

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// NamersMax is the most holders of one named lock.
const NamersMax = 1024

// compatible tells which modes may be held beside each other. It is symmetric.
//
//	     NL  CR  CW  PR  PW  EX
//	NL    +   +   +   +   +   +
//	CR    +   +   +   +   +   -
//	CW    +   +   +   -   -   -
//	PR    +   +   -   +   -   -
//	PW    +   +   -   -   -   -
//	EX    +   -   -   -   -   -
func compatible(a, b wire.LockMode) bool {
	if a > b {
		a, b = b, a
	}
	switch a {
	case wire.NoLock, wire.NL:
		return true
	case wire.CR:
		return b != wire.EX
	case wire.CW:
		return b == wire.CW
	case wire.PR:
		return b == wire.PR
	}
	return false
}

// within tells whether a mode excludes nothing that another does not: to
// convert from the other to it needs nobody's leave.
func within(a, b wire.LockMode) bool {
	for m := wire.NL; m <= wire.EX; m++ {
		if compatible(b, m) && !compatible(a, m) {
			return false
		}
	}
	return true
}

// namer is a holder of a named lock.
type namer struct {
	Session ashlar.SessionID
	Holder  uint64
	Mode    wire.LockMode
	Since   int64
}

// resource is the record of a named lock: it is there as long as somebody holds
// it, if only in NL, and the value block with it.
type resource struct {
	Valid  bool
	Value  []byte
	Namers []namer
}

// Fields implements key.Record.
func (r *resource) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.Bool(c, &r.Valid)
	wire.Blob(c, &r.Value, wire.LockValueMax)
	wire.List(c, &r.Namers, NamersMax, func(c *wire.Codec, n *namer) {
		wire.U64(c, &n.Session)
		wire.U64(c, &n.Holder)
		wire.U8(c, &n.Mode)
		wire.I64(c, &n.Since)
		if c.Reading() && c.Err() == nil && (n.Mode < wire.NL || n.Mode > wire.EX) {
			c.Fail("mode %d", n.Mode)
		}
	})
}

// name is a named lock being changed.
type name struct {
	name string
	resource
}

func (o *op) loadName(s string) (*name, error) {
	n := &name{name: s, resource: resource{Valid: true}}
	_, err := key.Load(o.tx, key.Name(s), &n.resource)
	return n, err
}

func checkName(s string) error {
	if s == "" || len(s) > wire.LockNameMax || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return ashlar.E("lock", ashlar.Invalid, s, errors.New("a name has 1 to 255 bytes of text"))
	}
	return nil
}

// of returns a holder, nil if it holds nothing.
func (n *name) of(s ashlar.SessionID, holder uint64) *namer {
	for i := range n.Namers {
		if n.Namers[i].Session == s && n.Namers[i].Holder == holder {
			return &n.Namers[i]
		}
	}
	return nil
}

// mode is the mode that a holder has.
func (n *name) mode(s ashlar.SessionID, holder uint64) wire.LockMode {
	if h := n.of(s, holder); h != nil {
		return h.Mode
	}
	return wire.NoLock
}

// blocking returns who, by what they hold, keep one from a mode.
func (n *name) blocking(s ashlar.SessionID, holder uint64, mode wire.LockMode) (out []namer) {
	for _, h := range n.Namers {
		if !(h.Session == s && h.Holder == holder) && !compatible(h.Mode, mode) {
			out = append(out, h)
		}
	}
	return out
}

// free tells whether a mode can be granted. A conversion needs only that the
// others hold what allows it; who holds nothing yet also waits for everybody
// who waits, except for NL, which keeps nobody from anything.
func (o *op) free(n *name, s ashlar.SessionID, w *wire.SetName, before []*Waiter) bool {
	if len(n.blocking(s, w.Holder, w.Mode)) > 0 {
		return false
	}
	if w.Mode == wire.NL || n.of(s, w.Holder) != nil {
		return true
	}
	return !slices.ContainsFunc(before, func(x *Waiter) bool { return !o.env.Queue.ended(x) })
}

// hold gives a holder a mode, and takes NoLock as giving up. A value is written
// by who had PW or EX and keeps no more than that.
func (o *op) hold(n *name, s ashlar.SessionID, w *wire.SetName) error {
	h := n.of(s, w.Holder)
	if h == nil && w.Mode == wire.NoLock {
		return nil
	}
	had := slices.ContainsFunc(n.Namers, func(x namer) bool { return x.Session == s })
	old := n.mode(s, w.Holder)
	if w.SetValue {
		n.Value, n.Valid = w.Value, true
	}
	switch {
	case w.Mode == wire.NoLock:
		n.Namers = slices.DeleteFunc(n.Namers, func(x namer) bool { return x.Session == s && x.Holder == w.Holder })
	case h == nil:
		if len(n.Namers) >= NamersMax {
			return ashlar.E("lock", ashlar.NoLocks, n.name, errors.New("too many hold it"))
		}
		n.Namers = append(n.Namers, namer{s, w.Holder, w.Mode, o.env.Now})
	case h.Mode != w.Mode:
		h.Mode, h.Since = w.Mode, o.env.Now
	case !w.SetValue:
		return nil
	}
	o.writeName(n)
	switch has := slices.ContainsFunc(n.Namers, func(x namer) bool { return x.Session == s }); {
	case has && !had:
		key.StoreMark(o.tx, key.Namer(s, n.name))
	case had && !has:
		o.tx.Delete(key.Namer(s, n.name))
	}
	o.notify(n, s, w.Holder)
	o.say("lock %q of session %d holder %d: %v to %v", n.name, uint64(s), w.Holder, old, w.Mode)
	return nil
}

func (o *op) writeName(n *name) {
	if o.writes++; len(n.Namers) == 0 {
		o.tx.Delete(key.Name(n.name))
		return
	}
	key.Store(o.tx, key.Name(n.name), &n.resource)
}

// reply is what a holder is told.
func (n *name) reply(s ashlar.SessionID, holder uint64, granted bool) *wire.NameReply {
	return &wire.NameReply{Granted: granted, Mode: n.mode(s, holder), Valid: n.Valid, Value: n.Value}
}

// admitName loads a named lock and refuses what makes no sense.
func (o *op) admitName(s ashlar.SessionID, w *wire.SetName) (*name, error) {
	if err := checkName(w.Name); err != nil {
		return nil, err
	}
	n, err := o.loadName(w.Name)
	if err != nil {
		return nil, err
	}
	if old := n.mode(s, w.Holder); w.SetValue && (old < wire.PW || w.Mode != wire.NoLock && !within(w.Mode, old)) {
		return nil, ashlar.E("lock", ashlar.Invalid, w.Name, errors.New("the value is written by who holds PW or EX, and gives it up or keeps it"))
	}
	return n, nil
}

// setName evaluates wire.SetName.
func (o *op) setName(s ashlar.SessionID, w *wire.SetName) (wire.Message, error) {
	n, err := o.admitName(s, w)
	if err != nil {
		return nil, err
	}
	if w.Mode != wire.NoLock && !o.free(n, s, w, o.env.Queue.OfName(w.Name)) {
		return n.reply(s, w.Holder, false), nil
	}
	if err := o.hold(n, s, w); err != nil {
		return nil, err
	}
	reply := n.reply(s, w.Holder, true)
	return reply, o.regrantName(n)
}

// waitName evaluates wire.WaitName. A reply of nil: it waits.
func (o *op) waitName(s ashlar.SessionID, m *wire.WaitName) (wire.Message, error) {
	q, id, w := o.env.Queue, WaitID{s, m.ID}, &m.Want
	if w.Mode == wire.NoLock || w.SetValue {
		return nil, ashlar.E("lock", ashlar.Invalid, w.Name, errors.New("nobody waits to give up a lock or to write its value"))
	}
	n, err := o.admitName(s, w)
	if err != nil {
		return nil, err
	}
	held := n.mode(s, w.Holder) == w.Mode
	switch {
	case m.Cancel:
		q.withdraw(id)
		if !held {
			err = o.regrantName(n) // those behind it
		}
		return n.reply(s, w.Holder, held), err
	case held:
		q.finished = append(q.finished, id)
		return n.reply(s, w.Holder, true), nil
	}
	if err := q.over(id, w.Name); err != nil {
		return nil, err
	}
	if o.free(n, s, w, before(q.OfName(w.Name), id)) {
		if err := o.hold(n, s, w); err != nil {
			return nil, err
		}
		q.finished = append(q.finished, id)
		reply := n.reply(s, w.Holder, true)
		return reply, o.regrantName(n)
	}
	if o.conversionDeadlock(n, s, w) {
		return nil, ashlar.E("lock", ashlar.Deadlock, w.Name, errors.New("another holder waits for this one's to be given up"))
	}
	if q.all[id] == nil && !q.roomName(s, w.Name) {
		return nil, ashlar.E("lock", ashlar.NoLocks, w.Name, errors.New("too many wait"))
	}
	q.parked = &Waiter{WaitID: id, Name: w, Since: o.env.Now}
	for _, h := range n.blocking(s, w.Holder, w.Mode) {
		q.notices = append(q.notices, Notice{Session: h.Session, Name: n.name, Holder: h.Holder, Held: h.Mode, Wanted: w.Mode})
	}
	return nil, nil
}

// before returns who asked before a request did; everybody if it is new.
func before(list []*Waiter, id WaitID) []*Waiter {
	for i, w := range list {
		if w.WaitID == id {
			return list[:i]
		}
	}
	return list
}

// conversionDeadlock tells whether a conversion would wait for holders who,
// through what they wait to convert to, wait for it.
func (o *op) conversionDeadlock(n *name, s ashlar.SessionID, w *wire.SetName) bool {
	type at struct {
		session ashlar.SessionID
		holder  uint64
	}
	if n.of(s, w.Holder) == nil {
		return false
	}
	seen, next := map[at]bool{}, n.blocking(s, w.Holder, w.Mode)
	for len(next) > 0 {
		h := next[0]
		next = next[1:]
		if h.Session == s && h.Holder == w.Holder {
			return true
		}
		if seen[at{h.Session, h.Holder}] {
			continue
		}
		seen[at{h.Session, h.Holder}] = true
		for _, x := range o.env.Queue.OfName(n.name) {
			if x.Session == h.Session && x.Name.Holder == h.Holder {
				next = append(next, n.blocking(x.Session, x.Name.Holder, x.Name.Mode)...)
			}
		}
	}
	return false
}

// regrantName gives waiters what they can have now: conversions first, each
// that can be, then those who hold nothing, in order, until one can not.
func (o *op) regrantName(n *name) error {
	for {
		again, err := o.regrantOnce(n)
		if err != nil || !again {
			return err
		}
	}
}

// regrantOnce is one pass; again tells that it has changed something.
func (o *op) regrantOnce(n *name) (again bool, err error) {
	var first *Waiter // of those who hold nothing
	converting := false
	for _, w := range o.env.Queue.OfName(n.name) {
		if o.env.Queue.ended(w) {
			continue
		}
		if n.of(w.Session, w.Name.Holder) == nil {
			if first == nil {
				first = w
			}
			continue
		}
		ok, err := o.grantName(n, w)
		if err != nil {
			return false, err
		}
		again, converting = again || ok, converting || !ok
	}
	if first == nil || converting {
		return again, nil
	}
	ok, err := o.grantName(n, first)
	return again || ok, err
}

// grantName grants a waiter its mode if the holders allow it.
func (o *op) grantName(n *name, w *Waiter) (ok bool, err error) {
	q := o.env.Queue
	if !o.env.Live(w.Session) { // L-4
		q.outcomes = append(q.outcomes, Outcome{Waiter: w, Err: ashlar.E("lock", ashlar.NoSession, n.name, nil)})
		return true, nil
	}
	if len(n.blocking(w.Session, w.Name.Holder, w.Name.Mode)) > 0 {
		return false, nil
	}
	switch err := o.hold(n, w.Session, w.Name); {
	case ashlar.KindOf(err) == ashlar.NoLocks:
		q.outcomes = append(q.outcomes, Outcome{Waiter: w, Err: err})
	case err != nil:
		return false, err
	default:
		q.outcomes = append(q.outcomes, Outcome{Waiter: w, NameReply: n.reply(w.Session, w.Name.Holder, true)})
	}
	return true, nil
}

// notify tells a holder's watch what a change of its own lock makes of it.
func (o *op) notify(n *name, s ashlar.SessionID, holder uint64) {
	if o.env.Queue == nil {
		return
	}
	held, wanted := n.mode(s, holder), o.wanted(n, s, holder)
	if held == wire.NoLock || wanted != wire.NoLock {
		o.env.Queue.notices = append(o.env.Queue.notices, Notice{Session: s, Name: n.name, Holder: holder, Held: held, Wanted: wanted})
	}
}

// wanted is the strongest mode that somebody waits for and a holder keeps from
// him.
func (o *op) wanted(n *name, s ashlar.SessionID, holder uint64) (out wire.LockMode) {
	held := n.mode(s, holder)
	for _, w := range o.env.Queue.OfName(n.name) {
		if !(w.Session == s && w.Name.Holder == holder) && !o.env.Queue.ended(w) && !compatible(held, w.Name.Mode) {
			out = max(out, w.Name.Mode)
		}
	}
	return out
}

// watchName evaluates wire.WatchName. A reply of nil: there is nothing to tell
// yet.
func (o *op) watchName(s ashlar.SessionID, m *wire.WatchName) (wire.Message, error) {
	n, err := o.loadName(m.Name)
	if err != nil {
		return nil, err
	}
	r := &wire.WatchNameReply{Held: n.mode(s, m.Holder), Wanted: o.wanted(n, s, m.Holder)}
	if r.Held != wire.NoLock && r.Wanted == wire.NoLock {
		return nil, nil
	}
	return r, nil
}

// releaseName removes what an ended session holds of a named lock. Whoever held
// it in PW or EX may have been about to write the value: it is marked.
func (o *op) releaseName(s ashlar.SessionID, of string) error {
	n, err := o.loadName(of)
	if err != nil {
		return err
	}
	for _, h := range n.Namers {
		if h.Session == s && h.Mode >= wire.PW {
			n.Valid = false
		}
	}
	n.Namers = slices.DeleteFunc(n.Namers, func(h namer) bool { return h.Session == s })
	o.writeName(n)
	o.tx.Delete(key.Namer(s, of))
	if err := o.regrantName(n); err != nil {
		return err
	}
	if len(n.Namers) == 0 {
		o.tx.Delete(key.Name(of))
	}
	return nil
}
