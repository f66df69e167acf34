package fusefs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

// within mounts a file system in memory on a directory.
func within(t *testing.T, dir string) {
	t.Helper()
	ok(t, unix.Mount("test", dir, "tmpfs", 0, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	ok(t, os.WriteFile(filepath.Join(dir, "inside"), nil, 0o644))
}

// What another mount changes in a directory does not unmount what is mounted on
// a directory there: not when names are dropped one by one, nor when there are
// many, nor when the directory is locked.
func TestWhatIsMountedInADirectoryStaysWhenAnotherMountChangesIt(t *testing.T) {
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
	d := filepath.Join(a, "d")
	ok(t, os.MkdirAll(filepath.Join(d, "sub", "below"), 0o755))
	other := func(k int) string { return filepath.Join(b, "d", fmt.Sprint("f", k)) }
	within(t, filepath.Join(d, "sub", "below"))
	looks := func(when string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(d, "sub", "below", "inside")); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	looks("before")
	ok(t, os.WriteFile(other(0), nil, 0o644))
	looks("after a file was made")
	for k := range 300 {
		ok(t, os.WriteFile(other(k), nil, 0o644))
	}
	for k := range 300 {
		_, err := os.Stat(filepath.Join(d, fmt.Sprint("f", k)))
		ok(t, err)
	}
	looks("with many names")
	ok(t, os.Remove(other(1)))
	looks("after one of many files was removed")
	hold.Store(true)
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(filepath.Join(d, "new"), 0o755) }()
	<-making
	ok(t, os.Remove(other(2)))
	close(held)
	ok(t, <-made)
	looks("after a file was removed while the directory was locked")
	for _, k := range []int{1, 2} {
		if _, err := os.Stat(filepath.Join(d, fmt.Sprint("f", k))); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("f%d was removed: %v", k, err)
		}
	}
}

// Who stands in a directory can tell where that is after another mount has changed
// the directory above; and if that one has moved it, it is not found at its old
// place.
func TestWhoStandsInADirectoryKnowsWhereWhenAnotherMountChangesTheOneAbove(t *testing.T) {
	c := filetest.New()
	a, b := mount(t, c), mount(t, c)
	sub := filepath.Join(a, "d", "sub")
	ok(t, os.MkdirAll(sub, 0o755))
	stands, changed, told := make(chan error), make(chan bool), make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with this
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(sub)
		}
		stands <- err
		<-changed
		buf := make([]byte, unix.PathMax)
		n, err := unix.Getcwd(buf)
		if err == nil && string(buf[:n-1]) != sub {
			err = fmt.Errorf("it stands in %q", buf[:n-1])
		}
		if back := unix.Chdir("/"); err == nil { // the thread may outlive this
			err = back
		}
		told <- err
	}()
	ok(t, <-stands)
	ok(t, os.WriteFile(filepath.Join(b, "d", "f"), nil, 0o644))
	close(changed)
	if err := <-told; err != nil {
		t.Error(err)
	}
	_, err := os.Stat(sub)
	ok(t, err)
	ok(t, os.Rename(filepath.Join(b, "d", "sub"), filepath.Join(b, "moved")))
	if _, err := os.Stat(sub); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a directory is found where it was: %v", err)
	}
}
