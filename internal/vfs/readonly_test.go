package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadOnlyChangesNothing(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("content"), 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := ReadOnly.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 7)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "content" {
		t.Fatalf("%q %v", b, err)
	}
	_, werr := f.WriteAt([]byte("x"), 0)
	_, cerr := ReadOnly.Create(filepath.Join(dir, "g"))
	_, rerr := ReadOnly.Region(name, 4096)
	for what, err := range map[string]error{
		"write": werr, "create": cerr, "map": rerr, "remove": ReadOnly.Remove(name), "rename": ReadOnly.Rename(name, name+"2"),
		"remove all": ReadOnly.RemoveAll(dir), "mkdir": ReadOnly.MkdirAll(name + "3"), "truncate": f.Truncate(0),
		"punch": f.PunchHole(0, 4), "preallocate": f.Preallocate(10), "sync dir": ReadOnly.SyncDir(dir),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if names, err := ReadOnly.List(dir); err != nil || len(names) != 1 {
		t.Fatalf("%v %v", names, err)
	}
}

func TestReadOnlySeesALockAndTakesNone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if _, err := ReadOnly.Lock(name); err != nil {
		t.Fatalf("no lock file: %v", err)
	}
	l, err := OS.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadOnly.Lock(name); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("a held lock: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadOnly.Lock(name); err != nil {
		t.Fatal(err)
	}
	if l, err = OS.Lock(name); err != nil {
		t.Fatalf("looking took the lock: %v", err)
	}
	_ = l.Close()
}
