package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// figure is one measured number. Rates are better when higher, seconds and MiB
// when lower.
type figure struct {
	name  string
	unit  string
	value float64
}

// workload runs the fixed set of work below dir.
type workload struct {
	dir  string
	cold func() error // drops every cache between the figure and the disks
	// client is the process that serves the mount, 0 if there is none.
	client func() int
	size   int64 // of the data file, bytes
	files  int   // of the metadata figures
	small  int   // of the small-file figures
	run    time.Duration
	tar    string // an archive of a source tree
	out    []figure
	peak   float64 // memory of client at the end of a phase, MiB
}

const (
	mib       = 1 << 20
	blockSize = 4096
)

func (w *workload) emit(name, unit string, v float64) {
	w.out = append(w.out, figure{name, unit, v})
}

// timed runs f and reports its seconds.
func (w *workload) timed(name string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.emit(name, "s", time.Since(start).Seconds())
	return nil
}

// parallel runs op(i) for i in [0,n) on t threads and reports the rate.
func (w *workload) parallel(name string, n, t int, op func(i int) error) error {
	errs := make([]error, t)
	var wg sync.WaitGroup
	start := time.Now()
	for k := range t {
		wg.Go(func() {
			runtime.LockOSThread()
			for i := n * k / t; i < n*(k+1)/t && errs[k] == nil; i++ {
				errs[k] = op(i)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	w.emit(name, "ops/s", float64(n)/elapsed)
	return nil
}

// phases are the parts of the work, in order.
var phases = []struct {
	name string
	run  func(*workload) error
}{
	{"seq", (*workload).sequential}, {"rand", (*workload).random}, {"meta", (*workload).metadata},
	{"small", (*workload).smallFiles}, {"tree", (*workload).tree},
}

// do runs the phases that are named, all for "".
func (w *workload) do(names string) error {
	for _, p := range phases {
		if names != "" && !slices.Contains(strings.Split(names, ","), p.name) {
			continue
		}
		if err := p.run(w); err != nil {
			return err
		}
		w.peak = max(w.peak, memory(w.client()))
	}
	if w.peak > 0 {
		w.emit("mount_memory_peak", "MiB", w.peak)
	}
	return nil
}

func (w *workload) data() string { return filepath.Join(w.dir, "data") }

func (w *workload) sequential() error {
	os.Remove(w.data())
	buf := make([]byte, mib)
	for i := range buf {
		buf[i] = byte(rand.Uint32())
	}
	start := time.Now()
	f, err := os.Create(w.data())
	if err != nil {
		return err
	}
	for n := int64(0); n < w.size; n += mib {
		if _, err := f.Write(buf); err != nil {
			f.Close()
			return fmt.Errorf("seq_write: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return fmt.Errorf("seq_write: fsync: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	w.emit("seq_write", "MiB/s", float64(w.size)/mib/time.Since(start).Seconds())
	if err := w.cold(); err != nil {
		return err
	}
	for _, name := range []string{"seq_read_cold", "seq_read_warm"} {
		before := cpu(w.client())
		start = time.Now()
		f, err := os.Open(w.data())
		if err != nil {
			return err
		}
		var n int64
		for {
			k, err := f.Read(buf)
			n += int64(k)
			if err == io.EOF {
				break
			}
			if err != nil {
				f.Close()
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		f.Close()
		if n != w.size {
			return fmt.Errorf("%s: read %d bytes of %d", name, n, w.size)
		}
		w.emit(name, "MiB/s", float64(w.size)/mib/time.Since(start).Seconds())
		if name == "seq_read_cold" && w.client() != 0 {
			w.emit("mount_cpu_per_gib_read", "s", (cpu(w.client())-before)*(1<<30)/float64(w.size))
		}
	}
	return nil
}

// blocks runs random 4 KiB operations on t threads for w.run, each thread in
// its own part of the file, at most limit operations in all, and reports the
// rate.
func (w *workload) blocks(name string, flags, t int, limit int64, op func(f *os.File, buf []byte, off int64) error) error {
	f, err := os.OpenFile(w.data(), flags, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	var done atomic.Int64
	errs := make([]error, t)
	part := w.size / int64(t) / blockSize
	var wg sync.WaitGroup
	start := time.Now()
	for k := range t {
		wg.Go(func() {
			runtime.LockOSThread()
			raw := make([]byte, 2*blockSize)
			a := blockSize - int(addr(raw)%blockSize)
			buf := raw[a : a+blockSize]
			order := rand.New(rand.NewPCG(7, uint64(k))).Perm(int(part))
			for i := 0; time.Since(start) < w.run && done.Load() < limit && errs[k] == nil; i++ {
				block := int64(k)*part + int64(order[i%len(order)])
				errs[k] = op(f, buf, block*blockSize)
				done.Add(1)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	w.emit(name, "iops", float64(done.Load())/elapsed)
	return nil
}

func (w *workload) random() error {
	read := func(f *os.File, buf []byte, off int64) error { _, err := f.ReadAt(buf, off); return err }
	write := func(f *os.File, buf []byte, off int64) error { _, err := f.WriteAt(buf, off); return err }
	synced := func(f *os.File, buf []byte, off int64) error {
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
		return syscall.Fdatasync(int(f.Fd()))
	}
	const all = 1 << 62
	type step struct {
		name    string
		cold    bool
		flags   int
		threads int
		limit   int64
		op      func(*os.File, []byte, int64) error
	}
	for _, s := range []step{
		{"randread_4k_1t_cold", true, os.O_RDONLY, 1, all, read},
		{"randread_4k_16t_cold", true, os.O_RDONLY, 16, all, read},
		{"randread_4k_1t_direct", false, os.O_RDONLY | syscall.O_DIRECT, 1, all, read},
		{"randread_4k_16t_direct", false, os.O_RDONLY | syscall.O_DIRECT, 16, all, read},
		{"randwrite_4k_1t_fdatasync", false, os.O_RDWR, 1, all, synced},
		{"randwrite_4k_16t_fdatasync", false, os.O_RDWR, 16, all, synced},
		{"randwrite_4k_16t", false, os.O_RDWR, 16, 64 << 10, write},
	} {
		if s.cold {
			if err := w.cold(); err != nil {
				return err
			}
		}
		if err := w.blocks(s.name, s.flags, s.threads, s.limit, s.op); err != nil {
			return err
		}
	}
	if err := w.timed("randwrite_4k_16t_flush", func() error {
		f, err := os.OpenFile(w.data(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	}); err != nil {
		return err
	}
	return os.Remove(w.data())
}

func (w *workload) metadata() error {
	a, b := filepath.Join(w.dir, "meta", "a"), filepath.Join(w.dir, "meta", "b")
	os.RemoveAll(filepath.Dir(a))
	for _, d := range []string{a, b} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	name := func(dir, prefix string, i int) string { return fmt.Sprintf("%s/%s%06d", dir, prefix, i) }
	create := func(dir string) func(int) error {
		return func(i int) error {
			fd, err := syscall.Open(name(dir, "f", i), syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return syscall.Close(fd)
		}
	}
	stat := func(dir string) func(int) error {
		return func(i int) error { var st syscall.Stat_t; return syscall.Lstat(name(dir, "f", i), &st) }
	}
	list := func() error { return exec.Command("ls", "-l", a).Run() }
	type step struct {
		name string
		cold bool
		run  func(figure string) error
	}
	n := w.files
	for _, s := range []step{
		{"create_1t", true, func(f string) error { return w.parallel(f, n, 1, create(a)) }},
		{"create_8t", false, func(f string) error { return w.parallel(f, n, 8, create(b)) }},
		{"stat_1t_cold", true, func(f string) error { return w.parallel(f, n, 1, stat(a)) }},
		{"stat_8t_cold", true, func(f string) error { return w.parallel(f, n, 8, stat(b)) }},
		{"stat_1t_warm", false, func(f string) error { return w.parallel(f, n, 1, stat(b)) }},
		{"ls_l_cold", true, func(f string) error { return w.timed(f, list) }},
		{"ls_l_warm", false, func(f string) error { return w.timed(f, list) }},
		{"rename_1t", false, func(f string) error {
			return w.parallel(f, n, 1, func(i int) error { return syscall.Rename(name(a, "f", i), name(a, "r", i)) })
		}},
		{"unlink_1t", false, func(f string) error {
			return w.parallel(f, n, 1, func(i int) error { return syscall.Unlink(name(a, "r", i)) })
		}},
		{"unlink_8t", false, func(f string) error {
			return w.parallel(f, n, 8, func(i int) error { return syscall.Unlink(name(b, "f", i)) })
		}},
	} {
		if s.cold {
			if err := w.cold(); err != nil {
				return err
			}
		}
		if err := s.run(s.name); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Dir(a))
}

func (w *workload) smallFiles() error {
	dir := filepath.Join(w.dir, "small")
	os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	body := make([]byte, 16<<10)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	write := func(prefix string) func(int) error {
		return func(i int) error { return os.WriteFile(fmt.Sprintf("%s/%s%05d", dir, prefix, i), body, 0o644) }
	}
	read := func(prefix string) func(int) error {
		return func(i int) error {
			b, err := os.ReadFile(fmt.Sprintf("%s/%s%05d", dir, prefix, i))
			if err == nil && len(b) != len(body) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if err := w.cold(); err != nil {
		return err
	}
	if err := w.parallel("small_write_1t", w.small, 1, write("a")); err != nil {
		return err
	}
	if err := w.parallel("small_write_8t", w.small, 8, write("b")); err != nil {
		return err
	}
	if err := w.cold(); err != nil {
		return err
	}
	if err := w.parallel("small_read_1t_cold", w.small, 1, read("a")); err != nil {
		return err
	}
	if err := w.parallel("small_read_8t_cold", w.small, 8, read("b")); err != nil {
		return err
	}
	if err := w.parallel("small_read_1t_warm", w.small, 1, read("a")); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (w *workload) tree() error {
	dir := filepath.Join(w.dir, "tree")
	os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := w.timed("tar_x", exec.Command("tar", "xf", w.tar, "-C", dir).Run); err != nil {
		return err
	}
	if err := w.cold(); err != nil {
		return err
	}
	if err := w.timed("find_cold", exec.Command("find", dir, "-printf", "%s %T@ %m\n").Run); err != nil {
		return err
	}
	if err := w.timed("grep_cold", func() error {
		if err := exec.Command("grep", "-rl", "no-such-string-anywhere", dir).Run(); err != nil {
			if e, ok := err.(*exec.ExitError); ok && e.ExitCode() == 1 {
				return nil // nothing found, as it should be
			}
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	return w.timed("rm_rf", exec.Command("rm", "-rf", dir).Run)
}
