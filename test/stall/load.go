package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	// files are enough for every placement group to have some.
	files     = 96
	fileBytes = 64 << 10
	block     = 4 << 10
	every     = 2 * time.Millisecond
	// quietTime is watched before a fault and after the node is back, killTime
	// and silentTime after it.
	quietTime  = 2 * time.Second
	killTime   = 4 * time.Second
	silentTime = 8 * time.Second
	errorsMax  = 10
	tookMax    = 1 << 18
)

// load is applications at work: each in a loop of operations.
type load struct {
	dir  string
	done chan struct{}
	wg   sync.WaitGroup
	apps []*app
}

// app is one application. began is when its present operation did, 0 between
// two, and since the start of the load.
type app struct {
	name  string
	begin time.Time
	began atomic.Int64

	mu      sync.Mutex
	longest time.Duration
	took    []time.Duration // up to tookMax, of those that ended
	count   int
	errors  []string
}

// sample is what was seen in a span of time.
type sample struct {
	longest time.Duration
	which   string
	count   int
	errors  []string
}

// load starts the applications.
func (c *cluster) load() *load {
	l := &load{dir: filepath.Join(c.mnt, "files"), done: make(chan struct{})}
	l.run("write, close", func(r *rand.Rand, buf []byte) error {
		return l.file(r, os.O_RDWR|os.O_CREATE, func(f *os.File, off int64) error { _, err := f.WriteAt(buf, off); return err })
	})
	l.run("write, fsync", func(r *rand.Rand, buf []byte) error {
		return l.file(r, os.O_RDWR|os.O_CREATE, func(f *os.File, off int64) error {
			if _, err := f.WriteAt(buf, off); err != nil {
				return err
			}
			return f.Sync()
		})
	})
	l.run("read", func(r *rand.Rand, buf []byte) error {
		// Past the kernel's cache, which would answer without anybody.
		return l.file(r, os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, func(f *os.File, off int64) error {
			n, err := f.ReadAt(buf, off)
			if n == 0 && err != nil && err.Error() == "EOF" {
				return nil // not written yet
			}
			return err
		})
	})
	return l
}

// file opens a file, does something at a block of it and closes it.
func (l *load) file(r *rand.Rand, flags int, do func(f *os.File, off int64) error) error {
	f, err := os.OpenFile(filepath.Join(l.dir, fmt.Sprintf("f%d", r.IntN(files))), flags, 0o644)
	if err != nil {
		return err
	}
	err = do(f, r.Int64N(fileBytes/block)*block)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// run starts an application.
func (l *load) run(name string, op func(r *rand.Rand, buf []byte) error) {
	a := &app{name: name, begin: time.Now()}
	l.apps = append(l.apps, a)
	l.wg.Go(func() {
		if err := os.MkdirAll(l.dir, 0o755); err != nil {
			a.ended(0, err)
			return
		}
		r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
		buf := aligned()
		for i := range buf {
			buf[i] = byte(r.Uint32()) | 1 // zeros take no room and are not copied
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-l.done:
				return
			case <-tick.C:
			}
			began := time.Now()
			a.began.Store(int64(began.Sub(a.begin)) + 1)
			err := op(r, buf)
			a.began.Store(0)
			a.ended(time.Since(began), err)
		}
	})
}

// aligned is a block that direct reads take.
func aligned() []byte {
	b := make([]byte, 2*block)
	shift := block - int(uintptr(unsafe.Pointer(&b[0]))%block)
	return b[shift : shift+block : shift+block]
}

func (a *app) ended(took time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.longest = max(a.longest, took)
	a.count++
	if len(a.took) < tookMax {
		a.took = append(a.took, took)
	}
	if err != nil && len(a.errors) < errorsMax {
		a.errors = append(a.errors, fmt.Sprintf("%s: %v", a.name, err))
	}
}

// watch returns what happened in a span of time from now, an operation that
// still runs at its end included.
func (l *load) watch(ctx context.Context, d time.Duration) (s sample) {
	for _, a := range l.apps {
		a.mu.Lock()
		a.longest, a.count, a.errors = 0, 0, nil
		a.mu.Unlock()
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	for _, a := range l.apps {
		a.mu.Lock()
		longest := a.longest
		if began := a.began.Load(); began > 0 {
			longest = max(longest, time.Since(a.begin)-time.Duration(began))
		}
		if longest > s.longest {
			s.longest, s.which = longest, a.name
		}
		s.count += a.count
		s.errors = append(s.errors, a.errors...)
		a.mu.Unlock()
	}
	return s
}

func (l *load) stop() {
	close(l.done)
	l.wg.Wait()
}
