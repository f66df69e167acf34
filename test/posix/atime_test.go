package posix

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAReadOutOfTheCacheMovesTheAccessTimeAtClose: the kernel has what a
// descriptor wrote, and does not ask us for it.
func TestAReadOutOfTheCacheMovesTheAccessTimeAtClose(t *testing.T) {
	f, err := os.Create(filepath.Join(mountDir(t), "cached"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 20000)); err != nil {
		t.Fatal(err)
	}
	times := func() (atime, mtime int64) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(f.Name(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Atim.Nano(), st.Mtim.Nano()
	}
	for range 2 { // the second time after a change of the mode
		before, _ := times()
		tick()
		if _, err := os.ReadFile(f.Name()); err != nil {
			t.Fatal(err)
		}
		atime, mtime := times()
		if atime <= before || atime < mtime {
			t.Fatalf("atime %d, was %d, mtime %d", atime, before, mtime)
		}
		tick()
		if err := f.Chmod(0o600); err != nil {
			t.Fatal(err)
		}
	}
}
