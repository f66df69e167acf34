package lock

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// world is a state, who waits, and which sessions have ended.
type world struct {
	mem   metatest.Mem
	queue *Queue
	now   int64
	ended map[ashlar.SessionID]bool
	wait  uint64
}

func newWorld() *world {
	return &world{queue: NewQueue(), ended: map[ashlar.SessionID]bool{}}
}

func (w *world) env() *Env {
	w.now++
	return &Env{Now: w.now, Queue: w.queue, Live: func(s ashlar.SessionID) bool { return !w.ended[s] }}
}

// do evaluates an operation and says what came of it, for others too.
func (w *world) do(s ashlar.SessionID, body wire.Message) string {
	reply, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: s, Body: body})
	return w.settle(reply, err)
}

func (w *world) settle(reply wire.Message, err error) string {
	w.mem.Commit()
	parked, outcomes, notices := w.queue.Settle()
	out := show(reply)
	switch {
	case err != nil:
		out = "error: " + err.Error()
	case reply == nil && parked == nil:
		out = "nothing yet"
	case parked != nil:
		out = fmt.Sprintf("waits as %d", parked.ID)
	}
	for _, o := range outcomes {
		out += fmt.Sprintf("\n%d of session %d: ", o.Waiter.ID, o.Waiter.Session)
		if o.Err != nil {
			out += o.Err.Error()
		} else if o.NameReply != nil {
			out += show(o.NameReply)
		} else {
			out += show(o.Reply)
		}
	}
	for _, n := range notices {
		out += fmt.Sprintf("\ntold holder %d of session %d: held %v, wanted %v", n.Holder, n.Session, n.Held, n.Wanted)
	}
	return out + "\n"
}

func show(reply wire.Message) string {
	switch r := reply.(type) {
	case *wire.LockReply:
		if r.Granted {
			return "granted"
		}
		return "in the way"
	case *wire.TestLockReply:
		if !r.Found {
			return "nothing in the way"
		}
		return fmt.Sprintf("%v %v %s by session %d owner %d pid %d", r.Lock.Class, r.Lock.Type, span(r.Lock.Start, r.Lock.End), r.Session, r.Lock.Owner, r.Lock.PID)
	case *wire.NameReply:
		out := fmt.Sprintf("held in %v", r.Mode)
		if r.Granted {
			out = fmt.Sprintf("granted %v", r.Mode)
		}
		if len(r.Value) > 0 {
			out += fmt.Sprintf(", value %q", r.Value)
		}
		if !r.Valid {
			out += ", not valid"
		}
		return out
	case *wire.WatchNameReply:
		return fmt.Sprintf("held %v, wanted %v", r.Held, r.Wanted)
	case *wire.Empty:
		return "ok"
	case nil:
		return ""
	}
	return fmt.Sprintf("%T %+v", reply, reply)
}

func span(start, end uint64) string {
	if end == wire.LockEnd {
		return fmt.Sprintf("%d-", start)
	}
	return fmt.Sprintf("%d-%d", start, end)
}

// state lists what is locked and who waits, for one inode.
func (w *world) state(ino ashlar.Inode) string {
	o := &op{tx: &w.mem, env: w.env()}
	t, err := o.load(ino)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, h := range t.holders {
		fmt.Fprintf(&b, "session %d owner %d %v:", h.session, h.owner, h.class)
		for _, r := range h.list {
			fmt.Fprintf(&b, " %v %s", r.Type, span(r.Start, r.End))
		}
		b.WriteByte('\n')
	}
	for _, x := range w.queue.OfInode(ino) {
		fmt.Fprintf(&b, "waits: %d of session %d owner %d %v %v %s\n", x.ID, x.Session, x.Lock.Owner, x.Lock.Class, x.Lock.Type, span(x.Lock.Start, x.Lock.End))
	}
	return b.String()
}

func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			w := newWorld()
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.run(t, d) })
			if what := check(&w.mem); what != "" {
				t.Error(what)
			}
		})
	}
}

func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	s := ashlar.SessionID(number(t, d, "s", 1))
	switch d.Cmd {
	case "state":
		return w.state(inode(number(t, d, "f", 1)))
	case "end": // a session has ended; its locks are still there
		w.ended[s] = true
		ids := ""
		for _, id := range w.queue.End(s) {
			ids += fmt.Sprintf("%d waits no more\n", id.ID)
		}
		return ids
	case "lose": // ended without the queue having been told
		w.ended[s] = true
		return ""
	case "release":
		more, _, err := Release(&w.mem, w.env(), s, int(number(t, d, "limit", 100)))
		out := w.settle(&wire.Empty{}, err)
		if more {
			out += "more is left\n"
		}
		return out
	case "name":
		return w.nameState(d.CmdArgs[0].Key)
	case "list":
		return w.list(int(number(t, d, "page", 100)))
	case "leader": // another one: it knows only the state
		w.queue = NewQueue()
		return ""
	}
	return w.do(s, w.body(t, d, s))
}

func inode(n uint64) ashlar.Inode { return ashlar.InPartition[ashlar.Inode](key.VolumePartition, n) }

// body makes the operation of a line such as
// "set s=1 o=2 exclusive 0-9", "wait s=1 flock shared", "cancel id=3 …".
func (w *world) body(t *testing.T, d *datadriven.TestData, s ashlar.SessionID) wire.Message {
	n := wire.SetName{Name: "n", Holder: number(t, d, "h", 1)}
	for _, a := range d.CmdArgs {
		if m, ok := wire.ParseLockMode(a.Key); ok {
			n.Mode = m
		}
		if a.Key == "value" {
			n.SetValue, n.Value = true, []byte(a.Vals[0])
		}
		if a.Key == "of" {
			n.Name = a.Vals[0]
		}
	}
	switch d.Cmd {
	case "hold":
		return &n
	case "await":
		w.wait++
		return &wire.WaitName{ID: number(t, d, "id", w.wait), Want: n}
	case "withdraw":
		return &wire.WaitName{ID: number(t, d, "id", w.wait), Cancel: true, Want: n}
	case "watch":
		return &wire.WatchName{Name: n.Name, Holder: n.Holder}
	}
	l := wire.Lock{Inode: inode(number(t, d, "f", 1)), Class: wire.LockPOSIX, Owner: number(t, d, "o", 1), End: wire.LockEnd, PID: uint32(s)*100 + uint32(number(t, d, "o", 1))}
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "flock":
			l.Class = wire.LockFlock
		case "ofd":
			l.Class = wire.LockOFD
		case "shared":
			l.Type = wire.Shared
		case "exclusive":
			l.Type = wire.Exclusive
		}
		if from, to, ok := strings.Cut(a.Key, "-"); ok {
			l.Start, _ = strconv.ParseUint(from, 10, 64)
			if to != "" {
				l.End, _ = strconv.ParseUint(to, 10, 64)
			}
		}
	}
	switch d.Cmd {
	case "set":
		return &wire.SetLock{Lock: l}
	case "test":
		return &wire.TestLock{Lock: l}
	case "wait":
		w.wait++
		return &wire.WaitLock{ID: number(t, d, "id", w.wait), Lock: l}
	case "cancel":
		return &wire.WaitLock{ID: number(t, d, "id", w.wait), Cancel: true, Lock: l}
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return nil
}

func number(t *testing.T, d *datadriven.TestData, name string, otherwise uint64) uint64 {
	for _, a := range d.CmdArgs {
		if a.Key == name && len(a.Vals) == 1 {
			n, err := strconv.ParseUint(a.Vals[0], 10, 64)
			if err != nil {
				d.Fatalf(t, "%s: %v", name, err)
			}
			return n
		}
	}
	return otherwise
}

// nameState lists who holds a name and who waits for it.
func (w *world) nameState(name string) string {
	o := &op{tx: &w.mem, env: w.env()}
	n, err := o.loadName(name)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, h := range n.Namers {
		fmt.Fprintf(&b, "session %d holder %d: %v\n", h.Session, h.Holder, h.Mode)
	}
	for _, x := range w.queue.OfName(name) {
		fmt.Fprintf(&b, "waits: %d of session %d holder %d for %v\n", x.ID, x.Session, x.Name.Holder, x.Name.Mode)
	}
	return b.String()
}

// list lists everything, by pages.
func (w *world) list(size int) string {
	var b strings.Builder
	m := &wire.ListLocks{Limit: uint32(size)}
	for {
		reply, _, _, err := Evaluate(&w.mem, w.env(), &Call{Session: 1, Body: m})
		if err != nil {
			return err.Error()
		}
		r := reply.(*wire.ListLocksReply)
		for _, s := range r.Locks {
			what := fmt.Sprintf("%q %v holder %d", s.Name, s.Mode, s.Holder)
			if s.Name == "" {
				what = fmt.Sprintf("inode %d %v %v %s owner %d", s.Lock.Inode&(1<<52-1), s.Lock.Class, s.Lock.Type, span(s.Lock.Start, s.Lock.End), s.Lock.Owner)
			}
			if s.Waiting {
				what += " waits"
			}
			fmt.Fprintf(&b, "%s session %d\n", what, s.Session)
		}
		if m.After = r.Next; m.After == nil {
			return b.String()
		}
		b.WriteString("--\n")
	}
}

// check says what of the local invariants does not hold.
func check(tx key.Tx) string {
	var out []string
	seen := map[ashlar.Inode]bool{}
	lockers := map[string]bool{}
	lo, hi := key.Range(key.VolumePartition, key.KindLock)
	tx.Scan(lo, hi, func(k, _ []byte) bool {
		ino := ashlar.Inode(key.Tail64(k, 0))
		_, s, _ := key.LockParts(k)
		seen[ino] = true
		lockers[string(key.Locker(s, ino))] = true
		return true
	})
	for ino := range seen {
		t, err := (&op{tx: tx}).load(ino)
		if err != nil {
			return err.Error()
		}
		for _, h := range t.holders {
			for i, r := range h.list {
				if i > 0 && (h.list[i-1].End >= r.Start || h.list[i-1].End+1 == r.Start && h.list[i-1].Type == r.Type && h.list[i-1].PID == r.PID) {
					out = append(out, fmt.Sprintf("L-2: %v", h.list))
				}
				l := &wire.Lock{Inode: ino, Class: h.class, Owner: h.owner, Type: r.Type, Start: r.Start, End: r.End}
				if in, _ := t.conflicts(h.session, l); len(in) > 0 {
					out = append(out, fmt.Sprintf("L-1: session %d owner %d %+v meets %+v", h.session, h.owner, r, in[0]))
				}
			}
		}
	}
	lo, hi = key.Range(key.VolumePartition, key.KindLocker)
	n := 0
	tx.Scan(lo, hi, func(k, _ []byte) bool {
		n++
		if !lockers[string(k)] {
			out = append(out, "L-3: "+key.String(k))
		}
		return true
	})
	if n != len(lockers) {
		out = append(out, fmt.Sprintf("L-3: %d keys for %d lockers", n, len(lockers)))
	}
	return strings.Join(append(out, checkNames(tx)...), "\n")
}

// checkNames says what of L-5 does not hold.
func checkNames(tx key.Tx) (out []string) {
	held := map[string]bool{}
	lo, hi := key.Range(0, key.KindName)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		var r resource
		if err := key.Decode(v, &r); err != nil {
			out = append(out, err.Error())
		}
		if len(r.Namers) == 0 {
			out = append(out, "L-5: nobody holds "+key.String(k))
		}
		for i, a := range r.Namers {
			held[string(key.Namer(a.Session, string(key.Tail(k))))] = true
			for _, b := range r.Namers[:i] {
				if !compatible(a.Mode, b.Mode) || a.Session == b.Session && a.Holder == b.Holder {
					out = append(out, fmt.Sprintf("L-5: %+v beside %+v", a, b))
				}
			}
		}
		return true
	})
	n := 0
	lo, hi = key.Range(0, key.KindNamer)
	tx.Scan(lo, hi, func(k, _ []byte) bool {
		n++
		if !held[string(k)] {
			out = append(out, "L-5: "+key.String(k))
		}
		return true
	})
	if n != len(held) {
		out = append(out, fmt.Sprintf("L-5: %d keys for %d holders", n, len(held)))
	}
	return out
}
