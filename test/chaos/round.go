package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// Times at the end of a round.
const (
	readTimeout  = 20 * time.Second
	checkTimeout = 60 * time.Second // for each part of the history
)

// clientProc is a client: one process after the other, if it is killed.
type clientProc struct {
	name  string
	proc  *process
	stdin io.Closer
}

// round is one schedule carried out, with files and directories of its own.
type round struct {
	c        *cluster
	o        *options
	seed     uint64
	dir      string
	out      io.Writer // where its course is told
	schedule Schedule
	resolved io.Writer // what was hit, as a schedule
	work     work
	clients  []*clientProc
	procs    int // client processes started
	injected int // faults that met something
	marks    int // rules made, to tell them apart
	began    time.Time
	windows  []window
	before   []look      // at processes, quiet before the faults
	apps     *clientProc // applications on the mount
	appNames ashlar.Inode
	errs     []error // what went wrong while faults came and went

	repaired time.Duration
	ops      int
	answered int
	// appErrors is how many errors applications saw, which were all allowed.
	appErrors int
	usage     []string
}

func newRound(c *cluster, o *options, seed uint64, given Schedule) (r *round, err error) {
	r = &round{c: c, o: o, seed: seed, dir: filepath.Join(o.dir, fmt.Sprintf("seed-%d", seed)), out: os.Stdout, schedule: given, began: time.Now()}
	if given == nil {
		r.schedule = draw(seed, o.clients, o.faults)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	if o.short {
		if r.out, err = os.Create(r.file("log")); err != nil {
			return nil, err
		}
	}
	r.resolved, err = os.Create(r.file("resolved"))
	return r, err
}

func (r *round) file(name string) string { return filepath.Join(r.dir, name) }

func (r *round) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%8.3fs %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *round) summary() string {
	s := fmt.Sprintf("%d faults, %d operations (%d without an answer), %d errors that applications may see, redundant %v after the last fault", r.injected, r.ops, r.ops-r.answered,
		r.appErrors, r.repaired.Round(time.Millisecond))
	if r.o.short {
		return fmt.Sprintf("%s, %v in all", s, time.Since(r.began).Round(time.Second))
	}
	return s + "; " + strings.Join(r.usage, "; ")
}

// forget removes the histories of a round of the short form that went well.
func (r *round) forget() error {
	if !r.o.short {
		return nil
	}
	files, err := filepath.Glob(r.file("history-*"))
	for _, name := range files {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// run carries the round out and returns what is wrong.
func (r *round) run(ctx context.Context) error {
	defer r.close()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	before, err := r.c.quietBefore(ctx)
	if err != nil {
		return err
	}
	r.before = before
	defer func() {
		for _, k := range r.working() {
			k.proc.signal(syscall.SIGKILL)
		}
	}()
	for i := range r.o.clients {
		k := &clientProc{name: fmt.Sprintf("c%d", i+1)}
		if err := r.startClient(k); err != nil {
			return err
		}
		r.clients = append(r.clients, k)
	}
	if err := r.startApps(); err != nil {
		return err
	}
	err = r.disturb(ctx)
	err = errors.Join(err, r.lift(ctx), errors.Join(r.errs...))
	if err == nil {
		err = r.finish(ctx)
	}
	return errors.Join(err, r.judge(), r.check())
}

// working is every process of a round that works on the cluster.
func (r *round) working() []*clientProc {
	if r.apps == nil {
		return r.clients
	}
	return append(slices.Clip(r.clients), r.apps)
}

// close ends what is written while the round runs.
func (r *round) close() {
	for _, w := range []io.Writer{r.resolved, r.out} {
		if f, ok := w.(*os.File); ok && f != os.Stdout {
			_ = f.Close() // what must be there was written
		}
	}
}

// finish lets the clients end and looks whether all is well again.
func (r *round) finish(ctx context.Context) error {
	last := time.Now()
	if err := r.stopClients(); err != nil {
		return err
	}
	r.say("waiting until everything is redundant")
	if err := r.c.whole(ctx, repairTimeout); err != nil {
		return fmt.Errorf("redundancy is not back: %w", err)
	}
	r.repaired = time.Since(last)
	r.say("reading, scrubbing, reading")
	out, err := os.Create(r.file("history-end"))
	if err != nil {
		return err
	}
	defer out.Close()
	k := &worker{session: r.c.admin, work: &r.work, notes: &notes{out: out}, rng: rand.New(rand.NewPCG(r.seed, 0))}
	for _, step := range []func() error{
		func() error { return r.readAll(ctx, k) },
		func() error { return r.scrub(ctx) },
		func() error { return r.readAll(ctx, k) },
		func() error { return r.quietAfter(ctx) },
		r.c.deaths,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return errors.Join(k.notes.errs...)
}

// prepare makes what the clients work on and writes down the schedule.
func (r *round) prepare(ctx context.Context) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "# seed %d, %d nodes, %d clients\n", r.seed, nodes, r.o.clients)
	if _, err := r.resolved.Write(text.Bytes()); err != nil {
		return err
	}
	for _, f := range r.schedule {
		fmt.Fprintln(&text, f)
	}
	if _, err := r.out.Write(text.Bytes()); err != nil {
		return err
	}
	if err := os.WriteFile(r.file("schedule"), text.Bytes(), 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := r.makeWork(ctx); err != nil {
		return fmt.Errorf("make files: %w", err)
	}
	b, err := json.Marshal(&r.work)
	if err != nil {
		return err
	}
	return os.WriteFile(r.file("work"), b, 0o644)
}

func (r *round) makeWork(ctx context.Context) error {
	a := r.c.admin
	var v wire.VolumeReply
	if err := a.do(ctx, &wire.FindVolume{Name: volume}, &v); err != nil {
		return err
	}
	r.work.Dir = fmt.Sprintf("seed-%d", r.seed)
	top, err := a.make(ctx, &wire.Make{Parent: v.Root, Name: r.work.Dir, Type: ashlar.TypeDir, Mode: 0o777})
	if err != nil {
		return err
	}
	for i := range files {
		name := fmt.Sprintf("f%d", i)
		e, err := a.make(ctx, &wire.Make{Parent: top.Attr.Inode, Name: name, Type: ashlar.TypeFile, Mode: 0o666, Open: true})
		if err != nil {
			return err
		}
		if err := a.do(ctx, &wire.Grow{Inode: e.Attr.Inode, Layer: e.Object.Layer, Chunk: blocksEach - 1}, &e); err != nil {
			return err
		}
		r.work.Refs = append(r.work.Refs, object.Ref{Object: e.Object, Owner: e.Attr.Inode, Hint: name})
	}
	for i := range trees {
		e, err := a.make(ctx, &wire.Make{Parent: top.Attr.Inode, Name: fmt.Sprintf("t%d", i), Type: ashlar.TypeDir, Mode: 0o777})
		if err != nil {
			return err
		}
		r.work.Trees = append(r.work.Trees, names.Tree{Key: fmt.Sprintf("tree%d", i), Top: e.Attr.Inode})
	}
	if err := r.makeApps(ctx, top.Attr.Inode); err != nil {
		return err
	}
	for i := range r.o.clients {
		if _, err := a.make(ctx, &wire.Make{Parent: top.Attr.Inode, Name: fmt.Sprintf("c%d", i+1), Type: ashlar.TypeFile, Mode: 0o666}); err != nil {
			return err
		}
	}
	return nil
}

// startClient starts a process for a client.
func (r *round) startClient(k *clientProc) (err error) {
	r.procs++
	cmd := exec.Command("/proc/self/exe", clientVerb, "-cluster", r.c.client(), "-work", r.file("work"), "-name", k.name,
		"-history", r.file(fmt.Sprintf("history-%d", r.procs)), "-proc", strconv.Itoa(r.procs), "-seed", strconv.FormatUint(r.seed, 10))
	if k.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	k.proc, err = start(cmd, r.file(k.name+".log"))
	return err
}

// stopClients lets the clients end what they are asking.
func (r *round) stopClients() error {
	r.say("stopping clients")
	var errs []error
	for _, k := range r.working() {
		k.proc.signal(syscall.SIGCONT)
		_ = k.stdin.Close() // it is closed already if the process ended
	}
	late := time.NewTimer(openTimeout + askLong)
	defer late.Stop()
	for _, k := range r.working() {
		select {
		case <-k.proc.gone:
			if k.proc.err != nil {
				b, _ := os.ReadFile(k.proc.log)
				errs = append(errs, fmt.Errorf("client %s: %w\n%s", k.name, k.proc.err, b[max(0, len(b)-logTail):]))
			}
		case <-late.C:
			k.proc.signal(syscall.SIGQUIT) // it tells its own in its log
			return errors.Join(fmt.Errorf("client %s does not end; stacks are in its log, %s, and %s", k.name, k.proc.log, r.file("stacks-*")), r.stacks())
		}
	}
	return errors.Join(errs...)
}

// readAll reads everything once more.
func (r *round) readAll(ctx context.Context, k *worker) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for i := range r.work.Refs {
		for block := range blocksEach {
			if err := k.readBlock(ctx, &r.work.Refs[i], block); err != nil {
				return fmt.Errorf("read of block %s at the end: %w", blockKey(&r.work.Refs[i], block), err)
			}
		}
	}
	if err := k.newNames(k.conn).ReadAll(ctx); err != nil {
		return fmt.Errorf("read of names at the end: %w", err)
	}
	if err := r.readApps(ctx, k); err != nil {
		return err
	}
	for _, c := range r.clients {
		s, err := openSDK(ctx, r.c.client(), r.work.Dir+"/"+c.name)
		if err != nil {
			return err
		}
		o := history.Op{Kind: history.BlockRead, Key: s.name, Call: now()}
		b := make([]byte, history.BlockSize)
		if err := errors.Join(k.endRead(&o, b, s.read(ctx, b)), s.close(ctx)); err != nil {
			return fmt.Errorf("read of %s at the end: %w", s.name, err)
		}
	}
	return nil
}

// scrub compares all members of all groups.
func (r *round) scrub(ctx context.Context) error {
	for _, n := range r.c.nodes {
		var rep wire.ScrubReply
		ask := func(start bool) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return r.c.admin.rpc.Call(ctx, n.addr(), &wire.Scrub{Start: start}, &rep)
		}
		// The first connection may be one that the node has forgotten.
		err := poll(ctx, readTimeout, func() error { return ask(true) })
		if err == nil {
			err = poll(ctx, repairTimeout, func() error {
				if err := ask(false); err != nil {
					return err
				}
				if rep.Running {
					return errors.New("still running")
				}
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("scrub of %s: %w", n.name, err)
		}
		if rep.Damaged > 0 {
			return fmt.Errorf("scrub of %s finds damage: %+v", n.name, rep)
		}
	}
	return nil
}

// check puts the histories of all processes together.
func (r *round) check() error {
	files, err := filepath.Glob(r.file("history-*"))
	if err != nil {
		return err
	}
	var ops []history.Op
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		o, err := history.ReadNotes(b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ops = append(ops, o...)
	}
	for i := range ops {
		if r.ops++; !ops[i].Unknown() {
			r.answered++
		}
	}
	if r.answered == 0 {
		return errors.New("no client was ever answered")
	}
	if err := history.Check(ops, checkTimeout, r.file("wrong")); err != nil {
		return fmt.Errorf("%w\nagain: go run ./test/history/check -timeout %v -pages DIR %s", err, 10*checkTimeout, r.file("history-*"))
	}
	return nil
}
