package vfs_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
	"github.com/ashlarfs/ashlar/internal/vfs/vfstest"
)

func TestOSConforms(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) (vfs.FS, string) { return vfs.OS, t.TempDir() })
}

func TestMemConforms(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) (vfs.FS, string) {
		m := vfs.NewMem()
		check(t, m.MkdirAll("/work"))
		return m, "/work"
	})
}

func TestErrfsWithoutFaultsConforms(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) (vfs.FS, string) {
		return errfs.Wrap(vfs.OS, errfs.All()), t.TempDir()
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, m vfs.FS, name, data string, sync bool) {
	t.Helper()
	f, _, err := m.OpenOrCreate(name)
	check(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	check(t, err)
	if sync {
		check(t, f.Sync())
	}
	check(t, f.Close())
}

func get(m vfs.FS, name string) string {
	f, err := m.Open(name)
	if err != nil {
		return "absent"
	}
	defer f.Close()
	n, _ := f.Size()
	p := make([]byte, n)
	_, _ = f.ReadAt(p, 0)
	return string(p)
}

func TestPowerLossKeepsExactlyWhatWasSynced(t *testing.T) {
	m := vfs.NewMem()
	check(t, m.MkdirAll("/d"))
	check(t, m.SyncDir("/"))
	put(t, m, "/d/durable", "one", true)
	check(t, m.SyncDir("/d"))
	put(t, m, "/d/durable", "two", false)
	put(t, m, "/d/nameless", "three", true)
	c := m.CrashClone(nil)
	if got := get(c, "/d/durable"); got != "one" {
		t.Errorf("durable file holds %q", got)
	}
	if got := get(c, "/d/nameless"); got != "absent" {
		t.Errorf("file whose directory was not synced holds %q", got)
	}
	if got := get(m, "/d/durable"); got != "two" {
		t.Errorf("the original changed to %q", got)
	}
}

func TestPowerLossNeverLosesARenamedFile(t *testing.T) {
	m := vfs.NewMem()
	put(t, m, "/a", "new", true)
	put(t, m, "/b", "old", true)
	check(t, m.SyncDir("/"))
	check(t, m.Rename("/a", "/b"))
	seen := map[string]bool{}
	for seed := range uint64(50) {
		c := m.CrashClone(rand.New(rand.NewPCG(seed, 1)))
		seen[get(c, "/a")+" "+get(c, "/b")] = true
	}
	if len(seen) != 2 || !seen["new old"] || !seen["absent new"] {
		t.Errorf("outcomes: %v", seen)
	}
}

func TestPowerLossTearsUnsyncedPagesBySector(t *testing.T) {
	m := vfs.NewMem()
	put(t, m, "/a", string(bytes.Repeat([]byte("o"), 8192)), true)
	check(t, m.SyncDir("/"))
	put(t, m, "/a", string(bytes.Repeat([]byte("n"), 8192)), false)
	whole, torn, kept := 0, 0, 0
	for seed := range uint64(100) {
		got := get(m.CrashClone(rand.New(rand.NewPCG(seed, 2))), "/a")
		for at := 0; at < len(got); at += 512 {
			if s := got[at : at+512]; s != string(bytes.Repeat([]byte{s[0]}, 512)) {
				t.Fatalf("seed %d: sector at %d is torn", seed, at)
			}
		}
		switch page := got[:4096]; {
		case page == string(bytes.Repeat([]byte("o"), 4096)):
			whole++
		case page == string(bytes.Repeat([]byte("n"), 4096)):
			kept++
		default:
			torn++
		}
	}
	if whole == 0 || torn == 0 || kept == 0 {
		t.Errorf("lost %d, torn %d, kept %d", whole, torn, kept)
	}
}

func TestPowerLossForgetsUnsyncedStoresInRegion(t *testing.T) {
	m := vfs.NewMem()
	r, err := m.Region("/r", 8192)
	check(t, err)
	check(t, m.SyncDir("/"))
	copy(r.Bytes(), "synced")
	check(t, r.Sync())
	copy(r.Bytes(), "unsync")
	if got := get(m.CrashClone(nil), "/r"); got[:6] != "synced" {
		t.Errorf("region holds %q", got[:6])
	}
	m.ReleaseLocks()
	r2, err := m.Region("/r", 8192)
	check(t, err)
	if got := string(r2.Bytes()[:6]); got != "unsync" {
		t.Errorf("after a process crash the region holds %q", got)
	}
}

func TestAFullDiskRefusesWrites(t *testing.T) {
	m := vfs.NewMem()
	m.SetCapacity(2 * 4096)
	f, err := m.Create("/a")
	check(t, err)
	if n, err := f.WriteAt(make([]byte, 3*4096), 0); !errors.Is(err, syscall.ENOSPC) || n != 2*4096 {
		t.Fatalf("wrote %d: %v", n, err)
	}
	check(t, m.Remove("/a"))
	put(t, m, "/b", "fits", false)
}

func TestLocksDieWithTheProcess(t *testing.T) {
	m := vfs.NewMem()
	old, err := m.Lock("/l")
	check(t, err)
	m.ReleaseLocks()
	l, err := m.Lock("/l")
	check(t, err)
	check(t, old.Close()) // the dead process's handle releases nothing
	if _, err := m.Lock("/l"); err == nil {
		t.Fatal("a stale holder released another's lock")
	}
	check(t, l.Close())
}

func TestErrfsFailsTheNthSyncUnderAPath(t *testing.T) {
	fsys := errfs.Wrap(vfs.NewMem(), errfs.ErrnoAt(errfs.Sync, "/bad", 2, syscall.EIO))
	bad, err := fsys.Create("/bad")
	check(t, err)
	good, err := fsys.Create("/good")
	check(t, err)
	check(t, bad.Sync())
	check(t, good.Sync())
	check(t, good.Sync())
	if err := bad.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("second sync: %v", err)
	}
	check(t, bad.Sync())
}

func TestErrfsFlipsABit(t *testing.T) {
	fsys := errfs.Wrap(vfs.NewMem(), errfs.FlipAt(errfs.Read, "/a", 2))
	put(t, fsys, "/a", "hello", false)
	first, second, third := get(fsys, "/a"), get(fsys, "/a"), get(fsys, "/a")
	if first != "hello" || second != "iello" || third != "hello" {
		t.Fatalf("read %q, %q, %q", first, second, third)
	}
}

func TestErrfsFlipsTheBitThatIsNamed(t *testing.T) {
	bit := errfs.FlipBit(8*3 + 5)
	fsys := errfs.Wrap(vfs.NewMem(), func(op errfs.Op) error {
		if op.Kind == errfs.Read && op.Path == "/a" || op.Kind == errfs.Write && op.Path == "/b" {
			return bit
		}
		return nil
	})
	put(t, fsys, "/a", "hello", false)
	put(t, fsys, "/b", "hello", false)
	if a, b := get(fsys, "/a"), get(fsys, "/b"); a != "helLo" || b != "helLo" {
		t.Errorf("read %q and %q", a, b)
	}
	bit += 8 * 5 // once around
	if a := get(fsys, "/a"); a != "helLo" {
		t.Errorf("read %q", a)
	}
}

func TestErrfsStallsUntilReleased(t *testing.T) {
	release, done := make(chan struct{}), make(chan error)
	fsys := errfs.Wrap(vfs.NewMem(), errfs.StallUntil(errfs.Sync, "/", release))
	f, err := fsys.Create("/a")
	check(t, err)
	go func() { done <- f.Sync() }()
	select {
	case <-done:
		t.Fatal("the sync did not stall")
	default:
	}
	close(release)
	check(t, <-done)
}
