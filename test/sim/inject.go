package sim

import (
	"context"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
)

// inject carries out a fault and arranges its end. It runs as nobody: the
// driver is never held.
func (r *run) inject(f Fault) {
	if f.Who == "leader" {
		m := r.c.Leader()
		if m == nil {
			r.c.trace.add("fault %v: nobody leads", f)
			return
		}
		f.Who = m.name
	}
	r.c.trace.add("fault %v", f)
	if end := r.begin(f); end != nil {
		r.ends.Go(func() {
			time.Sleep(f.For)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.c.trace.add("over %v", f)
			end()
		})
	}
}

// begin begins a fault and returns what ends it, nil if nothing does. It and
// what it returns are called with r.mu held.
func (r *run) begin(f Fault) (end func()) {
	m := r.c.byName[f.Who]
	switch f.Kind {
	case kill:
		if m == nil {
			return nil
		}
		m.kill()
		return m.start
	case pause:
		if m != nil {
			m.pause(true)
			p := m.proc
			return func() {
				if m.proc == p {
					m.pause(false)
				}
			}
		}
		if k := r.clientNamed(f.Who); k != nil {
			k.pause(true)
			return func() { k.pause(false) }
		}
	case power:
		if m != nil {
			return r.powerless(m)
		}
	case dark:
		return r.powerless(r.c.machines...)
	case cut, deaf, isolate, alone, slow, lossy:
		return r.links(f)
	case reset:
		r.c.net.Reset(f.Who, f.Arg)
	case onDisk:
		if m != nil {
			return r.onDisk(m, f)
		}
	case drain:
		if m != nil && m.roles.chunkserver {
			r.askAdmin(&wire.SetNode{Name: m.name, Drain: true})
			return func() { r.askAdmin(&wire.SetNode{Name: m.name, Undrain: true}) }
		}
	case setting:
		if m != nil {
			m.clock.wall.Add(int64(f.For) * 100)
			return func() { m.clock.wall.Add(-int64(f.For) * 100) }
		}
	}
	return nil
}

// powerless switches machines off, and on again when it is over. What was not
// synced may be lost then, unless this is the only failure of the run.
func (r *run) powerless(ms ...*Machine) func() {
	o := history.Op{Kind: history.PowerLoss, Call: int64(r.c.trace.Now())}
	for _, m := range ms {
		m.power(false)
	}
	return func() {
		for _, m := range ms {
			m.power(true)
		}
		if o.Return = int64(r.c.trace.Now()); r.c.conf.Mixed && !r.c.conf.Lone {
			r.rec.Add(o)
		}
	}
}

// hosts returns the names of all machines and clients.
func (r *run) hosts() []string {
	var out []string
	for _, m := range r.c.machines {
		out = append(out, m.name)
	}
	for _, k := range r.clients {
		out = append(out, k.name)
	}
	return out
}

// links changes the links that a fault concerns.
func (r *run) links(f Fault) func() {
	type way struct{ from, to string }
	var ways []way
	both := func(a, b string) {
		if a != b {
			ways = append(ways, way{a, b}, way{b, a})
		}
	}
	on, off := func(l *link) { l.cut = true }, func(l *link) { l.cut = false }
	switch f.Kind {
	case cut:
		both(f.Who, f.Arg)
	case deaf:
		if f.Who != f.Arg {
			ways = append(ways, way{f.Arg, f.Who})
		}
	case isolate:
		for _, h := range r.hosts() {
			both(f.Who, h)
		}
	case alone:
		for _, p := range r.c.masterPeers() {
			both(f.Who, p.Name)
		}
	case slow:
		on, off = func(l *link) { l.slow = 30 * time.Millisecond }, func(l *link) { l.slow = 0 }
		for _, h := range r.hosts() {
			both(f.Who, h)
		}
	case lossy:
		on, off = func(l *link) { l.lossy = true }, func(l *link) { l.lossy = false }
		for _, a := range r.c.masterPeers() {
			for _, b := range r.c.masterPeers() {
				if a.Name < b.Name {
					both(a.Name, b.Name)
				}
			}
		}
	}
	for _, w := range ways {
		r.c.net.SetLink(w.from, w.to, on)
	}
	return func() {
		for _, w := range ways {
			r.c.net.SetLink(w.from, w.to, off)
		}
	}
}

// onDisk makes trouble on a disk. A process whose disk had errors is started
// again afterwards, as an administrator would who has mended it.
func (r *run) onDisk(m *Machine, f Fault) func() {
	d := m.disks[f.Disk%len(m.disks)]
	d.SetTrouble(diskFaults[f.Arg])
	return func() {
		d.SetTrouble(Trouble{})
		if f.Arg != "stall" && f.Arg != "flip" {
			m.kill()
			m.start()
		}
	}
}

// askAdmin has the administrator's client ask for a change, for as long as it
// takes.
func (r *run) askAdmin(m wire.Message) {
	defer setNode(setNode(r.admin.node))
	r.ends.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), repairTimeout)
		defer cancel()
		if err := r.admin.conn.Do(ctx, ashlar.Cred{Checked: true}, m, nil); err != nil {
			r.c.trace.add("change %T: %v", m, err)
		}
	})
}
