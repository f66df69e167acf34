package sim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// Times of a disk.
const (
	syncMin = 100 * time.Microsecond
	syncMax = 2 * time.Millisecond
)

// Disk is one disk of a machine: in memory, slow to sync, and at fault when
// told to be.
type Disk struct {
	host, path string
	trace      *Trace

	mu      sync.Mutex
	rng     *rand.Rand
	mem     *vfs.Mem
	trouble Trouble
}

// Trouble is what is wrong with a disk. Rates are of a thousand operations.
type Trouble struct {
	ReadErr, WriteErr, SyncErr int
	Stall                      time.Duration // every sync takes so much longer
	Full, ReadOnly             bool
	Scarce                     bool // next to nothing is shown as free
	FlipRead                   int  // a bit of what is read is wrong
}

func newDisk(host, path string, rng *rand.Rand, trace *Trace) *Disk {
	return &Disk{host: host, path: path, trace: trace, rng: rng, mem: vfs.NewMem()}
}

// FS returns the disk as a process sees it.
func (d *Disk) FS() vfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &shown{errfs.Wrap(d.mem, d.inject), d}
}

// scarceFree is what is shown as free when space is scarce, in bytes: less than
// any reserve.
const scarceFree = 1 << 20

// shown is the disk with the free space that it shows.
type shown struct {
	vfs.FS
	d *Disk
}

// Usage implements vfs.FS.
func (s *shown) Usage(name string) (vfs.Usage, error) {
	u, err := s.FS.Usage(name)
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.trouble.Scarce {
		u.Free = min(u.Free, scarceFree)
	}
	return u, err
}

// SetTrouble changes what is wrong with the disk.
func (d *Disk) SetTrouble(t Trouble) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trouble = t
}

// ReleaseLocks is the end of the process that had the disk.
func (d *Disk) ReleaseLocks() { d.mem.ReleaseLocks() }

// PowerLoss makes the disk forget what a power loss may.
func (d *Disk) PowerLoss() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mem = d.mem.CrashClone(d.rng)
}

// Replace puts an empty disk in its place.
func (d *Disk) Replace() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mem = vfs.NewMem()
	d.trouble = Trouble{}
}

// inject is asked before every operation (errfs.Injector).
func (d *Disk) inject(op errfs.Op) error {
	if op.Kind&(errfs.Sync|errfs.SyncDir) != 0 {
		d.mu.Lock()
		wait := syncMin + time.Duration(d.rng.Int64N(int64(syncMax-syncMin))) + d.trouble.Stall
		d.mu.Unlock()
		time.Sleep(wait)
	}
	if op.Kind&errfs.Mutation != 0 {
		d.trace.add("disk %s %x %s %d %d", d.host, op.Kind, op.Path, op.Off, op.Len)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &d.trouble
	once := func(rate int) bool { return rate > 0 && d.rng.IntN(1000) < rate }
	switch {
	case t.ReadOnly && op.Kind&(errfs.Mutation&^errfs.Map) != 0:
		return syscall.EROFS
	case t.Full && op.Kind&(errfs.Create|errfs.Write|errfs.Preallocate|errfs.Mkdir) != 0:
		return syscall.ENOSPC
	case op.Kind&errfs.Sync != 0 && once(t.SyncErr), op.Kind&errfs.Write != 0 && once(t.WriteErr), op.Kind&errfs.Read != 0 && once(t.ReadErr):
		return syscall.EIO
	case op.Kind&errfs.Read != 0 && once(t.FlipRead):
		return errfs.Flip
	}
	return nil
}

// Rot flips one bit in a file at rest, in a place that decide picks among the
// files below a directory; it returns where, "" if there is none.
func (d *Disk) Rot(match func(name string) bool) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	if err := d.walk(d.path, func(name string) {
		if match(name) {
			names = append(names, name)
		}
	}); err != nil || len(names) == 0 {
		return "", err
	}
	name := names[d.rng.IntN(len(names))]
	f, err := d.mem.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size == 0 {
		return "", err
	}
	var b [1]byte
	for range 64 { // not in a hole
		off := d.rng.Int64N(size)
		if _, err := f.ReadAt(b[:], off); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if b[0] == 0 {
			continue
		}
		b[0] ^= 1 << d.rng.IntN(8)
		_, err := f.WriteAt(b[:], off)
		return fmt.Sprintf("%s at %d", name, off), err
	}
	return "", nil
}

func (d *Disk) walk(dir string, f func(string)) error {
	names, err := d.mem.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		p := dir + "/" + n
		info, err := d.mem.Stat(p)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if err := d.walk(p, f); err != nil {
				return err
			}
			continue
		}
		f(p)
	}
	return nil
}

// machineFS is all disks of a machine, each under its path.
type machineFS []*mounted

type mounted struct {
	path string
	fs   vfs.FS
	link vfs.Linker
}

func mount(disks []*Disk) machineFS {
	var out machineFS
	for _, d := range disks {
		out = append(out, &mounted{d.path, d.FS(), d.mem})
	}
	return out
}

func (m machineFS) of(name string) *mounted {
	for _, d := range m {
		if name == d.path || strings.HasPrefix(name, d.path+"/") {
			return d
		}
	}
	empty := vfs.NewMem() // pebble asks for names without a directory
	return &mounted{"", empty, empty}
}

func (m machineFS) Create(name string) (vfs.File, error) { return m.of(name).fs.Create(name) }
func (m machineFS) Open(name string) (vfs.File, error)   { return m.of(name).fs.Open(name) }
func (m machineFS) OpenOrCreate(name string) (vfs.File, bool, error) {
	return m.of(name).fs.OpenOrCreate(name)
}
func (m machineFS) Remove(name string) error    { return m.of(name).fs.Remove(name) }
func (m machineFS) RemoveAll(name string) error { return m.of(name).fs.RemoveAll(name) }
func (m machineFS) Rename(oldname, newname string) error {
	return m.of(oldname).fs.Rename(oldname, newname)
}
func (m machineFS) MkdirAll(name string) error            { return m.of(name).fs.MkdirAll(name) }
func (m machineFS) List(name string) ([]string, error)    { return m.of(name).fs.List(name) }
func (m machineFS) Stat(name string) (fs.FileInfo, error) { return m.of(name).fs.Stat(name) }

// SyncDir implements vfs.FS; the mount points themselves are always there.
func (m machineFS) SyncDir(name string) error {
	if name == "/" {
		return nil
	}
	return m.of(name).fs.SyncDir(name)
}

func (m machineFS) Lock(name string) (io.Closer, error)        { return m.of(name).fs.Lock(name) }
func (m machineFS) Usage(name string) (vfs.Usage, error)       { return m.of(name).fs.Usage(name) }
func (m machineFS) Region(n string, s int) (vfs.Region, error) { return m.of(n).fs.Region(n, s) }

// Link implements vfs.Linker, by which checkpoints are made.
func (m machineFS) Link(oldname, newname string) error {
	return m.of(oldname).link.Link(oldname, newname)
}
