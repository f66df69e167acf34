package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// capBytes is the memory that all of it must fit.
const capBytes = 1 << 30

// How the inodes lie: filesPerDir in a directory, dirsAtOnce directories
// being filled in turn, as by as many programs.
const (
	filesPerDir = 10_000
	dirsAtOnce  = 32
)

// The variables by which the capped process learns what to do.
const (
	childEnv  = "ASHLAR_SCALE_CHILD" // the store's directory
	countEnv  = "ASHLAR_SCALE_INODES"
	cgroupEnv = "ASHLAR_SCALE_CGROUP"
)

// inodesResult is what the capped process says when it is done.
type inodesResult struct {
	Fill, Open, First    time.Duration
	Lookup, GetAttr      time.Duration // medians, of readers at once
	Lookups, GetAttrs    float64       // a second, of all readers
	Names                float64       // of readdir with attributes, a second
	DiskBytes, PeakBytes uint64        // the peak is of the resident set
	Slowest              time.Duration // batch of the fill
}

func measureInodes(ctx context.Context, r *report, o *options) error {
	res, at, err := inodes(ctx, filepath.Join(o.dir, "inodes"), o.inodes)
	if err != nil {
		return err
	}
	r.title("%d inodes in a process capped at 1 GiB (%s)", o.inodes, at)
	res.print(r, o.inodes)
	r.atMost("peak resident memory", mib(res.PeakBytes), mib(uint64(capBytes)), "MiB")
	r.atMost("reopened and answering", (res.Open + res.First).Seconds(), 5, "s")
	return nil
}

func (res *inodesResult) print(r *report, n int) {
	r.say("made at %.0f a second, slowest batch %.1f ms, %.0f MiB on disk", float64(n)/res.Fill.Seconds(), ms(res.Slowest), mib(res.DiskBytes))
	r.say("random lookup %.0f us, %.0f a second; getattr %.0f us, %.0f a second; readdirplus %.0f names a second",
		1000*ms(res.Lookup), res.Lookups, 1000*ms(res.GetAttr), res.GetAttrs, res.Names)
}

// inodes runs the capped process and returns what it found, and how hard its
// cap was.
func inodes(ctx context.Context, dir string, n int) (*inodesResult, string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	c := exec.CommandContext(ctx, exe)
	c.Env = append(os.Environ(), childEnv+"="+dir, countEnv+"="+strconv.Itoa(n))
	l, how := newLimit(capBytes)
	if l != nil {
		defer l.remove()
		c.Env = append(c.Env, cgroupEnv+"="+l.dir)
	}
	c.Stderr = os.Stderr
	b, err := c.Output()
	if err != nil {
		return nil, "", fmt.Errorf("the capped process: %w", err)
	}
	if l != nil {
		how = "control group, at its limit " + l.reclaims() + " times"
	}
	res := new(inodesResult)
	return res, how, json.Unmarshal(b, res)
}

// child is the capped process.
func child(out io.Writer, dir string) error {
	if err := enter(os.Getenv(cgroupEnv)); err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv(countEnv))
	if err != nil {
		return err
	}
	res := new(inodesResult)
	t, err := res.fill(dir, n)
	if err != nil {
		return err
	}
	if err := res.readBack(dir, t); err != nil {
		return err
	}
	if res.PeakBytes, err = memory(os.Getpid(), "VmHWM"); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(res)
}

// tree is what was made: filesPerDir files in each directory but the last
// few, which share the rest.
type tree struct {
	dirs    []ashlar.Inode
	files   []int // in each directory
	session ashlar.SessionID
	env     meta.Env
	total   int // inodes, with directories and the root
}

func fileName(i int) string { return fmt.Sprintf("file-%07d.dat", i) }

func (res *inodesResult) fill(dir string, n int) (*tree, error) {
	store, err := openStore(dir)
	if err != nil {
		return nil, err
	}
	l, err := newLeader(store)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	t, err := grow(l, n, func(d time.Duration) { res.Slowest = max(res.Slowest, d) })
	if err != nil {
		return nil, err
	}
	res.Fill = time.Since(began)
	if _, err := store.Flushed(); err != nil {
		return nil, err
	}
	res.DiskBytes = store.DiskBytes()
	return t, store.Close()
}

// grow makes a tree of n inodes and tells how long each batch took.
func grow(l *leader, n int, batch func(time.Duration)) (*tree, error) {
	t := &tree{session: l.session, env: l.env, total: n + 1}
	began := time.Now()
	step := func(force bool) error {
		if len(l.ops) == 0 || !force && l.seq%batchMax != 0 {
			return nil
		}
		err := l.apply()
		now := time.Now()
		batch(now.Sub(began))
		began = now
		return err
	}
	for n > 0 {
		first := len(t.dirs)
		for len(t.dirs) < first+dirsAtOnce && n > 0 {
			d, err := l.mkdir(l.root, fmt.Sprintf("dir-%05d", len(t.dirs)))
			if err != nil {
				return nil, err
			}
			t.dirs, t.files = append(t.dirs, d), append(t.files, 0)
			n--
			if err := step(false); err != nil {
				return nil, err
			}
		}
		for i := 0; i < filesPerDir && n > 0; i++ {
			for d := first; d < len(t.dirs) && n > 0; d++ {
				if _, err := l.create(t.dirs[d], fileName(i)); err != nil {
					return nil, err
				}
				t.files[d]++
				n--
				if err := step(false); err != nil {
					return nil, err
				}
			}
		}
	}
	return t, step(true)
}

// readers is how many read at once, each of so many names.
const (
	readers   = 16
	readsEach = 4000
	listings  = 20
)

// readBack opens the store again and reads all over the tree.
func (res *inodesResult) readBack(dir string, t *tree) error {
	began := time.Now()
	store, err := openStore(dir)
	if err != nil {
		return err
	}
	res.Open = time.Since(began)
	began = time.Now()
	if err := t.check(store); err != nil {
		return err
	}
	res.First = time.Since(began)
	lookups, seconds, err := t.random(store, true)
	if err != nil {
		return err
	}
	res.Lookup, res.Lookups = lookups.median(), float64(len(lookups))/seconds
	attrs, seconds, err := t.random(store, false)
	if err != nil {
		return err
	}
	res.GetAttr, res.GetAttrs = attrs.median(), float64(len(attrs))/seconds
	began = time.Now()
	names := 0
	for range listings {
		d := rand.IntN(len(t.dirs))
		got, err := t.list(store, t.dirs[d])
		if err != nil {
			return err
		}
		if got != t.files[d] {
			return fmt.Errorf("%d names in directory %d, made %d", got, d, t.files[d])
		}
		names += got
	}
	res.Names = float64(names) / time.Since(began).Seconds()
	return store.Close()
}

// check asks how many inodes there are.
func (t *tree) check(store *kv.Store) error {
	reply, err := read(store, &t.env, t.session, &wire.StatFS{Inode: t.dirs[0]})
	if err != nil {
		return err
	}
	if got := reply.(*wire.StatFSReply).Inodes; got != uint64(t.total) {
		return fmt.Errorf("%d inodes are counted, %d were made", got, t.total)
	}
	return nil
}

// random looks up random names from several goroutines; by name, or by the
// inodes that this finds, of which only the second step is timed.
func (t *tree) random(store *kv.Store, byName bool) (all latencies, seconds float64, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var busy time.Duration
	for range readers {
		wg.Go(func() {
			l, e := t.reader(store, byName)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, l...)
			for _, d := range l {
				busy += d
			}
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	return all, busy.Seconds() / readers, err
}

func (t *tree) reader(store *kv.Store, byName bool) (out latencies, err error) {
	for range readsEach {
		d := rand.IntN(len(t.dirs))
		if t.files[d] == 0 {
			continue
		}
		began := time.Now()
		reply, err := read(store, &t.env, t.session, &wire.Lookup{Parent: t.dirs[d], Name: fileName(rand.IntN(t.files[d]))})
		if err != nil {
			return nil, err
		}
		ino := reply.(*wire.Entry).Attr.Inode
		if !byName {
			began = time.Now()
			reply, err := read(store, &t.env, t.session, &wire.GetAttr{Inode: ino})
			if err != nil {
				return nil, err
			}
			if got := reply.(*wire.Entry).Attr.Inode; got != ino {
				return nil, fmt.Errorf("inode %d is answered for %d", got, ino)
			}
		}
		out = append(out, time.Since(began))
	}
	return out, nil
}

// list reads a directory with attributes to its end.
func (t *tree) list(store *kv.Store, dir ashlar.Inode) (n int, err error) {
	q := &wire.Readdir{Inode: dir, Plus: true}
	for {
		reply, err := read(store, &t.env, t.session, q)
		if err != nil {
			return n, err
		}
		r := reply.(*wire.ReaddirReply)
		n += len(r.Entries)
		if r.EOF || len(r.Entries) == 0 {
			return n, nil
		}
		q.Cookie = r.Entries[len(r.Entries)-1].Cookie
	}
}
