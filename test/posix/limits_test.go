package posix

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fileMax is the largest file, in bytes: 16 TiB. ext4's is a block smaller, so
// that this is not compared with it.
const fileMax = 16 << 40

func TestAFileHasAtMostSixteenTebibytes(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(mountDir(t), "large"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	fd := int(f.Fd())
	size := func(want int64) {
		t.Helper()
		if st, err := f.Stat(); err != nil || st.Size() != want {
			t.Fatalf("size %d, %v; want %d", st.Size(), err, want)
		}
	}
	if n, err := unix.Pwrite(fd, []byte("abc"), fileMax-2); n != 2 || err != nil {
		t.Fatalf("3 bytes where 2 have room: %d, %v", n, err)
	}
	size(fileMax)
	for what, err := range map[string]error{
		"a write at the end": func() error { _, err := unix.Pwrite(fd, []byte("a"), fileMax); return err }(),
		"a write beyond":     func() error { _, err := unix.Pwrite(fd, []byte("a"), fileMax+1<<20); return err }(),
		"ftruncate":          unix.Ftruncate(fd, fileMax+1),
		"fallocate":          unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, fileMax-1, 2),
	} {
		if !errors.Is(err, unix.EFBIG) {
			t.Errorf("%s: %v, want EFBIG", what, err)
		}
	}
	size(fileMax)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if at, err := unix.Seek(fd, 4096, unix.SEEK_DATA); err != nil || at < fileMax-4096 || at > fileMax-2 {
		t.Errorf("data at %d, %v", at, err)
	}
	direct, err := os.OpenFile(f.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	b := aligned(4096)
	if n, err := unix.Pread(int(direct.Fd()), b, fileMax-4096); n != 4096 || err != nil || !bytes.Equal(b[4094:], []byte("ab")) {
		t.Errorf("read %d bytes, %v, ending with %q", n, err, b[4090:])
	}
	if err := unix.Ftruncate(fd, 10); err != nil {
		t.Fatal(err)
	}
	size(10)
}

// TestALimitOfFileSizesIsKept: RLIMIT_FSIZE, see setrlimit(2).
func TestALimitOfFileSizesIsKept(t *testing.T) {
	for _, script := range []string{
		`ulimit -f 8; exec dd if=/dev/zero of=f bs=1000 count=20 2>&-`,
		`ulimit -f 8; exec dd if=/dev/zero of=f bs=1000 count=20 oflag=append conv=notrunc 2>&-`,
		`ulimit -f 8; exec truncate -s 9000 f`,
		`ulimit -f 8; exec fallocate -l 9000 f`,
		`ulimit -f 8; exec fallocate -n -l 9000 f`,
		`ulimit -f 8; trap "" XFSZ; exec dd if=/dev/zero of=f bs=1000 count=20 2>&-`,
	} {
		type outcome struct {
			status syscall.WaitStatus
			size   int64
		}
		var got [2]outcome
		for i, base := range []string{refDir(t), mountDir(t)} {
			dir, err := os.MkdirTemp(base, "limit-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			c := exec.Command("bash", "-c", script)
			c.Dir = dir
			err = c.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			got[i].status = c.ProcessState.Sys().(syscall.WaitStatus)
			if st, err := os.Stat(filepath.Join(dir, "f")); err == nil {
				got[i].size = st.Size()
			}
		}
		if got[0] != got[1] {
			t.Errorf("%s:\n  reference %v\n  ashlar    %v", script, got[0], got[1])
		}
	}
}
