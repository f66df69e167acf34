package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
)

// mountName is how schedules call the mount; mountPprof is where it serves
// profiles, which must be loopback.
const (
	mountName  = "m1"
	mountPprof = "127.0.0.1:" + pprofPort
)

// Times of the mount and of its applications.
const (
	// errorSlack is how long after the end of a fault an application may still
	// see an error that it allows.
	errorSlack = 3 * time.Second
	// severedSlack is how long after a fault of links a mount may still find
	// that its session was lost meanwhile.
	severedSlack = 5 * time.Second
)

// sessionLostMsg is what a mount logs when its session was lost.
const sessionLostMsg = `msg="session lost"`

// mount is a volume mounted with the usual options, on the bridge beside the
// clients, and the process that serves it.
type mount struct {
	bin, client, dir, log string
	proc                  *process
	lives                 []*process

	mu   sync.Mutex
	back []time.Time // when it was mounted, each time
}

// start mounts. A mount whose process was killed is taken away first.
func (m *mount) start() (err error) {
	_ = syscall.Unmount(m.dir, syscall.MNT_DETACH) // it may not be mounted
	cmd := exec.Command(m.bin, "mount", "--foreground", "--pprof", mountPprof, m.client+":"+volume, m.dir)
	if m.proc, err = start(cmd, m.log); err != nil {
		return err
	}
	m.lives = append(m.lives, m.proc)
	go func() {
		if m.ready(context.Background()) == nil {
			m.mu.Lock()
			m.back = append(m.back, time.Now())
			m.mu.Unlock()
		}
	}()
	return nil
}

// mounted is when the mount was there again after a moment, as now(); it needs
// a leader for that. If it was not, it is the end of time.
func (m *mount) mounted(after int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.back {
		if n := toNow(t); n >= after {
			return n
		}
	}
	return math.MaxInt64 - int64(errorSlack)
}

// ready waits until it is mounted.
func (m *mount) ready(ctx context.Context) error {
	return poll(ctx, readyTimeout, func() error {
		var here, above syscall.Stat_t
		if err := errors.Join(syscall.Stat(m.dir, &here), syscall.Stat(filepath.Dir(m.dir), &above)); err != nil {
			return err
		}
		if here.Dev == above.Dev {
			return errors.New("it is not mounted")
		}
		return nil
	})
}

// sessionsLost returns when the mount lost a session, since a time.
func (m *mount) sessionsLost(since time.Time) (out []time.Time, err error) {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return nil, err
	}
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, lineMax)
	for sc.Scan() {
		if !strings.Contains(sc.Text(), sessionLostMsg) {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, value(sc.Text(), "time"))
		if err != nil {
			return nil, err
		}
		if at.After(since) {
			out = append(out, at)
		}
	}
	return out, sc.Err()
}

// startApps starts the applications of a round.
func (r *round) startApps() (err error) {
	r.procs++
	k := &clientProc{name: "applications on " + mountName}
	cmd := exec.Command("/proc/self/exe", appVerb, "-dir", filepath.Join(r.c.mount.dir, r.work.Dir, mountName), "-name", mountName,
		"-history", r.file(fmt.Sprintf("history-%d", r.procs)), "-errors", r.file("errors"),
		"-proc", strconv.Itoa(r.procs), "-seed", strconv.FormatUint(r.seed, 10))
	if k.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if k.proc, err = start(cmd, r.file("applications.log")); err == nil {
		r.apps = k
	}
	return err
}

// makeApps makes what applications work on.
func (r *round) makeApps(ctx context.Context, top ashlar.Inode) error {
	dir, err := r.c.admin.make(ctx, &wire.Make{Parent: top, Name: mountName, Type: ashlar.TypeDir, Mode: 0o777})
	if err != nil {
		return err
	}
	names, err := r.c.admin.make(ctx, &wire.Make{Parent: dir.Attr.Inode, Name: namesDir, Type: ashlar.TypeDir, Mode: 0o777})
	if err != nil {
		return err
	}
	r.appNames = names.Attr.Inode
	for i := range appFiles {
		if _, err := r.c.admin.make(ctx, &wire.Make{Parent: dir.Attr.Inode, Name: appFile(i), Type: ashlar.TypeFile, Mode: 0o666}); err != nil {
			return err
		}
	}
	return nil
}

// readApps reads what applications wrote, by another way than the mount, which
// has caches.
func (r *round) readApps(ctx context.Context, k *worker) error {
	for i := range appFiles {
		name := filepath.Join(r.work.Dir, mountName, appFile(i))
		s, err := openSDK(ctx, r.c.client(), name)
		if err != nil {
			return err
		}
		for block := range blocksEach {
			o := history.Op{Client: k.id, Kind: history.BlockRead, Key: (&app{key: mountName, file: appFile(i)}).block(block), Call: now()}
			b := make([]byte, history.BlockSize)
			if err := k.endRead(&o, b, s.readAt(ctx, b, int64(block)*history.BlockSize)); err != nil {
				return errors.Join(fmt.Errorf("read of %s at the end: %w", o.Key, err), s.close(ctx))
			}
		}
		if err := s.close(ctx); err != nil {
			return err
		}
	}
	o := history.Op{Client: k.id, Kind: history.List, Key: mountName + "/" + namesDir, Call: now(), Names: []string{}}
	var rep wire.ReaddirReply
	if err := r.c.admin.do(ctx, &wire.Readdir{Inode: r.appNames, Limit: 100}, &rep); err != nil {
		return fmt.Errorf("list of %s at the end: %w", o.Key, err)
	}
	for _, e := range rep.Entries {
		if e.Name != "." && e.Name != ".." {
			o.Names = append(o.Names, e.Name)
		}
	}
	slices.Sort(o.Names)
	k.end(&o, nil)
	return nil
}

// window is a fault, from when until when, for judging errors.
type window struct {
	Fault
	from, to int64 // as now()
}

// judge returns an error if an application saw an error that the failure model
// does not allow (docs/failure-model.md).
func (r *round) judge() error {
	f, err := os.Open(r.file("errors"))
	if err != nil {
		return err
	}
	defer f.Close()
	lost, err := r.c.mount.sessionsLost(r.began)
	if err != nil {
		return err
	}
	for _, at := range lost {
		if !r.mayLoseSession(toNow(at)) {
			return fmt.Errorf("the mount lost its session at %v, and nothing stood between it and a leader", at)
		}
	}
	for dec := json.NewDecoder(f); ; {
		var e appError
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		r.appErrors++
		if !r.allowed(&e, lost) {
			return fmt.Errorf("an application saw what it must not: %s, from %v to %v: %s", e.Op,
				fromNow(e.Call).Sub(r.began), fromNow(e.Return).Sub(r.began), e.Error)
		}
	}
}

// toNow and fromNow turn the time of day into that of histories and back.
func toNow(t time.Time) int64   { return now() - int64(time.Since(t)) }
func fromNow(n int64) time.Time { return time.Now().Add(-time.Duration(now() - n)) }

// allowed tells whether the failure model allows an error: any while the mount
// is dead; what a lost session does to unsent data, locks and open files; no
// space where a disk has none.
func (r *round) allowed(e *appError, lost []time.Time) bool {
	for _, w := range r.windows {
		dead := w.Kind == "kill" && w.Args[0] == mountName
		if dead {
			w.to = r.c.mount.mounted(w.to)
		}
		if w.from > e.Return || w.to+int64(errorSlack) < e.Call {
			continue
		}
		full := w.Kind == "disk" && w.Args[1] == "chunks" && (w.Args[2] == "full" || w.Args[2] == "scarce")
		if dead || full && e.Errno == syscall.ENOSPC {
			return true
		}
	}
	for _, at := range lost {
		if n := toNow(at); n <= e.Return && n+int64(errorSlack) >= e.Call {
			return e.Errno == syscall.EIO || e.Errno == syscall.ESTALE
		}
	}
	return false
}

// mayLoseSession tells whether a fault stood between the mount and a leader, or
// stopped the mount, before a time. Nodes that die or stop do not: another
// leader takes the sessions over.
func (r *round) mayLoseSession(at int64) bool {
	for _, w := range r.windows {
		if w.from > at || w.to+int64(severedSlack) < at {
			continue
		}
		switch w.Kind {
		case "pause":
			if w.Args[0] == mountName {
				return true
			}
		case "cut", "deaf":
			if w.Args[1] == "clients" {
				return true
			}
		case "isolate", "mute", "refuse", "lossy":
			return true
		}
	}
	return false
}
