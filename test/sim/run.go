package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// Times of a run, virtual.
const (
	setupTimeout  = 30 * time.Second
	faultsFor     = 20 * time.Second
	repairTimeout = 3 * time.Minute
	readTimeout   = 20 * time.Second
	noticeTime    = 5 * time.Second  // in which the end of a process is surely known
	checkTimeout  = 30 * time.Second // real, for each part of the history
)

// Result is what a run came to.
type Result struct {
	Hash     uint64
	Events   int
	Answered int           // operations with an answer
	Ops      int           // operations
	Afresh   int           // reads of names answered by a leader new to the client
	Took     time.Duration // virtual
	Repaired time.Duration // virtual, from the last fault to full redundancy
}

// run is one run under way.
type run struct {
	c        *Cluster
	schedule Schedule
	rec      *history.Recorder
	clients  []*client
	admin    *client

	mu   sync.Mutex // guards the machines while faults begin and end
	ends sync.WaitGroup
}

// Run runs a configuration under a schedule, in a bubble of synctest, and
// returns what is wrong with it. Histories that are wrong are explained below
// dir.
func Run(conf Config, schedule Schedule, dir string) (*Result, error) {
	r := &run{c: newCluster(conf), schedule: schedule, rec: history.NewRecorder(nil)}
	res := &Result{}
	err := r.setup()
	if err == nil {
		r.disturb()
		err = r.settle(res)
	}
	for _, f := range schedule {
		if err == nil && (f.Kind == lose || f.Kind == rot) {
			err = r.afterwards(f)
		}
	}
	if err == nil {
		err = r.endNames()
	}
	if err == nil {
		err = r.readAll()
	}
	if err == nil {
		err = r.stopAll()
	}
	if err == nil {
		err = r.c.holders.judge()
	}
	res.Hash, res.Events = r.c.trace.Sum()
	res.Took, res.Afresh = r.c.trace.Now(), int(r.c.afresh.Load())
	ops, rerr := r.rec.Ops()
	for i := range ops {
		if res.Ops++; !ops[i].Unknown() {
			res.Answered++
		}
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	dark := slices.ContainsFunc(schedule, func(f Fault) bool { return f.Kind == dark || f.Kind == power && conf.Mixed && !conf.Lone })
	for i := range r.c.torn {
		r.c.errs = append(r.c.errs, r.c.torn[i].judge(ops, dark))
	}
	return res, errors.Join(err, errors.Join(r.c.errs...), rerr, history.Check(ops, checkTimeout, dir))
}

// eventually polls until ok is nil, within a time, and returns what it said
// last.
func eventually(within time.Duration, ok func() error) error {
	for end := time.Now().Add(within); ; {
		err := ok()
		if err == nil || time.Now().After(end) {
			return err
		}
		<-time.After(100 * time.Millisecond)
	}
}

// setup starts all machines and clients and makes what they work on.
func (r *run) setup() error {
	for _, m := range r.c.machines {
		m.start()
	}
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	for id := range r.c.conf.Clients + 1 {
		k := r.c.newClient(id)
		if err := k.open(ctx); err != nil {
			return fmt.Errorf("open client %d: %w", id, err)
		}
		if id == 0 {
			r.admin = k
		} else {
			r.clients = append(r.clients, k)
		}
	}
	if err := eventually(setupTimeout, r.redundant); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	return r.make(ctx)
}

// make makes a volume with files and directories.
func (r *run) make(ctx context.Context) error {
	defer setNode(setNode(r.admin.node))
	do := func(m, reply wire.Message) error { return r.admin.conn.Do(ctx, ashlar.Cred{Checked: true}, m, reply) }
	var v wire.VolumeReply
	policy := ashlar.Policy{ChunkSize: ashlar.ChunkSizeMin, StripeWidth: 4, StripeUnit: ashlar.ChunkSizeMin}
	if err := do(&wire.SetVolume{Name: "v", Mode: 0o777, Policy: policy}, &v); err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	for i := range objects {
		var e wire.Entry
		if err := do(&wire.Make{Parent: v.Root, Name: fmt.Sprintf("f%d", i), Type: ashlar.TypeFile, Mode: 0o666, Open: true}, &e); err != nil {
			return fmt.Errorf("make file: %w", err)
		}
		if err := do(&wire.Grow{Inode: e.Attr.Inode, Layer: e.Object.Layer, Chunk: blocksEach - 1}, &e); err != nil {
			return fmt.Errorf("grow file: %w", err)
		}
		ref := &object.Ref{Object: e.Object, Owner: e.Attr.Inode, Hint: fmt.Sprintf("f%d", i)}
		for _, k := range append(r.clients, r.admin) {
			k.refs = append(k.refs, ref)
		}
	}
	for i := range trees {
		var e wire.Entry
		if err := do(&wire.Make{Parent: v.Root, Name: fmt.Sprintf("d%d", i), Type: ashlar.TypeDir, Mode: 0o777}, &e); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		for _, k := range append(r.clients, r.admin) {
			k.trees = append(k.trees, names.Tree{Key: fmt.Sprintf("tree%d", i), Top: e.Attr.Inode})
		}
	}
	return nil
}

// disturb lets the clients work while faults come and go.
func (r *run) disturb() {
	for _, k := range r.clients {
		k.run(r.rec)
	}
	start := time.Now()
	for _, f := range r.schedule {
		if f.Kind == lose || f.Kind == rot {
			continue
		}
		time.Sleep(time.Until(start.Add(f.At)))
		r.mu.Lock()
		r.inject(f)
		r.mu.Unlock()
	}
	time.Sleep(time.Until(start.Add(faultsFor)))
	r.ends.Wait()
	for _, k := range r.clients {
		k.pause(false)
	}
	for _, k := range r.clients {
		k.finish()
	}
}

// settle waits until the cluster has mended itself.
func (r *run) settle(res *Result) error {
	r.mu.Lock()
	for _, m := range r.c.machines {
		m.pause(false)
		m.power(true)
		if p := m.proc; p != nil && p.failed() {
			m.kill()
		}
		m.start()
	}
	r.mu.Unlock()
	began := time.Now()
	if err := eventually(repairTimeout, r.redundant); err != nil {
		return fmt.Errorf("%v after the last fault: %w", repairTimeout, err)
	}
	res.Repaired = time.Since(began)
	return nil
}

// failed tells whether the process did not start, or stopped being a master.
func (p *process) failed() bool {
	select {
	case <-p.ready:
		return p.err != nil
	default:
		return false
	}
}

// status asks for the cluster's state.
func (r *run) status() (*wire.Status, error) {
	defer setNode(setNode(r.admin.node))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var rep wire.StatusReply
	if err := r.admin.conn.Do(ctx, ashlar.Cred{Checked: true}, &wire.GetStatus{}, &rep); err != nil {
		return nil, err
	}
	return rep.Get()
}

// redundant says what is missing from full redundancy.
func (r *run) redundant() error {
	st, err := r.status()
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	alive := 0
	for _, n := range st.Nodes {
		if n.Alive {
			alive++
		}
	}
	switch {
	case alive < r.c.conf.Chunkservers:
		return fmt.Errorf("%d of %d chunkservers serve", alive, r.c.conf.Chunkservers)
	case len(st.Groups) == 0:
		return errors.New("no placement groups")
	case !st.Redundant:
		return fmt.Errorf("not redundant, %s: %v", st.Health, st.Problems)
	}
	return nil
}

// endNames has every client make its last change of names.
func (r *run) endNames() error {
	for _, k := range r.clients {
		if err := k.endNames(r.rec); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads everything once more, scrubs, and reads it again.
func (r *run) readAll() error {
	defer setNode(setNode(r.admin.node))
	w := &worker{client: r.admin, rec: r.rec, rng: r.admin.rng}
	names := w.newNames(w.conn)
	for range 2 {
		for _, ref := range r.admin.refs {
			for block := range blocksEach {
				if err := r.readBlock(w, ref, block); err != nil {
					return err
				}
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		err := names.ReadAll(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("read of names at the end: %w", err)
		}
		if err := r.scrub(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) readBlock(w *worker, ref *object.Ref, block int) error {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	o := history.Op{Kind: history.BlockRead, Key: fmt.Sprintf("%x/%d", uint64(ref.Owner), block), Call: w.now()}
	b := make([]byte, history.BlockSize)
	err := w.store.ReadAt(ctx, ref, b, uint64(block)*uint64(ref.Layout.ChunkSize))
	w.answerRead(&o, b, err)
	if err != nil {
		return fmt.Errorf("read of block %s at the end: %w", o.Key, err)
	}
	return nil
}

// scrub compares all members and returns what differed.
func (r *run) scrub() error {
	for _, m := range r.c.machines {
		if !m.roles.chunkserver {
			continue
		}
		var rep wire.ScrubReply
		ask := func(start bool) error {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return r.admin.rpc.Call(ctx, m.addr, &wire.Scrub{Start: start}, &rep)
		}
		// The first connection may be one that the machine has forgotten.
		if err := eventually(readTimeout, func() error { return ask(true) }); err != nil {
			return fmt.Errorf("scrub %s: %w", m.name, err)
		}
		if err := eventually(repairTimeout, func() error {
			if err := ask(false); err != nil {
				return err
			}
			if rep.Running {
				return errors.New("still running")
			}
			return nil
		}); err != nil {
			return fmt.Errorf("scrub %s: %w", m.name, err)
		}
		if rep.Damaged > 0 {
			return fmt.Errorf("scrub of %s: %+v", m.name, rep)
		}
	}
	return nil
}

// stopAll stops clients and machines in order.
func (r *run) stopAll() error {
	var errs []error
	for _, k := range append(r.clients, r.admin) {
		if err := k.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", k.name, err))
		}
	}
	for _, m := range r.c.machines {
		errs = append(errs, m.stop())
	}
	return errors.Join(errs...)
}

func (r *run) clientNamed(name string) *client {
	for _, k := range r.clients {
		if k.name == name {
			return k
		}
	}
	return nil
}

// afterwards carries out a fault that comes when all is well, and waits until
// it is again.
func (r *run) afterwards(f Fault) error {
	m := r.c.byName[f.Who]
	if m == nil || !m.roles.chunkserver {
		return nil
	}
	// Masters may not know yet of a process that ended with the last fault.
	time.Sleep(noticeTime)
	if err := eventually(repairTimeout, r.redundant); err != nil {
		return fmt.Errorf("before %v: %w", f, err)
	}
	r.c.trace.add("fault %v", f)
	d := m.disks[1]
	if f.Kind == rot {
		where, err := d.Rot(func(name string) bool { return strings.Contains(name, "/chunks/") })
		r.c.trace.add("rot %s", where)
		if err != nil || where == "" {
			return err
		}
		return r.mended(m)
	}
	m.kill()
	d.Replace()
	if err := errors.Join(d.mem.MkdirAll(d.path), d.mem.SyncDir("/")); err != nil {
		return err
	}
	// The administrator has a new disk begun there (docs/operations/disks.md).
	if err := m.disks[0].mem.Remove(m.disks[0].path + "/chunkserver/disks"); err != nil {
		return err
	}
	m.start()
	// The administrator says that the old disk does not come back.
	if err := eventually(repairTimeout, func() error { return r.forget(m) }); err != nil {
		return fmt.Errorf("forget the lost disk of %s: %w", m.name, err)
	}
	if err := eventually(repairTimeout, r.redundant); err != nil {
		return fmt.Errorf("%v after the loss of a disk of %s: %w", repairTimeout, m.name, err)
	}
	return nil
}

// mended scrubs until no damage is found any more: what one pass finds it
// mends.
func (r *run) mended(m *Machine) error {
	defer setNode(setNode(r.admin.node))
	return eventually(repairTimeout, func() error { return r.scrub() })
}

// forget removes the disk of a machine that is not there any more.
func (r *run) forget(m *Machine) error {
	st, err := r.status()
	if err != nil {
		return err
	}
	for _, d := range st.Disks {
		if d.Node == m.name && d.State == "offline" {
			defer setNode(setNode(r.admin.node))
			ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
			defer cancel()
			return r.admin.conn.Do(ctx, ashlar.Cred{Checked: true}, &wire.SetDisk{Disk: ashlar.DiskID(d.ID), Remove: true, Force: true}, nil)
		}
	}
	return fmt.Errorf("no disk of %s is offline", m.name)
}
