package fusefs_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

// since tells whether the kernel is at least of a version.
func since(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	ok(t, unix.Uname(&u))
	have := [2]int{}
	k := 0
	for _, c := range u.Release {
		if c < '0' || c > '9' {
			if k++; k == len(have) {
				break
			}
			continue
		}
		have[k] = 10*have[k] + int(c-'0')
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}

// While a name is being made here, which holds the kernel's lock of the
// directory, another mount changes names there: it does not wait for that, and
// what it did is seen here at once.
func TestNamesChangeElsewhereWhileOneIsBeingMade(t *testing.T) {
	c := filetest.New()
	held, making := make(chan struct{}), make(chan struct{})
	var hold atomic.Bool
	cl := c.Client()
	cl.Fault = func(op string) error {
		if op == "Make" && hold.CompareAndSwap(true, false) {
			close(making)
			<-held
		}
		return nil
	}
	a, b := mountAs(t, c, cl, nil), mount(t, c)
	ok(t, os.Mkdir(filepath.Join(a, "d"), 0o755))
	old := filepath.Join(a, "d", "old")
	ok(t, os.WriteFile(old, nil, 0o644))
	if _, err := os.Stat(old); err != nil {
		t.Fatal(err)
	}
	hold.Store(true)
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(filepath.Join(a, "d", "new"), 0o755) }()
	<-making
	began := time.Now()
	ok(t, os.Rename(filepath.Join(b, "d", "old"), filepath.Join(b, "d", "other")))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the rename took %v", took)
	}
	looked := make(chan error, 1)
	go func() {
		f, err := os.Open(old)
		if err == nil {
			f.Close()
		}
		looked <- err
	}()
	select {
	case err := <-looked:
		if since(t, 6, 16) && !errors.Is(err, syscall.ENOENT) {
			t.Errorf("opened by a name that was renamed: %v", err)
		}
		looked <- nil
	case <-time.After(100 * time.Millisecond): // the kernel lets it wait for the name that is being made
	}
	close(held)
	ok(t, <-made)
	if err := <-looked; err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	for deadline := time.Now().Add(time.Second); ; {
		_, err := os.Stat(old)
		if errors.Is(err, syscall.ENOENT) {
			break
		}
		if since(t, 6, 16) || time.Now().After(deadline) { // before, it is dropped soon
			t.Fatalf("a name that was renamed is there: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(a, "d", "other")); err != nil {
		t.Error(err)
	}
}

// A write through the page cache changes the page before it gets its lease. If
// the page is dropped meanwhile and read again, it is the old one once more: that
// is not what is read when the write has returned.
func TestAPageThatIsReadAgainDuringAWriteIsNotKept(t *testing.T) {
	c := filetest.New()
	held, waiting := make(chan struct{}), make(chan struct{})
	var hold atomic.Bool
	cl := c.Client()
	cl.Fault = func(op string) error {
		if op == "AcquireLease" && hold.CompareAndSwap(true, false) {
			close(waiting)
			<-held
		}
		return nil
	}
	a, b := mountAs(t, c, cl, nil), mount(t, c)
	ok(t, os.WriteFile(filepath.Join(a, "f"), make([]byte, 4096), 0o644))
	open := func(dir string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
		ok(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	fa, fb := open(a), open(b)
	read := func(f *os.File) string {
		got := make([]byte, 4096)
		_, err := f.ReadAt(got, 0)
		ok(t, err)
		return string(got[:3]) + string(got[100:105])
	}
	read(fb) // a has a share of the lease, and the page
	read(fa)
	hold.Store(true)
	wrote := make(chan error, 1)
	go func() {
		_, err := fa.WriteAt([]byte("new"), 0)
		wrote <- err
	}()
	<-waiting
	_, err := fb.WriteAt([]byte("other"), 100)
	ok(t, err)
	if got := read(fa); got[3:] != "other" {
		t.Errorf("%q after the other mount has written", got)
	}
	close(held)
	ok(t, <-wrote)
	if got := read(fa); got != "newother" {
		t.Errorf("%q after the write has returned", got)
	}
	if got := read(fb); got != "newother" {
		t.Errorf("%q on the other mount", got)
	}
}
