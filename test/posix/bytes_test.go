package posix

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// byteOps is how many operations one run of a model of bytes has.
const byteOps = 300

// windowMax is how many bytes of a file are used; they begin at one of
// windowBases, where pieces of a write, regions and chunks begin and end.
const windowMax = 3 << 20

var windowBases = []int64{0, 0, 0, 1<<20 - 70<<10, 64<<20 - 200<<10, 64<<20 - 1<<20, 1<<40 + 64<<20 - 5000}

// byteOp is one operation on a file. It can be done whatever was done before,
// so that others can be left out.
type byteOp struct {
	kind  string
	mount int // through which
	slot  int // and which of its descriptors
	off   int64
	n     int64
	to    int64 // of copies
	fill  byte
	flag  bool
}

func (o *byteOp) String() string {
	return fmt.Sprintf("%-9s mount %d %-7s off %d n %d to %d fill %d %v", o.kind, o.mount, slots[o.slot].name, o.off, o.n, o.to, o.fill, o.flag)
}

// slots are the descriptors that each mount has of the file, opened when first
// used.
var slots = []struct {
	name  string
	flags int
}{
	{"rdwr", unix.O_RDWR}, {"rdwr2", unix.O_RDWR}, {"direct", unix.O_RDWR | unix.O_DIRECT}, {"append", unix.O_WRONLY | unix.O_APPEND},
	{"wronly", unix.O_WRONLY}, {"rdonly", unix.O_RDONLY}, {"sync", unix.O_RDWR | unix.O_DSYNC}, {"rdappend", unix.O_RDWR | unix.O_APPEND},
}

// slotsFor are those that an operation can use.
var slotsFor = map[string][]int{
	"read": {0, 1, 2, 5, 6, 7}, "write": {0, 1, 2, 4, 6}, "append": {3, 7}, "mapread": {0, 1, 5}, "mapwrite": {0, 1, 6},
	"truncate": {0, 2, 4}, "punch": {0, 2}, "zero": {0, 1, 4}, "allocate": {0, 4}, "copy": {0, 1}, "copyfrom": {0, 4}, "fsync": {0, 1, 2, 4}, "fdatasync": {0, 1, 3},
	"close": {0, 1, 2, 3, 4, 5, 6, 7}, "forget": {0, 1}, "seek": {0, 2, 5}, "stat": {0}, "sendfile": {5}, "settimes": {0},
}

// byteKinds is how often what is done.
var byteKinds = []string{
	"read", "read", "read", "read", "write", "write", "write", "write", "write", "append", "append", "mapread", "mapread", "mapwrite", "mapwrite",
	"truncate", "truncate", "punch", "punch", "zero", "zero", "allocate", "copy", "copy", "copyfrom", "fsync", "fdatasync", "close", "close", "forget", "seek", "stat", "sendfile", "settimes",
}

// makeByteOps makes up operations.
func makeByteOps(seed uint64, mounts int) []byteOp {
	r := rand.New(rand.NewPCG(seed, 2))
	span := []int64{5000, 70_000, 400_000, windowMax}[r.IntN(4)]
	length := func() int64 {
		n := []int64{1, 10, 511, 4096, 4097, 10_000, 65_536, 130_000, 1 << 20}[r.IntN(9)]
		if r.IntN(2) == 0 {
			n = 1 + r.Int64N(n)
		}
		return min(n, span)
	}
	place := func() int64 {
		off := r.Int64N(span)
		switch r.IntN(4) {
		case 0:
			off &^= 4095
		case 1:
			off &^= 511
		}
		return off
	}
	ops := make([]byteOp, byteOps)
	for i := range ops {
		k := byteKinds[r.IntN(len(byteKinds))]
		s := slotsFor[k]
		ops[i] = byteOp{
			kind: k, mount: r.IntN(mounts), slot: s[r.IntN(len(s))], off: place(), n: length(), to: place(),
			fill: byte(1 + r.IntN(255)), flag: r.IntN(2) == 0,
		}
	}
	return ops
}

// bytesFile is a file, as seen through one mount or several, and a model of it.
type bytesFile struct {
	base  int64
	model []byte // from base on
	paths []string
	other []string // a second file, to copy from
	fds   [][]int  // by mount and slot, -1 while closed
}

func newBytesFile(dirs []string, name string, base int64) (*bytesFile, error) {
	f := &bytesFile{base: base}
	for _, d := range dirs {
		f.paths, f.other = append(f.paths, filepath.Join(d, name)), append(f.other, filepath.Join(d, name+".other"))
		fds := make([]int, len(slots))
		for i := range fds {
			fds[i] = -1
		}
		f.fds = append(f.fds, fds)
	}
	if err := os.WriteFile(f.other[0], pattern(7, 0, windowMax), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.paths[0], nil, 0o644); err != nil {
		return nil, err
	}
	return f, os.Truncate(f.paths[0], base)
}

func (f *bytesFile) remove() {
	for m := range f.fds {
		for s := range f.fds[m] {
			_ = f.close(m, s)
		}
	}
	os.Remove(f.paths[0])
	os.Remove(f.other[0])
}

func (f *bytesFile) close(m, s int) error {
	fd := f.fds[m][s]
	f.fds[m][s] = -1
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

func (f *bytesFile) fd(m, s int) (int, error) {
	if f.fds[m][s] < 0 {
		fd, err := unix.Open(f.paths[m], slots[s].flags, 0)
		if err != nil {
			return -1, fmt.Errorf("open: %w", err)
		}
		f.fds[m][s] = fd
	}
	return f.fds[m][s], nil
}

// pattern is what an operation writes at an offset.
func pattern(fill byte, off, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = fill + byte((off+int64(i))%251)
	}
	return b
}

// put writes to the model.
func (f *bytesFile) put(b []byte, off int64) {
	f.resize(max(int64(len(f.model)), off+int64(len(b))))
	copy(f.model[off:], b)
}

func (f *bytesFile) resize(n int64) {
	if n <= int64(len(f.model)) {
		clear(f.model[n:])
		f.model = f.model[:n]
		return
	}
	f.model = append(f.model, make([]byte, n-int64(len(f.model)))...)
}

// zeroes makes what there is of a range zeros, and more of it with grow.
func (f *bytesFile) zeroes(off, n int64, grow bool) {
	if grow {
		f.resize(max(int64(len(f.model)), off+n))
	}
	if off < int64(len(f.model)) {
		clear(f.model[off:min(off+n, int64(len(f.model)))])
	}
}

// piece is what the model has of a range.
func (f *bytesFile) piece(off, n int64) []byte {
	size := int64(len(f.model))
	return f.model[min(off, size):min(off+n, size)]
}

// same says how bytes differ from the model, nil if they do not.
func (f *bytesFile) same(got []byte, off, n int64) error {
	want := f.piece(off, n)
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			last := i
			for k := i; k < min(len(got), len(want)); k++ {
				if got[k] != want[k] {
					last = k
				}
			}
			return fmt.Errorf("bytes %d to %d differ; the first is %d, should be %d", off+int64(i), off+int64(last), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes, should be %d", len(got), len(want))
	}
	return nil
}

// runBytes does operations and returns how many were done, and what went wrong
// with the last.
func runBytes(dirs []string, name string, base int64, ops []byteOp) (n int, err error) {
	f, err := newBytesFile(dirs, name, base)
	if err != nil {
		return 0, err
	}
	defer f.remove()
	for i := range ops {
		if err := f.do(&ops[i]); err != nil {
			return i + 1, err
		}
	}
	for m := range dirs {
		for s := range slots {
			if err := f.close(m, s); err != nil {
				return len(ops), fmt.Errorf("close: %w", err)
			}
		}
	}
	for m := range dirs {
		for _, s := range []int{5, 2} {
			if err := f.do(&byteOp{kind: "read", mount: m, slot: s, n: windowMax * 2}); err != nil {
				return len(ops), fmt.Errorf("at the end, mount %d, %s: %w", m, slots[s].name, err)
			}
		}
	}
	return len(ops), nil
}

// TestBytesAreWhatWasWritten does operations on a file at random and compares
// with what the bytes should be. What goes wrong is shortened.
func TestBytesAreWhatWasWritten(t *testing.T) {
	dir := mountDir(t)
	bytesTest(t, []string{dir}, 8*time.Second)
}

// TestTwoMountsAreLikeOne does the same through two mounts, each operation after
// the one before, through whichever mount that was, has returned.
func TestTwoMountsAreLikeOne(t *testing.T) {
	dir := mountDir(t)
	if mounted2 == "" {
		t.Skip("no second mount: ASHLAR_POSIX_DIR2")
	}
	bytesTest(t, []string{dir, mounted2}, 8*time.Second)
}

func bytesTest(t *testing.T, dirs []string, short time.Duration) {
	seed, d := seedAndTime(t, short)
	runs := 0
	for end := time.Now().Add(d); time.Now().Before(end); seed++ {
		base := windowBases[seed%uint64(len(windowBases))]
		ops := makeByteOps(seed, len(dirs))
		n, err := runBytes(dirs, fmt.Sprint("bytes-", seed), base, ops)
		if runs++; err == nil {
			continue
		}
		ops, err = shortenBytes(dirs, base, ops[:n], err)
		var b strings.Builder
		for i := range ops {
			fmt.Fprintf(&b, "  %s\n", ops[i].String())
		}
		t.Fatalf("seed %d, from %d on, shortened:\n%sthen: %v", seed, base, b.String(), err)
	}
	t.Logf("%d files with %d operations each, up to seed %d", runs, byteOps, seed-1)
}

// shortenBytes leaves operations out as long as something is still wrong.
func shortenBytes(dirs []string, base int64, ops []byteOp, err error) ([]byteOp, error) {
	tries := 0
	for size := len(ops) / 2; size > 0; size /= 2 {
		for at := 0; at < len(ops); {
			fewer := append(append([]byteOp(nil), ops[:at]...), ops[min(at+size, len(ops)):]...)
			tries++
			if n, e := runBytes(dirs, fmt.Sprint("shorten-", tries), base, fewer); e != nil {
				ops, err = fewer[:n], e
			} else {
				at += size
			}
		}
	}
	return ops, err
}
