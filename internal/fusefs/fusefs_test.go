package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"context"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/fusefs"
)

// mount mounts a volume in memory and returns where.
func mount(t testing.TB, c *filetest.Cluster) string {
	t.Helper()
	dir, _ := mountClient(t, c, nil)
	return dir
}

func mountClient(t testing.TB, c *filetest.Cluster, change func(*fusefs.Options)) (string, *filetest.Client) {
	t.Helper()
	cl := c.Client()
	return mountAs(t, c, cl, change), cl
}

// mountAs mounts the volume in a session.
func mountAs(t testing.TB, c *filetest.Cluster, cl *filetest.Client, change func(*fusefs.Options)) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE here")
	}
	dir := t.TempDir()
	o := fusefs.Options{
		Source: "test:main", Dir: dir,
		AttrTimeout: fusefs.DefaultTimeout, EntryTimeout: fusefs.DefaultTimeout,
	}
	if change != nil {
		change(&o)
	}
	n := fusefs.New(o)
	lease := func() time.Duration { return 3 * time.Second }
	fs := file.New(file.Options{Meta: cl, Data: cl, Volume: c.Volume(), Lease: lease, Drop: n.Drop, WriteBehind: true})
	cl.Attach(fs)
	m, err := n.Mount(fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if busy, err := m.Unmount(); err != nil || busy {
			t.Errorf("unmount: busy %v, %v", busy, err)
		}
		m.Wait()
		if err := fs.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, path, contents string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != contents {
		t.Fatalf("%s: %q, %v; want %q", filepath.Base(path), b, err, contents)
	}
}

func TestFilesWrittenAreReadBack(t *testing.T) {
	dir := mount(t, filetest.New())
	p := filepath.Join(dir, "f")
	big := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	ok(t, os.WriteFile(p, big, 0o640))
	got, err := os.ReadFile(p)
	if err != nil || !bytes.Equal(got, big) {
		t.Fatal("other bytes", err)
	}
	st, err := os.Stat(p)
	ok(t, err)
	if st.Size() != int64(len(big)) || st.Mode() != 0o640 {
		t.Fatal(st.Size(), st.Mode())
	}
	ok(t, os.Truncate(p, 10))
	want(t, p, "0123456789")
	ok(t, os.WriteFile(p, []byte("short"), 0)) // O_TRUNC
	want(t, p, "short")
}

func TestNamesCanBeMadeMovedAndRemoved(t *testing.T) {
	dir := mount(t, filetest.New())
	at := func(s string) string { return filepath.Join(dir, s) }
	ok(t, os.MkdirAll(at("a/b/c"), 0o755))
	ok(t, os.WriteFile(at("a/b/f"), []byte("x"), 0o600))
	ok(t, os.Rename(at("a/b"), at("d")))
	want(t, at("d/f"), "x")
	ok(t, os.Link(at("d/f"), at("g")))
	ok(t, os.Symlink("d/f", at("s")))
	want(t, at("s"), "x")
	if l, err := os.Readlink(at("s")); err != nil || l != "d/f" {
		t.Fatal(l, err)
	}
	ok(t, unix.Mkfifo(at("pipe"), 0o600))
	ok(t, unix.Mknod(at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	var st unix.Stat_t
	ok(t, unix.Stat(at("null"), &st))
	if unix.Major(st.Rdev) != 1 || unix.Minor(st.Rdev) != 3 {
		t.Fatal("device number changed")
	}
	if err := os.Remove(at("a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(at("d")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Fatal(err)
	}
	if err := os.WriteFile(at(strings.Repeat("n", 256)), nil, 0o600); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Fatal(err)
	}
	if _, err := os.Stat(at("none")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	ok(t, os.RemoveAll(at("d")))
}

func TestRenameFlagsAreHonoured(t *testing.T) {
	dir := mount(t, filetest.New())
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ok(t, os.WriteFile(a, []byte("a"), 0o600))
	ok(t, os.WriteFile(b, []byte("b"), 0o600))
	rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
	if err := rename(unix.RENAME_NOREPLACE); err != unix.EEXIST {
		t.Fatal(err)
	}
	ok(t, rename(unix.RENAME_EXCHANGE))
	want(t, a, "b")
	want(t, b, "a")
	ok(t, rename(0))
	want(t, b, "b")
}

func TestLargeDirectoriesAreListedWholly(t *testing.T) {
	dir := mount(t, filetest.New())
	var names []string
	for k := range 3000 {
		n := fmt.Sprintf("file-with-a-long-name-%05d", k)
		names = append(names, n)
		ok(t, os.WriteFile(filepath.Join(dir, n), nil, 0o600))
	}
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	for range 2 {
		got, err := d.Readdirnames(-1)
		ok(t, err)
		sort.Strings(got)
		if len(got) != len(names) || got[0] != names[0] || got[2999] != names[2999] {
			t.Fatalf("%d names", len(got))
		}
		_, err = d.Seek(0, io.SeekStart)
		ok(t, err)
	}
	out, err := exec.Command("ls", "-a", dir).Output()
	if err != nil || !strings.HasPrefix(string(out), ".\n..\nfile-") {
		t.Fatal("no dot and dot-dot", err)
	}
	ok(t, os.RemoveAll(filepath.Join(dir, names[7])))
}

func TestAppendsThroughTwoMountsLoseNothing(t *testing.T) {
	c := filetest.New()
	dirs := []string{mount(t, c), mount(t, c)}
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, err := os.OpenFile(filepath.Join(dirs[k%2], "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range 200 {
				if _, err := fmt.Fprintf(f, "%d-%03d\n", k, n); err != nil {
					t.Error(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "log"))
		ok(t, err)
		lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		sort.Strings(lines)
		if len(lines) != 800 {
			t.Fatalf("%d lines", len(lines))
		}
		for n, l := range lines {
			if l != fmt.Sprintf("%d-%03d", n/200, n%200) {
				t.Fatalf("line %d is %q", n, l)
			}
		}
	}
}

func TestWhatOneMountClosedAnotherSeesAtOpen(t *testing.T) {
	c := filetest.New()
	a, b := filepath.Join(mount(t, c), "f"), filepath.Join(mount(t, c), "f")
	for k := range 50 {
		s := strings.Repeat(fmt.Sprint(k%10), 5000+k%3)
		ok(t, os.WriteFile(a, []byte(s), 0o600))
		want(t, b, s)
		a, b = b, a
	}
	// A name that was replaced is the new file at once.
	ok(t, os.WriteFile(a+".new", []byte("replaced"), 0o600))
	ok(t, os.Rename(a+".new", a))
	want(t, b, "replaced")
	ok(t, os.Remove(b))
	if _, err := os.Stat(a); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestAGrowingFileCanBeFollowed(t *testing.T) {
	c := filetest.New()
	a, b := filepath.Join(mount(t, c), "f"), filepath.Join(mount(t, c), "f")
	w, err := os.Create(a)
	ok(t, err)
	defer w.Close()
	var r *os.File
	whole := ""
	for k := range 5 {
		s := strings.Repeat(fmt.Sprint(k), 1000)
		_, err := w.WriteString(s)
		ok(t, err)
		ok(t, w.Sync())
		whole += s
		if r == nil {
			r, err = os.Open(b)
			ok(t, err)
			defer r.Close()
		}
		buf := make([]byte, 10000)
		end := time.Now().Add(10 * time.Second)
		for n := 0; n != len(whole); { // attributes may be a second old
			n, err = r.ReadAt(buf, 0)
			if err != nil && err != io.EOF || time.Now().After(end) {
				t.Fatal("not followed", n, err)
			}
			if string(buf[:n]) != whole[:n] {
				t.Fatalf("read %d bytes that were never written", n)
			}
		}
	}
}

// mapVariable names the file that a child process maps.
const mapVariable = "ASHLAR_TEST_MAP"

// TestMain lets the test binary be the child that uses a mapping: a page
// fault in the process that serves the mount stops it for good, because the
// runtime takes a thread that waits for a page to be running.
func TestMain(m *testing.M) {
	if name := os.Getenv(mapVariable); name != "" {
		if err := useMapping(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// useMapping maps 10,000 bytes that are all m and changes one to X.
func useMapping(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if m[9999] != 'm' {
		return errors.New("the mapping does not show the file")
	}
	m[5000] = 'X'
	return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

func TestMappedFilesAreReadAndWritten(t *testing.T) {
	p := filepath.Join(mount(t, filetest.New()), "f")
	ok(t, os.WriteFile(p, bytes.Repeat([]byte("m"), 10000), 0o600))
	exe, err := os.Executable()
	ok(t, err)
	child := exec.Command(exe)
	child.Env = append(os.Environ(), mapVariable+"="+p)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(p)
	if err != nil || len(b) != 10000 || b[5000] != 'X' || b[4999] != 'm' {
		t.Fatal("the change through the mapping is not in the file", err)
	}
}

func TestAnUnlinkedFileStaysUsable(t *testing.T) {
	dir := mount(t, filetest.New())
	p := filepath.Join(dir, "f")
	f, err := os.Create(p)
	ok(t, err)
	_, err = f.WriteString("hello")
	ok(t, err)
	ok(t, os.Remove(p))
	ok(t, f.Sync())
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "hello" {
		t.Fatal(string(b), err)
	}
	st, err := f.Stat()
	if err != nil || st.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Fatal(err)
	}
	ok(t, f.Close())
}

func TestDirectAndSynchronousWritesReachStableStorageAsAsked(t *testing.T) {
	c := filetest.New()
	dir := mount(t, c)
	p := filepath.Join(dir, "f")
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE|os.O_SYNC, 0o600)
	ok(t, err)
	_, err = f.Write([]byte("synced"))
	ok(t, err)
	c.PowerLoss()
	ok(t, f.Close())
	if st, err := os.Stat(p); err != nil || st.Size() != 6 {
		t.Fatal(st, err)
	}
	b := make([]byte, 6)
	f, err = os.OpenFile(p, os.O_RDWR|syscall.O_DIRECT, 0)
	ok(t, err)
	defer f.Close()
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "synced" {
		t.Fatal(string(b), err)
	}
	w0, _ := c.Requests()
	_, err = f.WriteAt(make([]byte, 4096), 4096)
	ok(t, err)
	if w1, _ := c.Requests(); w1 != w0+1 {
		t.Fatal("a direct write returned before it was in the object")
	}
}

func TestExtendedAttributes(t *testing.T) {
	dir := mount(t, filetest.New())
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, nil, 0o600))
	ok(t, unix.Setxattr(p, "user.a", []byte("value"), 0))
	if err := unix.Setxattr(p, "user.a", nil, unix.XATTR_CREATE); err != unix.EEXIST {
		t.Fatal(err)
	}
	if n, err := unix.Getxattr(p, "user.a", nil); n != 5 || err != nil { // asks for the size
		t.Fatal(n, err)
	}
	if _, err := unix.Getxattr(p, "user.a", make([]byte, 2)); err != unix.ERANGE {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := unix.Getxattr(p, "user.a", b); string(b[:n]) != "value" || err != nil {
		t.Fatal(n, err)
	}
	if n, err := unix.Listxattr(p, b); string(b[:n]) != "user.a\x00" || err != nil {
		t.Fatal(n, err)
	}
	ok(t, unix.Removexattr(p, "user.a"))
	if _, err := unix.Getxattr(p, "user.a", b); err != unix.ENODATA {
		t.Fatal(err)
	}
}

func TestAttributesAndSpace(t *testing.T) {
	dir := mount(t, filetest.New())
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte("x"), 0o600))
	when := time.Unix(1_000_000_000, 123)
	ok(t, os.Chtimes(p, when, when))
	ok(t, os.Chmod(p, 0o4711))
	ok(t, os.Chown(p, 12, 34))
	st, err := os.Stat(p)
	ok(t, err)
	s := st.Sys().(*syscall.Stat_t)
	if !st.ModTime().Equal(when) || s.Uid != 12 || s.Gid != 34 || s.Mode&0o777 != 0o711 {
		t.Fatalf("%+v", s)
	}
	var fs unix.Statfs_t
	ok(t, unix.Statfs(dir, &fs))
	if fs.Blocks != 1<<28 || fs.Namelen != 255 {
		t.Fatalf("%+v", fs)
	}
	if err := unix.Fallocate(-1, 0, 0, 1); err == nil {
		t.Fatal()
	}
}

func TestAWriteByAnotherUserTakesSetuidAwayAndAsksForNoCapabilityEachTime(t *testing.T) {
	c := filetest.New()
	dir := mount(t, c)
	ok(t, os.Chmod(filepath.Dir(dir), 0o755))
	ok(t, os.Chmod(dir, 0o777))
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte("x"), 0o600))
	ok(t, os.Chmod(p, 0o777|os.ModeSetuid|os.ModeSetgid))
	cmd := exec.Command("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo more; done >> "+p)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	st, err := os.Stat(p)
	ok(t, err)
	if st.Mode() != 0o777 {
		t.Fatal(st.Mode())
	}
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	ok(t, err)
	defer f.Close()
	before := c.Count("GetXattr")
	for range 100 {
		_, err := f.WriteString("y")
		ok(t, err)
	}
	if n := c.Count("GetXattr") - before; n > 2 {
		t.Fatalf("%d requests for attributes in 100 writes", n)
	}
}

func TestFileHandlesSurviveTheKernelsCaches(t *testing.T) {
	dir := mount(t, filetest.New())
	ok(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	ok(t, os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("by handle"), 0o600))
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(dir, "a/b/f"), 0)
	ok(t, err)
	ok(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	fd, err := unix.OpenByHandleAt(int(d.Fd()), h, unix.O_RDONLY)
	ok(t, err)
	f := os.NewFile(uintptr(fd), "f")
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "by handle" {
		t.Fatal(string(b), err)
	}
}

func TestASoftMountGivesUp(t *testing.T) {
	c := filetest.New()
	dir, cl := mountClient(t, c, func(o *fusefs.Options) { o.Timeout = 50 * time.Millisecond })
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte("x"), 0o600))
	resume := cl.Hang()
	_, err := os.Stat(filepath.Join(dir, "another"))
	resume()
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatal(err)
	}
	want(t, p, "x")
}

func TestAReadOnlyMountRefusesChanges(t *testing.T) {
	dir, _ := mountClient(t, filetest.New(), func(o *fusefs.Options) { o.ReadOnly = true })
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatal(err)
	}
}

func TestBadMountPointsAreRefused(t *testing.T) {
	c := filetest.New()
	used := mount(t, c)
	plain := filepath.Join(t.TempDir(), "file")
	ok(t, os.WriteFile(plain, nil, 0o600))
	for dir, say := range map[string]string{used: "umount", plain: "not a directory", plain + "/none": "directory"} {
		n := fusefs.New(fusefs.Options{Dir: dir})
		cl := c.Client()
		if _, err := n.Mount(file.New(file.Options{Meta: cl, Data: cl, Volume: c.Volume()})); err == nil || !strings.Contains(err.Error(), say) {
			t.Fatalf("%s: %v", dir, err)
		}
	}
}

func BenchmarkStat(b *testing.B) {
	dir := mount(b, filetest.New())
	p := filepath.Join(dir, "f")
	ok(b, os.WriteFile(p, nil, 0o600))
	for b.Loop() {
		var st unix.Stat_t
		ok(b, unix.Stat(p, &st))
	}
}

func BenchmarkCreate(b *testing.B) {
	dir := mount(b, filetest.New())
	n := 0
	for b.Loop() {
		n++
		fd, err := unix.Open(filepath.Join(dir, fmt.Sprint(n)), unix.O_CREAT|unix.O_WRONLY, 0o600)
		ok(b, err)
		ok(b, unix.Close(fd))
	}
}

func BenchmarkWrite1M(b *testing.B) { benchmarkIO(b, 1<<20, true) }
func BenchmarkRead1M(b *testing.B)  { benchmarkIO(b, 1<<20, false) }
func BenchmarkRead4K(b *testing.B)  { benchmarkIO(b, 4096, false) }

func benchmarkIO(b *testing.B, n int, write bool) {
	dir := mount(b, filetest.New())
	flags := os.O_RDWR | os.O_CREATE
	if !write {
		flags |= syscall.O_DIRECT
	}
	f, err := os.OpenFile(filepath.Join(dir, "f"), flags, 0o600)
	ok(b, err)
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	ok(b, err)
	const span = 64 << 20
	if !write {
		ok(b, f.Truncate(span))
	}
	b.SetBytes(int64(n))
	off := int64(0)
	for b.Loop() {
		if write {
			_, err = f.WriteAt(buf, off%span)
		} else {
			_, err = f.ReadAt(buf, off%span)
		}
		ok(b, err)
		off += int64(n)
	}
}
